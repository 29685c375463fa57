use super::*;

#[test]
fn every_workload_has_a_usual_form_that_is_possible() {
    for workload in Workload::ALL {
        assert_eq!(TestSpec::new(workload, "host").fault(), None, "{workload}");
        assert_eq!(workload.name().parse(), Ok(workload));
    }
}

#[test]
fn what_is_not_copied_cannot_be_verified() {
    let mut spec = TestSpec::new(Workload::Stream, "host");
    spec.verify = Verify::EveryByte;
    spec.copying = Copying::SendOnly;
    assert!(spec.fault().is_some());
}

#[test]
fn a_message_has_room_for_its_number() {
    let mut spec = TestSpec::new(Workload::Rr, "host");
    spec.message_bytes = MESSAGE_MIN_BYTES - 1;
    assert!(spec.fault().is_some());
}

#[test]
fn rates_that_are_no_numbers_are_refused() {
    for rate in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let mut spec = TestSpec::new(Workload::Rr, "host");
        spec.rate_per_second = Some(rate);
        assert!(spec.fault().is_some(), "{rate}");
    }
    let mut spec = TestSpec::new(Workload::Stream, "host");
    spec.bits_per_second = Some(0);
    assert!(spec.fault().is_some());
}

#[test]
fn what_has_no_meaning_for_a_workload_is_refused() {
    let new = |workload| TestSpec::new(workload, "host");
    let foreign = [
        TestSpec {
            rate_per_second: Some(10.0),
            ..new(Workload::Stream)
        },
        TestSpec {
            knee_percent: Some(10.0),
            ..new(Workload::Idle)
        },
        TestSpec {
            rate_per_second: Some(10.0),
            ..new(Workload::Crr)
        },
        TestSpec {
            direction: Direction::Down,
            ..new(Workload::Rr)
        },
        TestSpec {
            bits_per_second: Some(1_000),
            ..new(Workload::Probe)
        },
        TestSpec {
            copying: Copying::ReceiveOnly,
            ..new(Workload::Udp)
        },
        TestSpec {
            elephants: 2,
            ..new(Workload::Rr)
        },
        TestSpec {
            reuse: Reuse::OncePerRequest,
            ..new(Workload::Rr)
        },
    ];
    for spec in foreign {
        let fault = spec.fault().unwrap();
        assert!(
            fault.ends_with(&format!("not for {}", spec.workload)),
            "{fault}"
        );
    }
}
