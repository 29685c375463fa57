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
//! A failure prints its seed; `CORINTH_SIM_SEED=N` plays that one alone. `CORINTH_SIM_SEEDS=N` plays so many. A seed that
//! has failed once stays in `regressions.txt`, with a word on what it found. Nothing here opens a socket or waits.

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

/// Seeds of an ordinary run.
const SEEDS: u64 = 150;
/// Seeds of a long one.
const SEEDS_SOAK: u64 = 10_000;

/// Plays a seed to its end. The trace is a digest of everything that was written.
fn play(seed: u64) -> u64 {
    let mut world = World::new(seed);
    chaos::play(&mut world);
    world.come_to_rest();
    reference::check(&world);
    world.trace()
}

#[test]
fn whatever_happens_all_clusters_come_to_the_routes_that_were_declared() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>());
    if let Some(seed) = number("CORINTH_SIM_SEED") {
        play(seed.expect("a number"));
        return;
    }
    let default = if corinth_lab::is_soak() {
        SEEDS_SOAK
    } else {
        SEEDS
    };
    let seeds = number("CORINTH_SIM_SEEDS").map_or(default, |seeds| seeds.expect("a number"));
    let known = include_str!("regressions.txt").lines();
    let known = known.filter_map(|line| line.split('#').next()?.trim().parse().ok());
    let known: Vec<u64> = known.collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);

            // Those that have failed once go first.
            let Some(seed) = known.get(index).copied().or_else(|| {
                let seed = (index - known.len()) as u64;
                (seed < seeds).then_some(seed)
            }) else {
                return;
            };

            if panic::catch_unwind(AssertUnwindSafe(|| play(seed))).is_err() {
                failed.lock().push(seed);
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
        "{} of {seeds} seeds failed: {failed:?}\nOne alone: CORINTH_SIM_SEED={} cargo test -p corinth-tests --test sim",
        failed.len(),
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
