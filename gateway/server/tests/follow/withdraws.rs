//! What is taken back ends what was open on it.

use std::time::{Duration, Instant};

use corinth_api::{Entry, EntryKey, LinkState, Update};
use corinth_model::{Denied, GatewayId, Slot};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::fixture::*;

/// Streams that are no longer allowed end within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Waits for the reset of a stream, which must come in time.
async fn is_cut(open: &mut TcpStream, since: Instant) {
    let mut nothing = [0; 1];
    let read = soon(open.read(&mut nothing)).await;
    assert!(
        read.is_err(),
        "a stream that was cut never looks like one that ended"
    );
    assert!(since.elapsed() < ENDS_WITHIN);
}

async fn withdrawn_at_west(pair: Pair) {
    pair.west.gateway.stop().await;
    let log = pair.west.access_log();
    let line = log
        .lines()
        .find(|line| line.contains("\"intake\":\"peer\""));
    assert!(
        line.is_some_and(|line| line.contains("\"CRN033\"")),
        "{log}"
    );
}

#[tokio::test]
async fn a_denial_ends_what_the_denied_have_open_and_keeps_them_out() {
    let mut pair = Pair::linked().await;
    let mut open = connect(pair.port).await;
    let gateway = GatewayId {
        trust_domain: pair.east.trust_domain(),
        slot: Slot::parse("0").unwrap(),
    };
    let denied = Denied::Id(gateway.spiffe_id());
    let since = Instant::now();
    let denial = Update::Put(Entry::Denial(denied.clone()));
    assert_eq!(pair.west_call.change(2, false, &[denial]).await, Ok(2));
    is_cut(&mut open, since).await;
    pair.west_call.link(LinkState::Down).await;
    // The reset may already be there when the connect returns.
    if let Ok(mut refused) = TcpStream::connect(("127.0.0.1", pair.port.get())).await {
        is_cut(&mut refused, Instant::now()).await;
    }
    let lifted = Update::Removed(EntryKey::Denial(denied));
    assert_eq!(pair.west_call.change(3, false, &[lifted]).await, Ok(3));
    pair.west_call.link(LinkState::Up).await;
    withdrawn_at_west(pair).await;
}

#[tokio::test]
async fn a_whole_trust_domain_can_be_denied() {
    let mut pair = Pair::linked().await;
    let mut open = connect(pair.port).await;
    let since = Instant::now();
    let denied = Denied::TrustDomain(pair.east.trust_domain());
    let denial = Update::Put(Entry::Denial(denied));
    assert_eq!(pair.west_call.change(2, false, &[denial]).await, Ok(2));
    is_cut(&mut open, since).await;
    withdrawn_at_west(pair).await;
}

#[tokio::test]
async fn unlinking_ends_streams_on_either_side() {
    let mut pair = Pair::linked().await;
    let mut open = connect(pair.port).await;
    let since = Instant::now();
    let east = Update::Removed(EntryKey::Peer(pair.east.cluster()));
    assert_eq!(pair.west_call.change(2, false, &[east]).await, Ok(2));
    is_cut(&mut open, since).await;
    withdrawn_at_west(pair).await;

    let mut pair = Pair::linked().await;
    let mut open = connect(pair.port).await;
    let since = Instant::now();
    let west = Update::Removed(EntryKey::Peer(pair.west.cluster()));
    assert_eq!(pair.east_call.change(2, false, &[west]).await, Ok(2));
    is_cut(&mut open, since).await;
}

#[tokio::test]
async fn what_is_no_longer_exported_ends_and_the_link_stays() {
    let mut pair = Pair::linked().await;
    let mut open = connect(pair.port).await;
    let since = Instant::now();
    let east = pair.east.as_peer(&[]);
    assert_eq!(pair.west_call.change(2, true, &[east]).await, Ok(2));
    is_cut(&mut open, since).await;
    let links = pair.west.gateway.links();
    assert!(links.links.iter().any(|link| link.state == "up"));
    withdrawn_at_west(pair).await;
}
