//! Reads the tree into the raw structs, without stopping.
//!
//! An ordinary deserializer ends at the first unknown key or wrong type. This one notes what is wrong and goes on: an
//! unknown key is left out, a list where a mapping belongs becomes an empty mapping. It works for types built from
//! [`super::field`]'s parts, structs of which every key may be absent, `Option` and `Vec`; nothing else is needed.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::document::{Key, Kind, Node};
use super::field::{At, FIELD, MAPPING, ONE_OF, shape};
use super::mistake::{Findings, MistakeCode, Position, nearest, quote};

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    node: &'a Node,
    path: Path<'a>,
    found: &'a RefCell<Findings>,
}

/// Where a node hangs in the tree, for messages: `imports[0].from`.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Item(&'a Self, usize),
}

/// Says that a type asked for what no configuration holds; a mistake of ours, never of the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(String);

/// Reads the whole tree as `T`; everything strange goes to `found`. `None` if it is no mapping at all.
pub(super) fn document<T: de::DeserializeOwned>(
    root: &Node,
    found: &mut Findings,
) -> Option<At<T>> {
    let at = match root.kind {
        Kind::Null => Position::new(1, 1),
        Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => root.at,
    };
    let cell = RefCell::new(std::mem::take(found));
    let reader = Reader {
        node: root,
        path: Path::Root,
        found: &cell,
    };
    let read = match root.kind {
        Kind::Scalar(_) | Kind::List(_) => {
            reader.wrong_shape("a mapping of keys such as `cluster:`");
            None
        }
        Kind::Null | Kind::Map(_) => Some(T::deserialize(reader)),
    };
    *found = cell.into_inner();
    read?
        .map(|value| At { at, value })
        .map_err(|Unreadable(reason)| {
            found.add(
                at,
                MistakeCode::Syntax,
                reason,
                "please report this file to the authors of Corinth",
            );
        })
        .ok()
}

impl<'a> Reader<'a> {
    fn wrong_shape(&self, expected: &str) {
        let message = match self.path {
            Path::Root => expected.to_owned(),
            Path::Key(..) | Path::Item(..) => format!("{expected} in `{}`", self.path),
        };
        let wrong = shape(&message, self.node.kind.describe());
        self.found.borrow_mut().wrong(self.node.at, wrong);
    }

    fn unknown(&self, key: &Key, known: &[&str]) {
        let message = match self.path {
            Path::Root => format!("unknown key {}", quote(&key.text)),
            Path::Key(..) | Path::Item(..) => {
                format!("unknown key {} in `{}`", quote(&key.text), self.path)
            }
        };
        let hint = nearest(&key.text, known.iter().copied()).map_or_else(
            || format!("known here are {}", known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        self.found
            .borrow_mut()
            .add(key.at, MistakeCode::UnknownKey, message, hint);
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
        Err(de::Error::custom(
            "a configuration is read as structs, lists and fields only",
        ))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        match name {
            FIELD => visitor.visit_seq(Parts {
                reader: self,
                rest: &[Part::Line, Part::Column, Part::Text, Part::Instead],
            }),
            MAPPING => visitor.visit_seq(Parts {
                reader: self,
                rest: &[Part::Line, Part::Column, Part::Node],
            }),
            ONE_OF => match self.node.kind {
                Kind::Map(_) => visitor.visit_newtype_struct(self),
                Kind::Null | Kind::Scalar(_) | Kind::List(_) => visitor.visit_some(self),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match &self.node.kind {
            Kind::List(items) => visitor.visit_seq(Items {
                reader: self,
                rest: items,
                index: 0,
            }),
            Kind::Null => visitor.visit_seq(empty()),
            Kind::Scalar(_) | Kind::Map(_) => {
                self.wrong_shape("a list");
                visitor.visit_seq(empty())
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let entries = match &self.node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) => &[],
        };
        visitor.visit_map(Entries {
            reader: self,
            known,
            rest: entries,
            value: None,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map enum identifier ignored_any
    }
}

fn empty<'de>() -> impl SeqAccess<'de, Error = Unreadable> {
    SeqDeserializer::<std::iter::Empty<u8>, Unreadable>::new(std::iter::empty())
}

/// The elements of a list.
struct Items<'a> {
    reader: Reader<'a>,
    rest: &'a [Node],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unreadable> {
        let Some((node, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        let path = Path::Item(&self.reader.path, self.index);
        self.rest = rest;
        self.index += 1;
        seed.deserialize(Reader {
            node,
            path,
            found: self.reader.found,
        })
        .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The entries of a mapping that the struct knows.
struct Entries<'a> {
    reader: Reader<'a>,
    known: &'static [&'static str],
    rest: &'a [(Key, Node)],
    value: Option<&'a (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unreadable> {
        while let Some((entry, rest)) = self.rest.split_first() {
            self.rest = rest;
            if self.known.contains(&entry.0.text.as_str()) {
                self.value = Some(entry);
                return seed
                    .deserialize(entry.0.text.as_str().into_deserializer())
                    .map(Some);
            }
            self.reader.unknown(&entry.0, self.known);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Unreadable> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader {
            node,
            path: Path::Key(&self.reader.path, &key.text),
            found: self.reader.found,
        })
    }
}

/// What a [`super::field::Field`] or [`super::field::Mapping`] is told about its node.
struct Parts<'a> {
    reader: Reader<'a>,
    rest: &'static [Part],
}

enum Part {
    Line,
    Column,
    Text,
    Instead,
    Node,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unreadable> {
        let Some((part, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        self.rest = rest;
        let Position { line, column } = self.reader.node.at;
        match part {
            Part::Line => seed.deserialize(line.into_deserializer()),
            Part::Column => seed.deserialize(column.into_deserializer()),
            Part::Text => match &self.reader.node.kind {
                Kind::Scalar(text) => seed.deserialize(Scalar(Some(text))),
                Kind::Null | Kind::List(_) | Kind::Map(_) => seed.deserialize(Scalar(None)),
            },
            Part::Instead => seed.deserialize(self.reader.node.kind.describe().into_deserializer()),
            Part::Node => seed.deserialize(MaybeMapping(self.reader)),
        }
        .map(Some)
    }
}

/// A text that may be absent.
struct Scalar<'a>(Option<&'a str>);

impl<'de> Deserializer<'de> for Scalar<'_> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.0 {
            Some(text) => {
                visitor.visit_some(IntoDeserializer::<Unreadable>::into_deserializer(text))
            }
            None => visitor.visit_none(),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A node that should be a mapping; anything else is reported and is nothing.
struct MaybeMapping<'a>(Reader<'a>);

impl<'de> Deserializer<'de> for MaybeMapping<'_> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if matches!(self.0.node.kind, Kind::Map(_)) {
            return visitor.visit_some(self.0);
        }
        self.0.wrong_shape("a mapping");
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
