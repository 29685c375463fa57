//! What goes on without control planes, and who decides then.

use super::{linking::export_payments, *};
use crate::demo::cluster::Cluster;

pub(in crate::demo) async fn planes_die(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    let way = world.by_connect("payments.shop")?;
    let load = Load::start(way.clone());
    let (beginning, ()) = load.between(async {}).await;
    load.until("calls to be answered", beginning, |calls| {
        calls.len() >= SETTLED
    })
    .await?;
    for cluster in world.clusters_mut() {
        cluster.kill_control_plane().await;
    }
    for cluster in world.others().into_iter().chain([&world.east]) {
        if operator::is_there(cluster).await {
            return Err(format!(
                "the control plane of {} still answers",
                cluster.name
            ));
        }
    }
    let (dead, ()) = load.between(async {}).await;
    load.until("calls without control planes", dead, |calls| {
        calls.len() >= 2 * SOME
    })
    .await?;
    let without = load.look(dead, <[Call]>::to_vec);
    let calls = load.stop().await;
    all_answered(&calls, |call| call.is_from("west"), "west")?;
    let measured = Measured::of("payments, no control plane alive", &without, None);
    scene.say(Mark::Good, &format!("calls go on: {}", told(&measured)));

    scene.tell("west's control plane returns and exports payments no longer; east's is dead and cannot hear of it");
    start(&mut world.west)?;
    let withdrawn = Instant::now();
    operator::unexport(&world.west, "payments.shop").await?;
    let forbidden = Reason::Refused(Refusal::Forbidden);
    closed(&way, forbidden, withdrawn).await?;
    refused(scene, &way, forbidden).await?;
    explain(scene, forbidden);

    start(&mut world.east)?;
    if let Some(north) = &mut world.north {
        start(north)?;
    }
    let returned = Instant::now();
    let unknown = Reason::Refused(Refusal::UnknownRoute);
    let heard = closed(&way, unknown, returned).await?;
    let exported = export_payments(world, &way).await?;
    scene.say(
        Mark::Good,
        &format!(
            "east's control plane returned and knew after {}; exported again, payments is called {} later",
            time(heard),
            time(exported)
        ),
    );
    Ok(((), vec![measured]))
}

fn start(cluster: &mut Cluster) -> Result<(), String> {
    cluster.start_control_plane().map_err(|error| {
        let name = cluster.name;
        format!("the control plane of {name} does not start again: {error}")
    })
}
