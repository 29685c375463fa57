//! Numbers as one writes them on a command line.

use std::time::Duration;

/// Bytes: `4096`, `128K`, `1M`, `2G`, in steps of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, 1_024.0).map(|bytes| bytes as u64)
}

/// Bits per second: `1000000`, `1M`, `10G`, in steps of 1,000.
pub(crate) fn bits(text: &str) -> Result<u64, String> {
    scaled(text, 1_000.0).map(|bits| bits as u64)
}

/// A time: `10`, `2.5s`, `100ms`, `50us`, `2m`; without a unit, seconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|character: char| character != '.' && !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        unknown => {
            return Err(format!(
                "{unknown} is no unit of time; there are us, ms, s, m, h"
            ));
        }
    };
    let seconds: f64 = number
        .parse()
        .map_err(|_| "a time is a number and a unit, such as 100ms".to_owned())?;
    Duration::try_from_secs_f64(seconds * scale).map_err(|error| error.to_string())
}

/// A rate of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// So many.
    PerSecond(f64),
    /// A share of what the path holds.
    PercentOfKnee(f64),
}

/// A rate: `5000`, `20k`, or `50%` of the knee.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent
            .parse()
            .map_err(|_| "a share is a number and %".to_owned())?;
        return Ok(Rate::PercentOfKnee(percent));
    }
    scaled(text, 1_000.0).map(Rate::PerSecond)
}

fn scaled(text: &str, step: f64) -> Result<f64, String> {
    let power = match text.chars().last().map(|last| last.to_ascii_uppercase()) {
        Some('K') => 1,
        Some('M') => 2,
        Some('G') => 3,
        Some('T') => 4,
        Some(_) | None => 0,
    };
    let number = if power == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "it is a number, with K, M, G or T if you like".to_owned())?;
    if !number.is_finite() || number < 0.0 {
        return Err("it is a number from zero up".to_owned());
    }
    Ok(number * step.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_steps_of_1024_and_bits_of_1000() {
        assert_eq!(bytes("128K"), Ok(131_072));
        assert_eq!(bytes("1.5m"), Ok(1_572_864));
        assert_eq!(bits("10G"), Ok(10_000_000_000));
        assert_eq!(bits("0"), Ok(0));
    }

    #[test]
    fn times_have_units_and_default_to_seconds() {
        assert_eq!(time("2.5"), Ok(Duration::from_millis(2_500)));
        assert_eq!(time("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn rates_are_numbers_or_shares() {
        assert_eq!(rate("20k"), Ok(Rate::PerSecond(20_000.0)));
        assert_eq!(rate("50%"), Ok(Rate::PercentOfKnee(50.0)));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for wrong in ["", "x", "-1", "1e999", "nan", "K", "µ"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "1x", "-1s", "1.2.3", "s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
