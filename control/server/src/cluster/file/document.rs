//! The YAML text as a tree in which every node knows where it stands.
//!
//! Scalars are kept as they were written: what `007` or `off` means is up to who reads them. Size, depth and repetition
//! are bounded before anything is built.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

use super::mistake::{Findings, Position, quote};

/// Largest file, in bytes: room for thousands of services.
pub(super) const TEXT_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting; our own keys need seven.
const DEPTH_MAX: usize = 16;
/// Most nodes that aliases may repeat, over the whole file.
const ALIAS_NODES_MAX: usize = 50_000;

/// One node and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A single value as written, without its quotes.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

impl Kind {
    /// What it is, for a message that begins with "expected ..., found".
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

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
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(node) => Some(node),
        Err(error) => {
            report(&error, found);
            // The other mistakes are worth knowing too: read on as if the second key were not there.
            let is_duplicate = matches!(root(&error), Error::DuplicateMappingKey { .. });
            is_duplicate
                .then(|| read(text, DuplicateKeyPolicy::FirstWins).ok())
                .flatten()
        }
    }
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Node, Error> {
    let loose: Spanned<Loose> = serde_saphyr::from_str_with_options(text, options(duplicate_keys))?;
    Ok(node(loose, text))
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: 2 * DEPTH_MAX,
            max_documents: 2,
            max_nodes: TEXT_MAX_BYTES,
            max_events: TEXT_MAX_BYTES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: ALIAS_NODES_MAX,
            max_recorded_anchor_bytes: TEXT_MAX_BYTES,
            max_total_scalar_bytes: TEXT_MAX_BYTES,
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

fn report(error: &Error, found: &mut Findings) {
    let at = error.location().map(position).unwrap_or_default();
    let error = root(error);
    if let Error::DuplicateMappingKey { key, .. } = error {
        let key = key.as_deref().map_or_else(|| "a key".to_owned(), quote);
        let message = format!("{key} stands twice in the same mapping");
        found.add(at, message, "keep one of the two");
        return;
    }
    if let Error::MultipleDocuments { .. } = error {
        let hint = "remove the `---` and what follows";
        found.add(at, "a second YAML document begins here", hint);
        return;
    }
    // The text may go on with the place, which the mistake carries already.
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let reason = line.split(" at line ").next().unwrap_or(line);
    let reason: String = reason
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    let message = format!("not readable as YAML: {reason}");
    let hint = "check indentation, quotes and brackets here and on the line above; write it plainly, without deep \
                nesting and many aliases";
    found.add(at, message, hint);
}

fn position(location: Location) -> Position {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: number(location.line()),
        column: number(location.column()),
    }
}

/// A node as serde hands it over, before numbers and booleans are turned back into what was written.
enum Loose {
    Null,
    Text(String),
    /// A scalar that was resolved to a number or a boolean; its text is looked up in the source, this is the fallback.
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
        Loose::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Loose>)| {
                let at = position(place(key.referenced, key.defined));
                let text_of = key.value;
                (Key { at, text: text_of }, node(value, text))
            };
            Kind::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node {
        at: position(place(loose.referenced, loose.defined)),
        kind,
    }
}

/// Where a value is used; where it was defined if the former is not known.
fn place(referenced: Location, defined: Location) -> Location {
    if referenced == Location::UNKNOWN {
        return defined;
    }
    referenced
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
