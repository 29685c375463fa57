//! The YAML text as a tree in which every node knows where it stands.
//!
//! The tree keeps scalars as they were written: `007`, `0x10` and `off` mean what the field that reads them says, not
//! what a YAML version would make of them. Size, depth and repetition are bounded before anything is built from it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

use super::mistake::{Findings, MistakeCode, Position, escaped, quote};

/// Largest configuration, in bytes: room for the 8,000 imports a cluster may have, and then some.
pub(super) const TEXT_MAX_BYTES: usize = 1024 * 1024;
/// Deepest nesting; our own keys need six.
const DEPTH_MAX: usize = 16;
/// Most nodes that aliases may repeat, over the whole file.
const ALIAS_NODES_MAX: usize = 50_000;

/// One node and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A single value as written, without its quotes.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        found.add(
            Position::default(),
            MistakeCode::TooLarge,
            format!(
                "the file has {} bytes, more than {TEXT_MAX_BYTES}",
                text.len()
            ),
            "split the node, or move certificates out of `bundlePem` into files named by `bundle`",
        );
        return None;
    }
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(node) => Some(node),
        Err(error) if is_duplicate(&error) => {
            report(&error, found);
            // The other mistakes are worth knowing too: read on as if the second key were not there.
            read(text, DuplicateKeyPolicy::FirstWins).ok()
        }
        Err(error) => {
            report(&error, found);
            None
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

fn is_duplicate(error: &Error) -> bool {
    matches!(root(error), Error::DuplicateMappingKey { .. })
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
        found.add(
            at,
            MistakeCode::DuplicateKey,
            message,
            "keep one of the two",
        );
    } else if let Error::MultipleDocuments { .. } = error {
        let hint = "one file configures one node: remove the `---` and what follows";
        found.add(
            at,
            MistakeCode::Syntax,
            "a second YAML document begins here",
            hint,
        );
    } else if is_excess(error) {
        let message =
            format!("the file nests deeper than {DEPTH_MAX} or repeats too much by aliases");
        let hint = "write it plainly: a configuration needs few anchors and no deep nesting";
        found.add(at, MistakeCode::TooComplex, message, hint);
    } else {
        let message = format!("not readable as YAML: {}", first_line(&error.to_string()));
        let hint = "check indentation, quotes and brackets here and on the line above; never indent with tabs";
        found.add(at, MistakeCode::Syntax, message, hint);
    }
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

/// The reason alone, without the place that the mistake already carries.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or(line);
    line.chars().take(200).flat_map(escaped).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut found = Findings::default();
        let node = parse(text, &mut found);
        assert!(found.is_empty(), "{found:?}");
        node.expect("nothing was found wrong")
    }

    fn codes(text: &str) -> Vec<&'static str> {
        let mut found = Findings::default();
        parse(text, &mut found);
        let mistakes = found.finish::<()>(None, "c".as_ref()).unwrap_err();
        mistakes.iter().map(|mistake| mistake.code.code()).collect()
    }

    fn entry<'a>(node: &'a Node, key: &str) -> (&'a Key, &'a Node) {
        let Kind::Map(entries) = &node.kind else {
            panic!("not a mapping: {node:?}");
        };
        let (key, value) = entries
            .iter()
            .find(|(k, _)| k.text == key)
            .expect("the key is there");
        (key, value)
    }

    #[test]
    fn scalars_stay_as_written_and_know_their_place() {
        let root = tree(
            "a: 007\nb: 0x10 # c\nc: off\nd: [1.50, \"5\", ~]\ne: &x 1e3\nf: *x\nü: 1_000\ng: TRUE\n",
        );
        let text = |key| match &entry(&root, key).1.kind {
            Kind::Scalar(text) => text.clone(),
            other @ (Kind::Null | Kind::List(_) | Kind::Map(_)) => panic!("{other:?}"),
        };
        assert_eq!(text("a"), "007");
        assert_eq!(text("b"), "0x10");
        assert_eq!(text("c"), "off");
        assert_eq!(text("e"), "1e3");
        assert_eq!(text("f"), "1e3");
        assert_eq!(text("ü"), "1_000");
        assert_eq!(text("g"), "TRUE");
        let (key, value) = entry(&root, "b");
        assert_eq!(
            (key.at, value.at),
            (Position::new(2, 1), Position::new(2, 4))
        );
        assert_eq!(entry(&root, "f").1.at, Position::new(6, 4));
        let Kind::List(items) = &entry(&root, "d").1.kind else {
            panic!("not a list");
        };
        let scalar = |text: &str| Kind::Scalar(text.to_owned());
        let kinds: Vec<_> = items.iter().map(|item| item.kind.clone()).collect();
        assert_eq!(kinds, [scalar("1.50"), scalar("5"), Kind::Null]);
    }

    #[test]
    fn merge_keys_and_aliases_work() {
        let root = tree("base: &b {x: 1}\nuse:\n  <<: *b\n  y: 2\n");
        assert!(matches!(
            entry(entry(&root, "use").1, "x").1.kind,
            Kind::Scalar(_)
        ));
    }

    #[test]
    fn an_empty_file_is_nothing() {
        assert_eq!(tree("# only a comment\n").kind, Kind::Null);
        assert_eq!(tree("").kind, Kind::Null);
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
            let items = vec![format!("*{from}"); 10].join(",");
            bomb.push_str(&format!("{to}: &{to} [{items}]\n"));
        }
        assert_eq!(codes(&bomb), ["CRN903"]);
        assert_eq!(codes(&"[".repeat(100_000)), ["CRN903"]);
        assert_eq!(
            codes(&format!("a: {}{}", "[".repeat(20), "]".repeat(20))),
            ["CRN903"]
        );
        assert_eq!(codes(&"a\n".repeat(TEXT_MAX_BYTES)), ["CRN902"]);
        assert_eq!(codes("a: &a [*a]\n"), ["CRN901"]);
    }

    #[test]
    fn broken_text_has_a_line() {
        for text in [
            "a: 1\nb: [1, 2\n",
            "a: 1\n\tb: 2\n",
            "a: 1\n--- \nb: 2\n",
            "a: \"x\n",
            "a: 1\na: 2\n",
        ] {
            let mut found = Findings::default();
            parse(text, &mut found);
            let mistakes = found.finish::<()>(None, "c".as_ref()).unwrap_err();
            assert!(mistakes.iter().all(|m| m.at.line >= 1), "{mistakes}");
        }
    }
}
