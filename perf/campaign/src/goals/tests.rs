use crate::{measure::Figure, testing::results};

use super::*;

const BULK: Measure = Measure::Bulk1Up;
const GBPS: Figure = Figure::GigabitsPerSecond;

fn verdict(results: &Results, row: &str) -> Verdict {
    let judged = judge(results);
    let found = judged.iter().find(|judged| judged.goal.row == row);
    found.expect("there is such a goal").verdict
}

fn bulk(ours: &[Option<f64>], envoy: &[Option<f64>]) -> Results {
    results().with(BULK, SystemKey::Corinth, GBPS, ours).with(
        BULK,
        SystemKey::EnvoyMtls,
        GBPS,
        envoy,
    )
}

#[test]
fn a_ratio_is_met_or_missed() {
    let ours = [Some(13.5), Some(13.4), Some(13.6)];
    assert_eq!(
        verdict(&bulk(&ours, &[Some(10.0); 3]), "bulk-1-up"),
        Verdict::Met
    );
    assert_eq!(
        verdict(&bulk(&ours, &[Some(11.0); 3]), "bulk-1-up"),
        Verdict::Missed
    );
}

#[test]
fn rounds_that_disagree_with_their_medians_are_unclear() {
    // Round by round 1.4, 1.2, 1.4: the median ratio is met. Medians: 12 / 10: not met.
    let ours = [Some(14.0), Some(12.0), Some(7.0)];
    let envoy = [Some(10.0), Some(10.0), Some(5.0)];
    assert_eq!(verdict(&bulk(&ours, &envoy), "bulk-1-up"), Verdict::Unclear);
}

#[test]
fn no_data_is_neither_zero_nor_a_verdict() {
    assert_eq!(
        verdict(&bulk(&[Some(13.0)], &[None]), "bulk-1-up"),
        Verdict::NoData
    );
    assert_eq!(
        verdict(&bulk(&[None], &[Some(1.0)]), "bulk-1-up"),
        Verdict::NoData
    );
    // Never both in one round: nothing to compare.
    let apart = bulk(&[Some(13.0), None], &[None, Some(1.0)]);
    assert_eq!(verdict(&apart, "bulk-1-up"), Verdict::NoData);
    // A goal whose measure was not part of the campaign is not judged at all.
    assert!(judge(&results()).is_empty());
}

#[test]
fn what_gateways_add_is_taken_round_by_round() {
    let p50 = |results: Results, key, values: &[f64]| {
        results.with_all(Measure::Rr, key, Figure::P50Us, values)
    };
    let found = p50(results(), SystemKey::Direct, &[10.0, 100.0, 10.0]);
    let found = p50(found, SystemKey::Corinth, &[30.0, 120.0, 30.0]);
    let found = p50(found, SystemKey::EnvoyMtls, &[40.0, 130.0, 40.0]);
    let judged = judge(&found);
    let added = judged.iter().find(|judged| judged.goal.row == "added-p50");
    let added = added.expect("it is a goal");
    let ratio = added.found.expect("there is data").median;
    assert!((ratio - 20.0 / 30.0).abs() < 1e-9);
    assert_eq!(added.verdict, Verdict::Met);
}

#[test]
fn tails_may_be_so_much_above_the_direct_path() {
    let p99 = |ours: f64| {
        results()
            .with_all(
                Measure::OpenSame,
                SystemKey::Direct,
                Figure::P99Us,
                &[100.0; 3],
            )
            .with_all(
                Measure::OpenSame,
                SystemKey::Corinth,
                Figure::P99Us,
                &[ours; 3],
            )
    };
    assert_eq!(verdict(&p99(160.0), "open-same-p99"), Verdict::Met);
    assert_eq!(verdict(&p99(161.0), "open-same-p99"), Verdict::Missed);
}

#[test]
fn first_byte_is_judged_in_milliseconds() {
    let first = |us: f64| {
        results().with_all(
            Measure::WanFirstByte,
            SystemKey::Corinth,
            Figure::P50Us,
            &[us],
        )
    };
    assert_eq!(verdict(&first(62_000.0), "wan-first-byte"), Verdict::Met);
    assert_eq!(
        verdict(&first(122_000.0), "wan-first-byte"),
        Verdict::Missed
    );
}

#[test]
fn every_goal_names_a_row() {
    for goal in GOALS {
        assert!(by_id(goal.row).is_some(), "{}", goal.row);
    }
}
