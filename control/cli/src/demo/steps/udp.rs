//! What becomes of calls when the network between two clusters drops UDP, and when it no longer does.

use super::*;
use crate::demo::{relay::DELAY, world::Way};

/// Traffic is promised to have moved by then.
const MOVED_WITHIN: Duration = Duration::from_secs(1);

pub(in crate::demo) async fn udp_is_blocked(
    scene: &mut Scene<'_>,
    world: &mut World,
) -> Played<()> {
    let load = Load::start(world.by_connect("payments.shop")?);
    let (beginning, ()) = load.between(async {}).await;
    operator::carry(&world.east, "west", "auto").await?;
    scene.tell("corinth link transport west auto: east's gateway decides by what it sees");
    let quic = world.carried("west", "quic").await?;
    all_over(&load, world, "quic").await?;
    let rtt = quic.rtt.unwrap_or_default();
    if rtt < 2 * DELAY {
        let (rtt, least) = (time(rtt), time(2 * DELAY));
        return Err(format!("expected a round trip of {least}, got {rtt}"));
    }
    scene.say(
        Mark::Good,
        &format!(
            "calls go over QUIC, which is for round trips of more than 6 ms: here it is {}",
            time(rtt)
        ),
    );
    scene.tell(&shown(&quic));

    let (blocked, ()) = load.between(async { world.block_udp(true) }).await;
    let tls = world.carried("west", "tls").await?;
    load.until("calls while UDP is blocked", blocked, |calls| {
        calls.len() >= SOME
    })
    .await?;
    let there = load.look(blocked, <[Call]>::to_vec);
    all_answered(&there, |call| call.is_from("west"), "west")?;
    let moved = takeover(&load, blocked, |call| call.is_from("west"))?;
    all_over(&load, world, "tls").await?;
    let mark = if moved <= MOVED_WITHIN {
        Mark::Good
    } else {
        Mark::Warning
    };
    scene.say(
        mark,
        &format!(
            "UDP is blocked, {} datagrams are dropped: calls go over TLS after {}, {} calls, 0 failed",
            world.west.relay.dropped(),
            time(moved),
            there.len()
        ),
    );
    scene.tell(&shown(&tls));

    let passes = Instant::now();
    world.block_udp(false);
    scene.tell("UDP passes again; what was left has to be well for 5 s before it is used");
    let quic = world.carried("west", "quic").await?;
    let back = passes.elapsed();
    let again = all_over(&load, world, "quic").await?;
    let calls = load.look(beginning, <[Call]>::len);
    all_answered(&load.stop().await, |call| call.is_from("west"), "west")?;
    scene.say(
        Mark::Good,
        &format!(
            "calls go over QUIC again after {}; {calls} calls in all, 0 failed",
            time(back)
        ),
    );
    scene.tell(&shown(&quic));
    let measured = vec![
        Measured::of("payments, UDP blocked", &there, Some(moved)),
        Measured::of("payments, UDP passes again", &again, None),
    ];
    Ok(((), measured))
}

/// Calls go on for a while, each of them on a stream of its own over `transport`.
async fn all_over(load: &Load, world: &World, transport: &str) -> Result<Vec<Call>, String> {
    let opened = || world.opened("west", transport);
    let (beginning, before) = load.between(async { opened() }).await;
    load.until("calls to be answered", beginning, |calls| {
        calls.len() >= SOME
    })
    .await?;
    let whole = async { (opened(), load.look(beginning, <[Call]>::to_vec)) };
    let (_, (after, calls)) = load.between(whole).await;
    let streams = after.saturating_sub(before);
    if streams < calls.len() as u64 {
        let calls = calls.len();
        return Err(format!(
            "expected {calls} calls over {transport}, {streams} went that way"
        ));
    }
    Ok(calls)
}

/// What `corinth links` shows of the way that is used, and what its word for the reason means.
fn shown(way: &Way) -> String {
    let cause = way.cause.unwrap_or_default();
    let means = match cause {
        "first" => ": it was linked first",
        "arrived" => ": it is linked, and preferred",
        "overdue" => ": answers over the other one are overdue",
        "gone" => ": nothing comes back over the other one",
        "lossy" => ": the other one loses too much",
        "returned" => ": it has been well for as long as it had to be",
        "distance" => ": it is better on a way as long as this",
        "trial" => ": it is tried, as the other one is given more than it takes",
        "faster" => ": it delivers far more than the other one",
        "tried" => ": the other one does not deliver far more",
        "stale" => ": that the other one delivers far more was found long ago, or is so no longer",
        _ => "",
    };
    format!(
        "corinth links: west, transport {}, used yes ({cause}){means}",
        way.transport
    )
}
