//! Linked clusters in one process, with a made-up network and a made-up time: a seed decides everything that happens.
//!
//! ```text
//! seed ──> chaos: what operators, processes, clocks, networks and one liar do
//!            │
//!          world: clusters with their relations, streams of encoded messages, one queue of events
//!            │
//!          watch: what must hold after every step        reference: what must be there in the end
//! ```
//!
//! A failure prints its seed; `CORINTH_SIM_SEEDS=N` plays that one alone, `CORINTH_SIM_SEEDS=A..B` all from A to below B.
//! A seed that has found something stays in `regressions.txt`, with a word on what it was; those are played first. Nothing
//! here opens a socket or waits.

mod chaos;
mod cluster;
mod liar;
mod network;
mod operator;
mod reference;
mod time;
mod watch;
mod world;

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use world::World;

/// Seeds of an ordinary run: a minute on two slow cores, not optimised.
const SEEDS: u64 = 500;
/// Seeds of a long one: two minutes there, optimised.
const SEEDS_SOAK: u64 = 10_000;

/// Plays a seed to its end. The trace is a digest of everything that was written.
fn play(seed: u64) -> u64 {
    let mut world = World::new(seed);
    chaos::play(&mut world);
    world.come_to_rest();
    reference::check(&world);
    world.trace()
}

/// The seeds to be played: those that were asked for, or those that have found something and then as many as there is
/// time for.
fn seeds() -> Vec<u64> {
    let Ok(asked) = env::var("CORINTH_SIM_SEEDS") else {
        let count = if corinth_lab::is_soak() {
            SEEDS_SOAK
        } else {
            SEEDS
        };
        return regressions().into_iter().chain(0..count).collect();
    };
    let number = |text: &str| text.trim().parse().expect("a seed is a number");
    match asked.split_once("..") {
        Some((first, end)) => (number(first)..number(end)).collect(),
        None => vec![number(&asked)],
    }
}

fn regressions() -> Vec<u64> {
    let lines = include_str!("regressions.txt").lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = seeds.filter(|seed| !seed.is_empty());
    seeds
        .map(|seed| seed.parse().expect("a seed is a number"))
        .collect()
}

#[test]
fn whatever_happens_all_clusters_come_to_the_routes_that_were_declared() {
    let seeds = seeds();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if panic::catch_unwind(AssertUnwindSafe(|| play(*seed))).is_err() {
                failed.lock().push(*seed);
            }
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner();
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed: {failed:?}\nOne alone: CORINTH_SIM_SEEDS={} tests/run sim",
        failed.len(),
        seeds.len(),
        failed[0]
    );
}

#[test]
fn a_seed_plays_the_same_way_every_time() {
    for seed in 0..4 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
    assert_ne!(play(0), play(1));
}
