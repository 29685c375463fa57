//! YAML text as a tree in which every node knows where it stands, so that whoever reads it can tell mistakes with their
//! place.
//!
//! The tree keeps scalars as they were written: `007`, `0x10` and `off` mean what the field that reads them says, not
//! what a YAML version would make of them. Depth and repetition are bounded before anything is built from it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

/// Deepest nesting; no file of ours needs more than seven.
pub const DEPTH_MAX: usize = 16;
/// Most nodes that aliases may repeat, over the whole file.
const ALIAS_NODES_MAX: usize = 50_000;
/// Longest part of what the library says that is repeated, in characters.
const REASON_MAX_CHARS: usize = 200;

/// A place in a file; both numbers count from 1, and 0 means that the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One node and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it holds.
    pub kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A single value as written, without its quotes.
    Scalar(String),
    /// Nodes in order.
    List(Vec<Node>),
    /// Nodes by key, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub at: Position,
    /// The key.
    pub text: String,
}

/// Why a text is no tree, or only a part of it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The same key twice in one mapping; its name if it is known.
    DuplicateKey(Option<String>),
    /// A second document begins.
    SecondDocument,
    /// It nests deeper than [`DEPTH_MAX`], or repeats too much by aliases.
    TooComplex,
    /// It is no YAML, in words that come from the library; control characters are not escaped.
    Syntax(String),
}

impl Position {
    /// The place `line`:`column`, both from 1.
    #[must_use]
    pub const fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Kind {
    /// What it is, for a message that begins with "expected ..., found".
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads `text`, of which the caller has seen that it has at most `max_bytes`, into a tree. With a key that stands twice
/// there is a tree as well, as if the second one were not there: the other mistakes are worth knowing too.
#[must_use]
pub fn read(text: &str, max_bytes: usize) -> (Option<Node>, Option<(Position, Fault)>) {
    let error = match tree(text, max_bytes, DuplicateKeyPolicy::Error) {
        Ok(node) => return (Some(node), None),
        Err(error) => error,
    };
    let at = error.location().map(position).unwrap_or_default();
    let fault = fault(root(&error));
    let node = match fault {
        Fault::DuplicateKey(_) => tree(text, max_bytes, DuplicateKeyPolicy::FirstWins).ok(),
        Fault::SecondDocument | Fault::TooComplex | Fault::Syntax(_) => None,
    };
    (node, Some((at, fault)))
}

fn tree(text: &str, max_bytes: usize, duplicate_keys: DuplicateKeyPolicy) -> Result<Node, Error> {
    let options = options(max_bytes, duplicate_keys);
    let loose: Spanned<Loose> = serde_saphyr::from_str_with_options(text, options)?;
    Ok(node(loose, text))
}

fn options(max_bytes: usize, duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: 2 * DEPTH_MAX,
            max_documents: 2,
            max_nodes: max_bytes,
            max_events: max_bytes,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: ALIAS_NODES_MAX,
            max_recorded_anchor_bytes: max_bytes,
            max_total_scalar_bytes: max_bytes,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_NODES_MAX,
        },
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

/// What went wrong, out of what was wrapped around it.
fn root(mut error: &Error) -> &Error {
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    error
}

fn fault(error: &Error) -> Fault {
    if let Error::DuplicateMappingKey { key, .. } = error {
        return Fault::DuplicateKey(key.clone());
    }
    if let Error::MultipleDocuments { .. } = error {
        return Fault::SecondDocument;
    }
    if is_excess(error) {
        return Fault::TooComplex;
    }
    // The text may go on with the place, which is told apart.
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let reason = line.split(" at line ").next().unwrap_or(line);
    Fault::Syntax(reason.chars().take(REASON_MAX_CHARS).collect())
}

fn is_excess(error: &Error) -> bool {
    let is_counted = matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    );
    // The scanner below has a limit of its own, which comes as text only.
    is_counted || error.to_string().contains("recursion limit exceeded")
}

fn position(location: Location) -> Position {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position::new(number(location.line()), number(location.column()))
}

/// A node as serde hands it over, before numbers and booleans are turned back into what was written.
enum Loose {
    Null,
    Text(String),
    /// A scalar that serde resolved to a number or a boolean; its text is looked up in the source, this is the fallback.
    Resolved(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

fn node(loose: Spanned<Loose>, text: &str) -> Node {
    let kind = match loose.value {
        Loose::Null => Kind::Null,
        Loose::Text(value) => Kind::Scalar(value),
        Loose::Resolved(value) => {
            Kind::Scalar(written(loose.defined, text).map_or(value, str::to_owned))
        }
        Loose::List(items) => Kind::List(items.into_iter().map(|item| node(item, text)).collect()),
        Loose::Map(entries) => Kind::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = position(place(key.referenced, key.defined));
                    (
                        Key {
                            at,
                            text: key.value,
                        },
                        node(value, text),
                    )
                })
                .collect(),
        ),
    };
    Node {
        at: position(place(loose.referenced, loose.defined)),
        kind,
    }
}

/// Where a value is used; where it was defined if the former is not known.
fn place(referenced: Location, defined: Location) -> Location {
    if referenced == Location::UNKNOWN {
        defined
    } else {
        referenced
    }
}

/// The source text of a plain scalar.
fn written(location: Location, text: &str) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let len = usize::try_from(location.span().byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(len)?)?.trim();
    let is_plain = !written.is_empty() && !written.contains(['\n', ' ', '&', '!', '*', '#']);
    is_plain.then_some(written)
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Resolved(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Resolved(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Resolved(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose::Resolved(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Loose, E> {
        Ok(Loose::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Loose::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Loose::Map(entries))
    }
}
