//! Which of the addresses a peer announces may be dialled.
//!
//! A peer that could name any address could make our gateways connect to places that only we reach. So an announced
//! address is used only if it is of the class of the address the operator linked with, and an announced host name only
//! if the operator linked with that name: what a name leads to is decided by whoever answers for it, later.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corinth_api::{Host, HostPort};

/// From how far an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressClass {
    /// From anywhere.
    Global,
    /// From within a network of its owner: RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// From the same host.
    Loopback,
}

impl AddressClass {
    /// The class of an address; `None` for one that is nobody's: unspecified, link-local, multicast, reserved.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    let [first, second, ..] = address.octets();
    if address.is_loopback() {
        return Some(AddressClass::Loopback);
    }
    if first == 0 || first >= 224 || address.is_link_local() {
        return None;
    }
    let is_shared = first == 100 && (64..128).contains(&second);
    if address.is_private() || is_shared {
        return Some(AddressClass::Private);
    }
    Some(AddressClass::Global)
}

fn of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    if address.is_loopback() {
        return Some(AddressClass::Loopback);
    }
    if address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local() {
        return None;
    }
    // A translator or tunnel on the way takes the IPv4 address out of it (RFC 6052 §2.1, RFC 3056 §2, RFC 4291
    // §2.5.5.1), so that counts.
    let inner = match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = inner {
        return of_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    }
    if address.is_unique_local() {
        return Some(AddressClass::Private);
    }
    Some(AddressClass::Global)
}

/// What may be dialled out of what a peer announces, and what may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// To be used, in the order they were announced.
    pub used: Vec<HostPort>,
    /// Not to be used ([`corinth_model::Condition::AddressRefused`]).
    pub refused: Vec<HostPort>,
}

/// Judges what a peer announces by what the operator linked with. Of a link that was made with host names alone the
/// class is taken to be global: that gives the peer the least.
#[must_use]
pub fn judge(linked_with: &[HostPort], announced: &[HostPort]) -> Judged {
    let mut classes = BTreeSet::new();
    let mut names = BTreeSet::new();
    for one in linked_with {
        match &one.host {
            Host::Address(address) => classes.extend(AddressClass::of(*address)),
            Host::Name(name) => {
                names.insert(name);
            }
        }
    }
    if classes.is_empty() && !names.is_empty() {
        classes.insert(AddressClass::Global);
    }
    let is_used = |one: &HostPort| match &one.host {
        Host::Address(address) => {
            AddressClass::of(*address).is_some_and(|class| classes.contains(&class))
        }
        Host::Name(name) => names.contains(name),
    };
    let (used, refused) = announced.iter().cloned().partition(is_used);
    Judged { used, refused }
}

#[cfg(test)]
mod tests;
