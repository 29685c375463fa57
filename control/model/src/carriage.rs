//! What is asked to carry the streams that we open to a peer.

use std::fmt;
use std::str::FromStr;

/// What is asked to carry the streams that we open to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carriage {
    /// The transport.
    pub transport: TransportChoice,
    /// How fast we send; none means what the system does for TCP, and BBR for QUIC.
    pub congestion: Option<CongestionChoice>,
}

/// Which transport is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransportChoice {
    /// Mutual TLS over TCP.
    #[default]
    Tls,
    /// QUIC over UDP.
    Quic,
    /// Both are linked, and whichever is better is used. Whether the peer takes QUIC is found by dialling.
    Auto,
}

/// Which congestion control is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CongestionChoice {
    /// Slows down when packets are lost.
    Cubic,
    /// Models bandwidth and round-trip time instead.
    Bbr,
}

/// A word that names no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct ChoiceError {
    /// The words that do.
    pub expected: &'static str,
}

impl TransportChoice {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tls, Self::Quic, Self::Auto];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Auto => "auto",
        }
    }
}

impl CongestionChoice {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cubic, Self::Bbr];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for CongestionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TransportChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text).ok_or(ChoiceError {
            expected: "`tls`, `quic` or `auto`",
        })
    }
}

impl FromStr for CongestionChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text).ok_or(ChoiceError {
            expected: "`cubic` or `bbr`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written_and_nothing_else_is() {
        for one in TransportChoice::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for one in CongestionChoice::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        for text in ["", "TLS", "tcp", "auto "] {
            assert!(text.parse::<TransportChoice>().is_err(), "{text}");
            assert!(text.parse::<CongestionChoice>().is_err(), "{text}");
        }
    }
}
