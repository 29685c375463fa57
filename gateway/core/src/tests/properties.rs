//! The core against models so simple that they are right at a glance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use corinth_model::{Candidate, Proximity, Refusal, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::lab::{Lab, World, cluster, target, world, zone};
use crate::{LinkState, Settings, Standing};

const PAY: &str = "80.pay.shop";
const PEERS: [&str; 3] = ["b", "c", "d"];

// --- Plans and standings.

#[derive(Debug, Clone)]
enum Step {
    Route,
    Fail(Index),
    Succeed(Index),
    Link(Index, bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Route),
        8 => any::<Index>().prop_map(Step::Fail),
        1 => any::<Index>().prop_map(Step::Succeed),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(peer, up)| Step::Link(peer, up)),
        1 => (0..8000_u16).prop_map(Step::Wait),
    ]
}

/// Up to eight endpoints and three clusters, each at most once.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let endpoints = (1..9).map(|i| format!("10.0.0.{i}:80"));
    let names: Vec<String> = endpoints.chain(PEERS.map(str::to_owned)).collect();
    let chosen = proptest::sample::subsequence(names, 1..=11);
    let places = vec((0..4_u32, 0..2_u8, 1..3_u8), 11);
    (chosen, places).prop_map(|(names, places)| {
        let candidates = names.iter().zip(places);
        let candidates = candidates.map(|(name, (weight, priority, place))| Candidate {
            target: target(name),
            weight,
            priority,
            locality: zone(&place.to_string()),
        });
        candidates.collect()
    })
}

/// What the rules say, one candidate at a time.
struct Model {
    candidates: Vec<Candidate>,
    standings: BTreeMap<Target, Standing>,
    down: BTreeSet<Target>,
}

impl Model {
    fn standing(&self, target: &Target) -> Standing {
        self.standings
            .get(target)
            .copied()
            .unwrap_or(Standing::GOOD)
    }

    fn tier(candidate: &Candidate) -> (u8, Proximity) {
        let is_near = candidate.locality == zone("1");
        let proximity = match (&candidate.target, is_near) {
            (Target::Endpoint(_), true) => Proximity::SameZone,
            (Target::Endpoint(_), false) => Proximity::SameRegion,
            (Target::Cluster(_), true) => Proximity::RemoteZone,
            (Target::Cluster(_), false) => Proximity::RemoteRegion,
        };
        (candidate.priority, proximity)
    }

    /// 0: takes its turn, 1: last resort, 2: withheld.
    fn turn(&self, candidate: &Candidate, now: Instant) -> u8 {
        let usable = match self.standing(&candidate.target) {
            Standing::Serving { .. } => true,
            Standing::Ejected { .. } => false,
            Standing::Probation { trial_at, .. } => trial_at <= now,
        };
        match (
            candidate.weight,
            usable,
            self.down.contains(&candidate.target),
        ) {
            (0, _, _) => 2,
            (_, true, false) => 0,
            (_, false, _) | (_, _, true) => 1,
        }
    }

    fn fail(&mut self, target: &Target, now: Instant) {
        if self.down.contains(target) {
            return;
        }
        let seconds = Duration::from_secs;
        let next = match self.standing(target) {
            Standing::Serving { failures } if failures >= 4 && self.may_eject(target) => {
                Standing::Ejected {
                    until: now + seconds(5),
                    strikes: 1,
                }
            }
            Standing::Serving { failures } => Standing::Serving {
                failures: failures + 1,
            },
            Standing::Ejected { until, strikes } => Standing::Ejected { until, strikes },
            Standing::Probation { strikes, .. } => Standing::Ejected {
                until: now + seconds(5 * u64::from(strikes + 1)).min(seconds(300)),
                strikes: strikes + 1,
            },
        };
        self.standings.insert(target.clone(), next);
    }

    fn may_eject(&self, target: &Target) -> bool {
        let is_target = |candidate: &&Candidate| candidate.target == *target;
        let tier = Self::tier(self.candidates.iter().find(is_target).unwrap());
        let tier: Vec<_> = self
            .candidates
            .iter()
            .filter(|other| Self::tier(other) == tier)
            .collect();
        let others = || tier.iter().filter(|other| other.target != *target);
        let standings = || others().map(|other| self.standing(&other.target));
        let out = standings().filter(|standing| !matches!(standing, Standing::Serving { .. }));
        let working = |standing| matches!(standing, Standing::Serving { failures } if failures < 5);
        (out.count() + 1) * 2 <= tier.len() || !standings().any(working)
    }

    fn link(&mut self, peer: &Target, up: bool, now: Instant) {
        if !up {
            self.down.insert(peer.clone());
        } else if self.down.remove(peer)
            && let Some(standing) = self.standings.get_mut(peer)
            && let Standing::Ejected { strikes, .. } = *standing
        {
            *standing = Standing::Probation {
                strikes,
                trial_at: now,
            };
        }
    }

    /// Time passed; whoever was due went on probation when it was due.
    fn wait(&mut self, now: Instant) {
        for standing in self.standings.values_mut() {
            if let Standing::Ejected { until, strikes } = *standing
                && until <= now
            {
                *standing = Standing::Probation {
                    strikes,
                    trial_at: until,
                };
            }
        }
    }

    /// A plan was made; its first candidate, if on probation and due, is on trial.
    fn planned(&mut self, first: &Target, now: Instant) {
        if let Some(Standing::Probation { trial_at, .. }) = self.standings.get_mut(first)
            && *trial_at <= now
        {
            *trial_at = now + Duration::from_secs(1);
        }
    }

    fn check_plan(&self, plan: &[Target], limit: usize, now: Instant) {
        let place = |candidate: &Candidate| (self.turn(candidate, now), Self::tier(candidate));
        let mut expected: Vec<_> = self.candidates.iter().map(place).collect();
        expected.sort_unstable();
        expected.truncate(limit);
        let of = |target: &Target| {
            let is_target = |candidate: &&Candidate| candidate.target == *target;
            place(self.candidates.iter().find(is_target).unwrap())
        };
        let places: Vec<_> = plan.iter().map(of).collect();
        assert_eq!(places, expected, "the tiers of {plan:?}");
        let distinct: BTreeSet<&Target> = plan.iter().collect();
        assert_eq!(distinct.len(), plan.len(), "{plan:?} repeats a target");
    }

    fn check_standings(&self, lab: &Lab) {
        for candidate in &self.candidates {
            let target = candidate.target.to_string();
            assert_eq!(
                lab.standing(PAY, &target),
                self.standing(&candidate.target),
                "{target}"
            );
        }
    }
}

fn with_peers() -> World {
    PEERS.iter().fold(world(), |world, peer| world.peer(peer))
}

fn run(candidates: Vec<Candidate>, steps: Vec<Step>, seed: u64) {
    let settings = Settings::default();
    let limit = settings.attempts.get();
    let world = with_peers().route(PAY);
    let world = candidates.iter().cloned().fold(world, World::candidate);
    let mut lab = world.lab_with(settings, seed);
    let mut model = Model {
        candidates,
        standings: BTreeMap::new(),
        down: BTreeSet::new(),
    };
    for step in steps {
        let now = lab.now;
        match step {
            Step::Route => {
                let plan: Vec<_> = lab.route(PAY).iter().map(|text| target(text)).collect();
                model.check_plan(&plan, limit, now);
                model.planned(&plan[0], now);
            }
            Step::Fail(index) => {
                let target = index.get(&model.candidates).target.clone();
                lab.fail(PAY, &target.to_string(), 1);
                model.fail(&target, now);
            }
            Step::Succeed(index) => {
                let target = index.get(&model.candidates).target.clone();
                lab.succeed(PAY, &target.to_string());
                model.standings.remove(&target);
            }
            Step::Link(peer, up) => {
                let peer = index_of(peer);
                let state = if up { LinkState::Up } else { LinkState::Down };
                lab.link(peer, state);
                model.link(&target(peer), up, now);
            }
            Step::Wait(millis) => {
                lab.wait(Duration::from_millis(millis.into()));
                model.wait(lab.now);
            }
        }
        model.check_standings(&lab);
    }
}

fn index_of(index: Index) -> &'static str {
    PEERS[index.index(PEERS.len())]
}

// --- Admission.

const SERVICES: [&str; 3] = ["pay.shop", "cart.shop", "web.site"];

/// For each service: who may call it, and how many streams it takes.
type Exports = Vec<(BTreeSet<usize>, Option<u32>)>;

#[derive(Debug, Clone)]
enum Move {
    /// A gateway of peer (3: of no peer) opens a stream to service (3: to none), after so many hops.
    Admit(usize, usize, u8),
    Release(Index),
    /// Some peers stay linked, with their limits; the exports are others.
    Apply(BTreeMap<usize, u32>, Exports),
}

fn exports() -> impl Strategy<Value = Exports> {
    let audience = proptest::collection::btree_set(0..PEERS.len(), 0..=PEERS.len());
    vec((audience, proptest::option::of(0..4_u32)), SERVICES.len())
}

fn peers() -> impl Strategy<Value = BTreeMap<usize, u32>> {
    proptest::collection::btree_map(0..PEERS.len(), 0..5_u32, 0..=PEERS.len())
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        12 => (0..4_usize, 0..4_usize, 0..3_u8).prop_map(|(p, s, h)| Move::Admit(p, s, h)),
        4 => any::<Index>().prop_map(Move::Release),
        1 => (peers(), exports()).prop_map(|(peers, exports)| Move::Apply(peers, exports)),
    ]
}

fn world_of(peers: &BTreeMap<usize, u32>, exports: &Exports) -> World {
    let linked = peers.iter();
    let world = linked.fold(world(), |world, (peer, max)| {
        world.peer_with(PEERS[*peer], *max)
    });
    SERVICES
        .iter()
        .zip(exports)
        .fold(world, |world, (service, (audience, max))| {
            let world = world.export(service, 80).at("10.0.0.1:80");
            let world = audience
                .iter()
                .fold(world, |world, peer| world.for_peer(PEERS[*peer]));
            match max {
                Some(max) => world.max_streams(*max),
                None => world,
            }
        })
}

fn expected(
    peers: &BTreeMap<usize, u32>,
    exports: &Exports,
    open: &[(usize, usize)],
    (peer, service, hops): (usize, usize, u8),
) -> Result<(), Refusal> {
    let Some(peer_max) = peers.get(&peer) else {
        return Err(Refusal::Unlinked);
    };
    if hops >= 2 {
        return Err(Refusal::TooManyHops);
    }
    let Some((_, export_max)) = exports
        .get(service)
        .filter(|export| export.0.contains(&peer))
    else {
        return Err(Refusal::Forbidden);
    };
    let of_peer = open.iter().filter(|stream| stream.0 == peer).count();
    let of_export = open.iter().filter(|stream| stream.1 == service).count();
    if of_peer >= *peer_max as usize || export_max.is_some_and(|max| of_export >= max as usize) {
        return Err(Refusal::OverLimit);
    }
    Ok(())
}

fn run_admissions(mut peers: BTreeMap<usize, u32>, mut exports: Exports, moves: Vec<Move>) {
    let mut lab = world_of(&peers, &exports).lab();
    let mut permits = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    for a_move in moves {
        match a_move {
            Move::Admit(peer, service, hops) => {
                let name = format!("80.{}", SERVICES.get(service).unwrap_or(&"none.shop"));
                let gateway = PEERS.get(peer).unwrap_or(&"stranger");
                let admission = lab.admit_after(gateway, &name, hops);
                let expected = expected(&peers, &exports, &open, (peer, service, hops));
                assert_eq!(admission.as_ref().map(|_| ()).map_err(|no| *no), expected);
                if let Ok(admission) = admission {
                    assert_eq!(admission.export.service.to_string(), SERVICES[service]);
                    permits.push(admission.permit);
                    open.push((peer, service));
                }
            }
            Move::Release(_) if open.is_empty() => {}
            Move::Release(index) => {
                let index = index.index(open.len());
                open.swap_remove(index);
                lab.core.release(permits.swap_remove(index), lab.now);
                lab.core.check();
            }
            Move::Apply(new_peers, new_exports) => {
                lab.apply(world_of(&new_peers, &new_exports));
                (peers, exports) = (new_peers, new_exports);
            }
        }
        for (peer, text) in PEERS.iter().enumerate() {
            let of_peer = open.iter().filter(|stream| stream.0 == peer).count();
            assert_eq!(lab.core.open_streams(&cluster(text)) as usize, of_peer);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn plans_and_standings_follow_the_rules(
        candidates in candidates(),
        steps in vec(step(), 0..200),
        seed in any::<u64>(),
    ) {
        run(candidates, steps, seed);
    }

    #[test]
    fn only_what_the_view_holds_and_the_limits_allow_is_admitted(
        peers in peers(),
        exports in exports(),
        moves in vec(a_move(), 0..80),
    ) {
        run_admissions(peers, exports, moves);
    }
}
