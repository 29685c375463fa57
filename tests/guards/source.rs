//! Words that must not be in any tracked file. The needles are put together from pieces, so that this file does
//! not hold them.

use crate::assert_none;
use crate::repository;

/// Unfinished work, places of one machine, package and image registries.
const NEEDLES: &[&str] = &[
    concat!("TO", "DO"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("../", "shared"),
    concat!("/wo", "rk/"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("proxy.", "golang.org"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("gcr", ".io"),
    concat!("quay", ".io"),
    concat!("registry.", "k8s.io"),
    concat!("arti", "factory"),
];

#[test]
fn nothing_is_unfinished_or_bound_to_a_machine() {
    let mut faults = Vec::new();
    for file in repository::text_files() {
        for (line, text) in (1..).zip(file.text.lines()) {
            let found = NEEDLES.iter().filter(|needle| text.contains(**needle));
            faults.extend(found.map(|needle| format!("{}:{line} has `{needle}`", file.path)));
        }
    }
    assert_none(
        &faults,
        "Finish it, or write down in plain words why it stands; name nothing that only one machine has.",
    );
}

/// What no library does: one small module for each need.
const AUDITED: [&str; 1] = ["gateway/transport/src/tls/kernel.rs"];

#[test]
fn rust_is_safe_but_for_the_audited_modules() {
    let word = concat!("un", "safe");
    let mut faults = Vec::new();
    for file in repository::text_files()
        .iter()
        .filter(|file| file.has_extension("rs") && !file.is_generated())
    {
        let is_audited = AUDITED.contains(&file.path.as_str());
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, text) in lines.iter().enumerate() {
            // The lines of a comment right above say why it is sound.
            let above = lines[..at].iter().rev();
            let mut comment = above.take_while(|line| line.trim_start().starts_with("//"));
            let is_explained = comment.any(|line| line.contains("SAFETY:"));
            let is_found = words(&code(text)).any(|found| found == word);
            if is_found && !(is_audited && is_explained) {
                faults.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    assert_none(
        &faults,
        "Use a library that has done and proven this: rustix, socket2, bytes. Where there is none, a module of AUDITED, with a \
         SAFETY line above each block.",
    );
}

/// A line without its strings and its comment. Quotes inside strings confuse this, which can only hide the rest of that
/// one line; the compiler's own lint does not read lines.
fn code(line: &str) -> String {
    let outside: Vec<&str> = line.split('"').step_by(2).collect();
    let outside = outside.join(" ");
    outside.split("//").next().unwrap_or_default().to_owned()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_')
}
