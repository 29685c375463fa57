//! Two sides that link over loopback, and everybody who should not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corinth_api::HostPort;
use corinth_api::link::Token;
use corinth_model::{Accepted, Carriage, Condition};
use parking_lot::Mutex;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::invitations::Invitations;
use super::inviter::{InviteError, Inviter};
use super::joiner::{JoinError, join};
use super::*;
use crate::cluster::{Cluster, LinkMode, Write, WriteError};

mod between;
mod limits;

const NOW: u64 = 1_900_000_000;
const QUARTER: Duration = Duration::from_mins(15);

#[tokio::test]
async fn token_links_both_sides_and_nothing_is_accepted() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let token = east.invite(1);
    let linked = west.join(&token).await.expect("a good token");
    assert_eq!(linked.cluster.as_str(), "east");
    let link = |of: &Side, addresses: Vec<String>| DeclaredLink {
        trust_domain: of.own.party.trust_domain.clone(),
        roots: vec![of.own.authority.root().clone()],
        bundle_sequence: 7,
        addresses,
        accepted: Accepted::default(),
        max_streams: None,
        quota: None,
        mode: LinkMode::Active,
        carriage: Carriage::default(),
    };
    assert_eq!(
        west.link("east"),
        Some(link(&east, vec![east.address.to_string()]))
    );
    assert_eq!(
        east.link("west"),
        Some(link(&west, vec![west.address.to_string()]))
    );
    let heard = east.outcomes().await;
    assert!(matches!(&heard[..], [Ok(linked)] if linked.cluster.as_str() == "west"));
}

#[tokio::test]
async fn one_way_only_the_joiner_dials() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let token = east.invite(1);
    let linked = west.join_with(&token, true).await.expect("a good token");
    assert!(linked.one_way);
    assert_eq!(east.link("west").expect("a link").addresses, [""; 0]);
    assert_eq!(
        west.link("east").expect("a link").addresses,
        [east.address.to_string()]
    );
}

#[tokio::test]
async fn used_token_is_refused() {
    let east = Side::new("east").await;
    let (token, _other) = (east.invite(1), east.invite(1));
    let west = Side::new("west").await;
    west.join(&token).await.expect("a good token");
    let south = Side::new("south").await;
    assert_eq!(south.refused(&token).await, Some(Condition::TokenRefused));
    assert_eq!((east.links(), south.links()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_is_linked() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    let mut sides = Vec::new();
    for index in 0..50 {
        sides.push(Arc::new(Side::new(&format!("c{index}")).await));
    }
    let attempts: Vec<_> = sides
        .iter()
        .map(|side| {
            let (side, token) = (Arc::clone(side), token.clone());
            tokio::spawn(async move { side.join(&token).await.is_ok() })
        })
        .collect();
    let mut joined = 0;
    for attempt in attempts {
        joined += usize::from(attempt.await.expect("no panic"));
    }
    assert_eq!((joined, east.links()), (1, 1));
}

#[tokio::test]
async fn clock_of_the_inviter_decides_whether_a_token_has_expired() {
    let east = Side::new("east").await;
    let (token, expired) = (east.invite(2), east.invite_for(Duration::from_secs(60), 1));
    for (name, time) in [("west", NOW - 3_600), ("south", NOW + 3_600)] {
        let side = Side::new(name).await;
        side.clock.set(time);
        side.join(&token).await.expect("its clock does not matter");
    }
    // Another token keeps the door open, so that it is the expired one that is refused.
    let _open = east.invite(1);
    east.clock.set(NOW + 60);
    let north = Side::new("north").await;
    assert_eq!(north.refused(&expired).await, Some(Condition::TokenRefused));
    assert_eq!(north.links(), 0);
}

#[tokio::test]
async fn expired_token_while_no_other_is_open_finds_nobody_who_listens() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let token = east.invite_for(Duration::from_secs(60), 1);
    east.clock.set(NOW + 60);
    let error = west.join(&token).await.expect_err("it has expired");
    assert_eq!(error.condition(), Some(Condition::LinkUnreachable));
    assert!(matches!(error, JoinError::Unreachable(_)), "{error}");
    assert_eq!((east.links(), west.links()), (0, 0));
    let heard = east.outcomes().await;
    assert!(matches!(heard[..], [Err(InviteError::Closed)]));
}

#[tokio::test]
async fn cluster_is_not_linked_with_itself() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    assert_eq!(east.refused(&token).await, Some(Condition::OwnCluster));
    assert!(east.outcomes().await.is_empty(), "nobody was dialled");
    // Somebody else who calls itself what the inviter is.
    let mut twin = Side::new("twin").await;
    twin.become_party(|party| party.trust_domain = east.own.party.trust_domain.clone());
    assert_eq!(twin.refused(&token).await, Some(Condition::OwnCluster));
    let mut namesake = Side::new("namesake").await;
    namesake.become_party(|party| party.cluster = east.own.party.cluster.clone());
    assert_eq!(namesake.refused(&token).await, Some(Condition::OwnCluster));
    // The joiner sees this without asking; the inviter sees it too.
    let heard = between::say(&east, &token, &twin.own.party).await;
    assert_eq!(heard, Some(Condition::OwnCluster));
    let west = Side::new("west").await;
    west.join(&token).await.expect("a refusal uses nothing up");
}

#[tokio::test]
async fn name_and_trust_domain_that_are_linked_already_are_refused() {
    let east = Side::new("east").await;
    let token = east.invite(2);
    let west = Side::new("west").await;
    west.join(&token).await.expect("a good token");
    // Again, seen by the joiner.
    assert_eq!(west.refused(&token).await, Some(Condition::AlreadyLinked));
    // Another cluster with the same name, and one with the same trust domain, seen by the inviter.
    let namesake = Side::new("west").await;
    assert_eq!(
        namesake.refused(&token).await,
        Some(Condition::AlreadyLinked)
    );
    let mut twin = Side::new("twin").await;
    twin.become_party(|party| party.trust_domain = west.own.party.trust_domain.clone());
    assert_eq!(twin.refused(&token).await, Some(Condition::AlreadyLinked));
    assert_eq!((east.links(), namesake.links(), twin.links()), (1, 0, 0));
    let south = Side::new("south").await;
    south.join(&token).await.expect("a refusal uses nothing up");
}

#[tokio::test]
async fn party_without_usable_roots_is_refused() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    let mut west = Side::new("west").await;
    west.become_party(|party| party.roots = vec![vec![0x30, 0]]);
    assert_eq!(west.refused(&token).await, Some(Condition::EntryInvalid));
    assert_eq!((east.links(), west.links()), (0, 0));
}

#[tokio::test]
async fn addresses_are_tried_in_order_and_told_when_none_answers() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed: HostPort = address(&nobody);
    drop(nobody);
    let mut token = east.invite(1);
    token.addresses = vec![closed.clone()];
    let error = west.join(&token).await.expect_err("nobody is there");
    assert_eq!(error.condition(), Some(Condition::LinkUnreachable));
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    token.addresses.push(east.address.clone());
    west.join(&token).await.expect("the second address is good");
}

#[tokio::test]
async fn loopback_addresses_of_a_joiner_are_not_dialled_by_others() {
    let mut east = Side::new("east").await;
    east.become_party(|party| party.addresses = vec!["192.0.2.1:15443".parse().unwrap()]);
    let token = east.invite(1);
    let mut west = Side::new("west").await;
    west.become_party(|party| {
        let told = [
            "127.0.0.1:22",
            "[::1]:22",
            "localhost:22",
            "192.0.2.9:15443",
        ];
        party.addresses = told.map(|text| text.parse().unwrap()).to_vec();
    });
    west.join(&token).await.expect("a good token");
    assert_eq!(
        east.link("west").expect("a link").addresses,
        ["192.0.2.9:15443"]
    );
    // The token's address is loopback, so that the inviter's own global one is not taken.
    let dialled = west.link("east").expect("a link").addresses;
    assert_eq!(dialled, [east.address.to_string()]);
}

/// A clock that stands still until it is set.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Declarations in memory.
#[derive(Debug, Default)]
struct Memory(watch::Sender<Arc<Declared>>);

impl Cluster for Memory {
    fn declared(&self) -> watch::Receiver<Arc<Declared>> {
        self.0.subscribe()
    }

    fn write(&self, change: Write) -> Result<(), WriteError> {
        let Write::Link(cluster, link) = change else {
            return Err(WriteError::Unknown("such a change".to_owned()));
        };
        self.0.send_modify(|declared| {
            let links = &mut Arc::make_mut(declared).links;
            assert!(links.insert(cluster, *link).is_none(), "written over");
        });
        Ok(())
    }
}

/// One cluster that takes links on a port of its own.
struct Side {
    own: Arc<OwnSide>,
    own_sender: watch::Sender<Arc<OwnSide>>,
    address: HostPort,
    clock: Arc<Clock>,
    cluster: Arc<Memory>,
    invitations: Arc<Invitations>,
    inviter: Arc<Inviter>,
    served: Arc<Mutex<Vec<JoinHandle<Result<Linked, InviteError>>>>>,
    accepting: JoinHandle<()>,
    _dir: TempDir,
}

impl Side {
    async fn new(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = address(&listener);
        let cluster = ClusterName::parse(name).expect("a name");
        let trust_domain = TrustDomain::of_cluster(&cluster);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        let authority = Authority::create(trust_domain.clone(), now).expect("an authority");
        let party = Party {
            cluster,
            trust_domain,
            roots: vec![authority.root().to_vec()],
            bundle_sequence: 7,
            addresses: vec![address.clone()],
        };
        let own = Arc::new(OwnSide {
            party,
            slot: Slot::parse("0").expect("a slot"),
            authority: Arc::new(authority),
        });
        let own_sender = watch::Sender::new(Arc::clone(&own));
        let dir = TempDir::new().expect("a directory");
        let state_dir = corinth_identity::StateDir::open(dir.path().join("state"));
        let invitations = Arc::new(Invitations::load(state_dir.unwrap()).expect("none yet"));
        let (clock, cluster) = (
            Arc::new(Clock(AtomicU64::new(NOW))),
            Arc::<Memory>::default(),
        );
        let inviter = Arc::new(Inviter::new(
            own_sender.subscribe(),
            Arc::clone(&invitations),
            Arc::<Memory>::clone(&cluster),
            Arc::<Clock>::clone(&clock),
        ));
        let served = Arc::<Mutex<Vec<_>>>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&inviter), Arc::clone(&served)));
        Self {
            own,
            own_sender,
            address,
            clock,
            cluster,
            invitations,
            inviter,
            served,
            accepting,
            _dir: dir,
        }
    }

    /// Says something else of itself from now on.
    fn become_party(&mut self, change: impl FnOnce(&mut Party)) {
        change(&mut Arc::make_mut(&mut self.own).party);
        self.own_sender.send_replace(Arc::clone(&self.own));
    }

    fn invite(&self, uses: u32) -> Token {
        self.invite_for(QUARTER, uses)
    }

    fn invite_for(&self, life: Duration, uses: u32) -> Token {
        let now = self.clock.current_time().expect("a time");
        let addresses = std::slice::from_ref(&self.address);
        let made = self
            .invitations
            .create(&self.own.party, addresses, life, uses, now);
        made.expect("a token")
    }

    async fn join(&self, token: &Token) -> Result<Linked, JoinError> {
        self.join_with(token, false).await
    }

    async fn join_with(&self, token: &Token, one_way: bool) -> Result<Linked, JoinError> {
        let cluster = Arc::<Memory>::clone(&self.cluster);
        let clock = Arc::<Clock>::clone(&self.clock);
        join(token, &self.own.party, one_way, cluster, clock).await
    }

    /// Why a token does not link this side.
    async fn refused(&self, token: &Token) -> Option<Condition> {
        let error = self.join(token).await.expect_err("this must not link");
        error.condition()
    }

    fn links(&self) -> usize {
        self.cluster.0.borrow().links.len()
    }

    fn link(&self, cluster: &str) -> Option<DeclaredLink> {
        let cluster = ClusterName::parse(cluster).expect("a name");
        self.cluster.0.borrow().links.get(&cluster).cloned()
    }

    /// What became of those who came since this was asked last.
    async fn outcomes(&self) -> Vec<Result<Linked, InviteError>> {
        let served = std::mem::take(&mut *self.served.lock());
        let mut outcomes = Vec::new();
        for one in served {
            outcomes.push(one.await.expect("no panic"));
        }
        outcomes
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    inviter: Arc<Inviter>,
    served: Arc<Mutex<Vec<JoinHandle<Result<Linked, InviteError>>>>>,
) {
    while let Ok((stream, source)) = listener.accept().await {
        let inviter = Arc::clone(&inviter);
        let serving = tokio::spawn(async move { inviter.serve(stream, source).await });
        served.lock().push(serving);
    }
}

fn address(listener: &TcpListener) -> HostPort {
    let address = listener.local_addr().expect("it is bound");
    address.to_string().parse().expect("an address")
}
