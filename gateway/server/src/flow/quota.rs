//! How many flows there may be: of one client, and in all. Each holds a task, and at its endpoint a socket.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use corinth_model::{Refusal, TrustDomain};
use parking_lot::Mutex;

use super::account::{Account, Waiting};
use crate::limits::prefix_of;

/// How many flows there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// In all: of local clients and of peers together.
    all: u32,
    /// Of one client: an IPv4 address, or an IPv6 /64.
    per_client: u32,
}

impl FlowLimits {
    /// So many in all, and so many of one client, but never more than half of all: nobody takes them from all others.
    pub(crate) fn new(all: u32, per_client: u32) -> Self {
        Self {
            all,
            per_client: per_client.min((all / 2).max(1)),
        }
    }
}

/// Counts the flows that are open, and knows what those of each peer hold.
pub(crate) struct FlowQuota {
    limits: FlowLimits,
    open: Mutex<Open>,
    /// One for each peer there ever was, which are few.
    accounts: Mutex<BTreeMap<TrustDomain, Arc<Account>>>,
    /// The first datagrams of flows that nobody has accepted.
    first: Arc<Waiting>,
}

#[derive(Default)]
struct Open {
    all: u32,
    by_client: BTreeMap<IpAddr, u32>,
}

/// The place of one flow, given back when dropped.
pub(crate) struct Place {
    quota: Arc<FlowQuota>,
    client: Option<IpAddr>,
}

impl FlowQuota {
    pub(crate) fn new(limits: FlowLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
            accounts: Mutex::default(),
            first: Arc::default(),
        })
    }

    /// What the first datagrams of all flows hold together.
    pub(super) fn first(&self) -> &Arc<Waiting> {
        &self.first
    }

    /// What all flows with a peer hold together.
    pub(super) fn account(&self, peer: &TrustDomain) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        if let Some(account) = accounts.get(peer) {
            return Arc::clone(account);
        }
        let account = Arc::<Account>::default();
        accounts.insert(peer.clone(), Arc::clone(&account));
        account
    }

    /// A place for a flow of this local client.
    pub(crate) fn of_client(self: &Arc<Self>, client: IpAddr) -> Result<Place, Refusal> {
        self.enter(Some(prefix_of(client)))
    }

    /// A place for a flow of a peer, which has a limit of its own.
    pub(crate) fn of_peer(self: &Arc<Self>) -> Result<Place, Refusal> {
        self.enter(None)
    }

    fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Place, Refusal> {
        let mut open = self.open.lock();
        if open.all >= self.limits.all {
            return Err(Refusal::FlowLimit);
        }
        if let Some(client) = client {
            let held = open.by_client.get(&client).copied().unwrap_or(0);
            if held >= self.limits.per_client {
                return Err(Refusal::FlowLimit);
            }
            open.by_client.insert(client, held + 1);
        }
        open.all += 1;
        drop(open);
        Ok(Place {
            quota: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.quota.open.lock();
        open.all -= 1;
        let Some(client) = self.client else {
            return;
        };
        if let Some(held) = open.by_client.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                open.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Arc<FlowQuota> {
        FlowQuota::new(FlowLimits::new(5, 2))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_gets_its_share_and_others_theirs() {
        let quota = quota();
        let greedy = address("10.0.0.1");
        let held = [quota.of_client(greedy), quota.of_client(greedy)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(quota.of_client(greedy).err(), Some(Refusal::FlowLimit));
        let mapped = address("::ffff:10.0.0.1");
        assert_eq!(quota.of_client(mapped).err(), Some(Refusal::FlowLimit));
        assert!(quota.of_client(address("10.0.0.2")).is_ok());
    }

    #[test]
    fn a_client_with_many_addresses_of_one_prefix_is_one_client() {
        let quota = quota();
        let held = ["2001:db8::1", "2001:db8::2"].map(|own| quota.of_client(address(own)));
        assert!(held.iter().all(Result::is_ok));
        let third = quota.of_client(address("2001:db8::ffff:3"));
        assert_eq!(third.err(), Some(Refusal::FlowLimit));
        assert!(quota.of_client(address("2001:db8:0:1::1")).is_ok());
        drop(held);
        assert!(quota.of_client(address("2001:db8::1")).is_ok());
    }

    #[test]
    fn no_client_takes_more_than_half_of_all_whatever_is_said() {
        let quota = FlowQuota::new(FlowLimits::new(4, 1_000));
        let greedy = address("10.0.0.1");
        let held = [quota.of_client(greedy), quota.of_client(greedy)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(quota.of_client(greedy).err(), Some(Refusal::FlowLimit));
        assert!(quota.of_client(address("10.0.0.2")).is_ok());
        let smallest = FlowQuota::new(FlowLimits::new(1, 1));
        assert!(smallest.of_client(greedy).is_ok());
    }

    #[test]
    fn a_peer_has_one_account_however_often_it_is_asked_for() {
        let quota = quota();
        let peer = |name: &str| TrustDomain::parse(name).unwrap();
        let first = quota.account(&peer("west.test"));
        assert!(Arc::ptr_eq(&first, &quota.account(&peer("west.test"))));
        assert!(!Arc::ptr_eq(&first, &quota.account(&peer("east.test"))));
    }

    #[test]
    fn all_flows_together_have_a_limit() {
        let quota = quota();
        let mut held: Vec<_> = (0..4).map(|_| quota.of_peer().unwrap()).collect();
        held.push(quota.of_client(address("10.0.0.1")).unwrap());
        assert_eq!(quota.of_peer().err(), Some(Refusal::FlowLimit));
        assert_eq!(
            quota.of_client(address("10.0.0.2")).err(),
            Some(Refusal::FlowLimit)
        );
        held.pop();
        assert!(quota.of_peer().is_ok());
    }

    #[test]
    fn nothing_is_remembered_of_clients_that_are_gone() {
        let quota = quota();
        drop(quota.of_client(address("10.0.0.1")));
        assert!(quota.open.lock().by_client.is_empty());
        assert_eq!(quota.open.lock().all, 0);
    }
}
