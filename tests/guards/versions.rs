//! Versions below which there is a known fault, and packages that must not come in at all.

use crate::assert_none;
use crate::repository::{self, Locked};

/// Package (`*` at the end: every package that begins so) and the lowest version allowed where it is present.
const FLOORS: &[(&str, &str)] = &[
    ("bytes", "1.11.1"),
    ("h2", "0.4.18"),
    ("hickory-*", "0.26.1"),
    ("quinn", "0.11.12"),
    ("quinn-proto", "0.11.16"),
    ("rustls-webpki", "0.103.14"),
    ("tracing-subscriber", "0.3.20"),
];

/// A second TLS stack, or unmaintained.
const BANNED: &[&str] = &["native-tls", "openssl", "openssl-sys", "rustls-pemfile"];

#[test]
fn no_package_is_below_its_floor() {
    let mut faults = Vec::new();
    for Locked { name, version } in repository::locked() {
        let floor = FLOORS.iter().find(|(pattern, _)| matches(pattern, &name));
        if let Some((_, floor)) = floor.filter(|(_, floor)| numbers(&version) < numbers(floor)) {
            faults.push(format!("{name} {version} is below {floor}"));
        }
    }
    assert_none(&faults, "Run: cargo update -p NAME --precise VERSION");
}

#[test]
fn there_is_one_rustls_and_no_other_tls() {
    let locked = repository::locked();
    let mut faults: Vec<String> = locked
        .iter()
        .filter(|package| BANNED.contains(&package.name.as_str()))
        .map(|package| package.name.clone())
        .collect();
    let rustls: Vec<&str> = locked
        .iter()
        .filter(|package| package.name == "rustls")
        .map(|package| package.version.as_str())
        .collect();
    if rustls.len() != 1 || !rustls.iter().all(|version| version.starts_with("0.23.")) {
        faults.push(format!(
            "rustls is locked as {rustls:?}, not as exactly one 0.23"
        ));
    }
    assert_none(
        &faults,
        "See who wants it with: cargo tree --workspace --target all -i NAME; switch its default features off.",
    );
}

#[test]
fn shipped_programs_have_one_crypto_provider() {
    let programs = repository::members()
        .into_iter()
        .filter(|member| member.has_binary && member.name != "corinth-tests");
    let with_ring =
        programs.filter(|member| repository::tree(&member.name, "normal,build").contains("ring"));
    let faults: Vec<String> = with_ring
        .map(|member| format!("{} has ring below it", member.name))
        .collect();
    assert_none(
        &faults,
        "aws-lc-rs is the one provider; see who wants ring with: cargo tree -p PROGRAM -e normal,build -i ring",
    );
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == name, |start| name.starts_with(start))
}

/// `1.11.1-rc.1+build` as `[1, 11, 1]`.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[test]
fn floors_compare_by_number() {
    assert!(numbers("0.103.9") < numbers("0.103.14"));
    assert!(numbers("1.11.1+x") >= numbers("1.11.1"));
    assert!(matches("hickory-*", "hickory-proto") && !matches("h2", "h2-thing"));
}
