use super::*;

fn parse(text: &str) -> Result<(Settings, Process), SettingsError> {
    Settings::parse(text, Path::new("/etc/corinth/control.yaml"))
}

#[test]
fn a_name_and_a_place_are_enough() {
    let (settings, process) = parse("cluster: east\nstateDir: state\n").unwrap();
    let expected = Settings::new(
        "east".parse().unwrap(),
        TrustDomain::parse("east.corinth.internal").unwrap(),
        Path::new("/etc/corinth/state"),
    );
    assert_eq!(settings, expected);
    assert_eq!(
        settings.socket,
        Path::new("/etc/corinth/state/control.sock")
    );
    assert_eq!(process.admin, ([127, 0, 0, 1], 15_001).into());
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("cluster: ea_st\nstateDir: s", "cluster"),
        ("cluster: east\nstateDir: s\nsocet: x", "socet"),
        (
            "cluster: east\nstateDir: s\nimportPorts: 9-1",
            "importPorts",
        ),
        ("cluster: east\nstateDir: s\ngateways: [west]", "gateways"),
        (
            "cluster: east\nstateDir: s\ntrustDomain: EAST",
            "trustDomain",
        ),
        ("stateDir: s", "cluster"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("/etc/corinth/control.yaml"), "{error}");
    }
}
