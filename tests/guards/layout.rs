//! Where things lie and how long they are.

use crate::assert_none;
use crate::repository::{self, root};

/// The top of the repository holds this and dot files, nothing else.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "gateway",
    "ebpf-redirect",
    "control",
    "images",
    "deploy",
    "perf",
    "tests",
    "README.md",
    "LICENSE",
    "CONTRIBUTING.md",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
];

/// A file longer than this wants to be two.
const LINES_MAX: usize = 600;

#[test]
fn top_level_is_as_agreed() {
    let mut strays: Vec<String> = repository::tracked()
        .iter()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.') && !TOP.contains(name))
        .map(str::to_owned)
        .collect();
    strays.dedup();
    assert_none(
        &strays,
        "Find it a place inside one of the folders at the top.",
    );
}

#[test]
fn files_are_short() {
    let ours = repository::text_files()
        .into_iter()
        .filter(|file| !file.is_generated());
    let long = ours.filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.path))
    });
    assert_none(
        &long.collect::<Vec<_>>(),
        "Find the type, or the subject, that owns a part of it, and give that a file.",
    );
}

#[test]
fn crates_say_what_they_are_for() {
    let mut faults = Vec::new();
    for member in repository::members() {
        // A crate that is nothing but a command has no lib.rs.
        let path = ["src/lib.rs", "lab/lib.rs", "src/main.rs"]
            .map(|file| format!("{}/{file}", member.folder));
        let Some(path) = path.iter().find(|path| root().join(path).exists()) else {
            faults.push(format!("{} has neither lib.rs nor main.rs", member.folder));
            continue;
        };
        let opening = repository::read(path)
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if opening < 5 {
            faults.push(format!(
                "{path} opens with {opening} lines of documentation"
            ));
        }
        if !repository::read(&format!("{}/Cargo.toml", member.folder))
            .contains("[lints]\nworkspace = true")
        {
            faults.push(format!(
                "{}/Cargo.toml does not take the lints of the workspace",
                member.folder
            ));
        }
    }
    assert_none(
        &faults,
        "The first lines of a lib.rs, or of the main.rs of a command, say what the crate is for, what it never does and how its data flows (at least five).",
    );
}
