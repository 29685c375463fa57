//! How clusters come to call each other: by a token, and by what each of them exports and accepts.

use super::*;
use crate::demo::relay::DELAY;

/// What east does not know, or no longer.
const UNKNOWN: Reason = Reason::Refused(Refusal::UnknownRoute);

pub(in crate::demo) async fn link(
    scene: &mut Scene<'_>,
    clusters: u8,
    began: Instant,
) -> Played<World> {
    let world = World::build(clusters)
        .await
        .map_err(|error| error.to_string())?;
    let mut names = vec![world.east.name];
    names.extend(world.others().iter().map(|other| other.name));
    scene.tell(&format!(
        "{}: each with a certificate authority, a control plane, a gateway and applications of its own",
        names.join(", ")
    ));
    scene.tell(&format!(
        "the network between them takes {} each way",
        time(DELAY)
    ));
    for other in world.others() {
        let asked = Instant::now();
        operator::link(other, &world.east).await?;
        let linked = world.linked(other.name).await?;
        let took = time(asked.elapsed());
        let rtt = linked.rtt.map(|rtt| format!(", round trip {}", time(rtt)));
        scene.say(
            Mark::Good,
            &format!(
                "{} made a token, east joined with it and is linked with {} by mutual TLS after {took}{}",
                other.name,
                linked.gateway,
                rtt.unwrap_or_default()
            ),
        );
    }
    let ready = began.elapsed();
    let mark = if ready <= READY_WITHIN {
        Mark::Good
    } else {
        Mark::Warning
    };
    scene.say(mark, &format!("ready {} after the start", time(ready)));
    for cluster in world.others().into_iter().chain([&world.east]) {
        let (exports, imports) = operator::offers(cluster).await?;
        if !exports.is_empty() || !imports.is_empty() {
            return Err(format!("{} offers or is offered something", cluster.name));
        }
    }
    scene.say(Mark::Good, "a new link exports nothing and accepts nothing");
    Ok((world, Vec::new()))
}

pub(in crate::demo) async fn appears(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    let payments = world.by_connect("payments.shop")?;
    refused(scene, &payments, UNKNOWN).await?;
    scene.tell("east accepts shop/* of west; west exports payments to east");
    operator::accept(&world.east, "west", "shop/*").await?;
    let appeared = export_payments(world, &payments).await?;
    let import = world.by_import("payments.shop")?;
    scene.say(
        Mark::Good,
        &format!(
            "payments is called in east {} later, also at the import port {}",
            time(appeared),
            import.url()
        ),
    );

    let withdrawn = Instant::now();
    operator::unexport(&world.west, "payments.shop").await?;
    let took = closed(&payments, UNKNOWN, withdrawn).await?;
    if let Ok(who) = import.call().await {
        return Err(format!(
            "{} still answered at {}",
            who.instance,
            import.url()
        ));
    }
    scene.say(
        Mark::Good,
        &format!(
            "west exports it no longer: refused with {} {} later, and the import port is closed",
            UNKNOWN.code(),
            time(took)
        ),
    );
    let appeared = export_payments(world, &payments).await?;
    scene.say(
        Mark::Good,
        &format!("west exports it again: called {} later", time(appeared)),
    );
    let ways = [
        world.by_socks("payments.shop")?,
        payments,
        world.by_import("payments.shop")?,
    ];
    if ways[2].door != import.door {
        return Err("the import port of payments is another one".to_owned());
    }
    call_by(scene, &ways).await?;
    let measured = called(&ways[0]).await?;
    scene.say(Mark::Good, &told(&measured));
    Ok(((), vec![measured]))
}

/// West exports payments; yields how long it took until it could be called in east.
pub(super) async fn export_payments(world: &World, way: &Client) -> Result<Duration, String> {
    let exported = Instant::now();
    operator::export(&world.west, "payments.shop", "east").await?;
    answered(way, exported).await
}

async fn call_by(scene: &mut Scene<'_>, ways: &[Client]) -> Result<(), String> {
    for way in ways {
        let began = Instant::now();
        let who = way
            .call()
            .await
            .map_err(|miss| unexpected("an answer from west", way, &miss))?;
        expect_service(&who, "west", "payments.shop")?;
        scene.say(
            Mark::Good,
            &format!(
                "{} by east's {} answered by {} in {} after {}",
                way.url(),
                way.door.as_str(),
                who.instance,
                who.cluster,
                time(began.elapsed())
            ),
        );
    }
    Ok(())
}

/// Some calls, all answered by west.
async fn called(way: &Client) -> Result<Measured, String> {
    let load = Load::start(way.clone());
    let (beginning, ()) = load.between(async {}).await;
    load.until("calls to be answered", beginning, |calls| {
        calls.len() >= SOME
    })
    .await?;
    let calls = load.stop().await;
    all_answered(&calls, |call| call.is_from("west"), "west")?;
    Ok(Measured::of("payments, which only west has", &calls, None))
}

pub(in crate::demo) async fn not_exported(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    scene.tell("ledger runs in west and east accepts it, but west does not export it");
    let ledger = world.by_connect("ledger.shop")?;
    refused(scene, &ledger, UNKNOWN).await?;
    explain(scene, UNKNOWN);
    let by_socks = world.by_socks("ledger.shop")?;
    if let Ok(who) = by_socks.call().await {
        let door = by_socks.door.as_str();
        return Err(format!("{door} answered by {}", who.instance));
    }
    if let Some(port) = world.import_port("ledger.shop") {
        return Err(format!("east has the import port {port} for ledger"));
    }
    let served = instance(world.west.instance("ledger-1"))?.served();
    if served > 0 {
        return Err(format!(
            "{served} calls came as far as ledger-1, none should"
        ));
    }
    scene.say(Mark::Good, "by no way did a call come as far as ledger-1");
    let nobody = world.by_connect("nobody.shop")?;
    refused(scene, &nobody, UNKNOWN).await?;
    Ok(((), Vec::new()))
}
