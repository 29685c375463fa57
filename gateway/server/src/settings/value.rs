//! How single values are written: names, numbers, words, paths.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use corinth_model::{
    ClusterName, DnsName, PortNumber, PortRange, ServiceId, Slot, SpiffeId, TrustDomain,
};
use schemars::{Schema, json_schema};

use super::field::{At, Field, Value};
use super::mistake::{Findings, MistakeCode, Wrong, nearest, quote};

/// Longest text of one name or path that is looked at, in bytes.
const TEXT_MAX_BYTES: usize = 4096;
/// Longest name of a region, zone or node, in bytes; Kubernetes node names are host names.
const PLACE_MAX_BYTES: usize = 253;

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

/// A region, a zone or a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlaceName(pub(super) Box<str>);

/// PEM text within the configuration.
#[derive(Clone)]
pub(super) struct Pem(pub(super) String);

/// A word out of a closed list.
pub(super) trait Choice: Copy + 'static {
    /// All words with their meanings.
    const WORDS: &'static [(&'static str, Self)];
    /// What is being chosen, as in "expected a log level".
    const WHAT: &'static str;
}

impl<T: Choice> Value for T {
    const EXPECTED: &'static str = T::WHAT;

    fn read(text: &str) -> Result<Self, Wrong> {
        if let Some((_, choice)) = T::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*choice);
        }
        let words = || T::WORDS.iter().map(|(word, _)| *word);
        let hint = nearest(text, words()).map_or_else(
            || format!("write {}", words().collect::<Vec<_>>().join(" or ")),
            |near| format!("did you mean {near}?"),
        );
        let message = format!("expected {}, found {}", T::WHAT, quote(text));
        Err(Wrong::new(MistakeCode::InvalidChoice, message, hint))
    }

    fn schema() -> Schema {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({ "enum": words })
    }
}

/// The word for `choice`.
pub(super) fn word<T: Choice + PartialEq>(choice: T) -> &'static str {
    let entry = T::WORDS.iter().find(|(_, candidate)| *candidate == choice);
    entry.map_or("", |(word, _)| *word)
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl Value for Flag {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" | "True" | "TRUE" => Ok(Self(true)),
            "false" | "False" | "FALSE" => Ok(Self(false)),
            _ => Err(Wrong::new(
                MistakeCode::InvalidChoice,
                format!("expected true or false, found {}", quote(text)),
                "write true or false; yes, no, on and off are not understood",
            )),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl Value for Number {
    const EXPECTED: &'static str = "a whole number";

    fn read(text: &str) -> Result<Self, Wrong> {
        let is_decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let has_leading_zero = text.len() > 1 && text.starts_with('0');
        if !is_decimal || has_leading_zero {
            return Err(Wrong::new(
                MistakeCode::InvalidNumber,
                format!("expected a whole number, found {}", quote(text)),
                "write decimal digits only: no sign, unit, point, underscore or leading zero",
            ));
        }
        text.parse().map(Self).map_err(|_| {
            Wrong::new(
                MistakeCode::OutOfRange,
                format!("{} is too large a number", quote(text)),
                "write a smaller number",
            )
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

/// A number within `limits`; `default` where there is none, or a wrong one, which is reported.
pub(super) fn number(
    field: Option<Field<Number>>,
    default: u32,
    limits: RangeInclusive<u32>,
    found: &mut Findings,
) -> u32 {
    let Some(At {
        at,
        value: Number(value),
    }) = field.and_then(|field| field.placed(found))
    else {
        return default;
    };
    if let Some(value) = u32::try_from(value)
        .ok()
        .filter(|value| limits.contains(value))
    {
        return value;
    }
    let hint = format!("write a number from {} to {}", limits.start(), limits.end());
    found.add(
        at,
        MistakeCode::OutOfRange,
        format!("{value} is outside the limits here"),
        hint,
    );
    default
}

/// Refuses items that occurred before in the same list; keeps the first.
pub(super) fn distinct<T: Ord + Clone + fmt::Display>(
    items: Vec<At<T>>,
    found: &mut Findings,
) -> Vec<T> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::with_capacity(items.len());
    for At { at, value } in items {
        if seen.insert(value.clone()) {
            kept.push(value);
        } else {
            let message = format!("`{value}` stands twice in this list");
            found.add(
                at,
                MistakeCode::DuplicateItem,
                message,
                "remove one of the two",
            );
        }
    }
    kept
}

impl Value for PortNumber {
    const EXPECTED: &'static str = "a port from 1 to 65535";

    fn read(text: &str) -> Result<Self, Wrong> {
        let Number(number) = Number::read(text)?;
        u16::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| {
                Wrong::new(
                    MistakeCode::OutOfRange,
                    format!("{} is not a port", quote(text)),
                    "write a port from 1 to 65535",
                )
            })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

impl Value for PortRange {
    const EXPECTED: &'static str = "a range of ports such as `20000-27999`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let Some((first, last)) = text.split_once('-') else {
            return Err(Wrong::new(
                MistakeCode::InvalidNumber,
                format!("expected {}, found {}", Self::EXPECTED, quote(text)),
                "write the first and the last port with a dash between them",
            ));
        };
        let range = Self {
            first: PortNumber::read(first)?,
            last: PortNumber::read(last)?,
        };
        if range.first > range.last {
            return Err(Wrong::new(
                MistakeCode::OutOfRange,
                format!("the range {} ends before it begins", quote(text)),
                format!("write `{last}-{first}`"),
            ));
        }
        Ok(range)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" })
    }
}

fn name<T, E: fmt::Display>(
    parsed: Result<T, E>,
    code: MistakeCode,
    expected: &str,
    text: &str,
    hint: &str,
) -> Result<T, Wrong> {
    parsed.map_err(|reason| {
        Wrong::new(
            code,
            format!("{} is not {expected}: {reason}", quote(text)),
            hint,
        )
    })
}

const LABEL_HINT: &str = "use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends";

impl Value for ClusterName {
    const EXPECTED: &'static str = "the name of a cluster such as `east`";

    fn read(text: &str) -> Result<Self, Wrong> {
        name(
            Self::parse(text),
            MistakeCode::InvalidName,
            "the name of a cluster",
            text,
            LABEL_HINT,
        )
    }
}

impl Value for Slot {
    const EXPECTED: &'static str = "a slot such as `0`";

    fn read(text: &str) -> Result<Self, Wrong> {
        name(
            Self::parse(text),
            MistakeCode::InvalidName,
            "a slot",
            text,
            LABEL_HINT,
        )
    }
}

impl Value for ServiceId {
    const EXPECTED: &'static str = "a service and its namespace such as `payments.shop`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let hint = "write the service, a dot and the namespace, such as `payments.shop`";
        name(
            Self::parse(text),
            MistakeCode::InvalidName,
            "a service and its namespace",
            text,
            hint,
        )
    }
}

impl Value for DnsName {
    const EXPECTED: &'static str = "a host name such as `pay.example.com`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let hint = "write a full host name in ASCII, without wildcard, port or address";
        name(
            Self::parse(text),
            MistakeCode::InvalidName,
            "a host name",
            text,
            hint,
        )
    }
}

impl Value for TrustDomain {
    const EXPECTED: &'static str = "a trust domain such as `east.corinth.internal`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let hint = "write the domain alone in lower case, without `spiffe://` and path";
        name(
            Self::parse(text),
            MistakeCode::InvalidIdentity,
            "a trust domain",
            text,
            hint,
        )
    }
}

impl Value for SpiffeId {
    const EXPECTED: &'static str =
        "a SPIFFE ID such as `spiffe://west.corinth.internal/ns/shop/sa/web`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let hint =
            "write `spiffe://`, the trust domain in lower case and a path without empty parts";
        name(
            Self::parse(text),
            MistakeCode::InvalidIdentity,
            "a SPIFFE ID",
            text,
            hint,
        )
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str, hint: &str| {
            let message = format!("{} {why}", quote(text));
            Err(Wrong::new(MistakeCode::InvalidPath, message, hint))
        };
        match text {
            "" => wrong(
                "is empty",
                "write the path of a file, absolute or relative to this file",
            ),
            _ if text.contains("-----BEGIN") => {
                wrong("is not a path", "write the path of a file that holds it")
            }
            _ if text.contains(['\0', '\n']) || text.len() > TEXT_MAX_BYTES => {
                wrong("is not a path", "write the path of a file in one line")
            }
            _ if text.starts_with('~') => wrong(
                "begins with a tilde, which is not expanded",
                "write the home directory out",
            ),
            _ => Ok(Self::from(text)),
        }
    }
}

impl Value for PlaceName {
    const EXPECTED: &'static str = "a region, zone or node such as `eu-central-1a`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let is_plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if text.is_empty() || text.len() > PLACE_MAX_BYTES || !is_plain {
            let message = format!("{} is not {}", quote(text), Self::EXPECTED);
            let hint = "use 1 to 253 letters, digits, -, _ and .";
            return Err(Wrong::new(MistakeCode::InvalidName, message, hint));
        }
        Ok(Self(text.into()))
    }
}

impl Value for Pem {
    const EXPECTED: &'static str = "certificates in PEM form";

    fn read(text: &str) -> Result<Self, Wrong> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_decimals() {
        for text in [
            "", "-1", "+1", "1.0", "1e3", "0x10", "007", "1_000", " 1", "٣", "true",
        ] {
            assert_eq!(
                Number::read(text).expect_err(text).code,
                MistakeCode::InvalidNumber
            );
        }
        assert_eq!(Number::read("0").expect("0"), Number(0));
        let too_large = Number::read("18446744073709551616").expect_err("2^64");
        assert_eq!(too_large.code, MistakeCode::OutOfRange);
    }
}
