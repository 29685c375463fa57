//! A control plane in a folder of its own, and a stand-in for its gateway.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) use corinth_api::wire::admin::rotate_root_request::Step;
use corinth_api::wire::admin::{
    CarryLinkRequest, RotateRootRequest, RotateRootResponse, StatusRequest,
    admin_client::AdminClient, status_request::Kind,
};
use corinth_api::wire::identity::{
    FollowIssuerRequest, Issuer, SignRequest, SignResponse, identity_client::IdentityClient,
};
use corinth_api::wire::peering::{self, peering_client::PeeringClient};
use corinth_api::wire::routes::routes_client::RoutesClient;
use corinth_api::{Entry, EntryKey, HandOver, LinkReport, LinkState, Report, Update};
use corinth_control::ControlPlane;
use corinth_control::cluster::file::{Fixed, ObjectsFile};
use corinth_control::cluster::{
    Audience, Cluster, DeclaredExport, DeclaredLink, DeclaredPort, DeclaredService, LinkMode, Write,
};
use corinth_control::settings::Settings;
use corinth_daemon::metrics::{Build, Metrics};
use corinth_identity::StateDir;
use corinth_model::{
    Accepted, AddressSource, Carriage, ClusterName, Condition, Endpoint, Failure, GatewayId,
    Locality, PortNumber, Protocol, Reason, Route, RouteName, ServiceId, Slot, TrustDomain,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::UnixTime;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint as Dial, Uri};

const WAIT: Duration = Duration::from_secs(60);

type Entries = BTreeMap<EntryKey, Entry>;

pub(crate) fn service(text: &str) -> ServiceId {
    text.parse().unwrap()
}

pub(crate) fn port(number: u16) -> PortNumber {
    PortNumber::new(number).unwrap()
}

/// A service with one endpoint, and its export to everybody.
pub(crate) fn export(_name: &str) -> (DeclaredService, DeclaredExport) {
    let endpoint = Endpoint::new(
        "127.0.0.1:8080".parse().unwrap(),
        Locality::default(),
        AddressSource::OwnConfig,
    );
    let declared = DeclaredPort {
        endpoints: vec![endpoint.unwrap()],
        ..DeclaredPort::default()
    };
    let service = DeclaredService {
        ports: BTreeMap::from([((port(80), Protocol::Tcp), declared)]),
    };
    let export = DeclaredExport {
        to: Audience::All,
        since_ms: 1,
    };
    (service, export)
}

/// One cluster without gateways.
pub(crate) struct Plane {
    name: ClusterName,
    settings: Settings,
    pub(crate) objects: Arc<ObjectsFile>,
    running: Option<(ControlPlane, JoinHandle<()>)>,
    entries: watch::Sender<Entries>,
    bridge: Arc<Bridge>,
    _folder: TempDir,
}

/// East accepts `shop/*` of west, and the other way round.
pub(crate) struct Lab {
    pub(crate) east: Plane,
    pub(crate) west: Plane,
    bridge: Arc<Bridge>,
}

/// Carries peering streams from one hand-over socket to the other.
#[derive(Default)]
struct Bridge {
    sockets: parking_lot::Mutex<BTreeMap<ClusterName, std::path::PathBuf>>,
    bytes: AtomicU64,
    cut: tokio::sync::Notify,
}

impl Lab {
    pub(crate) async fn linked() -> Self {
        let bridge = Arc::new(Bridge::default());
        let mut east = Plane::new("east", &bridge);
        let mut west = Plane::new("west", &bridge);
        east.link(&west);
        west.link(&east);
        east.start();
        west.start();
        east.up_to_date("west").await;
        Self { east, west, bridge }
    }

    pub(crate) fn handed_over_bytes(&self) -> u64 {
        self.bridge.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn cut_peering(&self) {
        self.bridge.cut.notify_waiters();
    }
}

impl Plane {
    fn new(name: &str, bridge: &Arc<Bridge>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name: ClusterName = name.parse().unwrap();
        let domain = TrustDomain::of_cluster(&name);
        let settings = Settings::new(name.clone(), domain, &folder.path().join("state"));
        StateDir::open(&settings.state_dir).unwrap();
        let objects = corinth_control::run::objects(&settings, Fixed::default()).unwrap();
        bridge
            .sockets
            .lock()
            .insert(name.clone(), settings.handover.clone());
        Self {
            name,
            settings,
            objects,
            running: None,
            entries: watch::Sender::default(),
            bridge: Arc::clone(bridge),
            _folder: folder,
        }
    }

    fn link(&self, other: &Self) {
        let state = StateDir::open(&other.settings.state_dir).unwrap();
        let state = state
            .load_or_create(&other.settings.trust_domain, UnixTime::now())
            .unwrap();
        let link = DeclaredLink {
            trust_domain: other.settings.trust_domain.clone(),
            roots: vec![state.authority.root().clone()],
            bundle_sequence: state.bundle.sequence(),
            addresses: vec!["10.0.0.1:15443".to_owned()],
            accepted: Accepted(vec!["shop/*".parse().unwrap()]),
            max_streams: None,
            quota: None,
            mode: LinkMode::Active,
            carriage: Carriage::default(),
        };
        let write = Write::Link(other.name.clone(), Box::new(link));
        self.objects.write(write).unwrap();
    }

    pub(crate) fn set_mode(&self, peer: &str, mode: LinkMode) {
        let peer: ClusterName = peer.parse().unwrap();
        let mut link = self.objects.declared().borrow().links[&peer].clone();
        link.mode = mode;
        self.objects
            .write(Write::Link(peer, Box::new(link)))
            .unwrap();
    }

    pub(crate) fn export(&self, name: &str, to: Audience) {
        self.export_as(name, to, &[]);
    }

    /// Exports a service that answers to further server names.
    pub(crate) fn export_as(&self, name: &str, to: Audience, server_names: &[&str]) {
        let (mut declared, export) = export(name);
        for port in declared.ports.values_mut() {
            let names = server_names.iter().map(|name| name.parse().unwrap());
            port.sni_names = names.collect();
        }
        self.objects
            .write(Write::Service(service(name), declared))
            .unwrap();
        let export = DeclaredExport { to, ..export };
        self.objects
            .write(Write::Export(service(name), Some(export)))
            .unwrap();
    }

    /// Starts the control plane and the stand-in for its gateway.
    pub(crate) fn start(&mut self) {
        self.start_with(None);
    }

    /// Starts with a gateway that opens no stream, and tells when it was asked for one.
    pub(crate) fn start_refusing(&mut self) -> mpsc::UnboundedReceiver<Instant> {
        let (asked, asks) = mpsc::unbounded_channel();
        self.start_with(Some(asked));
        asks
    }

    fn start_with(&mut self, refuses: Option<mpsc::UnboundedSender<Instant>>) {
        let build = Build {
            binary: "test",
            version: "0",
        };
        let metrics = Metrics::new(build).unwrap();
        let cluster = Arc::clone(&self.objects) as Arc<dyn Cluster>;
        let plane = ControlPlane::start(self.settings.clone(), cluster, &metrics).unwrap();
        let gateway = StandIn {
            name: self.name.clone(),
            socket: self.settings.socket.clone(),
            objects: Arc::clone(&self.objects),
            entries: self.entries.clone(),
            bridge: Arc::clone(&self.bridge),
            refuses,
        };
        self.running = Some((plane, tokio::spawn(gateway.run())));
    }

    /// Ends it without a word.
    pub(crate) async fn kill(&mut self) {
        let (plane, gateway) = self.running.take().unwrap();
        gateway.abort();
        plane.kill().await;
        self.bridge.cut.notify_waiters();
        self.entries.send_replace(Entries::new());
    }

    /// Ends it in order: what it knows is written down.
    pub(crate) async fn stop(&mut self) {
        let (plane, gateway) = self.running.take().unwrap();
        gateway.abort();
        plane.stop().await;
        self.bridge.cut.notify_waiters();
        self.entries.send_replace(Entries::new());
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&Entries) -> bool) {
        let mut entries = self.entries.subscribe();
        let waited = tokio::time::timeout(WAIT, entries.wait_for(|entries| is_so(entries))).await;
        if waited.is_err() {
            let status = self.status(Kind::Status).await;
            panic!("{:#?}\n{status:#}", self.entries.borrow());
        }
    }

    pub(crate) async fn route(&self, name: &str, number: u16) -> Arc<Entry> {
        let key = key(name, number);
        self.until(|entries| entries.contains_key(&key)).await;
        Arc::new(self.entries.borrow()[&key].clone())
    }

    pub(crate) async fn no_route(&self, name: &str, number: u16) {
        let key = key(name, number);
        self.until(|entries| !entries.contains_key(&key)).await;
    }

    pub(crate) fn has_route(&self, name: &str, number: u16) -> bool {
        self.entry(&key(name, number)).is_some()
    }

    pub(crate) fn entry(&self, key: &EntryKey) -> Option<Entry> {
        self.entries.borrow().get(key).cloned()
    }

    pub(crate) fn routes(&self) -> Vec<Route> {
        let entries = self.entries.borrow();
        let routes = entries.values().filter_map(|entry| match entry {
            Entry::Route(route) => Some(route.clone()),
            Entry::Peer(..) | Entry::Export(_) | Entry::Denial(_) => None,
        });
        routes.collect()
    }

    pub(crate) async fn condition(&self, condition: Condition) {
        self.until_status(Kind::Conditions, |conditions| {
            let mut conditions = conditions.as_array().unwrap().iter();
            conditions.any(|one| one["code"] == condition.code())
        })
        .await;
    }

    pub(crate) async fn no_condition(&self, condition: Condition) {
        self.until_status(Kind::Conditions, |conditions| {
            let mut conditions = conditions.as_array().unwrap().iter();
            conditions.all(|one| one["code"] != condition.code())
        })
        .await;
    }

    pub(crate) async fn silent(&self, peer: &str) {
        self.until_status(Kind::Links, |links| {
            link(links, peer)["peering"] == "silent"
        })
        .await;
    }

    /// Until the peer has told everything and taken everything.
    pub(crate) async fn up_to_date(&self, peer: &str) {
        self.until_status(Kind::Links, |links| {
            let link = link(links, peer);
            link["peering"] == "told"
                && link["relation"]["held"].is_string()
                && link["relation"]["acknowledged"].is_string()
                && link["relation"]["isCurrent"] == true
        })
        .await;
    }

    /// Until what was told to and by the peer is on disk, this service with it.
    pub(crate) async fn kept(&self, peer: &str, service: &str) {
        let file = self.file_of(peer);
        self.until_status(Kind::Links, |_| {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains(service))
        })
        .await;
    }

    /// Asks for a step of a change of root.
    pub(crate) async fn rotate(&self, step: Step) -> Result<RotateRootResponse, Status> {
        let mut client = AdminClient::new(connect(&self.settings.socket).await);
        let request = RotateRootRequest {
            step: step.into(),
            force: false,
        };
        Ok(client.rotate_root(request).await?.into_inner())
    }

    /// Asks for a certificate, as a gateway does.
    pub(crate) async fn sign(&self, request: &[u8]) -> Result<SignResponse, Status> {
        let mut client = IdentityClient::new(connect(&self.settings.socket).await);
        let request = SignRequest {
            request: request.to_vec(),
        };
        Ok(client.sign(request).await?.into_inner())
    }

    /// Says what carries streams to a peer.
    pub(crate) async fn carry(&self, transport: &str, congestion: &str) -> Result<(), Status> {
        let mut client = AdminClient::new(connect(&self.settings.socket).await);
        let request = CarryLinkRequest {
            cluster: "west".to_owned(),
            transport: transport.to_owned(),
            congestion: congestion.to_owned(),
        };
        client.carry_link(request).await.map(drop)
    }

    /// Follows which root issues, as a gateway does.
    pub(crate) async fn follow_issuer(&self) -> tonic::Streaming<Issuer> {
        let mut client = IdentityClient::new(connect(&self.settings.socket).await);
        let followed = client.follow_issuer(FollowIssuerRequest {}).await;
        followed.unwrap().into_inner()
    }

    /// Until every peer holds the roots that were told last.
    pub(crate) async fn roots_are_held(&self) {
        let begun = Instant::now();
        while !self.rotate(Step::Look).await.unwrap().lacking.is_empty() {
            assert!(begun.elapsed() < WAIT, "the roots are not held");
            tokio::task::yield_now().await;
        }
    }

    /// Speaks as the control plane of `peer`, but says only `message`.
    pub(crate) async fn hear(&self, peer: &str, message: peering::Message) {
        let came = HandOver::Peering {
            peer: gateway(&peer.parse().unwrap()),
        };
        let stream = self.bridge.open(&self.name, &came).await.unwrap();
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take();
            std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
        });
        let peer = Dial::from_static("http://peer");
        let channel = peer.connect_with_connector(connector).await.unwrap();
        let mut client = PeeringClient::new(channel);
        let said = tokio_stream::iter([message]);
        let mut heard = client.exchange(said).await.unwrap().into_inner();
        while let Ok(Some(_)) = heard.message().await {}
    }

    /// What of the state directory is kept about a peer.
    pub(crate) fn file_of(&self, peer: &str) -> std::path::PathBuf {
        let folder = self.settings.state_dir.join("control/peers");
        folder.join(format!("{peer}.json"))
    }

    async fn until_status(&self, kind: Kind, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.status(kind).await;
            if is_so(&status) {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{status:#}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn status(&self, kind: Kind) -> Value {
        let mut client = AdminClient::new(connect(&self.settings.socket).await);
        let request = StatusRequest {
            kind: kind.into(),
            name: String::new(),
        };
        let answer = client.status(request).await.unwrap().into_inner();
        serde_json::from_str(&answer.json).unwrap()
    }
}

fn link<'a>(links: &'a Value, peer: &str) -> &'a Value {
    let mut links = links.as_array().unwrap().iter();
    links.find(|link| link["cluster"] == peer).unwrap()
}

pub(crate) fn key(name: &str, number: u16) -> EntryKey {
    EntryKey::Route(RouteName::new(service(name), port(number)), Protocol::Tcp)
}

async fn connect(socket: &std::path::Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Dial::from_static("http://control")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// Follows the tables as a gateway does, says that every peer is linked, and opens the streams it is asked for.
struct StandIn {
    name: ClusterName,
    socket: std::path::PathBuf,
    objects: Arc<ObjectsFile>,
    entries: watch::Sender<Entries>,
    bridge: Arc<Bridge>,
    /// Opens no stream, and tells when one was asked for.
    refuses: Option<mpsc::UnboundedSender<Instant>>,
}

impl StandIn {
    async fn run(self) {
        let (reports, queue) = mpsc::unbounded_channel();
        let report = |report: Report| reports.send((&report).into()).unwrap();
        report(Report::Hello {
            role: "gateway".parse().unwrap(),
            slot: Slot::parse("0").unwrap(),
            held: None,
            version: "test".to_owned(),
        });
        let linked = self.objects.declared().borrow().links.clone();
        let links = linked.keys().map(|cluster| LinkReport {
            cluster: cluster.clone(),
            state: LinkState::Up,
            rtt: None,
            slots: Vec::new(),
        });
        report(Report::Links(links.collect()));
        let mut client = RoutesClient::new(connect(&self.socket).await);
        let queue = UnboundedReceiverStream::new(queue);
        let mut updates = client.follow(queue).await.unwrap().into_inner();
        let mut entries = Entries::new();
        while let Ok(Some(update)) = updates.message().await {
            match Update::decode(update).unwrap() {
                Update::Begin { whole, .. } if whole => entries.clear(),
                Update::Begin { .. } => {}
                Update::Put(entry) => {
                    entries.insert(entry.key(), entry);
                }
                Update::Removed(key) => {
                    entries.remove(&key);
                }
                Update::Commit { revision } => {
                    self.entries.send_replace(entries.clone());
                    report(Report::Applied {
                        revision,
                        closed: Vec::new(),
                    });
                }
                Update::OpenPeering { ticket, .. } if self.refuses.is_some() => {
                    let reason = Reason::Failed(Failure::PeerUnreachable);
                    report(Report::PeeringFailed { ticket, reason });
                    let told = self
                        .refuses
                        .as_ref()
                        .map(|asked| asked.send(Instant::now()));
                    told.unwrap().unwrap();
                }
                Update::OpenPeering { cluster, ticket } => {
                    let bridge = Arc::clone(&self.bridge);
                    tokio::spawn(bridge.join(self.name.clone(), cluster, ticket));
                }
            }
        }
    }
}

fn gateway(cluster: &ClusterName) -> GatewayId {
    GatewayId {
        trust_domain: TrustDomain::of_cluster(cluster),
        slot: Slot::parse("0").unwrap(),
    }
}

impl Bridge {
    async fn join(self: Arc<Self>, from: ClusterName, to: ClusterName, ticket: u64) {
        let opened = HandOver::Opened {
            ticket,
            peer: gateway(&to),
        };
        let came = HandOver::Peering {
            peer: gateway(&from),
        };
        let (near, far) = (self.open(&from, &opened).await, self.open(&to, &came).await);
        let (Some(near), Some(far)) = (near, far) else {
            return;
        };
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::select! {
            () = self.copy(near_read, far_write) => {}
            () = self.copy(far_read, near_write) => {}
            () = self.cut.notified() => {}
        }
    }

    async fn open(&self, cluster: &ClusterName, what: &HandOver) -> Option<UnixStream> {
        let socket = self.sockets.lock()[cluster].clone();
        let mut stream = UnixStream::connect(socket).await.ok()?;
        stream.write_all(&what.encode()).await.ok()?;
        Some(stream)
    }

    async fn copy(
        &self,
        mut from: tokio::net::unix::OwnedReadHalf,
        mut to: tokio::net::unix::OwnedWriteHalf,
    ) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}
