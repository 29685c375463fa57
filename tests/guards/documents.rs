//! Documents that must agree with the repository and the code.

use std::path::Path;

use corinth_gateway::settings::MistakeCode;
use corinth_model::{Condition, Reason};

use crate::assert_none;
use crate::repository::{self, root};

/// Code, and what stands beside it.
type Row = (String, String);

/// Folders at the top. A word in backticks that begins with one of them, and a slash, is a path.
const FOLDERS: &[&str] = &[
    "gateway",
    "ebpf-redirect",
    "control",
    "images",
    "deploy",
    "perf",
    "tests",
    "docs",
    ".ci",
];

#[test]
fn paths_in_architecture_exist() {
    let document = repository::read("docs/architecture.md");
    let missing = quoted(&document)
        .into_iter()
        .filter(|word| is_path(word))
        .flat_map(alternatives)
        .filter(|path| !root().join(path).exists());
    assert_none(
        &missing.collect::<Vec<_>>(),
        "docs/architecture.md names what is not there (any more); correct it.",
    );
}

#[test]
fn codes_are_documented() {
    let reasons = Reason::all().map(|reason| (reason.code().to_owned(), reason.name().to_owned()));
    let mistakes =
        MistakeCode::all().map(|code| (code.code().to_owned(), code.summary().to_owned()));
    let conditions = Condition::ALL
        .iter()
        .map(|condition| (condition.code().to_owned(), condition.name().to_owned()));
    let real: Vec<Row> = reasons.chain(conditions).chain(mistakes).collect();
    let documented = rows("docs/codes.md");
    let missing = real.iter().filter(|row| !documented.contains(row));
    let extra = documented.iter().filter(|row| !real.contains(row));
    let faults = missing
        .map(|(code, name)| format!("missing: {code} {name}"))
        .chain(extra.map(|(code, name)| format!("wrong: {code} {name}")));
    assert_none(
        &faults.collect::<Vec<_>>(),
        "docs/codes.md has one table row per code: the code, then the name of a reason or condition or the summary of a mistake.",
    );
}

/// Everything in single backticks, fenced blocks left out.
fn quoted(document: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut words = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            words.extend(line.split('`').skip(1).step_by(2));
        }
    }
    words
}

fn is_path(word: &str) -> bool {
    !word.contains(char::is_whitespace)
        && (word
            .split_once('/')
            .is_some_and(|(first, _)| FOLDERS.contains(&first))
            || word.ends_with(".rs"))
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`; a bare `name.rs` as the tracked file of that name.
fn alternatives(word: &str) -> Vec<String> {
    if let Some((start, rest)) = word.split_once('{')
        && let Some((middle, end)) = rest.split_once('}')
    {
        return middle
            .split(',')
            .flat_map(|part| alternatives(&format!("{start}{}{end}", part.trim())))
            .collect();
    }
    if !word.contains('/') {
        let named = repository::tracked()
            .into_iter()
            .find(|path| Path::new(path).file_name() == Path::new(word).file_name());
        return vec![named.unwrap_or_else(|| word.to_owned())];
    }
    vec![word.to_owned()]
}

/// First and second cell of every table row whose first cell is a code, such as `CRN001`.
fn rows(path: &str) -> Vec<Row> {
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(cell);
        let code = cells.next().filter(|code| is_code(code))?;
        Some((code, cells.next()?))
    };
    repository::read(path).lines().filter_map(row).collect()
}

fn is_code(text: &str) -> bool {
    text.len() == 6
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().skip(3).all(|digit| digit.is_ascii_digit())
}

#[test]
fn braces_name_several_paths() {
    assert_eq!(
        alternatives("gateway/core/src/{route,admit}.rs"),
        ["gateway/core/src/route.rs", "gateway/core/src/admit.rs"]
    );
    assert!(is_path("tests/run") && !is_path("corinth/1") && !is_path("/livez"));
}
