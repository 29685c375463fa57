//! A cluster in a folder of its own: keys, declarations, the configuration of its gateway, and its socket.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corinth_api::wire::admin::admin_client::AdminClient;
use corinth_api::wire::admin::{
    ExportRequest, StatusRequest, UnexportRequest, status_request::Kind,
};
use corinth_control::cluster::{DeclaredLink, LinkMode, file};
use corinth_identity::StateDir;
use corinth_model::{Accepted, Carriage, ClusterName, Selector, TrustDomain};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A cluster, as it stands on disk.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    /// Where peers are told to dial it.
    pub(crate) announced: Option<SocketAddr>,
    folder: TempDir,
    root: CertificateDer<'static>,
}

/// A service with one endpoint.
pub(crate) struct Service {
    /// `name.namespace`
    pub(crate) name: String,
    pub(crate) endpoint: SocketAddr,
    pub(crate) is_exported: bool,
}

impl Cluster {
    pub(crate) fn new(name: &str, announced: Option<SocketAddr>) -> Self {
        let folder = tempfile::Builder::new().prefix("cb").tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let name: ClusterName = name.parse().unwrap();
        let domain = TrustDomain::of_cluster(&name);
        let state = StateDir::open(folder.path()).unwrap();
        let state = state.load_or_create(&domain, UnixTime::now()).unwrap();
        Self {
            root: state.authority.root().clone(),
            name,
            announced,
            folder,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn handover(&self) -> PathBuf {
        self.directory().join("handover.sock")
    }

    /// Writes what its gateway is to be like: import ports at `imports`.
    pub(crate) fn configure(&self, imports: Ipv4Addr) {
        let text = format!(
            "cluster: {}\nstateDir: .\nworkers: 1\ncontrol: {{}}\n\
             listen: {{tunnel: '127.0.0.1:0', imports: ['{imports}'], admin: '127.0.0.1:0'}}\n\
             drain: {{delay: off, limit: 1s}}\naccessLog: {{target: ./access.log}}\n",
            self.name
        );
        fs::write(self.directory().join("gateway.yaml"), text).unwrap();
    }

    /// Writes what it declares: links, services, and the import ports of some services of others.
    pub(crate) fn declare<'a>(
        &self,
        peers: impl IntoIterator<Item = &'a Self>,
        services: &[Service],
        imports: &[(String, u16)],
    ) {
        let mut text = String::from("links:\n");
        for peer in peers {
            text += &peer.as_link();
        }
        text += "services:\n";
        for Service { name, endpoint, .. } in services {
            writeln!(
                text,
                "- service: {name}\n  ports: [{{port: 80, endpoints: ['{endpoint}']}}]"
            )
            .unwrap();
        }
        text += "exports:\n";
        for service in services.iter().filter(|service| service.is_exported) {
            writeln!(text, "- {{service: {}, to: ['*']}}", service.name).unwrap();
        }
        text += "imports:\n";
        for (service, port) in imports {
            writeln!(
                text,
                "- {{service: {service}, port: 80, importPort: {port}}}"
            )
            .unwrap();
        }
        fs::write(self.directory().join("cluster.yaml"), text).unwrap();
    }

    /// As an entry of the links of its peers.
    fn as_link(&self) -> String {
        let link = DeclaredLink {
            trust_domain: TrustDomain::of_cluster(&self.name),
            roots: vec![self.root.clone()],
            bundle_sequence: 0,
            addresses: self.announced.iter().map(ToString::to_string).collect(),
            accepted: Accepted(vec![Selector::All]),
            max_streams: None,
            quota: None,
            mode: LinkMode::Active,
            carriage: Carriage::default(),
        };
        let text = file::render_link(&self.name, link).unwrap();
        let (_, links) = text.split_once("links:\n").expect("the link is there");
        let (link, _) = links.split_once("services:").expect("nothing else is");
        link.to_owned()
    }

    pub(crate) fn admin(&self) -> Admin {
        let socket = self.directory().join("control.sock");
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
        let client = AdminClient::new(endpoint.connect_lazy());
        Admin(client.max_decoding_message_size(ANSWER_MAX_BYTES))
    }
}

/// What `corinth` asks of a control plane.
#[derive(Clone)]
pub(crate) struct Admin(AdminClient<Channel>);

impl Admin {
    /// As `corinth export SERVICE` does.
    pub(crate) async fn export(&mut self, service: &str) {
        let (service, namespace) = service.split_once('.').unwrap();
        let asked = ExportRequest {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            to: vec!["*".to_owned()],
            ports: Vec::new(),
        };
        self.0.export(asked).await.unwrap();
    }

    /// As `corinth unexport SERVICE` does.
    pub(crate) async fn unexport(&mut self, service: &str) {
        let (service, namespace) = service.split_once('.').unwrap();
        let asked = UnexportRequest {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            from: Vec::new(),
        };
        self.0.unexport(asked).await.unwrap();
    }

    pub(crate) async fn status(&mut self) -> Value {
        let asked = StatusRequest {
            kind: Kind::Status.into(),
            name: String::new(),
        };
        let answer = self.0.status(asked).await.unwrap().into_inner();
        serde_json::from_str(&answer.json).unwrap()
    }
}

/// An address of loopback on which nobody else has import ports.
pub(crate) fn imports_of(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, 0, number)
}

pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}
