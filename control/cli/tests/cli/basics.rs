//! Usage, help, version, completion, colour, and readers that go away.

use std::{fs::File, process::Stdio};

use super::support::{Ran, command, corinth};

#[test]
fn help_is_a_result() {
    let help = corinth(&["--help"]).result();
    for name in [
        "demo",
        "run",
        "backup",
        "restore",
        "bundle",
        "config",
        "routes",
        "links",
        "link",
        "export",
        "unexport",
        "exports",
        "imports",
        "status",
        "check",
        "path",
        "diff",
        "cert",
        "bench",
        "explain",
        "version",
        "completion",
        "help",
    ] {
        assert!(
            help.contains(&format!("\n  {name}")),
            "{name} is not in\n{help}"
        );
    }
    assert_eq!(corinth(&["help"]).result(), help);
    let of_backup = corinth(&["help", "backup"]).result();
    assert!(of_backup.contains("Usage: corinth backup"), "{of_backup}");
    let of_validate = corinth(&["help", "config", "validate"]).result();
    assert!(
        of_validate.contains("Usage: corinth config validate"),
        "{of_validate}"
    );
    corinth(&["help", "nonsense"]).trouble(
        2,
        "there is no help on `nonsense`",
        "`nonsense` is neither a command nor `exit-codes`",
        "corinth help",
    );
}

#[test]
fn exit_codes_are_as_documented() {
    assert_eq!(
        corinth(&["help", "exit-codes"]).result(),
        include_str!("golden/exit-codes.txt")
    );
}

#[test]
fn wrong_usage_is_told_apart_and_says_what_to_type() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["rotues"],
        &["explain", "CRN001", "CRN002"],
        &["explain", "--output", "xml"],
        &["run"],
        &["config"],
        &["config", "validate"],
        &["completion", "tcsh"],
        &["demo", "--clusters", "1"],
        &["demo", "--clusters", "4"],
        &["demo", "--ci", "--keep"],
        &["links", "--timeout", "5"],
        &["link"],
        &["link", "one.yaml"],
        &["link", "accept", "west"],
        &["link", "accept", "west", "not a service"],
        &["link", "pause", "West!"],
        &["export", "web"],
        &["export", "web.shop", "--port", "80"],
        &["path", "east"],
        &["--color", "blue", "version"],
    ] {
        let ran = corinth(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            ran.stderr.contains("Usage:") || ran.stderr.contains("--help"),
            "{}",
            ran.stderr
        );
    }
    assert!(corinth(&["rotues"]).stderr.contains("'routes'"));
}

#[test]
fn the_version_is_there_for_people_and_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let plain = format!("corinth {version}\n");
    assert_eq!(corinth(&["version"]).result(), plain);
    assert_eq!(corinth(&["--version"]).result(), plain);
    assert_eq!(
        corinth(&["version", "-o", "name"]).result(),
        format!("{version}\n")
    );
    let envelope = corinth(&["version", "-o", "json"]).envelope("Version");
    assert_eq!(envelope["items"][0]["version"], version);
}

#[test]
fn every_shell_gets_a_completion() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = corinth(&["completion", shell]).result();
        assert!(
            script.contains("corinth") && script.contains("restore"),
            "{shell}"
        );
    }
}

#[test]
fn colour_is_there_when_asked_for_only() {
    let is_coloured = |ran: Ran| ran.stdout.contains('\x1b');
    assert!(!is_coloured(corinth(&["explain", "CRN002"])));
    assert!(is_coloured(corinth(&[
        "explain", "CRN002", "--color", "always"
    ])));
    let with = |variable: &str, arguments: &[&str]| {
        Ran::of(command(arguments).env(variable, "1").output().unwrap())
    };
    assert!(is_coloured(with("CLICOLOR_FORCE", &["explain", "CRN002"])));
    assert!(!is_coloured(with("NO_COLOR", &["explain", "CRN002"])));
    let never = &["explain", "CRN002", "--color=never"];
    assert!(!is_coloured(with("CLICOLOR_FORCE", never)));
    assert!(
        corinth(&["nonsense", "--color=always"])
            .stderr
            .contains('\x1b')
    );
    assert!(!corinth(&["nonsense"]).stderr.contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["explain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(command(&["explain"]).stdout(full).output().unwrap());
    ran.trouble(
        1,
        "the result could not be written to standard output",
        "No space left on device (os error 28)",
        "check where the output goes: is the disk full?",
    );
}
