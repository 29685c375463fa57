//! What is committed although it could be generated is what would be generated.
//!
//! Builds therefore need neither a code generator nor a build script. After a change of a protocol file or of the
//! codes, `CORINTH_WRITE_GENERATED=1 cargo test -p corinth-api --test committed` writes the files anew.

use std::{
    env,
    fmt::{self, Write},
    fs,
    path::Path,
};

use corinth_model::{Condition, Reason};

/// Ends the part of docs/codes.md that is written by hand.
const CODES_BEGIN: &str = "<!-- generated from here on -->\n";

#[test]
fn generated_code_matches_the_protocol_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["admin", "identity", "link", "peering", "routes", "tunnel"]
        .map(|name| format!("corinth/{name}/v1/{name}.proto"));
    let descriptors =
        protox::compile(files, [root.join("proto")]).expect("the protocol files are valid");
    let generated = tempfile::tempdir().expect("a temporary directory can be made");
    tonic_prost_build::configure()
        // Digests need one encoding for one value.
        .btree_map(".")
        .out_dir(generated.path())
        .compile_fds(descriptors)
        .expect("the protocol files generate");

    let mut names: Vec<_> = fs::read_dir(generated.path())
        .expect("the directory is there")
        .map(|entry| entry.expect("the directory can be read").file_name())
        .collect();
    names.sort();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let code = fs::read_to_string(generated.path().join(&name)).expect("code is text");
        let file = root.join("src/gen").join(name);
        check_or_write(&file, &fs::read_to_string(&file).unwrap_or_default(), &code);
    }
}

#[test]
fn documented_codes_are_those_of_the_model() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/codes.md");
    let committed = fs::read_to_string(&file).expect("docs/codes.md is there");
    let (by_hand, _) = committed
        .split_once(CODES_BEGIN)
        .expect("docs/codes.md has its marker");
    let expected = format!(
        "{by_hand}{CODES_BEGIN}{}",
        codes().expect("a String takes all")
    );
    check_or_write(&file, &committed, &expected);
}

/// One table for each kind of reason, and one of the conditions.
fn codes() -> Result<String, fmt::Error> {
    let mut page = String::new();
    let mut section = "";
    for reason in Reason::all() {
        let of_reason = match reason {
            Reason::Completed => "Completed",
            Reason::Refused(_) => "Refusals",
            Reason::Failed(_) => "Failures",
        };
        if section != of_reason {
            section = of_reason;
            write!(page, "\n## {section}\n\n")?;
            page.push_str("| code | name | side | meaning | what to do |\n|---|---|---|---|---|\n");
        }
        let side = reason
            .culprit()
            .map_or_else(|| "–".to_owned(), |side| side.to_string());
        let (meaning, hint) = (shown(reason.summary()), shown(reason.hint()));
        writeln!(
            page,
            "| `{}` | `{}` | {side} | {meaning} | {hint} |",
            reason.code(),
            reason.name()
        )?;
    }
    page.push_str("\n## Conditions\n\n| code | name | meaning | what to do |\n|---|---|---|---|\n");
    for condition in Condition::ALL {
        let (meaning, hint) = (shown(condition.summary()), shown(condition.hint()));
        writeln!(
            page,
            "| `{}` | `{}` | {meaning} | {hint} |",
            condition.code(),
            condition.name()
        )?;
    }
    Ok(page)
}

/// The text as a cell of a Markdown table shows it: `<port>` is not a tag, `|` ends no cell.
fn shown(text: &str) -> String {
    text.replace('<', "\\<").replace('|', "\\|")
}

fn check_or_write(file: &Path, committed: &str, expected: &str) {
    if env::var_os("CORINTH_WRITE_GENERATED").is_some() {
        fs::write(file, expected).expect("the source tree is writable");
    } else {
        assert!(
            committed == expected,
            "{} is out of date; run: CORINTH_WRITE_GENERATED=1 cargo test -p corinth-api --test committed",
            file.display()
        );
    }
}
