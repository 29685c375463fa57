//! What is wrong with a configuration, where, and what to do about it.
//!
//! A reader of a refused file wants every mistake at once, each with its line. So nothing in this tree returns at the
//! first problem: every step adds to [`Findings`] and goes on with a stand-in value, and [`Findings::finish`] turns a
//! non-empty collection into [`Mistakes`]. A stand-in never leaves the tree, because then there is a mistake to report.

use std::fmt;
use std::path::{Path, PathBuf};

pub use corinth_daemon::yaml::Position;
use serde::Serialize;

/// Longest part of a written value that is repeated in a message, in characters.
const QUOTE_MAX_CHARS: usize = 60;

/// One mistake: its stable code, where it stands, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mistake {
    /// Where the offending key or value begins.
    pub at: Position,
    /// Which rule was broken.
    pub code: MistakeCode,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// All mistakes of one configuration, in the order of the file; never empty.
///
/// `Display` prints one block of two lines for each: `config.yaml:12:5 CRN904 unknown key ...` and `  hint: ...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistakes {
    origin: PathBuf,
    list: Vec<Mistake>,
}

/// Collects mistakes while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Mistake>,
}

/// Why one written value cannot be used; becomes a [`Mistake`] where the position is known.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) code: MistakeCode,
    pub(super) message: String,
    pub(super) hint: String,
}

macro_rules! mistake_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $summary:literal;)+) => {
        /// Every way in which a configuration can be wrong. Codes are stable and never used again for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MistakeCode { $($(#[$doc])* #[doc = $summary] $name,)+ }

        impl MistakeCode {
            /// The stable code, `CRN901` to `CRN999`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// What the code means, in one sentence.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$name => $summary,)+ }
            }

            /// The code that is written `code`.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::all().find(|candidate| candidate.code() == code)
            }

            /// Every code, in ascending order.
            pub fn all() -> impl Iterator<Item = Self> {
                [$(Self::$name),+].into_iter()
            }
        }
    };
}

mistake_codes! {
    Syntax = "CRN901", "the file is not readable as YAML";
    TooLarge = "CRN902", "the file is larger than a configuration may be";
    TooComplex = "CRN903", "the file nests or repeats itself more than a configuration may";
    UnknownKey = "CRN904", "a key that does not exist";
    DuplicateKey = "CRN905", "the same key twice in one mapping";
    MissingKey = "CRN906", "a key that must be there is missing";
    WrongShape = "CRN907", "a list, a mapping or a single value where another of them belongs";
    InvalidName = "CRN908", "a name that breaks the rules for names";
    InvalidNumber = "CRN909", "not a whole number";
    OutOfRange = "CRN910", "a value outside its limits";
    MissingUnit = "CRN911", "a bare number where a unit is needed";
    InvalidDuration = "CRN912", "not a duration such as 250ms, 5s, 2m or 12h";
    InvalidSize = "CRN913", "not a size such as 4KiB, 64KiB or 16MiB";
    InvalidAddress = "CRN914", "not an address of the form needed here";
    InvalidChoice = "CRN915", "not one of the words allowed here";
    InvalidIdentity = "CRN916", "not a SPIFFE ID or not a trust domain";
    InvalidNetwork = "CRN917", "not a network such as 10.0.0.0/8";
    InvalidPath = "CRN918", "not a path that can be used";
    ConflictingKeys = "CRN919", "keys that exclude or need one another";
    DuplicatePeer = "CRN920", "two peers with the same name";
    PeerIsSelf = "CRN921", "a peer that carries the name or trust domain of this cluster";
    DuplicateTrustDomain = "CRN922", "two peers with the same trust domain";
    ExportToUnknownPeer = "CRN923", "an export to a peer that is not configured";
    ImportFromUnknownPeer = "CRN924", "an import from a peer that is not configured";
    DuplicateImportPort = "CRN925", "two imports with the same import port";
    ListenerConflict = "CRN926", "two listeners on the same address and port";
    EndpointRefused = "CRN927", "an endpoint address that may not be an endpoint";
    EndpointIsListener = "CRN928", "an endpoint that is one of this gateway's own listeners";
    NotLoopback = "CRN929", "a listener that may only be on a loopback address";
    SlotOutOfRange = "CRN930", "a slot that does not exist among the slots of this cluster";
    DuplicateExport = "CRN931", "the same service port exported twice";
    DuplicateImport = "CRN932", "the same service port imported twice";
    DuplicateName = "CRN933", "two services that claim the same name";
    DuplicateItem = "CRN934", "the same item twice in one list";
    ExportToNobody = "CRN935", "an export that nobody can reach";
    ImportFromNobody = "CRN936", "an import that nobody provides";
    NoImportPort = "CRN937", "no import port is left";
    NotCarried = "CRN938", "server names or direct clients on a service port that is not TCP";
    UnreadableFile = "CRN940", "a file that the configuration names cannot be read";
    EmptyFile = "CRN941", "a file that the configuration names is empty";
    InvalidCertificates = "CRN942", "no usable certificate where certificates belong";
    MisplacedKey = "CRN943", "a private key where only certificates belong";
    InvalidKey = "CRN944", "no private key where one belongs";
}

impl fmt::Display for MistakeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for MistakeCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl Mistakes {
    /// One mistake that concerns the whole file.
    pub(super) fn one(
        code: MistakeCode,
        message: impl Into<String>,
        hint: impl Into<String>,
        origin: &Path,
    ) -> Self {
        let mut found = Findings::default();
        found.add(Position::default(), code, message, hint);
        found.into_mistakes(origin)
    }

    /// The mistakes, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }

    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The file they were found in.
    pub fn origin(&self) -> &Path {
        &self.origin
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.origin.display())?;
            if mistake.at.line > 0 {
                write!(f, ":{}", mistake.at)?;
            }
            write!(
                f,
                " {} {}\n  hint: {}",
                mistake.code, mistake.message, mistake.hint
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl Findings {
    pub(super) fn add(
        &mut self,
        at: Position,
        code: MistakeCode,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.list.push(Mistake {
            at,
            code,
            message: message.into(),
            hint: hint.into(),
        });
    }

    pub(super) fn wrong(&mut self, at: Position, wrong: Wrong) {
        self.add(at, wrong.code, wrong.message, wrong.hint);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `value` if nothing was found, else everything that was, in the order of the file.
    pub(super) fn finish<T>(self, value: Option<T>, origin: &Path) -> Result<T, Mistakes> {
        debug_assert!(
            value.is_some() || !self.list.is_empty(),
            "a value is missing without a mistake that says why"
        );
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            Some(_) | None => Err(self.into_mistakes(origin)),
        }
    }

    fn into_mistakes(mut self, origin: &Path) -> Mistakes {
        self.list.sort_by_key(|mistake| (mistake.at, mistake.code));
        self.list.dedup();
        Mistakes {
            origin: origin.to_owned(),
            list: self.list,
        }
    }
}

impl Wrong {
    pub(super) fn new(
        code: MistakeCode,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// `c` as it may be printed on a terminal: whatever is not plainly visible is escaped.
pub(super) fn escaped(c: char) -> impl Iterator<Item = char> {
    let is_quote = matches!(c, '\'' | '"');
    let plain = is_quote.then_some(c);
    let escaped = (!is_quote).then(|| c.escape_debug());
    plain.into_iter().chain(escaped.into_iter().flatten())
}

/// A written value as it may be repeated in a message: escaped, shortened, and never a key or certificate.
pub(super) fn quote(text: &str) -> String {
    if text.contains("-----BEGIN") {
        return "(PEM text, not repeated here)".to_owned();
    }
    let mut quoted = String::from("`");
    let mut rest = text.chars();
    for c in rest.by_ref().take(QUOTE_MAX_CHARS) {
        quoted.extend(escaped(c));
    }
    if rest.next().is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// The one of `known` that `written` was most likely meant to be, if any is near enough to be worth asking.
pub(super) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let far = (written.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| {
            (
                distance(&written, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits from `a` to `b`, where swapping two neighbours counts as one (optimal string alignment distance).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(QUOTE_MAX_CHARS).collect();
    let b: Vec<char> = b.chars().take(QUOTE_MAX_CHARS).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_are_distinct() {
        let codes: Vec<_> = MistakeCode::all().map(MistakeCode::code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b));
        assert!(
            codes
                .iter()
                .all(|code| code.starts_with("CRN9") && code.len() == 6)
        );
    }

    #[test]
    fn nearest_finds_swaps_and_refuses_strangers() {
        let keys = ["importPort", "port", "protocol"];
        assert_eq!(nearest("improtPort", keys), Some("importPort"));
        assert_eq!(nearest("importport", keys), Some("importPort"));
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("banana", keys), None);
    }

    #[test]
    fn quote_escapes_shortens_and_hides_keys() {
        assert_eq!(quote("a\nb"), "`a\\nb`");
        assert!(quote(&"x".repeat(100)).chars().count() < 70);
        assert!(!quote("-----BEGIN PRIVATE KEY-----\nabc").contains("abc"));
    }
}
