use crate::{
    baseline::Baseline,
    measure::{Figure, Measure},
    results::Problem,
    testing::results,
};

use super::*;

/// Ours with data, Envoy with a lost round, HAProxy without any data, stunnel not installed.
fn mixed() -> Results {
    let mut results = results();
    let gbps = Figure::GigabitsPerSecond;
    for (key, values) in [
        (SystemKey::Direct, [Some(30.0); 5]),
        (SystemKey::Corinth, [Some(8.0); 5]),
        (
            SystemKey::EnvoyMtls,
            [Some(6.0), None, Some(6.0), Some(6.0), Some(2.0)],
        ),
        (SystemKey::HaproxyMtls, [None; 5]),
    ] {
        results = results.with(Measure::Bulk1Up, key, gbps, &values).with(
            Measure::OpenSame,
            key,
            Figure::P99Us,
            &values,
        );
    }
    for system in &mut results.systems {
        if system.key == SystemKey::Stunnel {
            system.absent = Some("stunnel4 is not installed (Debian package stunnel4)".to_owned());
        }
    }
    results.problems.push(Problem {
        measure: Measure::Bulk1Up,
        system: SystemKey::EnvoyMtls,
        round: 2,
        why: "the client did not finish".to_owned(),
    });
    results
}

fn cell(report: &Report<'_>, key: SystemKey) -> String {
    let column = 2 + SystemKey::ALL
        .iter()
        .position(|known| *known == key)
        .expect("it is known");
    report.figures(Detail::Intervals).lines[0][column].clone()
}

#[test]
fn missing_data_is_said_in_words_and_never_zero() {
    let results = mixed();
    let report = Report::new(&results, Vec::new());
    assert_eq!(cell(&report, SystemKey::Corinth), "8.00 [8.00 – 8.00]");
    assert_eq!(
        cell(&report, SystemKey::EnvoyMtls),
        "6.00 [2.00 – 6.00] ±40 % (1 lost)"
    );
    assert_eq!(cell(&report, SystemKey::HaproxyMtls), "no data");
    assert_eq!(cell(&report, SystemKey::Stunnel), "not measured");
    assert_eq!(cell(&report, SystemKey::NginxMtls), "–");
}

#[test]
fn every_form_tells_what_was_not_measured_and_why() {
    let results = mixed();
    let report = Report::new(&results, Vec::new());
    let page = html::page(&report).expect("it can be drawn");
    for text in [text::terminal(&report), text::markdown(&report), page] {
        assert!(
            text.contains("stunnel: not measured: stunnel4 is not installed"),
            "{text}"
        );
        assert!(text.contains("the client did not finish"));
        assert!(text.contains("no data"));
    }
}

#[test]
fn a_busy_machine_is_told_loudly() {
    let mut results = mixed();
    let quiet = Report::new(&results, Vec::new()).preface();
    assert!(!quiet.contains("not quiet: do not quote"), "{quiet}");
    let samples = results
        .samples
        .values_mut()
        .flat_map(|systems| systems.values_mut());
    for sample in samples.flatten().flatten().step_by(10) {
        sample.outside_share = 0.4;
    }
    let busy = Report::new(&results, Vec::new()).preface();
    assert!(busy.contains("**The machine was not quiet: do not quote these figures.**"));
    assert!(busy.contains("at most 40.0 %"));
}

#[test]
fn page_needs_nothing_from_elsewhere_and_escapes_what_it_shows() {
    let mut results = mixed();
    results.command = "compare --keep '<script>'".to_owned();
    let page = html::page(&Report::new(&results, Vec::new())).expect("it can be drawn");
    assert!(page.matches("<svg").count() >= 3);
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
    for word in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn plots_have_no_bar_for_what_has_no_data() {
    let results = mixed();
    let plots = plots::all(&results).expect("they can be drawn");
    let bulk = plots
        .iter()
        .find(|plot| plot.contains("bulk, 1 stream, up"))
        .expect("it is drawn");
    assert!(bulk.contains("no data") && bulk.contains("HAProxy mTLS"));
    assert!(!bulk.contains("stunnel"));
}

#[test]
fn a_regression_is_listed_with_what_it_was() {
    let then = mixed();
    let mut now = mixed();
    now.samples.remove(&Measure::Bulk1Up);
    let now = now
        .with_all(
            Measure::Bulk1Up,
            SystemKey::Corinth,
            Figure::GigabitsPerSecond,
            &[4.0; 5],
        )
        .with_all(
            Measure::Bulk1Up,
            SystemKey::Direct,
            Figure::GigabitsPerSecond,
            &[30.0; 5],
        );
    let report = Report::new(&now, Baseline::of(&then).compare(&now));
    assert_eq!(report.regressions().len(), 1);
    let text = text::terminal(&report);
    assert!(
        text.contains("direct: 0.27 → 0.13") && text.contains("regressed"),
        "{text}"
    );
}
