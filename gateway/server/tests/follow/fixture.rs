//! A control plane played by the test, gateways that follow it, and an application that echoes.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use corinth_api::{
    Entry, HandOver, LinkReport, LinkState, LinkedPeer, Report, Update,
    wire::{identity, routes as wire},
};
use corinth_daemon::{
    drain::Drain,
    metrics::{Build, Metrics},
    ready::Readiness,
};
use corinth_gateway::{
    Door, Gateway, Surroundings,
    settings::{Control, Settings},
};
use corinth_identity::{Authority, SigningRequest};
use corinth_model::{
    AddressSource, Candidate, Carriage, ClusterName, Endpoint, Export, Instance, Locality,
    PortNumber, Protocol, Replay, Route, RouteName, Target, TrustDomain,
};
use futures_util::stream::{Stream, poll_fn};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming};

/// Anything that takes longer has not happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const INSTANCE: Instance = Instance([1; 16]);

/// Waits no longer than a test may.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens soon")
}

/// A control plane that listens where one cluster's gateway looks for it. Dropping it kills it.
pub(crate) struct FakeControl {
    calls: mpsc::UnboundedReceiver<Call>,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

/// One gateway that follows.
pub(crate) struct Call {
    reports: Streaming<wire::Report>,
    updates: mpsc::UnboundedSender<Result<wire::Update, Status>>,
    /// As last reported.
    links: Vec<LinkReport>,
    /// The import ports that the last change left closed.
    pub(crate) closed: Vec<PortNumber>,
}

struct Service(mpsc::UnboundedSender<Call>);

#[tonic::async_trait]
impl wire::routes_server::Routes for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<wire::Update, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (updates, mut queue) = mpsc::unbounded_channel();
        let reports = request.into_inner();
        let _ = self.0.send(Call {
            reports,
            updates,
            links: Vec::new(),
            closed: Vec::new(),
        });
        let stream = poll_fn(move |context| queue.poll_recv(context));
        Ok(Response::new(Box::pin(stream)))
    }
}

impl FakeControl {
    pub(crate) fn listen(directory: &Path) -> Self {
        Self::listen_with(directory, None)
    }

    /// One that also issues certificates.
    pub(crate) fn issuing(directory: &Path, issuer: Issuer) -> Self {
        Self::listen_with(directory, Some(issuer))
    }

    fn listen_with(directory: &Path, issuer: Option<Issuer>) -> Self {
        let path = Control::in_state_dir(directory).socket;
        let _ = std::fs::remove_file(&path);
        let (calling, calls) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        // A runtime of its own: with it every connection ends, as with a process.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, calling, issuer) => {}
                }
            });
        });
        Self {
            calls,
            running: Some((stop, thread)),
        }
    }

    /// The next gateway that follows, and what it says it holds.
    pub(crate) async fn call(&mut self) -> (Call, Option<(Instance, u64)>) {
        let mut call = soon(self.calls.recv()).await.expect("the server runs");
        let first = call.report().await;
        let Report::Hello { held, .. } = first else {
            panic!("the first report is {first:?}");
        };
        (call, held)
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }
}

/// Issues certificates under one root at a time, each for so long.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) authority: watch::Sender<Arc<Authority>>,
    pub(crate) lifetime: Duration,
    /// Told of each that is issued.
    pub(crate) issued: mpsc::UnboundedSender<()>,
}

#[tonic::async_trait]
impl identity::identity_server::Identity for Issuer {
    type FollowIssuerStream = Pin<Box<dyn Stream<Item = Result<identity::Issuer, Status>> + Send>>;

    async fn follow_issuer(
        &self,
        _: Request<identity::FollowIssuerRequest>,
    ) -> Result<Response<Self::FollowIssuerStream>, Status> {
        let (told, mut queue) = mpsc::unbounded_channel();
        let mut authority = self.authority.subscribe();
        tokio::spawn(async move {
            loop {
                let root = authority.borrow_and_update().root().to_vec();
                if told.send(Ok(identity::Issuer { root })).is_err()
                    || authority.changed().await.is_err()
                {
                    return;
                }
            }
        });
        let stream = poll_fn(move |context| queue.poll_recv(context));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn sign(
        &self,
        request: Request<identity::SignRequest>,
    ) -> Result<Response<identity::SignResponse>, Status> {
        let request = request.into_inner().request;
        let request = SigningRequest::read(&request).unwrap();
        let now = UnixTime::now();
        let authority = Arc::clone(&self.authority.borrow());
        let chain = authority
            .issue_for_request(&request, request.id(), &[], now, self.lifetime)
            .unwrap();
        let _ = self.issued.send(());
        Ok(Response::new(identity::SignResponse {
            chain: chain.iter().map(|one| one.to_vec()).collect(),
            not_after: now.as_secs() + self.lifetime.as_secs(),
        }))
    }
}

async fn serve(
    listener: std::os::unix::net::UnixListener,
    calling: mpsc::UnboundedSender<Call>,
    issuer: Option<Issuer>,
) {
    let listener = UnixListener::from_std(listener).unwrap();
    let incoming = poll_fn(move |context| {
        let accepted = listener.poll_accept(context);
        accepted.map(|accepted| Some(accepted.map(|(socket, _)| socket)))
    });
    let routes = wire::routes_server::RoutesServer::new(Service(calling));
    let issuer = issuer.map(identity::identity_server::IdentityServer::new);
    let mut server = tonic::transport::Server::builder();
    let server = server.add_service(routes).add_optional_service(issuer);
    server.serve_with_incoming(incoming).await.unwrap();
}

impl Call {
    pub(crate) fn send(&self, update: &Update) {
        self.updates.send(Ok(update.into())).unwrap();
    }

    /// Sends a change and returns what became of it.
    pub(crate) async fn change(
        &mut self,
        revision: u64,
        whole: bool,
        updates: &[Update],
    ) -> Result<u64, (u64, String)> {
        self.send(&Update::Begin {
            instance: INSTANCE,
            revision,
            whole,
        });
        updates.iter().for_each(|update| self.send(update));
        self.send(&Update::Commit { revision });
        loop {
            match self.report().await {
                Report::Applied { revision, closed } => {
                    self.closed = closed.into_iter().map(|closed| closed.port).collect();
                    return Ok(revision);
                }
                Report::Refused { revision, why } => return Err((revision, why)),
                Report::Hello { .. } | Report::Links(_) | Report::PeeringFailed { .. } => {}
            }
        }
    }

    pub(crate) async fn report(&mut self) -> Report {
        let report = soon(self.reports.message()).await.expect("it is connected");
        let report = Report::decode(report.expect("it goes on"));
        let report = report.expect("a gateway's reports are valid");
        if let Report::Links(links) = &report {
            self.links.clone_from(links);
        }
        report
    }

    /// Waits until the only link is in this state.
    pub(crate) async fn link(&mut self, state: LinkState) {
        while !self.links.iter().any(|link| link.state == state) {
            self.report().await;
        }
    }
}

/// A gateway, with the directory it lives in.
pub(crate) struct Node {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) readiness: Readiness,
    metrics: Metrics,
    pub(crate) name: &'static str,
    pub(crate) directory: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Node {
    pub(crate) fn start(name: &'static str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut node = Self::start_in(name, own.path());
        node._own = Some(own);
        node
    }

    pub(crate) fn start_in(name: &'static str, directory: &Path) -> Self {
        Self::start_as(name, directory, "")
    }

    /// A gateway that has no authority.
    pub(crate) fn start_certified(name: &'static str, directory: &Path) -> Self {
        Self::start_as(name, directory, "identity: {issuer: control}\n")
    }

    fn start_as(name: &'static str, directory: &Path, identity: &str) -> Self {
        // It holds keys: a state directory is for its owner's eyes only.
        std::fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
        let text = format!(
            "cluster: {name}\nstateDir: .\nworkers: 1\ncontrol: {{}}\n\
             listen: {{tunnel: '127.0.0.1:0', imports: [127.0.0.1], admin: '127.0.0.1:0'}}\n\
             drain: {{delay: off, limit: 1s}}\naccessLog: {{target: ./access.log}}\n{identity}"
        );
        let settings = Settings::parse(&text, &directory.join("config.yaml")).unwrap();
        let readiness = Readiness::new();
        let metrics = Metrics::new(Build {
            binary: "corinth-gateway",
            version: "0",
        })
        .unwrap();
        let surroundings = Surroundings {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            drain: Drain::new(),
        };
        Self {
            gateway: Arc::new(Gateway::start(settings, surroundings).unwrap()),
            readiness,
            metrics,
            name,
            directory: directory.to_owned(),
            _own: None,
        }
    }

    pub(crate) fn tunnel(&self) -> SocketAddr {
        self.gateway.address_of(Door::Tunnel).unwrap()
    }

    pub(crate) fn cluster(&self) -> ClusterName {
        ClusterName::parse(self.name).unwrap()
    }

    pub(crate) fn trust_domain(&self) -> TrustDomain {
        TrustDomain::of_cluster(&self.cluster())
    }

    /// This node as its peers know it.
    pub(crate) fn as_peer(&self, addresses: &[SocketAddr]) -> Update {
        let root = CertificateDer::from_pem_slice(self.gateway.bundle_pem().as_bytes()).unwrap();
        self.as_peer_under(&root, addresses)
    }

    /// The same, for one whose root is elsewhere.
    pub(crate) fn as_peer_under(
        &self,
        root: &CertificateDer<'_>,
        addresses: &[SocketAddr],
    ) -> Update {
        let peer = LinkedPeer {
            trust_domain: self.trust_domain(),
            max_streams: 100,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            roots: vec![root.to_vec()],
            bundle_sequence: 1,
            carriage: Carriage::default(),
        };
        Update::Put(Entry::Peer(self.cluster(), peer))
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> String {
        let text = self.metrics.text().unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("there is such a metric").to_owned()
    }

    pub(crate) fn access_log(&self) -> String {
        std::fs::read_to_string(self.directory.join("access.log")).unwrap_or_default()
    }
}

/// Where a control plane takes streams that are handed over.
pub(crate) struct HandOvers(UnixListener);

impl HandOvers {
    pub(crate) fn listen(directory: &Path) -> Self {
        Self(UnixListener::bind(Control::in_state_dir(directory).handover).unwrap())
    }

    /// The next stream, and what was said of it.
    pub(crate) async fn take(&self) -> (HandOver, UnixStream) {
        let (mut socket, _) = soon(self.0.accept()).await.unwrap();
        let mut length = [0; HandOver::LENGTH_BYTES];
        soon(socket.read_exact(&mut length)).await.unwrap();
        let mut message = vec![0; HandOver::length(length).unwrap()];
        soon(socket.read_exact(&mut message)).await.unwrap();
        (HandOver::decode(&message).unwrap(), socket)
    }
}

/// An application that sends back what it gets, in this process.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A port nobody has now.
pub(crate) fn free_port() -> PortNumber {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    PortNumber::new(listener.local_addr().unwrap().port()).unwrap()
}

pub(crate) fn route(service: &str, port: PortNumber, target: Target) -> Route {
    Route {
        name: RouteName::parse(&format!("80.{service}.shop.svc.clusterset.local")).unwrap(),
        protocol: Protocol::Tcp,
        import_port: Some(port),
        sni_names: Vec::new(),
        tls: false,
        replay: Replay::Never,
        candidates: vec![Candidate {
            target,
            weight: 1,
            priority: 0,
            locality: Locality::default(),
        }],
    }
}

pub(crate) fn put(route: Route) -> Update {
    Update::Put(Entry::Route(route))
}

/// The service `web.shop`, offered to one cluster.
pub(crate) fn export(endpoint: SocketAddr, to: &ClusterName) -> Update {
    let name = RouteName::parse("80.web.shop.svc.clusterset.local").unwrap();
    let endpoint = Endpoint::new(endpoint, Locality::default(), AddressSource::OwnConfig).unwrap();
    Update::Put(Entry::Export(Export {
        service: name.service,
        port: name.port,
        protocol: Protocol::Tcp,
        endpoints: vec![endpoint],
        audience: [to.clone()].into(),
        sni_names: Vec::new(),
        tls: false,
        direct: None,
        max_streams: None,
    }))
}

/// A connection to an import port that has been answered through it.
pub(crate) async fn connect(port: PortNumber) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port.get())).await.unwrap();
    says_back(&mut socket, b"hello").await;
    socket
}

/// Sends, and gets the same back.
pub(crate) async fn says_back(socket: &mut TcpStream, words: &[u8]) {
    socket.write_all(words).await.unwrap();
    let mut back = vec![0; words.len()];
    soon(socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, words);
}

/// Waits until nobody listens on the port.
pub(crate) async fn closed(port: PortNumber) {
    let closing = async {
        while TcpStream::connect(("127.0.0.1", port.get())).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(closing).await;
}

/// Two linked clusters; `west` offers `web.shop` to `east`, where it is called at a port.
pub(crate) struct Pair {
    pub(crate) east: Node,
    pub(crate) west: Node,
    pub(crate) east_call: Call,
    pub(crate) west_call: Call,
    pub(crate) port: PortNumber,
    _controls: [FakeControl; 2],
}

impl Pair {
    pub(crate) async fn linked() -> Self {
        let (east, west) = (Node::start("east"), Node::start("west"));
        let mut controls = [
            FakeControl::listen(&east.directory),
            FakeControl::listen(&west.directory),
        ];
        let (mut east_call, _) = controls[0].call().await;
        let (mut west_call, _) = controls[1].call().await;
        let port = free_port();
        let offered = export(echo().await, &east.cluster());
        let west_tables = [east.as_peer(&[]), offered];
        assert_eq!(west_call.change(1, true, &west_tables).await, Ok(1));
        let called = put(route("web", port, Target::Cluster(west.cluster())));
        let east_tables = [west.as_peer(&[west.tunnel()]), called];
        assert_eq!(east_call.change(1, true, &east_tables).await, Ok(1));
        east_call.link(LinkState::Up).await;
        west_call.link(LinkState::Up).await;
        Self {
            east,
            west,
            east_call,
            west_call,
            port,
            _controls: controls,
        }
    }
}
