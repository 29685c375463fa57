//! The text of the file as a tree, and what is wrong with it as YAML.

use corinth_daemon::yaml::{self, Fault};
pub(super) use corinth_daemon::yaml::{Kind, Node};

use super::mistake::{Findings, Position, quote};

/// Largest file, in bytes: room for thousands of services.
pub(super) const TEXT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Reads `text` into a tree. `None` if there is nothing to go on with; `found` then says why.
pub(super) fn parse(text: &str, found: &mut Findings) -> Option<Node> {
    if text.len() > TEXT_MAX_BYTES {
        let message = format!(
            "the file has {} bytes, more than {TEXT_MAX_BYTES}",
            text.len()
        );
        found.add(Position::default(), message, "declare less in one file");
        return None;
    }
    let (root, fault) = yaml::read(text, TEXT_MAX_BYTES);
    if let Some((at, fault)) = fault {
        report(at, fault, found);
    }
    root
}

fn report(at: Position, fault: Fault, found: &mut Findings) {
    let (message, hint) = match fault {
        Fault::DuplicateKey(key) => {
            let key = key.as_deref().map_or_else(|| "a key".to_owned(), quote);
            let message = format!("{key} stands twice in the same mapping");
            (message, "keep one of the two")
        }
        Fault::SecondDocument => (
            "a second YAML document begins here".to_owned(),
            "remove the `---` and what follows",
        ),
        Fault::TooComplex => (
            "the file nests deeper or repeats more by aliases than it may".to_owned(),
            "write it plainly, without deep nesting and many aliases",
        ),
        Fault::Syntax(reason) => {
            let reason: String = reason.chars().flat_map(char::escape_debug).collect();
            (
                format!("not readable as YAML: {reason}"),
                "check indentation, quotes and brackets here and on the line above",
            )
        }
    };
    found.add(at, message, hint);
}
