//! How many flows there may be: of one client address, and in all. Each holds a task, and at its endpoint a socket.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use corinth_model::Refusal;
use parking_lot::Mutex;

/// How many flows there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// In all: of local clients and of peers together.
    pub(crate) all: u32,
    /// Of one client address.
    pub(crate) per_client: u32,
}

/// Counts the flows that are open.
pub(crate) struct FlowQuota {
    limits: FlowLimits,
    open: Mutex<Open>,
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
        })
    }

    /// A place for a flow of this local client.
    pub(crate) fn of_client(self: &Arc<Self>, client: IpAddr) -> Result<Place, Refusal> {
        self.enter(Some(client.to_canonical()))
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
        FlowQuota::new(FlowLimits {
            all: 5,
            per_client: 2,
        })
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
