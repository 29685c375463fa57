//! What the demo shows, step by step. Every step asserts what it says, so each of them can fail.

use std::time::{Duration, Instant};

use corinth_model::{Failure, Reason, Refusal};
use tokio::time::sleep;

use super::{
    client::{Client, Miss},
    load::{Call, Load, Moment},
    operator,
    report::{Measured, Scene, time},
    service::{Instance, Who},
    world::World,
};
use crate::{explain::Code, terminal::Mark};

mod linking;
mod planes;
mod udp;

pub(super) use linking::{appears, link, not_exported};
pub(super) use planes::planes_die;
pub(super) use udp::udp_is_blocked;

/// How a step ends: with something for the next ones and what was measured, or with what went wrong.
type Played<T> = Result<(T, Vec<Measured>), String>;

/// The titles, in order.
pub(super) const TITLES: &[&str] = &[
    "clusters that share nothing are linked by token",
    "an export appears in the other cluster, and is taken back",
    "an endpoint of it dies",
    "a service that both have: near, far, near again",
    "a whole cluster dies and returns",
    "all control planes die",
    "UDP is blocked and passes again",
    "a service that was not exported",
    "what all this took",
];

/// Calls that show that something goes on as it should.
const SOME: usize = 100;
/// Answers in a row that show that traffic has settled.
const SETTLED: usize = 20;
/// Most memory the demo may use, as promised; a build for debugging has far more code, and larger futures.
const MEMORY_MAX_BYTES: u64 = if cfg!(debug_assertions) {
    120 << 20
} else {
    60 << 20
};
/// The links are promised to be up by then.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// Most that is waited until a service can be called, or no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(2);

pub(super) async fn endpoint_dies(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    let load = Load::start(world.by_connect("payments.shop")?);
    let (beginning, ()) = load.between(async {}).await;
    load.until("answers from both endpoints", beginning, |calls| {
        ["payments-1", "payments-2"]
            .iter()
            .all(|name| calls.iter().any(|call| call.is_by(name)))
    })
    .await?;
    scene.tell("payments-1 and payments-2 both answer; payments-1 is killed");
    let victim = instance(world.west.instance("payments-1"))?;
    let (killed, ()) = load.between(victim.kill()).await;
    load.until("calls after that", killed, |calls| calls.len() >= SOME)
        .await?;
    load.look(killed, |calls| {
        all_answered(calls, |call| call.is_by("payments-2"), "payments-2")
    })?;
    let failover = takeover(&load, killed, |call| call.is_by("payments-2"))?;
    let victim = instance(world.west.instance("payments-1"))?;
    victim
        .start()
        .await
        .map_err(|error| format!("payments-1 does not start again: {error}"))?;
    let calls = load.stop().await;
    all_answered(&calls, |call| call.is_from("west"), "west")?;
    let measured = Measured::of("payments, an endpoint killed", &calls, Some(failover));
    scene.say(Mark::Good, &told(&measured));
    Ok(((), vec![measured]))
}

pub(super) async fn both_have(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    operator::export(&world.west, "web.shop", "east").await?;
    operator::export(&world.east, "web.shop", "west").await?;
    let own = world.east.endpoints("web.shop").join("");
    world.leads_to("web.shop", &["west", &own]).await?;
    let load = Load::start(world.by_import("web.shop")?);
    let (beginning, ()) = load.between(async {}).await;
    load.until("calls to be answered", beginning, |calls| {
        calls.len() >= SOME
    })
    .await?;
    load.look(beginning, |calls| {
        all_answered(
            calls,
            |call| call.is_by("web-east"),
            "web-east, which is near",
        )
    })?;
    scene.say(Mark::Good, "web-east answers, which is near; it is killed");

    let near = instance(world.east.instance("web-east"))?;
    let (killed, ()) = load.between(near.kill()).await;
    load.until("calls after that", killed, |calls| calls.len() >= SOME)
        .await?;
    load.look(killed, |calls| {
        all_answered(calls, |call| call.is_by("web-west"), "web-west")
    })?;
    let away = takeover(&load, killed, |call| call.is_by("web-west"))?;
    scene.say(
        Mark::Good,
        &format!(
            "web-west answers after {}; web-east is started again",
            time(away)
        ),
    );

    let near = instance(world.east.instance("web-east"))?;
    let (returned, started) = load.between(near.start()).await;
    started.map_err(|error| format!("web-east does not start again: {error}"))?;
    load.until("web-east to answer again", returned, |calls| {
        settled(calls, |call| call.is_by("web-east"))
    })
    .await?;
    let back = takeover(&load, returned, |call| call.is_by("web-east"))?;
    let (there, here) = (
        load.look(killed, |calls| calls[..calls.len().min(SOME)].to_vec()),
        load.look(returned, <[Call]>::to_vec),
    );
    let calls = load.stop().await;
    all_answered(&calls, |_| true, "either")?;
    scene.say(
        Mark::Good,
        &format!(
            "web-east answers again after {}, when its time out of service was over; {} calls, 0 failed",
            time(back),
            calls.len()
        ),
    );
    let measured = vec![
        Measured::of("web, the near one killed", &there, Some(away)),
        Measured::of("web, the near one back", &here, Some(back)),
    ];
    Ok(((), measured))
}

pub(super) async fn cluster_dies(scene: &mut Scene<'_>, world: &mut World) -> Played<()> {
    // Until word of the death has come over the network, calls go to the dead. A client of CONNECT says nothing before
    // somebody has answered, so that none of it can be lost there.
    let load = Load::start(world.by_connect("web.shop")?);
    let near = instance(world.east.instance("web-east"))?;
    let (away, ()) = load.between(near.kill()).await;
    load.until("web-west to answer", away, |calls| {
        settled(calls, |call| call.is_by("web-west"))
    })
    .await?;
    if let Some(north) = &world.north {
        operator::export(north, "web.shop", "east").await?;
        operator::accept(&world.east, "north", "web.shop").await?;
        world.leads_to("web.shop", &["west", "north"]).await?;
        scene.tell("north exports web to east as well");
    }
    scene.tell("web-west answers for web-east again; web-east returns, and all of west is killed");

    let World { east, west, .. } = world;
    let near = instance(east.instance("web-east"))?;
    let (killed, started) = load
        .between(async {
            let started = near.start().await;
            west.kill().await;
            started
        })
        .await;
    started.map_err(|error| format!("web-east does not start again: {error}"))?;
    load.until("calls after that", killed, |calls| calls.len() >= SOME)
        .await?;
    load.look(killed, |calls| {
        all_answered(calls, |call| !call.is_from("west"), "what is left")
    })?;
    let moved = takeover(&load, killed, |call| !call.is_from("west"))?;
    let calls = load.look(killed, |calls| calls[..SOME].to_vec());
    let web = Measured::of("web, its cluster killed", &calls, Some(moved));
    let whom = calls.first().and_then(|call| call.result.as_ref().ok());
    let whom = whom.map_or("", |who| who.instance.as_str());
    scene.say(
        Mark::Good,
        &format!("web is answered by {whom} after {}, 0 failed", time(moved)),
    );

    world.unlinked("west").await?;
    let payments = world.by_connect("payments.shop")?;
    let unreachable = Reason::Failed(Failure::PeerUnreachable);
    refused(scene, &payments, unreachable).await?;
    explain(scene, unreachable);

    let returned = Instant::now();
    world
        .west
        .start()
        .await
        .map_err(|error| format!("west does not start again: {error}"))?;
    world.linked("west").await?;
    scene.say(
        Mark::Good,
        &format!(
            "west returned and is linked again after {}",
            time(returned.elapsed())
        ),
    );
    let who = payments
        .call()
        .await
        .map_err(|miss| unexpected("an answer from west", &payments, &miss))?;
    expect_service(&who, "west", "payments.shop")?;
    let back = returned.elapsed();
    let again = Load::start(payments);
    let (beginning, ()) = again.between(async {}).await;
    again
        .until("calls to be answered", beginning, |calls| {
            calls.len() >= SOME
        })
        .await?;
    let calls = again.stop().await;
    all_answered(&calls, |call| call.is_from("west"), "west")?;
    let payments = Measured::of("payments, its cluster back", &calls, Some(back));
    scene.say(Mark::Good, &told(&payments));

    load.until("web-east to answer", killed, |calls| {
        settled(calls, |call| call.is_by("web-east"))
    })
    .await?;
    all_answered(&load.stop().await, |_| true, "somebody")?;
    Ok(((), vec![web, payments]))
}

pub(super) fn took(scene: &mut Scene<'_>, began: Instant) -> Played<()> {
    let [now, most] = ["VmRSS:", "VmHWM:"].map(|key| memory(key).unwrap_or_default());
    let words = format!(
        "{} MB of memory now, {} MB at most, of {} MB allowed, for all clusters and applications together",
        now >> 20,
        most >> 20,
        MEMORY_MAX_BYTES >> 20
    );
    if most == 0 || most > MEMORY_MAX_BYTES {
        return Err(words);
    }
    scene.say(Mark::Good, &words);
    scene.say(
        Mark::Good,
        &format!("{} from beginning to end", time(began.elapsed())),
    );
    Ok(((), Vec::new()))
}

/// A field of `/proc/self/status` in bytes.
fn memory(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

/// Calls `way` and expects a refusal for `expected`.
async fn refused(scene: &mut Scene<'_>, way: &Client, expected: Reason) -> Result<(), String> {
    let wanted = || format!("{} {}", expected.code(), expected.name());
    match way.call().await {
        Err(Miss::Refused(reason)) if reason == expected => {
            scene.say(
                Mark::Good,
                &format!("{} refused with {}", way.url(), wanted()),
            );
            Ok(())
        }
        Err(miss) => Err(unexpected(&wanted(), way, &miss)),
        Ok(who) => Err(format!(
            "{}: expected {}, answered by {} in {}",
            way.url(),
            wanted(),
            who.instance,
            who.cluster
        )),
    }
}

/// Calls `way` until it is answered; yields how long that took since `began`.
async fn answered(way: &Client, began: Instant) -> Result<Duration, String> {
    loop {
        match way.call().await {
            Ok(_) => return Ok(began.elapsed()),
            Err(miss) if began.elapsed() > PATIENCE => {
                return Err(unexpected("an answer", way, &miss));
            }
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// Calls `way` until it is refused for `expected`; yields how long that took since `began`.
async fn closed(way: &Client, expected: Reason, began: Instant) -> Result<Duration, String> {
    loop {
        let called = way.call().await;
        if called == Err(Miss::Refused(expected)) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!(
                "{}: expected {}, got {called:?}",
                way.url(),
                expected.code()
            ));
        }
        sleep(LOOK).await;
    }
}

/// Says what a code means, as `corinth explain` does.
fn explain(scene: &mut Scene<'_>, reason: Reason) {
    let code = Code::of_reason(reason);
    scene.tell(&format!(
        "corinth explain {}: {}",
        reason.code(),
        code.meaning
    ));
    scene.tell(&format!("to do: {}", code.remedy));
}

fn unexpected(expected: &str, way: &Client, miss: &Miss) -> String {
    format!(
        "{} by {}: expected {expected}, got {miss}",
        way.url(),
        way.door.as_str()
    )
}

fn expect_service(who: &Who, cluster: &str, service: &str) -> Result<(), String> {
    if who.cluster == cluster && who.service == service {
        return Ok(());
    }
    let Who {
        cluster: other,
        service: another,
        ..
    } = who;
    Err(format!(
        "expected {service} in {cluster}, answered by {another} in {other}"
    ))
}

/// Every call was answered, and by whom it should have been.
fn all_answered(
    calls: &[Call],
    is_right: impl Fn(&Call) -> bool,
    expected: &str,
) -> Result<(), String> {
    let failed = calls.iter().filter_map(|call| call.result.as_ref().err());
    if let Some(miss) = failed.clone().next() {
        let count = failed.count();
        return Err(format!(
            "{count} of {} calls failed, the first with: {miss}",
            calls.len()
        ));
    }
    let stray = calls.iter().find(|call| !is_right(call));
    match stray.and_then(|call| call.result.as_ref().ok()) {
        Some(who) => Err(format!(
            "expected answers by {expected}, one came from {} in {}",
            who.instance, who.cluster
        )),
        None if calls.is_empty() => Err("no call was made".to_owned()),
        None => Ok(()),
    }
}

/// The last calls were all as they should be.
fn settled(calls: &[Call], is_right: impl Fn(&Call) -> bool) -> bool {
    let last = calls.iter().rev().take(SETTLED);
    calls.len() >= SETTLED && last.filter(|call| is_right(call)).count() == SETTLED
}

/// From the first call after `moment` to the first answer by who took over.
fn takeover(
    load: &Load,
    moment: Moment,
    is_taken_over: impl Fn(&Call) -> bool,
) -> Result<Duration, String> {
    load.look(moment, |calls| {
        let began = calls.iter().map(|call| call.began).min()?;
        let first = calls.iter().find(|call| is_taken_over(call))?;
        Some(first.ended - began)
    })
    .ok_or_else(|| "nobody took over".to_owned())
}

fn told(measured: &Measured) -> String {
    let failover = measured.failover.map_or_else(String::new, |failover| {
        format!("next answer after {}; ", time(failover))
    });
    format!(
        "{failover}{} calls, {} failed, p50 {}, p99 {}",
        measured.calls,
        measured.failures,
        time(measured.median),
        time(measured.slow)
    )
}

fn instance(found: Option<&mut Instance>) -> Result<&mut Instance, String> {
    found.ok_or_else(|| "the demo has lost one of its own instances".to_owned())
}
