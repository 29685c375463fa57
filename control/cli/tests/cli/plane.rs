//! A control plane that gives canned answers on a socket, and remembers what it was asked.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use corinth_api::wire::admin::{admin_server::*, status_request::Kind, *};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, async_trait, transport::Server};

/// What is answered.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) status: Value,
    pub(crate) exports: Value,
    pub(crate) imports: Value,
    pub(crate) routes: Value,
    pub(crate) certificates: Value,
    /// Every change is refused with this code and message.
    pub(crate) refusal: Option<(&'static str, &'static str)>,
}

impl Answers {
    /// `east`, linked with `west`, which offers `payments.shop`.
    pub(crate) fn healthy() -> Self {
        let gateway = |slot: &str| json!({"role": "gateway", "slot": slot, "version": env!("CARGO_PKG_VERSION"), "told": 7, "applied": 7});
        Self {
            status: json!({
                "cluster": "east", "trustDomain": "east.corinth.internal", "instance": "00", "version": "1.7",
                "revision": 7, "exports": 1, "imports": 1, "routes": 1, "consumers": [gateway("0"), gateway("1")],
                "links": [{
                    "cluster": "west", "trustDomain": "west.corinth.internal", "mode": "active", "tunnel": "up",
                    "rttUs": 31_000, "peering": "told", "addresses": [], "transport": "auto", "congestion": "bbr", "accepted": ["shop/*"],
                    "imports": 1, "stale": 0, "exports": 1, "relation": {"held": "1.4"}, "ofALaterVersion": 1,
                }],
                "conditions": [],
            }),
            exports: json!([{
                "service": "web.shop", "ports": ["80/tcp"], "to": ["*"], "openTo": ["west"],
                "endpoints": 2, "sinceMs": 1_700_000_000_000_u64,
            }]),
            imports: json!([{
                "service": "payments.shop", "from": "west", "ready": 2, "stale": false,
                "ports": [{"port": 80, "importPort": 20080}, {"port": 443, "importPort": null}],
            }]),
            routes: json!([{
                "name": "80.payments.shop.svc.clusterset.local", "protocol": "tcp", "import_port": 20080,
                "sni_names": [], "tls": false, "replay": "never",
                "candidates": [{"target": {"cluster": "west"}, "weight": 100, "priority": 0, "locality": {}}],
                "why": ["links: west offers payments.shop, and `accept: shop/*` takes it"],
            }]),
            certificates: json!([
                {
                    "holder": "gateway", "spiffeId": "spiffe://east.corinth.internal/corinth/gateway/0",
                    "notAfter": 4_102_444_800_u64,
                },
                {"holder": "root", "notAfter": 4_102_444_800_u64, "sequence": 1},
                {"holder": "peer root", "peer": "west", "notAfter": 4_102_444_800_u64, "sequence": 3},
            ]),
            refusal: None,
        }
    }

    /// The other side.
    pub(crate) fn west() -> Self {
        let mut west = Self::healthy();
        west.status["cluster"] = "west".into();
        west.status["links"][0]["cluster"] = "east".into();
        west.exports[0]["service"] = "payments.shop".into();
        west.exports[0]["openTo"] = json!(["east"]);
        west
    }
}

/// Runs until it is dropped.
pub(crate) struct Plane {
    pub(crate) socket: String,
    answers: Arc<Mutex<Answers>>,
    calls: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Plane {
    pub(crate) fn start(socket: PathBuf, answers: Answers) -> Self {
        let calls = Arc::default();
        let answers = Arc::new(Mutex::new(answers));
        let served = Served {
            answers: Arc::clone(&answers),
            calls: Arc::clone(&calls),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let path = socket.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                                let connections = UnixListenerStream::new(listener);
                tokio::select! {
                    served = Server::builder().serve_with_incoming(AdminServer::new(served), connections) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self {
            socket: socket.to_str().unwrap().to_owned(),
            answers,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Answers like this from now on.
    pub(crate) fn set_answers(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// The changes it was asked for, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is the failure of the test that asked.
            let _ = thread.join();
        }
    }
}

struct Served {
    answers: Arc<Mutex<Answers>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Served {
    fn answers(&self) -> Answers {
        self.answers.lock().unwrap().clone()
    }

    fn change<T>(&self, call: String, answer: T) -> Result<Response<T>, Status> {
        self.calls.lock().unwrap().push(call);
        let Some((code, message)) = self.answers().refusal else {
            return Ok(Response::new(answer));
        };
        let mut status = Status::failed_precondition(message);
        status
            .metadata_mut()
            .insert("corinth-code", code.parse().unwrap());
        Err(status)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl Admin for Served {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Answer<CreateTokenResponse> {
        let CreateTokenRequest { ttl_seconds, uses } = request.into_inner();
        let token = "corinth-token-abc".to_owned();
        self.change(
            format!("token {ttl_seconds} {uses}"),
            CreateTokenResponse { token },
        )
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let JoinRequest { token, one_way } = request.into_inner();
        let cluster = self.answers().status["links"][0]["cluster"]
            .as_str()
            .unwrap_or("west")
            .to_owned();
        self.change(format!("join {token} {one_way}"), JoinResponse { cluster })
    }

    async fn add_link(&self, request: Request<AddLinkRequest>) -> Answer<AddLinkResponse> {
        let link = request.into_inner().link;
        self.change(
            format!("add {link}"),
            AddLinkResponse {
                cluster: "west".to_owned(),
            },
        )
    }

    async fn change_link(&self, request: Request<ChangeLinkRequest>) -> Answer<ChangeLinkResponse> {
        let request = request.into_inner();
        let call = format!("{} {}", request.change().as_str_name(), request.cluster);
        self.change(call, ChangeLinkResponse {})
    }

    async fn carry_link(&self, request: Request<CarryLinkRequest>) -> Answer<CarryLinkResponse> {
        let request = request.into_inner();
        let call = format!(
            "carry {} {} {}",
            request.cluster, request.transport, request.congestion
        );
        self.change(call.trim_end().to_owned(), CarryLinkResponse {})
    }

    async fn own_link(&self, _: Request<OwnLinkRequest>) -> Answer<OwnLinkResponse> {
        let link = "cluster: east\ntrustDomain: east.corinth.internal\n".to_owned();
        Ok(Response::new(OwnLinkResponse { link }))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Answer<ExportResponse> {
        let request = request.into_inner();
        let ports = request.ports.iter();
        let ports: Vec<_> = ports
            .map(|port| {
                format!(
                    "{}={}{}",
                    port.port,
                    port.endpoints.join(","),
                    if port.tls { " tls" } else { "" }
                )
            })
            .collect();
        let call = format!(
            "export {}.{} to {} {}",
            request.service,
            request.namespace,
            request.to.join(","),
            ports.join(" ")
        );
        self.change(
            call.trim_end().to_owned(),
            ExportResponse {
                to: vec!["west".to_owned()],
            },
        )
    }

    async fn unexport(&self, request: Request<UnexportRequest>) -> Answer<UnexportResponse> {
        let request = request.into_inner();
        let call = format!(
            "unexport {}.{} {}",
            request.service,
            request.namespace,
            request.from.join(",")
        );
        self.change(
            call.trim_end().to_owned(),
            UnexportResponse { to: Vec::new() },
        )
    }

    async fn accept(&self, request: Request<AcceptRequest>) -> Answer<AcceptResponse> {
        let request = request.into_inner();
        let call = format!("accept {} {}", request.cluster, request.services.join(","));
        self.change(call.trim_end().to_owned(), AcceptResponse {})
    }

    async fn deny(&self, request: Request<DenyRequest>) -> Answer<DenyResponse> {
        let request = request.into_inner();
        let call = format!("deny {} {}", request.who, request.lift);
        self.change(call, DenyResponse {})
    }

    async fn rotate_root(&self, request: Request<RotateRootRequest>) -> Answer<RotateRootResponse> {
        let request = request.into_inner();
        let call = format!("{} {}", request.step().as_str_name(), request.force);
        self.change(
            call,
            RotateRootResponse {
                phase: rotate_root_response::Phase::Announced.into(),
                sequence: 1,
                lacking: vec!["west".to_owned()],
                uses: Vec::new(),
            },
        )
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let request = request.into_inner();
        let answers = self.answers();
        let json = match request.kind() {
            Kind::Unspecified => return Err(Status::invalid_argument("no kind")),
            Kind::Status => answers.status,
            Kind::Links => answers.status["links"].clone(),
            Kind::Consumers => answers.status["consumers"].clone(),
            Kind::Conditions => answers.status["conditions"].clone(),
            Kind::Exports => answers.exports,
            Kind::Imports => answers.imports,
            Kind::Certificates => answers.certificates,
            Kind::Routes if request.name == "nobody.shop" => json!([]),
            Kind::Routes => answers.routes,
        };
        Ok(Response::new(StatusResponse {
            json: json.to_string(),
        }))
    }
}
