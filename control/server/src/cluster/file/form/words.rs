//! How single values of the file are written.

use corinth_model::{
    ClusterName, CongestionChoice, Denied, Protocol, Replay, SpiffeId, TransportChoice, TrustDomain,
};

use crate::cluster::LinkMode;
use crate::cluster::file::reader::{Count, Written};

/// Certificates in PEM form.
pub(super) struct Pem(pub(super) String);

impl Written for Pem {
    const EXPECTED: &'static str = "the roots of the other cluster in PEM form";

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// The word that admits what passthrough means.
pub(super) struct Anonymous;

impl Written for Anonymous {
    const EXPECTED: &'static str = "the word `anonymous`";

    fn read(text: &str) -> Result<Self, String> {
        word(text, [("anonymous", Self)])
    }
}

/// To whom something is exported.
#[derive(PartialEq)]
pub(super) enum Receiver {
    All,
    One(ClusterName),
}

impl Written for Receiver {
    const EXPECTED: &'static str = "the name of a cluster such as `east`, or `\"*\"`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        ClusterName::read(text).map(Self::One)
    }
}

impl Written for Denied {
    const EXPECTED: &'static str = "a SPIFFE ID, or a trust domain for all that is in it";

    fn read(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return SpiffeId::read(text).map(Self::Id);
        }
        TrustDomain::read(text).map(Self::TrustDomain)
    }
}

impl Written for LinkMode {
    const EXPECTED: &'static str = "`active`, `draining` or `paused`";

    fn read(text: &str) -> Result<Self, String> {
        let words = [
            ("active", Self::Active),
            ("draining", Self::Draining),
            ("paused", Self::Paused),
        ];
        word(text, words)
    }
}

impl Written for TransportChoice {
    const EXPECTED: &'static str = "`tls`, `quic` or `auto`";

    fn read(text: &str) -> Result<Self, String> {
        word(text, Self::ALL.map(|one| (one.as_str(), one)))
    }
}

impl Written for CongestionChoice {
    const EXPECTED: &'static str = "`cubic` or `bbr`";

    fn read(text: &str) -> Result<Self, String> {
        word(text, Self::ALL.map(|one| (one.as_str(), one)))
    }
}

impl Written for Protocol {
    const EXPECTED: &'static str = "`tcp` or `udp`";

    fn read(text: &str) -> Result<Self, String> {
        word(text, [("tcp", Self::Tcp), ("udp", Self::Udp)])
    }
}

impl Written for Replay {
    const EXPECTED: &'static str = "`never` or `idempotent`";

    fn read(text: &str) -> Result<Self, String> {
        word(
            text,
            [("never", Self::Never), ("idempotent", Self::Idempotent)],
        )
    }
}

pub(super) struct Weight(pub(super) u32);

impl Written for Weight {
    const EXPECTED: &'static str = "a weight from 0 to 1000000";

    fn read(text: &str) -> Result<Self, String> {
        match u64::read(text)? {
            0 => Ok(Self(0)),
            _ => Count::read(text).map(|count| Self(count.0)),
        }
    }
}

pub(super) struct Priority(pub(super) u8);

impl Written for Priority {
    const EXPECTED: &'static str = "a priority from 0, which goes first, to 255";

    fn read(text: &str) -> Result<Self, String> {
        let out = |_| "it is outside the limits".to_owned();
        u8::try_from(u64::read(text)?).map(Self).map_err(out)
    }
}

fn word<T, const N: usize>(text: &str, words: [(&str, T); N]) -> Result<T, String> {
    let known = words.into_iter().find(|(word, _)| *word == text);
    known
        .map(|(_, value)| value)
        .ok_or_else(|| "it is none of the words that are known here".to_owned())
}
