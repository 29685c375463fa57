//! `corinth demo`: clusters in this process, linked, and what they do when things go wrong.
//!
//! Everything but the network between them is what others run too; that is a relay of a few lines, which delays what it
//! carries and can drop UDP. Each cluster is a node made from a YAML file, with a gateway, a control plane, an authority and a
//! state directory; it is told what to do over its control plane's socket, as commands do, and each call is a TCP connection
//! that goes in at one gateway and through the tunnel. The applications are small HTTP servers in this process.
//!
//! ```text
//! tour ── steps ──> world: clusters (node, applications, relay), ways in
//!    │      ├─────> operator: tokens, exports, what is accepted
//!    │      └─────> load: calls going on, watched
//!    └── report: each line as it happens, figures, JUnit
//! ```

mod client;
mod cluster;
mod load;
mod operator;
mod place;
mod relay;
mod report;
mod service;
mod steps;
mod world;
mod yaml;

use corinth_daemon::{
    logging::{self, LogFormat},
    signals::Signals,
};
use corinth_gateway::Door;

use self::{
    report::{Failed, Report, junit},
    steps::TITLES,
    world::World,
};
use crate::{args::DemoArgs, exit::Exit, run, terminal::Terminal, trouble::Trouble};

pub(crate) fn demo(terminal: &Terminal, args: &DemoArgs) -> Result<Exit, Trouble> {
    if let Some(level) = &args.log {
        logging::init(level, LogFormat::Text).map_err(|error| {
            let what = format!("--log {} cannot be used", level.escape_debug());
            Trouble::new(Exit::Usage, what, error, "write for example --log info")
        })?;
    }
    run::runtime()?.block_on(show(terminal, args))
}

async fn show(terminal: &Terminal, args: &DemoArgs) -> Result<Exit, Trouble> {
    let mut signals = Signals::listen()
        .map_err(|error| Trouble::internal("signals cannot be received", error))?;
    let mut report = Report::new(*terminal, args.ci);
    report.show(&format!(
        "Corinth demo: {} clusters in this process, on loopback only\n\n",
        args.clusters
    ));
    let toured = tokio::select! {
        toured = tour(&mut report, args.clusters) => Some(toured),
        _ = signals.recv() => None,
    };
    let Some(toured) = toured else {
        terminal.note("interrupted; nothing is left behind\n");
        return Ok(Exit::Interrupted);
    };
    report.skip(TITLES);
    report.show(&format!("\n{}", report.figures()));
    if args.ci {
        terminal.print(&junit(report.chapters(), report.elapsed()))?;
    }
    let Ok(mut world) = toured else {
        return Ok(Exit::Found);
    };
    report.show(&format!("\n{}", to_try(&world, args.keep)));
    if args.keep {
        terminal.note("running until Ctrl-C\n");
        let _ = signals.recv().await;
    }
    for cluster in world.clusters_mut() {
        cluster.kill().await;
    }
    drop(world);
    Ok(if report.has_failed() {
        Exit::Found
    } else {
        Exit::Done
    })
}

/// Every step in order, up to the first that fails. What is up stays up.
async fn tour(report: &mut Report, clusters: u8) -> Result<World, Failed> {
    let began = std::time::Instant::now();
    let mut titles = TITLES.iter();
    let mut next = || titles.next().copied().unwrap_or_default();
    let mut world = report
        .play(next(), async |scene| {
            steps::link(scene, clusters, began).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::appears(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::endpoint_dies(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::both_have(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::cluster_dies(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::planes_die(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::udp_is_blocked(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| {
            steps::not_exported(scene, &mut world).await
        })
        .await?;
    report
        .play(next(), async |scene| steps::took(scene, began))
        .await?;
    Ok(world)
}

/// Lines that a person can paste.
fn to_try(world: &World, is_kept: bool) -> String {
    let address = |door| {
        let address = world.east.address_of(door);
        address.map_or_else(String::new, |address| address.to_string())
    };
    let (socks, connect) = (address(Door::Socks), address(Door::Connect));
    let payments = world.by_import("payments.shop").map(|way| way.url());
    let ledger = world.west.endpoints("ledger.shop").join(",");
    let west = world.west.config.display();
    let admin = world.east.admin();
    let admin = admin.map_or_else(String::new, |admin| admin.to_string());
    let mut text = if is_kept {
        "Try it, from another terminal:\n".to_owned()
    } else {
        "With `corinth demo --keep` it stays up; then lines such as these work, with other ports:\n"
            .to_owned()
    };
    for line in [
        format!("curl -x socks5h://{socks} http://payments.shop.svc.clusterset.local/"),
        format!("curl -p -x http://{connect} http://web.shop.svc.clusterset.local/"),
        format!("curl {}", payments.unwrap_or_default()),
        format!(
            "curl -i -p -x http://{connect} http://ledger.shop.svc.clusterset.local/    # CRN001"
        ),
        format!("corinth links --admin {admin}"),
        format!("corinth routes --admin {admin}"),
        format!("corinth status --config {}", world.east.config.display()),
        format!(
            "corinth export ledger.shop --port 80 --endpoint {ledger} --to east --config {west}"
        ),
        format!("corinth unexport payments.shop --config {west}"),
    ] {
        text += &format!("  {line}\n");
    }
    if is_kept {
        let place = world.place.path().display();
        text += &format!("The configurations are {place}/*.yaml\n");
    }
    text
}
