//! What operators, processes, clocks and networks do, as the seed has it.

use std::time::Duration;

use corinth_api::peering::Farewell;
use corinth_model::{Accepted, Replay, Selector, ServiceId};
use fastrand::Rng;

use crate::cluster::{Declared, Export, Mode, Restart};
use crate::watch::Cause;
use crate::world::World;

/// Services that anybody may declare.
pub(crate) const SERVICES: [&str; 12] = [
    "a.shop", "b.shop", "c.shop", "d.shop", "e.shop", "f.shop", "g.shop", "a.bank", "b.bank",
    "c.bank", "d.bank", "e.bank",
];
/// Most links of a world.
const LINKS_MAX: usize = 18;
/// Quota of an ordinary link; nothing comes near it.
const QUOTA: usize = 1_000;
/// Quota for a liar.
const QUOTA_LIAR: usize = 8;

pub(crate) fn service(name: &str) -> ServiceId {
    name.parse().expect("the name of a service")
}

/// One of several, each as likely.
pub(crate) fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// A world is made, and things happen to it.
pub(crate) fn play(world: &mut World) {
    let count = world.clusters.len();
    for cluster in 0..count {
        for _ in 0..world.rng.usize(0..6) {
            declare(world, cluster);
        }
    }
    for cluster in 1..count {
        let other = world.rng.usize(..cluster);
        link(world, cluster, other);
    }
    for _ in 0..world.rng.usize(..count) {
        let (a, b) = (world.rng.usize(..count), world.rng.usize(..count));
        link(world, a, b);
    }
    for _ in 0..world.rng.usize(10..60) {
        act(world);
        let millis = match world.rng.u8(..10) {
            0..4 => world.rng.u64(..200),
            4..9 => world.rng.u64(..15_000),
            _ => world.rng.u64(..150_000),
        };
        world.run(Duration::from_millis(millis));
    }
}

fn act(world: &mut World) {
    let cluster = world.rng.usize(..world.clusters.len());
    let peers: Vec<usize> = world.clusters[cluster].peers.keys().copied().collect();
    let peer = world.rng.choice(peers);
    let choice = world.rng.u8(..44);
    match (choice, peer) {
        (0..14, _) => declare(world, cluster),
        (14..17, Some(peer)) => {
            let accepted = accepted(world);
            world.accept(cluster, peer, accepted);
        }
        (17..22, _) => cut(world),
        (22..25, Some(peer)) => block(world, cluster, peer),
        (25..28, _) => restart(world, cluster, Restart::Kept),
        (28, _) => restart(world, cluster, Restart::Nothing),
        (29 | 40 | 41, _) => restart(world, cluster, Restart::Backup),
        (30 | 42 | 43, _) => {
            let now = world.now;
            world.clusters[cluster].take_backup(now);
        }
        (31..33, _) => step_clock(world, cluster),
        (33..36, Some(peer)) => set_mode(world, cluster, peer),
        (36, Some(peer)) => world.unlink(cluster, peer),
        (37..40, _) => {
            let other = world.rng.usize(..world.clusters.len());
            link(world, cluster, other);
        }
        (_, _) => {}
    }
}

/// A service is declared, changed, exported, kept back or taken away.
fn declare(world: &mut World, cluster: usize) {
    let name = service(one_of(&mut world.rng, &SERVICES));
    let since_ms = world.clusters[cluster].unix_ms(world.now);
    let count = world.clusters.len();
    let mut to = None;
    if world.rng.bool() {
        let some = (0..count).filter(|_| world.rng.bool());
        to = Some(some.collect());
    }
    let rng = &mut world.rng;
    let services = &mut world.clusters[cluster].services;
    let declared = services.entry(name.clone()).or_insert_with(|| Declared {
        ready: rng.u32(..4),
        tls: rng.bool(),
        replay: Replay::Never,
        port: one_of(rng, &[80, 443]),
        export: None,
    });
    match rng.u8(..10) {
        0..5 => declared.export = Some(Export { to, since_ms }),
        5 => declared.export = None,
        6 => declared.tls = !declared.tls,
        7 => declared.replay = Replay::Idempotent,
        8 => declared.ready = rng.u32(..4),
        _ => drop(services.remove(&name)),
    }
    world.declare(cluster, &name);
}

fn accepted(world: &mut World) -> Accepted {
    let count = match world.rng.u8(..6) {
        0 => 0,
        1..4 => return Accepted(vec![Selector::All]),
        _ => world.rng.usize(1..4),
    };
    let selectors = ["shop/*", "bank/*", "a.shop", "b.bank", "kube-system/*"];
    let selectors = (0..count).map(|_| {
        let selector = one_of(&mut world.rng, &selectors);
        selector.parse().expect("a selector")
    });
    Accepted(selectors.collect())
}

/// Whichever of the two sides is not linked with the other is linked now.
fn link(world: &mut World, a: usize, b: usize) {
    let links: usize = world.clusters.iter().map(|one| one.peers.len()).sum();
    if a == b || links / 2 >= LINKS_MAX {
        return;
    }
    let has_liar = world.clusters[a].is_liar || world.clusters[b].is_liar;
    let quota = if has_liar { QUOTA_LIAR } else { QUOTA };
    // At least one of them dials.
    let who = [(true, true), (true, false), (false, true)];
    let dials = one_of(&mut world.rng, &who);
    let (now, mut made) = (world.now, 0);
    for (own, other) in [(a, b), (b, a)] {
        if !world.clusters[own].peers.contains_key(&other) {
            let accepted = accepted(world);
            world.clusters[own].link(other, accepted, quota, now);
            made += 1;
            if world.clusters[own].is_running {
                world.begin(own, other);
            }
        }
    }
    for (own, other, dials) in [(a, b, dials.0), (b, a, dials.1)] {
        let peer = world.clusters[own].peers.get_mut(&other);
        let peer = peer.expect("it was linked just now");
        peer.dials = match made {
            2 => dials,
            // Who was told that the link is over dials no more; who links again does.
            1 => true,
            _ => peer.dials,
        };
        world.dial_soon(own, other);
    }
}

fn cut(world: &mut World) {
    let streams: Vec<u64> = world.network.streams.keys().copied().collect();
    if let Some(stream) = world.rng.choice(streams) {
        world.cut(stream);
    }
}

/// Nothing gets through for a while, both ways or one way.
fn block(world: &mut World, a: usize, b: usize) {
    let millis = world.rng.u64(..120_000);
    let until = world.now + Duration::from_millis(millis);
    world.network.block(a, b, until);
    if world.rng.bool() {
        world.network.block(b, a, until);
    }
}

fn restart(world: &mut World, cluster: usize, how: Restart) {
    if world.clusters[cluster].is_liar || !world.clusters[cluster].is_running {
        return;
    }
    let down_for = Duration::from_millis(world.rng.u64(..20_000));
    world.stop(cluster, how, down_for);
}

fn step_clock(world: &mut World, cluster: usize) {
    let hour = 60 * 60 * 1_000;
    let range = one_of(&mut world.rng, &[hour, 24 * hour, 40 * 24 * hour]);
    let step = world.rng.i64(-range..range);
    world.clusters[cluster].skew_ms += step;
}

fn set_mode(world: &mut World, cluster: usize, peer: usize) {
    let modes = [Mode::Active, Mode::Draining, Mode::Paused];
    let mode = one_of(&mut world.rng, &modes);
    use_as(world, cluster, peer, mode);
}

fn use_as(world: &mut World, cluster: usize, peer: usize, mode: Mode) {
    let one = &mut world.clusters[cluster];
    let Some(side) = one.peers.get_mut(&peer) else {
        return;
    };
    let was = std::mem::replace(&mut side.mode, mode);
    let names = side.watch.names();
    if !one.is_running || one.is_liar {
        return;
    }
    if mode == Mode::Paused && was != Mode::Paused {
        side.relation.goodbye(Farewell::Paused);
        world.settle(cluster, peer, &Cause::Other);
    } else if was == Mode::Paused && mode != Mode::Paused {
        world.dial_soon(cluster, peer);
    }
    for name in &names {
        world.clusters[cluster].route(name);
    }
}

/// Links that only one side has left are taken away there too, and half of those that are paused go on.
pub(crate) fn tidy_up(world: &mut World) {
    let clusters = &world.clusters;
    let sides = clusters.iter().flat_map(|one| {
        let peers = one.peers.keys();
        peers.map(|peer| (one.index, *peer))
    });
    let sides: Vec<(usize, usize)> = sides.collect();
    for (cluster, peer) in sides {
        if !world.clusters[peer].peers.contains_key(&cluster) {
            world.unlink(cluster, peer);
            continue;
        }
        let is_paused = world.clusters[cluster].peers[&peer].mode == Mode::Paused;
        if is_paused && world.rng.bool() {
            use_as(world, cluster, peer, Mode::Active);
        }
    }
}
