//! What stands between two gateways decides by the port where packets go: how connections get around what it decided.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use corinth_transport::{
    LinkState, Transport,
    quic::{QuicSettings, QuicTimeouts, QuicTransport},
};
use socket2::{Domain, Socket, Type};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    pair::{A, B, Sink, header, settled},
    quic::{Dialled, Open, settings},
    run,
    talk::Talk,
    tls::{Clock, Cluster},
};

fn hasty(settings: &mut QuicSettings) {
    settings.timeouts.probe_interval = Duration::from_millis(100);
}

#[test]
fn each_dial_comes_from_a_port_of_its_own() {
    run::to_its_end(|| async {
        let dialled = Dialled::new().await;
        assert_eq!(dialled.proxy.clients(), 1);
        let again = dialled.near.dial(&dialled.target).await.unwrap();
        assert!(Arc::ptr_eq(&again, &dialled.link));
        assert_eq!(dialled.proxy.clients(), 2);
    });
}

#[test]
fn a_port_whose_packets_are_lost_is_left_for_another_one_before_the_peer_counts_as_dead() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(hasty).await;
        let (_stranded, _) = dialled.stream().await;
        let mut state = dialled.link.state();
        state.mark_unchanged();
        dialled.proxy.strand();
        let link = Arc::clone(&dialled.link);
        run::eventually(|| link.stats().dialled == 2).await;
        let (mut near, mut far) = dialled.stream().await;
        near.write(b"another way").await.unwrap();
        assert_eq!(far.read(11).await.unwrap(), b"another way");
        // The old connection is given up meanwhile, and nothing is heard of it.
        run::eventually(|| link.stats().connections == 1).await;
        assert!(!state.has_changed().unwrap(), "{:?}", *state.borrow());
        assert!(!link.stats().is_overdue);
    });
}

#[test]
fn a_peer_that_answers_on_no_port_is_dead_within_a_second() {
    run::to_its_end(|| async {
        let dialled = Dialled::with(hasty).await;
        dialled.proxy.cut();
        let dead = settled(&dialled.link, LinkState::Dead);
        let in_time = tokio::time::timeout(Duration::from_secs(1), dead).await;
        assert!(in_time.is_ok());
    });
}

#[test]
fn a_peer_that_hears_nothing_is_dead_within_a_second_although_it_speaks() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(hasty).await;
        let (_near, mut far) = dialled.stream().await;
        dialled.proxy.cut_there();
        // It says again and again what it has heard before.
        far.write(&[1; 100_000]).await.unwrap();
        let dead = settled(&dialled.link, LinkState::Dead);
        let in_time = tokio::time::timeout(Duration::from_secs(1), dead).await;
        assert!(in_time.is_ok());
    });
}

/// A socket on a port that further ones may share.
fn shared_socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into()).unwrap();
    socket.into()
}

/// Serves this socket until told to stop.
fn serve(
    transport: &Arc<QuicTransport>,
    socket: UdpSocket,
) -> (oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let (stop, stopped) = oneshot::channel();
    let transport = Arc::clone(transport);
    let closing = async {
        let _ = stopped.await;
    };
    let serving =
        tokio::spawn(async move { transport.serve(socket, Arc::new(Open), closing).await });
    (stop, serving)
}

#[test]
fn a_port_is_listened_on_again_while_connections_from_before_go_on() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let transport = |own: &Cluster, peer: &Cluster, sink| {
            let settings = settings(own, &[peer], &clock, QuicTimeouts::default());
            Arc::new(QuicTransport::new(settings, sink))
        };
        let (sink, mut incoming) = Sink::new();
        let (near, far) = (transport(&a, &b, Sink::new().0), transport(&b, &a, sink));
        let socket = shared_socket(0);
        let address = socket.local_addr().unwrap();
        let (mut stop, mut serving) = serve(&far, socket);
        let link = near.dial(&b.target(address)).await.unwrap();
        let mut old = link.open(&header()).await.unwrap();
        old.flush().await.unwrap();
        let mut served = incoming.recv().await.unwrap();
        assert!(!far.lingers_at(address));
        for _ in 0..3 {
            stop_serving(&far, address, stop, serving).await;
            (stop, serving) = serve(&far, shared_socket(address.port()));
            // Whatever port a dial comes from, it gets through.
            for _ in 0..8 {
                let another = transport(&a, &b, Sink::new().0);
                another.dial(&b.target(address)).await.unwrap();
            }
        }
        old.write(b"still").await.unwrap();
        assert_eq!(served.read(5).await.unwrap(), b"still");
        drop((old, served));
        // With the last connection the port is given up.
        stop_serving(&far, address, stop, serving).await;
        far.close();
        run::eventually(|| !far.lingers_at(address)).await;
        run::eventually(|| UdpSocket::bind(address).is_ok()).await;
    });
}

async fn stop_serving(
    far: &Arc<QuicTransport>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
) {
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(far.lingers_at(address));
}
