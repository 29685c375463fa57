use crate::{
    measure::{Figure, Measure},
    testing::results,
};

use super::*;

const PEERS: [SystemKey; 3] = [
    SystemKey::Direct,
    SystemKey::HaproxyMtls,
    SystemKey::EnvoyMtls,
];

/// Seven rounds on a machine whose speed wanders; everyone's does so together.
fn measured(ours_gbps: f64) -> Results {
    let drift = [1.0, 0.97, 1.03, 1.01, 0.99, 1.02, 0.98];
    let at = |gbps: f64| drift.map(|drift| gbps * drift);
    let mut results = results().with_all(
        Measure::Bulk1Up,
        SystemKey::Corinth,
        Figure::GigabitsPerSecond,
        // Noise of our own.
        &std::array::from_fn::<f64, 7, _>(|i| at(ours_gbps)[i] * (1.0 + 0.01 * (i as f64 - 3.0))),
    );
    for (peer, gbps) in PEERS.into_iter().zip([30.0, 4.0, 6.0]) {
        results = results.with_all(Measure::Bulk1Up, peer, Figure::GigabitsPerSecond, &at(gbps));
    }
    results
}

fn standing(then: &Results, now: &Results) -> Standing {
    let compared = Baseline::of(then).compare(now);
    compared
        .iter()
        .find(|compared| compared.row.id == "bulk-1-up")
        .map_or(Standing::Unknown, |compared| compared.standing)
}

#[test]
fn a_slower_relay_is_a_regression() {
    assert_eq!(
        standing(&measured(8.0), &measured(6.0)),
        Standing::Regressed
    );
}

#[test]
fn noise_is_not_a_regression() {
    assert_eq!(standing(&measured(8.0), &measured(8.0)), Standing::Same);
    // Within the interval, and within what another layout makes.
    assert_eq!(standing(&measured(8.0), &measured(7.8)), Standing::Same);
}

#[test]
fn a_faster_relay_is_an_improvement() {
    assert_eq!(
        standing(&measured(8.0), &measured(10.0)),
        Standing::Improved
    );
}

#[test]
fn one_reference_that_became_faster_does_not_make_us_slower() {
    let now = measured(8.0).with_all(
        Measure::Bulk1Up,
        SystemKey::EnvoyMtls,
        Figure::GigabitsPerSecond,
        &[9.0; 7],
    );
    assert_eq!(standing(&measured(8.0), &now), Standing::Same);
}

#[test]
fn costs_regress_upwards() {
    let cost = |ours: f64| {
        results()
            .with_all(
                Measure::Bulk1Up,
                SystemKey::Corinth,
                Figure::CpuSecondsPerGb,
                &[ours; 5],
            )
            .with_all(
                Measure::Bulk1Up,
                SystemKey::EnvoyMtls,
                Figure::CpuSecondsPerGb,
                &[1.0; 5],
            )
    };
    let compared = Baseline::of(&cost(0.7)).compare(&cost(1.0));
    let found = compared
        .iter()
        .find(|compared| compared.row.id == "cpu-1-up");
    assert_eq!(found.map(|found| found.standing), Some(Standing::Regressed));
}

#[test]
fn another_version_is_another_reference() {
    let mut now = measured(6.0);
    for system in &mut now.systems {
        system.version = system.version.take().map(|version| version + ".1");
    }
    let compared = Baseline::of(&measured(8.0)).compare(&now);
    let bulk = compared.first().expect("there is a row");
    // The direct path has no version and stays.
    assert_eq!(bulk.references.len(), 1);
    assert_eq!(bulk.standing, Standing::Regressed);
}

#[test]
fn too_few_rounds_or_no_data_say_nothing() {
    let few = results()
        .with_all(
            Measure::Bulk1Up,
            SystemKey::Corinth,
            Figure::GigabitsPerSecond,
            &[2.0; 3],
        )
        .with_all(
            Measure::Bulk1Up,
            SystemKey::Direct,
            Figure::GigabitsPerSecond,
            &[30.0; 3],
        );
    assert_eq!(standing(&measured(8.0), &few), Standing::Unknown);
    let none = results().with(
        Measure::Bulk1Up,
        SystemKey::Corinth,
        Figure::GigabitsPerSecond,
        &[None; 7],
    );
    assert_eq!(standing(&measured(8.0), &none), Standing::Unknown);
}

#[test]
fn a_baseline_is_the_same_after_a_file() {
    let baseline = Baseline::of(&measured(8.0));
    let text = serde_json::to_string(&baseline).expect("it is plain");
    assert_eq!(
        serde_json::from_str::<Baseline>(&text).expect("it is ours"),
        baseline
    );
    assert_eq!(baseline.ratios["bulk-1-up"].len(), PEERS.len());
}
