//! What is wrong with the file of declarations, where, and what to do about it.
//!
//! Reading goes on after a mistake, so that all of them are told together.

use std::fmt;

pub use corinth_daemon::yaml::Position;

/// Longest part of a written value that is repeated, in characters.
const QUOTE_MAX_CHARS: usize = 60;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where the offending key or value begins.
    pub at: Position,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Mistakes as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Mistake>);

impl Findings {
    pub(super) fn add(
        &mut self,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Mistake {
            at,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// A written value as it may be repeated: escaped, shortened, and never a certificate.
pub(super) fn quote(text: &str) -> String {
    if text.contains("-----BEGIN") {
        return "(PEM text, not repeated here)".to_owned();
    }
    let mut quoted = String::from("`");
    let mut rest = text.chars();
    for c in rest.by_ref().take(QUOTE_MAX_CHARS) {
        quoted.extend(c.escape_debug());
    }
    if rest.next().is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// `3:5 unknown key ...`, then the hint on a line of its own.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line > 0 {
            write!(f, "{}:{} ", self.at.line, self.at.column)?;
        }
        write!(f, "{}\n  hint: {}", self.message, self.hint)
    }
}
