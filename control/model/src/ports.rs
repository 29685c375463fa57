//! Chooses import ports.
//!
//! A service keeps its port over restarts and changes, because other machines' connections, firewalls and derived
//! Services name it. A port that becomes free goes to nobody else for an hour: a client with stale knowledge must find
//! nothing there rather than another service. Only the service that had it gets it back sooner, and only an operator
//! who names the number can give it away at once.
//!
//! TCP and UDP each have all numbers, and an operator may name one for a service of either. A number that is chosen here is
//! in use by neither.
//!
//! [`PortAllocator`] is pure: the book before and the time go in, the book after comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::PortNumber;

mod place;

use place::Place;

#[cfg(test)]
mod tests;

/// How long a freed port goes to nobody else.
pub const QUARANTINE: Duration = Duration::from_hours(1);

/// Which service has which import port, and which ports were freed lately. Keys read `payments.shop:80/tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortBook {
    given: BTreeMap<String, PortNumber>,
    freed: BTreeMap<Place, Freed>,
}

/// Who had a port until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Freed {
    service: String,
    /// Seconds since 1970.
    at: u64,
}

/// The first and the last port of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port that belongs to it.
    pub first: PortNumber,
    /// Last port that belongs to it.
    pub last: PortNumber,
}

impl PortRange {
    /// Whether `port` lies in it.
    #[must_use]
    pub fn contains(self, port: PortNumber) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first.get(), self.last.get())
    }
}

/// As in text.
impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Chooses ports out of a range.
#[derive(Clone, Debug)]
pub struct PortAllocator {
    /// Where ports are taken from.
    pub range: PortRange,
    /// Ports that are in use for something else.
    pub taken: BTreeSet<u16>,
}

/// A service port that needs an import port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service port, such as `payments.shop:80/tcp`; each at most once.
    pub service: String,
    /// The port that the operator chose for it.
    pub fixed: Option<PortNumber>,
}

/// What an allocator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The book from now on.
    pub book: PortBook,
    /// The services that went without, in the order in which they were wanted.
    pub without: Vec<String>,
}

impl PortAllocator {
    /// The book that gives every wanted service a port while there are any, with as few changes to `previous` as
    /// possible. `now` is in seconds since 1970.
    #[must_use]
    pub fn assign(&self, previous: &PortBook, wanted: &[Wanted], now: u64) -> Assigned {
        let mut in_use: BTreeSet<_> = wanted.iter().filter_map(Wanted::fixed_place).collect();
        let mut given = BTreeMap::new();
        let lately = previous.had_lately();
        for wanted in wanted {
            let had = || {
                let given = previous.port(&wanted.service);
                given.or_else(|| lately.get(wanted.service.as_str()).copied())
            };
            let kept = || had().filter(|port| self.may_give(*port));
            let port = wanted
                .fixed
                .or_else(|| kept().filter(|port| in_use.insert(wanted.at(*port))));
            given.extend(port.map(|port| (wanted.service.clone(), port)));
        }
        let mut freed = previous.freed_by(now);
        freed.retain(|place, _| !in_use.contains(place));
        let held: BTreeSet<_> = in_use
            .iter()
            .chain(freed.keys())
            .map(|place| place.number)
            .collect();
        let mut free = self.numbers().filter(|port| !held.contains(port));
        let mut without = Vec::new();
        for wanted in wanted {
            if given.contains_key(&wanted.service) {
                continue;
            }
            match free.next() {
                Some(port) => {
                    given.insert(wanted.service.clone(), port);
                }
                None => without.push(wanted.service.clone()),
            }
        }
        Assigned {
            book: PortBook { given, freed },
            without,
        }
    }

    /// The same for a book that gives every service a port, when few come and few go: takes time proportional to what
    /// was freed lately, and seldom to what is given. Who comes has no port yet. Returns whether each has a port now
    /// without anybody else having to move; if not, [`assign`](Self::assign) is to be asked with all that are wanted.
    #[must_use]
    pub fn adjust(&self, book: &mut PortBook, gone: &[String], came: &[Wanted], now: u64) -> bool {
        for service in gone {
            if let Some(port) = book.given.remove(service) {
                let (place, service) = (Place::of(service, port), service.clone());
                book.freed.insert(place, Freed { service, at: now });
            }
        }
        let chosen: BTreeSet<_> = came.iter().filter_map(Wanted::fixed_place).collect();
        if !chosen.is_empty() && book.places().any(|place| chosen.contains(&place)) {
            return false;
        }
        let lately = book.had_lately();
        let back: Vec<_> = came
            .iter()
            .filter_map(|wanted| {
                let had = || lately.get(wanted.service.as_str()).copied();
                let is_left = |port: &PortNumber| !chosen.contains(&wanted.at(*port));
                let had = || had().filter(|port| self.may_give(*port) && is_left(port));
                Some((wanted.service.clone(), wanted.fixed.or_else(had)?))
            })
            .collect();
        book.expire(now);
        for (service, port) in back {
            book.freed.remove(&Place::of(&service, port));
            book.given.insert(service, port);
        }
        let new = came.iter().map(|wanted| &wanted.service);
        let new: Vec<_> = new
            .filter(|service| !book.given.contains_key(*service))
            .collect();
        if new.is_empty() {
            return true;
        }
        let freed = book.freed.keys().map(|place| place.number);
        let held: BTreeSet<_> = book.given.values().copied().chain(freed).collect();
        let free = self.numbers().filter(|port| !held.contains(port));
        let free: Vec<_> = free.take(new.len()).collect();
        let is_enough = free.len() == new.len();
        book.given.extend(new.into_iter().cloned().zip(free));
        is_enough
    }

    /// The numbers that it may give, in order.
    fn numbers(&self) -> impl Iterator<Item = PortNumber> {
        (self.range.first.get()..=self.range.last.get())
            .filter_map(PortNumber::new)
            .filter(|port| self.may_give(*port))
    }

    /// Whether it gives this port to anybody, unless somebody has it.
    #[must_use]
    pub fn may_give(&self, port: PortNumber) -> bool {
        self.range.contains(port) && !self.taken.contains(&port.get())
    }
}

impl Wanted {
    /// This number, for its protocol.
    fn at(&self, number: PortNumber) -> Place {
        Place::of(&self.service, number)
    }

    fn fixed_place(&self) -> Option<Place> {
        self.fixed.map(|number| self.at(number))
    }
}

impl PortBook {
    /// The port of a service port such as `payments.shop:80/tcp`.
    #[must_use]
    pub fn port(&self, service: &str) -> Option<PortNumber> {
        self.given.get(service).copied()
    }

    /// Whether a service has a port, or had one until lately and may get it back.
    #[must_use]
    pub fn knows(&self, service: &str) -> bool {
        let mut freed = self.freed.values();
        self.given.contains_key(service) || freed.any(|freed| freed.service == service)
    }

    /// When the first port that was freed may go to somebody else, in seconds since 1970; `None` if none was.
    #[must_use]
    pub fn frees_at(&self) -> Option<u64> {
        let freed = self.freed.values().map(|freed| freed.at).min();
        freed.map(|at| at.saturating_add(QUARANTINE.as_secs()))
    }

    /// The port that a service had last of those that were freed lately.
    fn had_lately(&self) -> BTreeMap<&str, PortNumber> {
        let mut freed: Vec<_> = self.freed.iter().collect();
        freed.sort_by_key(|(place, freed)| (freed.at, **place));
        let had = freed.into_iter();
        had.map(|(place, freed)| (freed.service.as_str(), place.number))
            .collect()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let given = self.given.iter();
        given.map(|(service, port)| Place::of(service, *port))
    }

    /// Forgets who had ports that anybody may have at `now`.
    fn expire(&mut self, now: u64) {
        self.freed.retain(|_, freed| {
            // A clock that was set back must not keep a port away for longer than the quarantine.
            freed.at = freed.at.min(now);
            now - freed.at < QUARANTINE.as_secs()
        });
    }

    /// Ports that nobody else may have at `now`: those freed lately, and those that are given and may be freed now.
    fn freed_by(&self, now: u64) -> BTreeMap<Place, Freed> {
        let mut book = self.clone();
        book.expire(now);
        for (service, port) in book.given {
            let place = Place::of(&service, port);
            book.freed.insert(place, Freed { service, at: now });
        }
        book.freed
    }
}
