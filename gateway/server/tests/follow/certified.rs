//! Gateways that have no authority: their control plane issues their certificates.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use corinth_api::LinkState;
use corinth_identity::Authority;
use corinth_model::{ClusterName, PortNumber, Target, TrustDomain};
use rustls_pki_types::UnixTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::fixture::*;

const DAY: Duration = Duration::from_hours(24);
const KEPT: &str = "gateway-leaf.pem";

fn issuer(lifetime: Duration) -> (Issuer, mpsc::UnboundedReceiver<()>) {
    let domain = TrustDomain::of_cluster(&ClusterName::parse("east").unwrap());
    let authority = Authority::create(domain, UnixTime::now()).unwrap();
    let (issued, told) = mpsc::unbounded_channel();
    let issuer = Issuer {
        authority: Arc::new(authority),
        lifetime,
        issued,
    };
    (issuer, told)
}

/// `east`, whose control plane issues, is linked with `west`, and calls a service of it at a port.
struct Certified {
    east: Node,
    east_control: FakeControl,
    port: PortNumber,
    _east_call: Call,
    _west: (Node, FakeControl, Call),
}

impl Certified {
    async fn linked(directory: &Path, issuer: &Issuer) -> Self {
        let east = Node::start_certified("east", directory);
        let west = Node::start("west");
        let mut east_control = FakeControl::issuing(directory, issuer.clone());
        let mut west_control = FakeControl::listen(&west.directory);
        let (mut east_call, _) = east_control.call().await;
        let (mut west_call, _) = west_control.call().await;
        let port = free_port();
        let root = issuer.authority.root();
        let offered = export(echo().await, &east.cluster());
        let west_tables = [east.as_peer_under(root, &[]), offered];
        assert_eq!(west_call.change(1, true, &west_tables).await, Ok(1));
        let called = put(route("web", port, Target::Cluster(west.cluster())));
        let east_tables = [west.as_peer(&[west.tunnel()]), called];
        assert_eq!(east_call.change(1, true, &east_tables).await, Ok(1));
        east_call.link(LinkState::Up).await;
        Self {
            east,
            east_control,
            port,
            _east_call: east_call,
            _west: (west, west_control, west_call),
        }
    }
}

/// A connection that may be answered, or ended.
async fn is_served(port: PortNumber) -> bool {
    // Who is reset at once may see it before the connect is over.
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port.get())).await else {
        return false;
    };
    let _ = socket.write_all(b"hello").await;
    let mut back = [0; 5];
    soon(socket.read_exact(&mut back)).await.is_ok()
}

#[tokio::test]
async fn a_gateway_without_an_authority_is_ready_once_its_certificate_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let east = Node::start_certified("east", folder.path());
    assert!(!east.readiness.is_ready());
    let shown = east.readiness.state().to_string();
    assert!(shown.contains("pending: certificate: none"), "{shown}");
    assert_eq!(east.gateway.certificate_not_after(), 0);
    assert_eq!(east.gateway.certificate(), "certificate: none yet");
    let (issuer, _issued) = issuer(DAY);
    let mut control = FakeControl::issuing(folder.path(), issuer);
    let (mut call, _) = control.call().await;
    assert_eq!(call.change(1, true, &[]).await, Ok(1));
    assert!(soon(east.readiness.reached()).await);
    assert_ne!(east.gateway.certificate_not_after(), 0);
    assert!(!folder.path().join("ca.key").exists());
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, mut issued) = issuer(Duration::from_secs(4));
    let _control = FakeControl::issuing(folder.path(), issuer);
    let east = Node::start_certified("east", folder.path());
    soon(issued.recv()).await.unwrap();
    let renewed = async {
        let mut first = 0;
        loop {
            let end = east.gateway.certificate_not_after();
            if first != 0 && end > first {
                return;
            }
            first = end;
            tokio::task::yield_now().await;
        }
    };
    soon(renewed).await;
    soon(issued.recv()).await.unwrap();
}

#[tokio::test]
async fn connections_go_on_without_a_control_plane_until_the_certificate_expires_and_open_ones_after_it()
 {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _issued) = issuer(Duration::from_secs(8));
    let lab = Certified::linked(folder.path(), &issuer).await;
    let mut open = connect(lab.port).await;
    drop(lab.east_control);
    assert!(is_served(lab.port).await, "it has its certificate");
    let east = &lab.east.gateway;
    let shown = east.control_page().unwrap();
    let end = east.certificate_not_after();
    assert!(shown.is_certificate_from_control && shown.certificate_not_after == end);
    assert!(counted_down(&lab.east).await >= 2, "it can be watched");

    soon(async { while is_served(lab.port).await {} }).await;
    assert!(UnixTime::now().as_secs() >= end, "not before its time");
    let expiry = "corinth_certificate_expiry_timestamp_seconds";
    assert_eq!(lab.east.metric(expiry), end.to_string());
    assert_eq!(lab.east.metric("corinth_certificate_expiring"), "1");
    says_back(&mut open, b"still").await;
    assert!(!is_served(lab.port).await);
    drop(open);
    lab.east.gateway.stop().await;
    let log = lab.east.access_log();
    assert!(log.contains("\"CRN041\""), "{log}");
}

/// Watches what is told of a certificate until it has expired; how many seconds of it were seen, each one less than the
/// one before.
async fn counted_down(node: &Node) -> usize {
    let mut seen: Vec<u64> = Vec::new();
    soon(async {
        loop {
            let shown = node.gateway.certificate();
            if shown.starts_with("certificate: expired at ") {
                return;
            }
            let left = shown.split_once(" s left").expect("it holds").0;
            let left = left.rsplit(' ').next().unwrap().parse().unwrap();
            if seen.last() != Some(&left) {
                assert!(seen.last().is_none_or(|before| left < *before), "{seen:?}");
                seen.push(left);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    seen.len()
}

#[tokio::test]
async fn a_gateway_starts_from_the_certificate_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _issued) = issuer(DAY);
    let mut lab = Certified::linked(folder.path(), &issuer).await;
    assert!(is_served(lab.port).await);
    let end = lab.east.gateway.certificate_not_after();
    lab.east.gateway.stop().await;
    drop(lab.east_control);
    let mode = std::fs::metadata(folder.path().join(KEPT)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    lab.east = Node::start_certified("east", folder.path());
    assert!(soon(lab.east.readiness.reached()).await);
    assert_eq!(lab.east.gateway.certificate_not_after(), end);
    let served = async { while !is_served(lab.port).await {} };
    soon(served).await;
}
