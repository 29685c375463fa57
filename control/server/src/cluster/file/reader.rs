//! Walks the tree by hand: mappings with known keys, lists, and values that are parsed where they are read.

use std::fmt;

use super::document::{Kind, Node};
use super::mistake::{Findings, Position, quote};

/// A mapping of which every key is known.
pub(super) struct Mapping<'a> {
    pub(super) at: Position,
    path: String,
    entries: Vec<(&'a str, &'a Node)>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) at: Position,
    pub(super) value: T,
}

impl<'a> Mapping<'a> {
    /// Takes `node` as a mapping; keys that are not in `known` are reported and left out. `path` is for messages.
    pub(super) fn read(
        node: &'a Node,
        path: impl Into<String>,
        known: &[&str],
        found: &mut Findings,
    ) -> Option<Self> {
        let path = path.into();
        let Kind::Map(entries) = &node.kind else {
            wrong_shape(node, "a mapping", &path, found);
            return None;
        };
        let mut kept = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if known.contains(&key.text.as_str()) {
                kept.push((key.text.as_str(), value));
            } else {
                let place = if path.is_empty() {
                    String::new()
                } else {
                    format!(" in `{path}`")
                };
                let message = format!("unknown key {}{place}", quote(&key.text));
                found.add(
                    key.at,
                    message,
                    format!("known here are {}", known.join(", ")),
                );
            }
        }
        Some(Self {
            at: node.at,
            path,
            entries: kept,
        })
    }

    /// What stands under a key; nothing if that is nothing.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(name, _)| *name == key)?;
        (!matches!(node.kind, Kind::Null)).then_some(*node)
    }

    /// A value that may be absent.
    pub(super) fn optional<T: Written>(&self, key: &str, found: &mut Findings) -> Option<At<T>> {
        value(self.get(key)?, found)
    }

    /// A value whose absence is reported.
    pub(super) fn required<T: Written>(&self, key: &str, found: &mut Findings) -> Option<At<T>> {
        let Some(node) = self.get(key) else {
            self.lacks(key, T::EXPECTED, found);
            return None;
        };
        value(node, found)
    }

    /// Reports that a key is missing.
    pub(super) fn lacks(&self, key: &str, expected: &str, found: &mut Findings) {
        let message = format!("`{key}` is missing in `{}`", self.path);
        found.add(self.at, message, format!("add `{key}:` with {expected}"));
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() {
            return key.to_owned();
        }
        format!("{}.{key}", self.path)
    }

    /// The items of a list, each with its path; none if the key is absent.
    pub(super) fn list(&self, key: &str, found: &mut Findings) -> Vec<(String, &'a Node)> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let path = self.below(key);
        let Kind::List(items) = &node.kind else {
            wrong_shape(node, "a list", &path, found);
            return Vec::new();
        };
        let named = |(index, item)| (format!("{path}[{index}]"), item);
        items.iter().enumerate().map(named).collect()
    }

    /// The values of a list; those that stand twice are reported and kept once.
    pub(super) fn values<T: Written + PartialEq>(
        &self,
        key: &str,
        found: &mut Findings,
    ) -> Vec<At<T>> {
        let mut kept: Vec<At<T>> = Vec::new();
        for (_, node) in self.list(key, found) {
            let Some(one) = value::<T>(node, found) else {
                continue;
            };
            if kept.iter().any(|other| other.value == one.value) {
                let message = format!("an item of `{}` stands twice", self.below(key));
                found.add(one.at, message, "remove one of the two");
                continue;
            }
            kept.push(one);
        }
        kept
    }
}

/// Something that is written as one scalar.
pub(super) trait Written: Sized {
    /// What belongs here, with an example.
    const EXPECTED: &'static str;

    /// Parses the text as written; the error says what is wrong with it.
    fn read(text: &str) -> Result<Self, String>;
}

/// The value of a node.
pub(super) fn value<T: Written>(node: &Node, found: &mut Findings) -> Option<At<T>> {
    let Kind::Scalar(text) = &node.kind else {
        let message = format!("expected {}, found {}", T::EXPECTED, node.kind.describe());
        found.add(
            node.at,
            message,
            "look at the indentation and at the dashes",
        );
        return None;
    };
    match T::read(text) {
        Ok(value) => Some(At { at: node.at, value }),
        Err(reason) => {
            let message = format!("{} cannot be used here: {reason}", quote(text));
            found.add(node.at, message, format!("write {}", T::EXPECTED));
            None
        }
    }
}

fn wrong_shape(node: &Node, expected: &str, path: &str, found: &mut Findings) {
    let place = if path.is_empty() {
        String::new()
    } else {
        format!(" in `{path}`")
    };
    let message = format!("expected {expected}{place}, found {}", node.kind.describe());
    found.add(
        node.at,
        message,
        "look at the indentation and at the dashes",
    );
}

/// As `Written`, for what parses itself.
macro_rules! written {
    ($($type:ty => $parse:expr, $expected:literal;)+) => {
        $(impl Written for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Result<Self, String> {
                told($parse(text))
            }
        })+
    };
}

fn told<T, E: fmt::Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

written! {
    corinth_model::ClusterName => corinth_model::ClusterName::parse, "the name of a cluster such as `east`";
    corinth_model::TrustDomain => corinth_model::TrustDomain::parse, "a trust domain such as `east.corinth.internal`";
    corinth_model::ServiceId => corinth_model::ServiceId::parse, "a service and its namespace such as `web.shop`";
    corinth_model::DnsName => corinth_model::DnsName::parse, "a full host name such as `pay.example.com`";
    corinth_model::PortNumber => corinth_model::PortNumber::parse, "a port from 1 to 65535";
    corinth_model::SpiffeId => corinth_model::SpiffeId::parse, "a SPIFFE ID such as `spiffe://west.corinth.internal/ns/shop/sa/web`";
    corinth_model::IpNet => str::parse::<corinth_model::IpNet>, "a network such as `10.0.0.0/8`";
    corinth_model::Selector => str::parse::<corinth_model::Selector>, "`*`, a namespace such as `shop/*`, or a service such as `web.shop`";
    std::net::SocketAddr => str::parse::<std::net::SocketAddr>, "an address and a port such as `10.0.0.7:8080` or `\"[fd00::7]:8080\"`";
    corinth_api::HostPort => corinth_api::HostPort::parse, "a host and a port such as `gateway.west.example:15443`";
}

impl Written for bool {
    const EXPECTED: &'static str = "`true` or `false`";

    fn read(text: &str) -> Result<Self, String> {
        told(text.parse())
    }
}

impl Written for String {
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Written for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn read(text: &str) -> Result<Self, String> {
        if text.len() > 1 && text.starts_with('0') || text.starts_with('+') {
            return Err("numbers are written in plain decimals".to_owned());
        }
        told(text.parse())
    }
}

/// A number from 1 on.
pub(super) struct Count(pub(super) u32);

impl Written for Count {
    const EXPECTED: &'static str = "a whole number from 1 to 1000000";

    fn read(text: &str) -> Result<Self, String> {
        /// More is a mistake, not a limit.
        const COUNT_MAX: u64 = 1_000_000;
        match u64::read(text)? {
            number @ 1..=COUNT_MAX => Ok(Self(u32::try_from(number).unwrap_or(u32::MAX))),
            _ => Err("it is outside the limits".to_owned()),
        }
    }
}
