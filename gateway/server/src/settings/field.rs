//! The parts of which the raw configuration is made.
//!
//! A [`Field`] is one written value: it is parsed where it is read, keeps its place, and holds either the value or why
//! there is none. A [`Mapping`] is a mapping with its place. [`OneOf`] is a list item that may be written short or long.
//! All of them deserialize without ever failing, so that one mistake never hides the next.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::mistake::{Findings, MistakeCode, Position, Wrong};

/// Names by which the parts ask [`super::reader::Reader`] for more than serde's data model has.
pub(super) const FIELD: &str = "$corinth::field";
pub(super) const MAPPING: &str = "$corinth::mapping";
pub(super) const ONE_OF: &str = "$corinth::one-of";

/// A value that is written as one scalar.
pub(super) trait Value: Sized {
    /// What belongs here, with an example, as in "expected a duration such as `5s`".
    const EXPECTED: &'static str;

    /// Parses the text as written.
    fn read(text: &str) -> Result<Self, Wrong>;

    /// What an editor may check while the user types.
    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// One scalar: the value, or why it is not one, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) at: Position,
    pub(super) value: Result<T, Wrong>,
}

/// A mapping and where it begins; nothing if something else stood there, which the reader reports.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping<T> {
    at: Position,
    value: Option<T>,
}

/// Something good and where it begins.
#[derive(Clone, Debug, Default)]
pub(super) struct At<T> {
    pub(super) at: Position,
    pub(super) value: T,
}

/// An item written as one scalar or, with more to say, as a mapping.
#[derive(Clone, Debug)]
pub(super) enum OneOf<S, L> {
    Short(Field<S>),
    Long(Mapping<L>),
}

impl<T> Field<T> {
    /// The value; a wrong one is reported.
    pub(super) fn take(self, found: &mut Findings) -> Option<T> {
        self.value.map_err(|wrong| found.wrong(self.at, wrong)).ok()
    }

    /// The value with its place.
    pub(super) fn placed(self, found: &mut Findings) -> Option<At<T>> {
        let at = self.at;
        self.take(found).map(|value| At { at, value })
    }
}

impl<T> Mapping<T> {
    /// The mapping, if it was one.
    pub(super) fn take(self) -> Option<At<T>> {
        let at = self.at;
        self.value.map(|value| At { at, value })
    }
}

/// Every mapping of a list, in order.
pub(super) fn mappings<T>(list: Option<Vec<Mapping<T>>>) -> Vec<At<T>> {
    list.into_iter()
        .flatten()
        .filter_map(Mapping::take)
        .collect()
}

/// The mapping of a section; an empty one if it was not written.
pub(super) fn section<T: Default>(section: Option<Mapping<T>>) -> At<T> {
    section.and_then(Mapping::take).unwrap_or_default()
}

/// Reading a key that may be absent.
pub(super) trait Optional<T> {
    /// The value, or `default` where there is none; a wrong one is reported and replaced by `default` too.
    fn otherwise(self, default: T, found: &mut Findings) -> T;
    /// The value if there is one; a wrong one is reported.
    fn optional(self, found: &mut Findings) -> Option<T>;
    /// The value; its absence from the mapping that begins at `of` is reported.
    fn required(self, key: &str, of: Position, found: &mut Findings) -> Option<At<T>>;
}

impl<T: Value> Optional<T> for Option<Field<T>> {
    fn otherwise(self, default: T, found: &mut Findings) -> T {
        self.optional(found).unwrap_or(default)
    }

    fn optional(self, found: &mut Findings) -> Option<T> {
        self.and_then(|field| field.take(found))
    }

    fn required(self, key: &str, of: Position, found: &mut Findings) -> Option<At<T>> {
        if self.is_none() {
            missing(key, T::EXPECTED, of, found);
        }
        self.and_then(|field| field.placed(found))
    }
}

/// Reports that `key` is missing in the mapping that begins at `of`.
pub(super) fn missing(key: &str, expected: &str, of: Position, found: &mut Findings) {
    found.add(
        of,
        MistakeCode::MissingKey,
        format!("`{key}` is missing here"),
        format!("add `{key}:` with {expected}"),
    );
}

/// Reports that the list `key` has no items in the mapping that begins at `of`.
pub(super) fn lacking(key: &str, expected: &str, of: Position, found: &mut Findings) {
    found.add(
        of,
        MistakeCode::MissingKey,
        format!("`{key}` is missing or empty here"),
        format!("add `{key}:` with {expected}"),
    );
}

/// Every good item of a list, in order; the wrong ones are reported.
pub(super) fn items<T>(fields: Vec<Field<T>>, found: &mut Findings) -> Vec<At<T>> {
    fields
        .into_iter()
        .filter_map(|field| field.placed(found))
        .collect()
}

impl<'de, T: Value> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor<T>(PhantomData<T>);

        impl<'de, T: Value> Visitor<'de> for FieldVisitor<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            /// Line, column, the text if it is a scalar, and else what it is instead.
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Field<T>, A::Error> {
                let at = position(&mut parts)?;
                let text: Option<String> = next(&mut parts)?;
                let instead: String = next(&mut parts)?;
                let value =
                    text.map_or_else(|| Err(shape(T::EXPECTED, &instead)), |text| T::read(&text));
                Ok(Field { at, value })
            }
        }

        deserializer.deserialize_newtype_struct(FIELD, FieldVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Mapping<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MappingVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for MappingVisitor<T> {
            type Value = Mapping<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            /// Line, column and, if it is a mapping, the node itself.
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Mapping<T>, A::Error> {
                let at = position(&mut parts)?;
                let value = next(&mut parts)?;
                Ok(Mapping { at, value })
            }
        }

        deserializer.deserialize_newtype_struct(MAPPING, MappingVisitor(PhantomData))
    }
}

impl<'de, S: Value, L: Deserialize<'de>> Deserialize<'de> for OneOf<S, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOfVisitor<S, L>(PhantomData<(S, L)>);

        impl<'de, S: Value, L: Deserialize<'de>> Visitor<'de> for OneOfVisitor<S, L> {
            type Value = OneOf<S, L>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} or a mapping", S::EXPECTED)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                mapping: D,
            ) -> Result<Self::Value, D::Error> {
                Mapping::deserialize(mapping).map(OneOf::Long)
            }

            fn visit_some<D: Deserializer<'de>>(self, other: D) -> Result<Self::Value, D::Error> {
                Field::deserialize(other).map(OneOf::Short)
            }
        }

        deserializer.deserialize_newtype_struct(ONE_OF, OneOfVisitor(PhantomData))
    }
}

/// The mistake of a value of the wrong shape.
pub(super) fn shape(expected: &str, instead: &str) -> Wrong {
    Wrong::new(
        MistakeCode::WrongShape,
        format!("expected {expected}, found {instead}"),
        "look at the indentation and at the dashes: `corinth config example` shows the form",
    )
}

fn position<'de, A: SeqAccess<'de>>(parts: &mut A) -> Result<Position, A::Error> {
    Ok(Position::new(next(parts)?, next(parts)?))
}

fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(parts: &mut A) -> Result<T, A::Error> {
    parts
        .next_element()?
        .ok_or_else(|| A::Error::custom("read a configuration through its reader"))
}

impl<T: Value> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed(T::EXPECTED)
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

impl<T: JsonSchema> JsonSchema for Mapping<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<S: Value, L: JsonSchema> JsonSchema for OneOf<S, L> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        L::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [S::schema(), generator.subschema_for::<L>()] })
    }
}
