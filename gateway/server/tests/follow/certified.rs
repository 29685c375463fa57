//! Gateways that have no authority: their control plane issues their certificates.

use std::{
    collections::BTreeSet, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc,
    time::Duration,
};

use corinth_api::{Entry, LinkState, Update};
use corinth_identity::Authority;
use corinth_model::{
    AddressSource, ClusterName, Direct, DnsName, Endpoint, Export, Locality, PortNumber, Protocol,
    RouteName, SpiffeId, Target, TrustDomain,
};
use rustls_pki_types::UnixTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

use crate::fixture::*;

const DAY: Duration = Duration::from_hours(24);
const KEPT: &str = "gateway-leaf.pem";
const SERVER_NAME: &str = "web.example.com";

fn issuer(lifetime: Duration) -> (Issuer, mpsc::UnboundedReceiver<()>) {
    let (issued, told) = mpsc::unbounded_channel();
    let issuer = Issuer {
        authority: watch::Sender::new(authority(UnixTime::now())),
        lifetime,
        issued,
    };
    (issuer, told)
}

/// A new authority of `east`.
fn authority(now: UnixTime) -> Arc<Authority> {
    let domain = TrustDomain::of_cluster(&ClusterName::parse("east").unwrap());
    Arc::new(Authority::create(domain, now).unwrap())
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
        let authority = Arc::clone(&issuer.authority.borrow());
        let offered = export(echo().await, &east.cluster());
        let west_tables = [east.as_peer_under(authority.root(), &[]), offered];
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
async fn a_certificate_is_renewed_soon_when_another_root_issues() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, mut issued) = issuer(DAY);
    let mut control = FakeControl::issuing(folder.path(), issuer.clone());
    let east = Node::start_certified("east", folder.path());
    soon(issued.recv()).await.unwrap();
    let (mut call, _) = control.call().await;
    assert_eq!(call.change(1, true, &[]).await, Ok(1));
    let kept = || std::fs::read(folder.path().join(KEPT)).ok();
    soon(async {
        while kept().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = kept();
    let next = authority(UnixTime::now());
    issuer.authority.send_replace(next);
    // Half of its life is twelve hours away.
    soon(issued.recv()).await.unwrap();
    soon(async {
        while kept() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(east.readiness.is_ready());
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

/// The service `web.shop`, open to clients on this host that ask for the name.
fn passthrough(endpoint: SocketAddr, name: &str) -> Update {
    let route = RouteName::parse("443.web.shop.svc.clusterset.local").unwrap();
    let endpoint = Endpoint::new(endpoint, Locality::default(), AddressSource::OwnConfig).unwrap();
    Update::Put(Entry::Export(Export {
        service: route.service,
        port: route.port,
        protocol: Protocol::Tcp,
        endpoints: vec![endpoint],
        audience: BTreeSet::new(),
        sni_names: vec![DnsName::parse(name).unwrap()],
        tls: true,
        direct: Some(Direct::Passthrough {
            sources: vec!["127.0.0.0/8".parse().unwrap()],
        }),
        max_streams: None,
    }))
}

/// What a TLS client says first.
fn client_hello(name: &'static str) -> Vec<u8> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_gateway_that_starts_with_an_expired_certificate_serves_what_needs_none_and_says_what_it_waits_for()
 {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _issued) = issuer(DAY);
    let mut control = FakeControl::issuing(folder.path(), issuer.clone());
    let east = Node::start_certified("east", folder.path());
    let (mut call, _) = control.call().await;
    let (port, echo) = (free_port(), echo().await);
    let tables = [
        put(route("web", port, Target::Endpoint(echo))),
        passthrough(echo, SERVER_NAME),
    ];
    assert_eq!(call.change(1, true, &tables).await, Ok(1));
    assert!(is_served(port).await);
    east.gateway.stop().await;
    drop((east, control));

    let two_days_ago =
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) - 2 * DAY);
    let authority = authority(two_days_ago);
    let id = SpiffeId::parse("spiffe://east.corinth.internal/corinth/gateway/0").unwrap();
    let expired = authority.issue(&id, &[], two_days_ago, DAY).unwrap();
    std::fs::write(folder.path().join(KEPT), expired.to_pem()).unwrap();

    let east = Node::start_certified("east", folder.path());
    assert!(!east.readiness.is_ready());
    let shown = east.readiness.state().to_string();
    assert!(
        shown.contains("pending: certificate: expired at "),
        "{shown}"
    );
    assert!(
        shown.contains("(CRN041); start the control plane"),
        "{shown}"
    );
    assert!(
        east.gateway
            .certificate()
            .starts_with("certificate: expired")
    );
    soon(async { while !is_served(port).await {} }).await;
    let hello = client_hello(SERVER_NAME);
    let mut direct = TcpStream::connect(east.tunnel()).await.unwrap();
    says_back(&mut direct, &hello).await;

    let _control = FakeControl::issuing(folder.path(), issuer);
    assert!(soon(east.readiness.reached()).await);
    let end = east.gateway.certificate_not_after();
    assert!(end > UnixTime::now().as_secs());
}
