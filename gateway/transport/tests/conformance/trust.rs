//! What only a transport with certificates does: who is trusted, and for how long.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use corinth_api::StreamReply;
use corinth_model::Failure;
use corinth_transport::{
    DialError, Link, LinkState, OpenError, Transport,
    tls::{Timeouts, TlsTransport},
};
use tokio::net::TcpListener;

use crate::{
    pair::{A, B, Between, Carrier, Pair, STRANGER, Sink, header, settled},
    run,
    talk::Talk,
    tls::{Clock, Cluster, NOW, Tls, at, listen},
};

const HOUR: u64 = 3_600;

#[test]
fn no_stream_opens_once_a_certificate_has_expired() {
    run::to_its_end(|| async {
        let mut pair = Tls::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        let (mut near, mut far) = pair.stream(&link).await;
        pair.carrier.clock.set(NOW + 25 * HOUR);
        let expired = Some(OpenError::CertificateExpired);
        assert_eq!(link.open(&header()).await.err(), expired);
        assert_eq!(far_link.open(&header()).await.err(), expired);
        assert!(pair.b.incoming.try_recv().is_err());
        // What was open goes on.
        near.write(b"still").await.unwrap();
        near.end().await.unwrap();
        assert_eq!(far.read_to_end().await.unwrap(), b"still");
        far.write(b"here").await.unwrap();
        far.end().await.unwrap();
        assert_eq!(near.read_to_end().await.unwrap(), b"here");
    });
}

#[test]
fn an_acceptor_refuses_a_stream_on_a_connection_whose_certificate_expired() {
    run::to_its_end(|| async {
        // The dialer's clock stands still: only the acceptor knows.
        let (clock, late) = (Clock::new(), Clock::new());
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let ((a_sink, _a), (b_sink, mut incoming)) = (Sink::new(), Sink::new());
        let dialer = a.transport(&[&b], &clock, Timeouts::default(), a_sink);
        let acceptor = b.transport(&[&a], &late, Timeouts::default(), b_sink);
        let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()).await);
        let link = dialer.dial(&target).await.unwrap();
        run::eventually(|| link.stats().idle >= 1).await;
        late.set(NOW + 25 * HOUR);
        let mut near = link.open(&header()).await.unwrap();
        near.flush().await.unwrap();
        assert!(near.reply().await.is_err());
        assert!(incoming.try_recv().is_err());
    });
}

#[test]
fn renewed_certificates_keep_both_sides_opening_streams() {
    run::to_its_end(|| async {
        let mut pair = Tls::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        for hours in [12, 25, 37, 50] {
            renew(&pair.carrier, hours);
            works_both_ways(&mut pair, &link, &far_link).await;
        }
        settled(&link, LinkState::Up).await;
    });
}

#[test]
fn both_sides_open_streams_although_every_idle_connection_has_expired() {
    run::to_its_end(|| async {
        let mut pair = Tls::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        run::eventually(|| link.stats().idle >= 1 && far_link.stats().idle >= 1).await;
        renew(&pair.carrier, 12);
        renew(&pair.carrier, 25);
        works_both_ways(&mut pair, &link, &far_link).await;
    });
}

/// It is so many hours later, and both sides have a new leaf.
fn renew(carrier: &Tls<false>, hours: u64) {
    let now = NOW + hours * HOUR;
    carrier.a.own.renew(at(now)).unwrap();
    carrier.b.own.renew(at(now)).unwrap();
    carrier.clock.set(now);
}

async fn works_both_ways(
    pair: &mut Pair<Tls<false>>,
    link: &Arc<dyn Link>,
    far_link: &Arc<dyn Link>,
) {
    let (mut near, mut far) = pair.stream(link).await;
    near.write(b"there").await.unwrap();
    assert_eq!(far.read(5).await.unwrap(), b"there");
    let mut opener = far_link.open(&header()).await.unwrap();
    opener.flush().await.unwrap();
    let mut server = pair.a.next().await;
    server.answer(StreamReply::Accepted).await.unwrap();
    assert_eq!(opener.reply().await.unwrap(), StreamReply::Accepted);
}

/// `a` and what it meets when it dials `b`, whose listener knows the clusters in `linked`.
async fn dial(knows: &[&Cluster], a: &Cluster, b: &Cluster, linked: &[&Cluster]) -> DialError {
    let clock = Clock::new();
    let ((a_sink, _a), (b_sink, _b)) = (Sink::new(), Sink::new());
    let dialer = a.transport(knows, &clock, Timeouts::default(), a_sink);
    let acceptor = b.transport(linked, &clock, Timeouts::default(), b_sink);
    let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()).await);
    let error = dialer.dial(&target).await.err().expect("it is refused");
    assert!(acceptor.links().is_empty());
    assert!(dialer.links().is_empty());
    error
}

#[test]
fn a_dialer_that_the_acceptor_does_not_trust_gets_an_error() {
    run::to_its_end(|| async {
        let (a, b, stranger) = (Cluster::new(A), Cluster::new(B), Cluster::new(STRANGER));
        let error = dial(&[&b], &stranger, &b, &[&a]).await;
        assert!(matches!(error, DialError::Handshake { .. }), "{error}");
    });
}

#[test]
fn an_acceptor_without_a_bundle_is_refused() {
    run::to_its_end(|| async {
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let error = dial(&[], &a, &b, &[&a]).await;
        assert_eq!(error.failure(), Failure::Untrusted, "{error}");
    });
}

#[test]
fn the_same_trust_domain_under_another_authority_is_refused() {
    run::to_its_end(|| async {
        let (a, b, impostor) = (Cluster::new(A), Cluster::new(B), Cluster::new(B));
        let error = dial(&[&b], &a, &impostor, &[&a]).await;
        assert_eq!(error.failure(), Failure::Untrusted, "{error}");
    });
}

fn hasty() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(200),
        handshake: Duration::from_millis(200),
        first_frame: Duration::from_millis(200),
        ..Timeouts::default()
    }
}

fn hasty_dialer(a: &Cluster, b: &Cluster) -> Arc<TlsTransport> {
    a.transport(&[b], &Clock::new(), hasty(), Sink::new().0)
}

#[test]
fn a_listener_that_says_nothing_is_given_up() {
    run::to_its_end(|| async {
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = b.target(silent.local_addr().unwrap());
        let error = hasty_dialer(&a, &b).dial(&target).await.err().unwrap();
        assert_eq!(error.failure(), Failure::TlsTimeout, "{error}");
    });
}

#[test]
fn a_dialer_that_says_nothing_is_given_up() {
    run::to_its_end(|| async {
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let acceptor = b.transport(&[&a], &Clock::new(), hasty(), Sink::new().0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let error = acceptor.accept(socket, Vec::new()).await.err().unwrap();
        assert_eq!(error.failure(), Failure::TlsTimeout, "{error}");
    });
}
