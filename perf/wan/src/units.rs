//! Quantities as people write them.

use std::time::Duration;

use thiserror::Error;

/// What a text should have been.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misread {
    /// A time.
    #[error("`{0}` is no time; write 30ms, 500us or 2s")]
    Time(String),
    /// A share.
    #[error("`{0}` is no share; write 0.1%")]
    Share(String),
    /// A rate.
    #[error("`{0}` is no rate; write 100mbit, 512kbit or 1gbit")]
    Rate(String),
    /// A size.
    #[error("`{0}` is no size; write 1500, 64k or 1m")]
    Size(String),
}

/// 30ms, 1.5s, 200us.
pub(crate) fn time(text: &str) -> Result<Duration, Misread> {
    let units = [
        ("ms", 1e-3),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ns", 1e-9),
        ("s", 1.0),
    ];
    scaled(text, &units)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .or_else(|| (text == "0").then_some(Duration::ZERO))
        .ok_or_else(|| Misread::Time(text.to_owned()))
}

/// 0.1%.
pub(crate) fn share(text: &str) -> Result<f64, Misread> {
    scaled(text, &[("%", 0.01)])
        .or_else(|| (text == "0").then_some(0.0))
        .ok_or_else(|| Misread::Share(text.to_owned()))
}

/// 100mbit; in bits per second.
pub(crate) fn rate(text: &str) -> Result<u64, Misread> {
    let units = [
        ("kbit", 1e3),
        ("mbit", 1e6),
        ("gbit", 1e9),
        ("bit", 1.0),
        ("k", 1e3),
        ("m", 1e6),
        ("g", 1e9),
    ];
    scaled(&text.to_ascii_lowercase(), &units)
        .and_then(whole)
        .ok_or_else(|| Misread::Rate(text.to_owned()))
}

/// 1500, 64k, 1m; in bytes.
pub(crate) fn size(text: &str) -> Result<u64, Misread> {
    let units = [
        ("kb", 1024.0),
        ("mb", 1024.0 * 1024.0),
        ("k", 1024.0),
        ("m", 1024.0 * 1024.0),
        ("b", 1.0),
        ("", 1.0),
    ];
    scaled(&text.to_ascii_lowercase(), &units)
        .and_then(whole)
        .ok_or_else(|| Misread::Size(text.to_owned()))
}

/// The number before the first unit that fits, times its scale.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let is_plain = number
        .chars()
        .all(|letter| letter.is_ascii_digit() || letter == '.');
    let number: f64 = number.parse().ok().filter(|_| is_plain)?;
    Some(number * scale)
}

fn whole(value: f64) -> Option<u64> {
    (value <= 1e15).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!(time("30ms"), Ok(Duration::from_millis(30)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(time("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("100%"), Ok(1.0));
        assert_eq!(rate("100mbit"), Ok(100_000_000));
        assert_eq!(rate("1.5Gbit"), Ok(1_500_000_000));
        assert_eq!(rate("64k"), Ok(64_000));
        assert_eq!(size("1500"), Ok(1_500));
        assert_eq!(size("64k"), Ok(65_536));
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        assert_eq!(time("30"), Err(Misread::Time("30".into())));
        assert_eq!(time("-3ms"), Err(Misread::Time("-3ms".into())));
        assert_eq!(time("infs"), Err(Misread::Time("infs".into())));
        assert_eq!(time("1e400s"), Err(Misread::Time("1e400s".into())));
        assert_eq!(share("0.1"), Err(Misread::Share("0.1".into())));
        assert_eq!(rate("100"), Err(Misread::Rate("100".into())));
        assert_eq!(rate("mbit"), Err(Misread::Rate("mbit".into())));
        assert_eq!(size("-1"), Err(Misread::Size("-1".into())));
        assert_eq!(
            size("9".repeat(30).as_str()),
            Err(Misread::Size("9".repeat(30)))
        );
    }
}
