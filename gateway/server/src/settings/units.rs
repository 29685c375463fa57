//! Durations and sizes with their units, read and written.
//!
//! One whole number and one unit: `250ms`, `5s`, `2m`, `12h`; `512B`, `64KiB`, `16MiB`, `1GiB`. A bare number is
//! refused, because nobody who reads it later knows what was meant.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{Schema, json_schema};
use serde::Serializer;

use super::field::{At, Field, Value};
use super::mistake::{Findings, MistakeCode, Wrong, quote};

/// A length of time above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A length of time above zero, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpanOrOff(pub(super) Option<Duration>);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
/// Longest duration: nothing here outlives a year.
const DURATION_MAX_MS: u64 = 365 * 24 * 3_600_000;

impl Value for Span {
    const EXPECTED: &'static str = "a duration such as `250ms`, `5s`, `2m` or `12h`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let invalid = || {
            let hint = match text {
                "off" | "never" | "none" => "this cannot be switched off: write a longer duration",
                _ => "write one whole number and one of ms, s, m, h without a blank, such as `90s`",
            };
            let message = format!("expected {}, found {}", Self::EXPECTED, quote(text));
            Wrong::new(MistakeCode::InvalidDuration, message, hint)
        };
        let (number, unit) = split(text).ok_or_else(invalid)?;
        if unit.is_empty() {
            let hint = format!("write `{number}s` for seconds or `{number}ms` for milliseconds");
            return Err(bare(text, "a duration", hint));
        }
        let factor = factor(unit, &DURATIONS).ok_or_else(invalid)?;
        match number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
        {
            Some(0) => Err(Wrong::new(
                MistakeCode::OutOfRange,
                format!("{} is no time at all", quote(text)),
                "write a duration above zero, or `off` where a limit may be switched off",
            )),
            Some(ms) if ms <= DURATION_MAX_MS => Ok(Self(Duration::from_millis(ms))),
            Some(_) | None => Err(Wrong::new(
                MistakeCode::OutOfRange,
                format!("{} is longer than a year", quote(text)),
                "write at most `8760h`",
            )),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
    }
}

impl Value for SpanOrOff {
    const EXPECTED: &'static str = "a duration such as `5s` or `1h`, or `off`";

    fn read(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        Span::read(text).map(|span| Self(Some(span.0)))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h)|off)$" })
    }
}

impl Value for Size {
    const EXPECTED: &'static str = "a size such as `4KiB`, `64KiB` or `16MiB`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let invalid = || {
            Wrong::new(
                MistakeCode::InvalidSize,
                format!("expected {}, found {}", Self::EXPECTED, quote(text)),
                "write one whole number and one of B, KiB, MiB, GiB (powers of 1024) without a blank",
            )
        };
        let (number, unit) = split(text).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(bare(
                text,
                "a size",
                format!("write `{number}KiB` or `{number}MiB`"),
            ));
        }
        let factor = factor(unit, &SIZES).ok_or_else(invalid)?;
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| {
            Wrong::new(
                MistakeCode::OutOfRange,
                format!("{} is more than any machine has", quote(text)),
                "write a smaller size",
            )
        })
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

/// A duration within `limits`; `default` where there is none, or a wrong one, which is reported.
pub(super) fn within(
    field: Option<Field<Span>>,
    default: Duration,
    limits: RangeInclusive<Duration>,
    found: &mut Findings,
) -> Duration {
    let Some(At {
        at,
        value: Span(value),
    }) = field.and_then(|field| field.placed(found))
    else {
        return default;
    };
    if limits.contains(&value) {
        return value;
    }
    let (least, most) = (duration(*limits.start()), duration(*limits.end()));
    found.add(
        at,
        MistakeCode::OutOfRange,
        format!("{} is outside the limits here", duration(value)),
        format!("write a duration from {least} to {most}"),
    );
    default
}

fn bare(text: &str, what: &str, hint: String) -> Wrong {
    let message = format!(
        "{} is a bare number where {what} needs its unit",
        quote(text)
    );
    Wrong::new(MistakeCode::MissingUnit, message, hint)
}

/// The leading digits, at least one, and the rest.
fn split(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| text.split_at(digits))
}

fn factor(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

/// `count` in the largest unit that writes it as a whole number.
fn written(count: u64, units: &[(&str, u64)]) -> String {
    let whole = units
        .iter()
        .find(|(_, factor)| count > 0 && count.is_multiple_of(*factor));
    let smallest = units.last().map_or("", |(name, _)| *name);
    whole.map_or_else(
        || format!("{count}{smallest}"),
        |(name, factor)| format!("{}{name}", count / factor),
    )
}

/// A duration as it is written in a configuration, such as `90s`; parts of a millisecond are left out.
pub(super) fn duration(duration: Duration) -> String {
    written(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATIONS,
    )
}

/// A size as it is written in a configuration, such as `64KiB`.
pub(super) fn size(bytes: u64) -> String {
    written(bytes, &SIZES)
}

pub(super) fn serialize_duration<S: Serializer>(
    value: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration(*value))
}

pub(super) fn serialize_duration_or_off<S: Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.map_or_else(|| "off".to_owned(), duration))
}

pub(super) fn serialize_size<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&size(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["1ms", "250ms", "5s", "2m", "12h", "90s", "8760h"] {
            let Span(read) = Span::read(text).expect(text);
            assert_eq!(duration(read), text);
        }
        for text in ["1B", "4KiB", "64KiB", "16MiB", "1GiB", "1025B"] {
            let Size(read) = Size::read(text).expect(text);
            assert_eq!(size(read), text);
        }
        assert_eq!(SpanOrOff::read("off").expect("off"), SpanOrOff(None));
    }

    #[test]
    fn everything_else_is_refused() {
        let code = |text| Span::read(text).expect_err(text).code;
        for text in [
            "", "s", "5 s", "5S", "1.5s", "-5s", "+5s", "1h30m", "5sec", "٥s", "off", "5d",
        ] {
            assert_eq!(code(text), MistakeCode::InvalidDuration, "{text}");
        }
        assert_eq!(code("5"), MistakeCode::MissingUnit);
        assert_eq!(code("0s"), MistakeCode::OutOfRange);
        assert_eq!(code("9999h"), MistakeCode::OutOfRange);
        assert_eq!(code("99999999999999999999s"), MistakeCode::OutOfRange);
        let code = |text| Size::read(text).expect_err(text).code;
        for text in ["", "KiB", "4KB", "4k", "4 KiB", "4kib", "1.5MiB", "-1KiB"] {
            assert_eq!(code(text), MistakeCode::InvalidSize, "{text}");
        }
        assert_eq!(code("65536"), MistakeCode::MissingUnit);
        assert_eq!(code("99999999999999GiB"), MistakeCode::OutOfRange);
    }
}
