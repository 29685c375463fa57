//! What only QUIC does: who is trusted, for how long, and what somebody may do who is not.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corinth_api::StreamReply;
use corinth_model::{Failure, Refusal};
use corinth_transport::{
    Congestion, DialError, DialTarget, Link, LinkState, OpenError, Transport,
    quic::{Doorkeeper, Handshakes, QuicTimeouts, QuicTransport},
};
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc};

use crate::{
    pair::{A, B, Between, Carrier, Pair, STRANGER, Sink, header, settled, trust_domain},
    quic::{Open, Quic, listen, listen_behind, serve, settings},
    run,
    talk::Talk,
    tls::{Clock, Cluster, NOW},
    udp::{Resets, UdpProxy},
};

const HOUR: u64 = 3_600;
/// More handshakes than are begun for addresses that may not be their senders' own.
const FLOOD: usize = 100;
/// The first byte of a Retry packet, as far as it is not protected (RFC 9000 §17.2.5).
const RETRY: u8 = 0xf0;

#[test]
fn no_stream_opens_once_a_certificate_has_expired() {
    run::to_its_end(|| async {
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        let (mut near, mut far) = pair.stream(&link).await;
        pair.carrier.clock.set(NOW + 25 * HOUR);
        let expired = Some(OpenError::CertificateExpired);
        assert_eq!(link.open(&header()).await.err(), expired);
        assert_eq!(far_link.open(&header()).await.err(), expired);
        // So that new streams go another way, where there is one.
        assert!(link.stats().is_overdue && far_link.stats().is_overdue);
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
        let dialer = transport(&a, &[&b], &clock, a_sink);
        let acceptor = transport(&b, &[&a], &late, b_sink);
        let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
        let link = dialer.dial(&target).await.unwrap();
        late.set(NOW + 25 * HOUR);
        let mut near = link.open(&header()).await.unwrap();
        near.flush().await.unwrap();
        let error = near.reply().await.unwrap_err();
        assert_eq!(error.failure(), Failure::CertificateExpired);
        assert!(incoming.try_recv().is_err());
    });
}

#[test]
fn renewed_certificates_keep_both_sides_opening_streams() {
    run::to_its_end(|| async {
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        let (mut near, mut far) = pair.stream(&link).await;
        for hours in [12, 25, 37, 50] {
            renew(&pair.carrier, hours);
            works_both_ways(&mut pair, &link, &far_link).await;
        }
        settled(&link, LinkState::Up).await;
        // What was open on the first connection is still.
        near.write(b"old").await.unwrap();
        assert_eq!(far.read(3).await.unwrap(), b"old");
        drop((near, far));
        // Nobody needs what was replaced.
        run::eventually(|| link.stats().connections == 1).await;
        run::eventually(|| far_link.stats().connections == 1).await;
        assert!(link.stats().dialled >= 3, "{:?}", link.stats());
        works_both_ways(&mut pair, &link, &far_link).await;
    });
}

#[test]
fn a_successor_is_dialled_while_its_connection_can_still_be_used() {
    run::to_its_end(|| async {
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        renew(&pair.carrier, 12);
        // Less than half an hour before the first leaves expire, and more than a quarter.
        pair.carrier.clock.set(NOW + 24 * HOUR - HOUR / 3);
        works_both_ways(&mut pair, &link, &far_link).await;
        run::eventually(|| link.stats().dialled == 2).await;
        run::eventually(|| link.stats().connections == 1).await;
        works_both_ways(&mut pair, &link, &far_link).await;
        assert_eq!(link.stats().dialled, 2);
    });
}

/// It is so many hours later, and both sides have a new leaf.
fn renew(carrier: &Quic<false>, hours: u64) {
    let now = NOW + hours * HOUR;
    carrier.a.own.renew(crate::tls::at(now)).unwrap();
    carrier.b.own.renew(crate::tls::at(now)).unwrap();
    carrier.clock.set(now);
}

async fn works_both_ways(
    pair: &mut Pair<Quic<false>>,
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

fn transport(
    cluster: &Cluster,
    linked: &[&Cluster],
    clock: &Arc<Clock>,
    sink: Arc<Sink>,
) -> Arc<QuicTransport> {
    let settings = settings(cluster, linked, clock, QuicTimeouts::default());
    Arc::new(QuicTransport::new(settings, sink))
}

/// What `a` meets when it dials `b`, whose listener knows the clusters in `linked`.
async fn dial(knows: &[&Cluster], a: &Cluster, b: &Cluster, linked: &[&Cluster]) -> DialError {
    let clock = Clock::new();
    let dialer = transport(a, knows, &clock, Sink::new().0);
    let acceptor = transport(b, linked, &clock, Sink::new().0);
    let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
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
        assert_eq!(error.failure(), Failure::Untrusted, "{error}");
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

#[test]
fn a_peer_has_no_more_streams_than_it_may() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let (b_sink, mut incoming) = Sink::new();
        let dialer = transport(&a, &[&b], &clock, Sink::new().0);
        let mut tight = settings(&b, &[&a], &clock, QuicTimeouts::default());
        tight.streams_per_peer = 1;
        let acceptor = Arc::new(QuicTransport::new(tight, b_sink));
        let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
        let link = dialer.dial(&target).await.unwrap();
        let mut first = link.open(&header()).await.unwrap();
        first.flush().await.unwrap();
        let mut served = incoming.recv().await.unwrap();
        let mut second = link.open(&header()).await.unwrap();
        second.flush().await.unwrap();
        let refused = StreamReply::Refused(Refusal::OverLimit);
        assert_eq!(second.reply().await.unwrap(), refused);
        assert_eq!(second.read_to_end().await.unwrap(), b"");
        // Who has sent all it had is told so too: its end came with the header.
        let mut third = link.open(&header()).await.unwrap();
        third.end().await.unwrap();
        assert_eq!(third.reply().await.unwrap(), refused);
        assert_eq!(third.read_to_end().await.unwrap(), b"");
        // The one that is there is none the worse.
        served.answer(StreamReply::Accepted).await.unwrap();
        assert_eq!(first.reply().await.unwrap(), StreamReply::Accepted);
    });
}

#[test]
fn bytes_arrive_by_either_way_to_send() {
    run::to_its_end(|| async {
        for congestion in [Congestion::Cubic, Congestion::Bbr] {
            let clock = Clock::new();
            let (a, b) = (Cluster::new(A), Cluster::new(B));
            let (b_sink, mut incoming) = Sink::new();
            let chosen = settings(&a, &[&b], &clock, QuicTimeouts::default());
            let wanted = std::collections::BTreeMap::from([(trust_domain(B), congestion)]);
            chosen.congestions.replace(wanted);
            let dialer = QuicTransport::new(chosen, Sink::new().0);
            let acceptor = transport(&b, &[&a], &clock, b_sink);
            let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
            let link = dialer.dial(&target).await.unwrap();
            let mut near = link.open(&header()).await.unwrap();
            near.flush().await.unwrap();
            let mut far = incoming.recv().await.unwrap();
            let (wrote, read) = tokio::join!(near.write(&[7; 1 << 20]), far.read(1 << 20));
            wrote.unwrap();
            assert!(read.unwrap() == vec![7; 1 << 20]);
        }
    });
}

#[test]
fn a_transport_that_closed_is_dialled_in_vain() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let dialer = Arc::new(QuicTransport::new(
            settings(&a, &[&b], &clock, hasty()),
            Sink::new().0,
        ));
        let acceptor = transport(&b, &[&a], &clock, Sink::new().0);
        let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
        let link = dialer.dial(&target).await.unwrap();
        acceptor.close();
        settled(&link, LinkState::Dead).await;
        assert!(dialer.dial(&target).await.is_err());
    });
}

/// Tells who passed, and who did not and why.
struct Watchful(mpsc::UnboundedSender<(IpAddr, Option<Failure>)>);

impl Doorkeeper for Watchful {
    fn enter(&self, _: IpAddr) -> Option<Box<dyn Any + Send>> {
        Some(Box::new(()))
    }

    fn verified(&self, source: IpAddr) {
        self.0.send((source, None)).unwrap();
    }

    fn turned_away(&self, source: SocketAddr, failure: Failure) {
        self.0.send((source.ip(), Some(failure))).unwrap();
    }
}

#[test]
fn whoever_comes_is_told_of_and_counted() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b, stranger) = (Cluster::new(A), Cluster::new(B), Cluster::new(STRANGER));
        let acceptor = transport(&b, &[&a], &clock, Sink::new().0);
        let (told, mut heard) = mpsc::unbounded_channel();
        let home = IpAddr::from(Ipv4Addr::LOCALHOST);
        let keeper = Arc::new(Watchful(told));
        let target = b.target(listen_behind(&acceptor, home, keeper));
        let dialer = transport(&a, &[&b], &clock, Sink::new().0);
        dialer.dial(&target).await.unwrap();
        assert_eq!(heard.recv().await, Some((home, None)));
        let dialer = transport(&stranger, &[&b], &clock, Sink::new().0);
        assert!(dialer.dial(&target).await.is_err());
        let (source, failure) = heard.recv().await.unwrap();
        assert_eq!(source, home);
        assert!(failure.is_some());
        let expected = Handshakes {
            accepted: 1,
            failed: 1,
            ..Handshakes::default()
        };
        assert_eq!(acceptor.handshakes(), expected);
        let granted = acceptor.granted().unwrap();
        assert!(granted.receive_bytes > 0 && granted.send_bytes > 0);
    });
}

fn hasty() -> QuicTimeouts {
    QuicTimeouts {
        connect: Duration::from_millis(200),
        ..QuicTimeouts::default()
    }
}

/// Workers that share a port in this test.
const WORKERS: usize = 4;
/// Changes of address, each of which leads to any of them.
const REBINDINGS: usize = 16;

#[test]
fn a_connection_outlives_changes_of_address_whichever_worker_its_packets_reach() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let (b_sink, mut incoming) = Sink::new();
        let dialer = transport(&a, &[&b], &clock, Sink::new().0);
        let acceptor = transport(&b, &[&a], &clock, b_sink);
        let listening = listen_shared(&acceptor, WORKERS);
        let resets = Resets {
            client: [1; 32],
            server: [2; 32],
        };
        let proxy = UdpProxy::to(listening, None, resets).await.unwrap();
        let link = dialer.dial(&b.target(proxy.address)).await.unwrap();
        let mut near = link.open(&header()).await.unwrap();
        near.flush().await.unwrap();
        let mut far = incoming.recv().await.unwrap();
        far.answer(StreamReply::Accepted).await.unwrap();
        assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
        for _ in 0..REBINDINGS {
            proxy.rebind();
            near.write(b"still").await.unwrap();
            assert_eq!(far.read(5).await.unwrap(), b"still");
            far.write(b"here").await.unwrap();
            assert_eq!(near.read(4).await.unwrap(), b"here");
        }
        assert_eq!(link.stats().dialled, 1);
        assert!(acceptor.handed_over() > 0, "other workers were reached");
    });
}

/// Serves a port with so many sockets, of which the kernel picks one by both addresses.
fn listen_shared(transport: &Arc<QuicTransport>, workers: usize) -> SocketAddr {
    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for _ in 0..workers {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        serve(transport, socket.into(), Arc::new(Open));
    }
    address
}

#[test]
fn a_listener_that_says_nothing_is_given_up() {
    run::to_its_end(|| async {
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = b.target(silent.local_addr().unwrap());
        let dialer = QuicTransport::new(settings(&a, &[&b], &Clock::new(), hasty()), Sink::new().0);
        let error = dialer.dial(&target).await.err().unwrap();
        assert_eq!(error.failure(), Failure::PeerUnreachable, "{error}");
        assert!(error.to_string().contains("UDP"), "{error}");
    });
}

#[test]
fn addresses_are_asked_for_when_many_handshakes_are_under_way_and_peers_come_in_all_the_same() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let dialer = transport(&a, &[&b], &clock, Sink::new().0);
        let acceptor = transport(&b, &[&a], &clock, Sink::new().0);
        let listening = listen(&acceptor, Ipv4Addr::LOCALHOST.into());
        // What dialers say first, sent on by somebody who cannot go on.
        let flood = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        flood.connect(listening).await.unwrap();
        let nowhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dials = dial_in_vain(&dialer, &b.target(nowhere.local_addr().unwrap()));
        let (mut packet, mut answer) = ([0; 2_048], [0; 2_048]);
        loop {
            tokio::select! {
                received = nowhere.recv(&mut packet) => {
                    flood.send(&packet[..received.unwrap()]).await.unwrap();
                }
                received = flood.recv(&mut answer) => {
                    if received.unwrap() > 0 && answer[0] & RETRY == RETRY {
                        break;
                    }
                }
            }
        }
        let link = dialer.dial(&b.target(listening)).await.unwrap();
        assert_eq!(*link.state().borrow(), LinkState::Up);
        drop(dials);
    });
}

/// Dials where nobody answers, many times at once.
fn dial_in_vain(dialer: &Arc<QuicTransport>, target: &DialTarget) -> tokio::task::JoinSet<()> {
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..FLOOD {
        let (dialer, target) = (Arc::clone(dialer), target.clone());
        dials.spawn(async move {
            // It is given up in the end, which is all it is for.
            let _ = dialer.dial(&target).await;
        });
    }
    dials
}
