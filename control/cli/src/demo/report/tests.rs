use super::*;
use crate::demo::{client::Miss, service::Who};

const PLAIN: Style = Style {
    is_coloured: false,
    is_utf8: true,
};

fn report() -> Report {
    let terminal = Terminal {
        stdout: PLAIN,
        stderr: PLAIN,
    };
    Report::new(terminal, true)
}

fn call(milliseconds: u64, is_ok: bool) -> Call {
    let began = Instant::now();
    let who = Who {
        cluster: "west".to_owned(),
        service: "web.shop".to_owned(),
        instance: "web-west".to_owned(),
    };
    Call {
        began,
        ended: began + Duration::from_millis(milliseconds),
        result: if is_ok {
            Ok(who)
        } else {
            Err(Miss::Failed("x".to_owned()))
        },
    }
}

#[test]
fn percentiles_are_of_the_calls_that_were_answered() {
    let mut calls: Vec<_> = (1..=100).map(|number| call(number, true)).collect();
    calls.push(call(9_000, false));
    let measured = Measured::of("web", &calls, None);
    assert_eq!((measured.calls, measured.failures), (101, 1));
    assert_eq!(measured.median, Duration::from_millis(50));
    assert_eq!(measured.slow, Duration::from_millis(99));
    let nothing = Measured::of("web", &[], None);
    assert_eq!((nothing.calls, nothing.median), (0, Duration::ZERO));
}

#[test]
fn times_keep_three_figures_or_so() {
    assert_eq!(time(Duration::from_micros(612)), "0.61 ms");
    assert_eq!(time(Duration::from_micros(83_240)), "83.2 ms");
    assert_eq!(time(Duration::from_millis(5_034)), "5.03 s");
}

#[tokio::test]
async fn a_step_that_fails_makes_the_rest_skipped_and_the_xml_say_so() {
    const TITLES: &[&str] = &["goes well", "goes <wrong>", "is not played"];
    let mut report = report();
    let well = report.play(TITLES[0], async |scene| {
        scene.say(Mark::Good, "fine & good");
        Ok((7, Vec::new()))
    });
    assert_eq!(well.await.unwrap(), 7);
    assert!(!report.has_failed());
    let wrong = report.play(TITLES[1], async |_| {
        Err::<((), _), _>("expected \"east\"\u{1b}".to_owned())
    });
    assert!(wrong.await.is_err());
    report.skip(TITLES);
    assert!(report.has_failed());

    let xml = junit(report.chapters(), Duration::from_millis(1_500));
    let without_times: String = xml
        .split(" time=\"")
        .enumerate()
        .map(|(part, text)| match part {
            0 => text.to_owned(),
            _ => format!(
                " time=\"{}",
                text.split_once('"').map_or("", |(_, rest)| rest)
            ),
        })
        .collect();
    assert_eq!(
        without_times.replace(" time=\"", ""),
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="corinth demo" tests="3" failures="1" errors="0" skipped="1">
    <testcase classname="corinth.demo" name="goes well">
      <system-out>✓ fine &amp; good</system-out>
    </testcase>
    <testcase classname="corinth.demo" name="goes &lt;wrong&gt;">
      <failure message="expected &quot;east&quot;�"/>
      <system-out>✗ expected &quot;east&quot;�</system-out>
    </testcase>
    <testcase classname="corinth.demo" name="is not played">
      <skipped message="an earlier step failed"/>
    </testcase>
  </testsuite>
</testsuites>
"#
    );
}
