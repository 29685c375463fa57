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
fn life_of_certificates_has_a_unit_and_bounds() {
    let lifetime = |text: &str| {
        let text = format!("cluster: east\nstateDir: s\nleafLifetime: {text}\n");
        parse(&text)
            .ok()
            .map(|(settings, _)| settings.leaf_lifetime)
    };
    for (text, seconds) in [("10s", 10), ("30m", 1_800), ("720h", 2_592_000)] {
        assert_eq!(lifetime(text), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "9s",
        "721h",
        "24",
        "h",
        "+24h",
        "1.5h",
        "18446744073709551615h",
    ] {
        assert_eq!(lifetime(text), None, "{text}");
    }
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
        (
            "cluster: east\nstateDir: s\nleafLifetime: 1d",
            "leafLifetime",
        ),
        ("stateDir: s", "cluster"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("/etc/corinth/control.yaml"), "{error}");
    }
}

#[test]
fn a_control_plane_is_told_from_a_gateway_by_its_keys() {
    for (text, is_meant) in [
        ("cluster: east\nstateDir: s\n", false),
        ("cluster: east\ncontrol:\n  socket: c.sock\n", false),
        ("cluster: east\ncontrol: {socket: c.sock}\n", false),
        ("cluster: east\nsocket: c.sock\n", true),
        ("cluster: east\nleafLifetime: nonsense\n", true),
    ] {
        assert_eq!(Settings::is_meant(text), is_meant, "{text}");
    }
}
