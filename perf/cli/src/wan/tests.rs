use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(words: &[&str]) -> Result<Args, clap::Error> {
    let words = ["wan"].iter().chain(words);
    Cli::try_parse_from(words).map(|cli| cli.args)
}

fn spec_of(words: &[&str]) -> anyhow::Result<Spec> {
    let between = ["--between", "left", "right"];
    spec(&parse(&[&between, words].concat())?)
}

#[test]
fn flags_become_a_specification() {
    let spec = spec_of(&[
        "--delay",
        "30ms",
        "--loss",
        "0.1%",
        "--rate",
        "100mbit",
        "--queue",
        "1bdp",
        "--back",
        "loss 0%",
        "--at",
        "5s",
        "blackout",
        "--at",
        "8s",
        "clear",
        "--v4",
        "10.1.0.1/24",
        "10.1.0.2/24",
        "--seed",
        "9",
    ])
    .unwrap();
    let none = Impairment::default();
    let both = changed(&none, "delay 30ms loss 0.1% rate 100mbit queue 1bdp").unwrap();
    let mut expected = Spec::between("left", "right")
        .both(both.clone())
        .with(Direction::Back, changed(&both, "loss 0%").unwrap());
    expected.timeline = vec![
        Step::parse("5s", "blackout", 1).unwrap(),
        Step::parse("8s", "clear", 2).unwrap(),
    ];
    expected.sides[0].v4 = "10.1.0.1/24".parse().unwrap();
    expected.sides[1].v4 = "10.1.0.2/24".parse().unwrap();
    expected.seed = 9;
    assert_eq!(spec, expected);
}

#[test]
fn a_timeline_comes_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "- at: 2s\n  change: blackout\n").unwrap();
    let path = file.path().to_str().unwrap();
    let spec = spec_of(&["--timeline", path]).unwrap();
    assert_eq!(spec.timeline, [Step::parse("2s", "blackout", 1).unwrap()]);
}

#[test]
fn wrong_values_are_one_clear_line() {
    let faults = [
        (
            &["--delay", "30"][..],
            "delay: `30` is no time; write 30ms, 500us or 2s",
        ),
        (
            &["--back", "queue 64k"],
            "--forward or --back: `queue` is about a rate, and there is none",
        ),
        (
            &["--forward", "delya 3ms"],
            "--forward or --back: `delya` is no impairment",
        ),
        (
            &["--at", "5", "blackout"],
            "step 1 of the timeline: `5` is no time",
        ),
        (
            &["--mtu", "100"],
            "a device cannot have an MTU of 100 bytes",
        ),
        (
            &["--timeline", "/nowhere/x.yaml"],
            "reading the timeline /nowhere/x.yaml",
        ),
        (
            &["--rate", "1mbit", "--queue", "1bdp"],
            "forward: a queue in bdp needs a delay",
        ),
    ];
    for (words, expected) in faults {
        let said = format!("{:#}", spec_of(words).unwrap_err());
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_network_needs_two_namespaces() {
    assert!(parse(&[]).is_err());
    assert!(parse(&["--between", "left"]).is_err());
    assert!(parse(&["--self-test"]).is_ok());
    assert!(parse(&["--between", "a", "b", "--queue", "1bdp"]).is_err());
    assert!(parse(&["--between", "a", "b", "--inside", "first"]).is_err());
}

#[test]
fn a_command_follows_two_dashes() {
    let args = parse(&["--between", "a", "b", "--", "ping", "-c", "1"]).unwrap();
    assert_eq!(args.command, ["ping", "-c", "1"]);
}
