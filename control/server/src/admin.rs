//! What the command line asks (`corinth.admin.v1`). Whoever may open the socket may ask everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::link::Token;
use corinth_api::peering::Farewell;
use corinth_api::wire::admin as wire;
use corinth_identity::{RotationPhase, StateError};
use corinth_model::{
    Accepted, AddressSource, Carriage, ClusterName, Condition, Denied, Endpoint, Locality,
    PortNumber, Protocol, Selector, ServiceId, SpiffeId, TrustDomain,
};
use rustls_pki_types::UnixTime;
use serde::Serialize;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use crate::app::{Shared, Stand, Step, now};
use crate::cluster::file;
use crate::cluster::{
    Audience, DeclaredExport, DeclaredLink, DeclaredPort, DeclaredService, LinkMode, Write,
    WriteError,
};
use crate::link::joiner;
use crate::trust::RotateError;
use crate::{index, status};

/// The service.
pub struct Admin {
    shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The link with `cluster` as it is declared.
    fn link(&self, cluster: &ClusterName) -> Result<DeclaredLink, Status> {
        let declared = self.shared.cluster.declared().borrow().clone();
        let link = declared.links.get(cluster).cloned();
        link.ok_or_else(|| refuse(Condition::LinkUnknown, &format!("no link with {cluster}")))
    }

    /// Writes a declaration down, outside the runtime's own threads: they have streams to serve.
    async fn write(&self, change: Write) -> Result<(), Status> {
        let cluster = Arc::clone(&self.shared.cluster);
        let written = tokio::task::spawn_blocking(move || cluster.write(change)).await;
        let written = written.map_err(|_| fault())?;
        written.map_err(|error| match &error {
            WriteError::ElsewhereDeclared { .. } => Status::failed_precondition(error.to_string()),
            WriteError::Conflict(_) => Status::already_exists(error.to_string()),
            WriteError::Unknown(_) => Status::not_found(error.to_string()),
            WriteError::Io { .. } => Status::unavailable(error.to_string()),
        })
    }

    /// Says goodbye to a peer, and waits until it has been sent, but not for ever.
    async fn farewell(&self, cluster: &ClusterName, farewell: Farewell) {
        self.shared.farewell(cluster, farewell).await;
    }
}

#[tonic::async_trait]
impl wire::admin_server::Admin for Admin {
    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Answer<wire::CreateTokenResponse> {
        let asked = request.into_inner();
        if self.shared.settings.gateways.is_empty() {
            return Err(Status::failed_precondition(
                "where the gateways of this cluster are reached is not configured; set `control.gateways`",
            ));
        }
        let life = Duration::from_secs(asked.ttl_seconds.into());
        let side = self.shared.side.borrow().clone();
        let invitations = Arc::clone(&self.shared.invitations);
        let create = move || {
            let (party, now) = (&side.party, UnixTime::now());
            invitations.create(party, &party.addresses, life, asked.uses.max(1), now)
        };
        // It is written down first.
        let made = tokio::task::spawn_blocking(create).await;
        let token = made
            .map_err(|_| fault())?
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(wire::CreateTokenResponse {
            token: token
                .to_text()
                .map_err(|error| Status::internal(error.to_string()))?,
        }))
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Answer<wire::JoinResponse> {
        let asked = request.into_inner();
        let token = Token::parse(asked.token.trim())
            .map_err(|error| refuse(Condition::TokenRefused, &error.to_string()))?;
        let party = self.shared.side.borrow().party.clone();
        let linked = joiner::join(
            &token,
            &party,
            asked.one_way,
            Arc::clone(&self.shared.cluster),
            Arc::new(rustls::time_provider::DefaultTimeProvider),
        )
        .await
        .map_err(|error| match error.condition() {
            Some(condition) => refuse(condition, &error.to_string()),
            None => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(wire::JoinResponse {
            cluster: linked.cluster.to_string(),
        }))
    }

    async fn add_link(
        &self,
        request: Request<wire::AddLinkRequest>,
    ) -> Answer<wire::AddLinkResponse> {
        let text = request.into_inner().link;
        let own = self.shared.look(|plane| plane.own().clone());
        let (cluster, link) = file::parse_link(&text, &own.cluster, &own.trust_domain)
            .map_err(Status::invalid_argument)?;
        if cluster == own.cluster || link.trust_domain == own.trust_domain {
            return Err(refuse(Condition::OwnCluster, "that is this very cluster"));
        }
        let declared = self.shared.cluster.declared().borrow().clone();
        let is_linked = declared
            .links
            .iter()
            .any(|(name, held)| *name == cluster || held.trust_domain == link.trust_domain);
        if is_linked {
            let words = format!("{cluster}, or its trust domain, is linked already");
            return Err(refuse(Condition::AlreadyLinked, &words));
        }
        self.write(Write::Link(cluster.clone(), Box::new(link)))
            .await?;
        Ok(Response::new(wire::AddLinkResponse {
            cluster: cluster.to_string(),
        }))
    }

    async fn own_link(&self, _: Request<wire::OwnLinkRequest>) -> Answer<wire::OwnLinkResponse> {
        let own = self.shared.look(|plane| plane.own().clone());
        let link = DeclaredLink {
            trust_domain: own.trust_domain.clone(),
            roots: own.roots.iter().cloned().map(Into::into).collect(),
            bundle_sequence: own.bundle_sequence,
            addresses: own.gateways.clone(),
            accepted: Accepted::default(),
            max_streams: None,
            quota: None,
            mode: LinkMode::Active,
            carriage: Carriage::default(),
        };
        let link = file::render_link(&own.cluster, link)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::OwnLinkResponse { link }))
    }

    async fn change_link(
        &self,
        request: Request<wire::ChangeLinkRequest>,
    ) -> Answer<wire::ChangeLinkResponse> {
        use wire::change_link_request::Change;
        let asked = request.into_inner();
        let cluster: ClusterName = parse(&asked.cluster, "cluster")?;
        let mut link = self.link(&cluster)?;
        match asked.change() {
            Change::Unspecified => return Err(Status::invalid_argument("change is missing")),
            Change::Pause => {
                link.mode = LinkMode::Paused;
                self.write(Write::Link(cluster.clone(), Box::new(link)))
                    .await?;
                self.farewell(&cluster, Farewell::Paused).await;
            }
            Change::Resume => {
                link.mode = LinkMode::Active;
                self.write(Write::Link(cluster, Box::new(link))).await?;
            }
            Change::Drain => {
                link.mode = LinkMode::Draining;
                self.write(Write::Link(cluster, Box::new(link))).await?;
            }
            Change::Delete => {
                self.farewell(&cluster, Farewell::Unlinked).await;
                self.write(Write::Unlink(cluster)).await?;
            }
            Change::Confirm => {
                self.shared
                    .relate(&cluster, |relation, _| relation.confirm_stale());
            }
        }
        Ok(Response::new(wire::ChangeLinkResponse {}))
    }

    async fn carry_link(
        &self,
        request: Request<wire::CarryLinkRequest>,
    ) -> Answer<wire::CarryLinkResponse> {
        let asked = request.into_inner();
        let cluster: ClusterName = parse(&asked.cluster, "cluster")?;
        let mut link = self.link(&cluster)?;
        if !asked.transport.is_empty() {
            link.carriage.transport = parse(&asked.transport, "transport")?;
        }
        match asked.congestion.as_str() {
            "" => {}
            "default" => link.carriage.congestion = None,
            word => link.carriage.congestion = Some(parse(word, "congestion")?),
        }
        self.write(Write::Link(cluster, Box::new(link))).await?;
        Ok(Response::new(wire::CarryLinkResponse {}))
    }

    async fn export(&self, request: Request<wire::ExportRequest>) -> Answer<wire::ExportResponse> {
        let asked = request.into_inner();
        let service = service(&asked.service, &asked.namespace)?;
        let declared = self.shared.cluster.declared().borrow().clone();
        if !asked.ports.is_empty() {
            self.write(Write::Service(
                service.clone(),
                declared_service(&asked.ports)?,
            ))
            .await?;
        } else if !declared.services.contains_key(&service) {
            let words = format!("{service} is not declared here");
            return Err(refuse(Condition::ServiceUnknown, &words));
        }
        let before = declared.exports.get(&service);
        let to = audience(before.map(|export| &export.to), &asked.to)?;
        let export = DeclaredExport {
            to,
            since_ms: before.map_or_else(|| now().unix_ms, |export| export.since_ms),
        };
        self.write(Write::Export(service.clone(), Some(export)))
            .await?;
        Ok(Response::new(wire::ExportResponse {
            to: self.open_to(&service),
        }))
    }

    async fn unexport(
        &self,
        request: Request<wire::UnexportRequest>,
    ) -> Answer<wire::UnexportResponse> {
        let asked = request.into_inner();
        let service = service(&asked.service, &asked.namespace)?;
        let declared = self.shared.cluster.declared().borrow().clone();
        let Some(before) = declared.exports.get(&service) else {
            return Err(Status::not_found(format!("{service} is not exported")));
        };
        let export = match (&before.to, &asked.from[..]) {
            (_, []) => None,
            (Audience::All, _) => {
                return Err(Status::failed_precondition(format!(
                    "{service} is exported to every linked cluster (`*`); name those who keep it with `corinth export`"
                )));
            }
            (Audience::Only(to), from) => {
                let from: BTreeSet<ClusterName> = clusters(from)?;
                let to: BTreeSet<_> = to.difference(&from).cloned().collect();
                let export = DeclaredExport {
                    to: Audience::Only(to.clone()),
                    since_ms: before.since_ms,
                };
                (!to.is_empty()).then_some(export)
            }
        };
        self.write(Write::Export(service.clone(), export)).await?;
        Ok(Response::new(wire::UnexportResponse {
            to: self.open_to(&service),
        }))
    }

    async fn accept(&self, request: Request<wire::AcceptRequest>) -> Answer<wire::AcceptResponse> {
        let asked = request.into_inner();
        let cluster: ClusterName = parse(&asked.cluster, "cluster")?;
        let mut link = self.link(&cluster)?;
        let selectors: Result<Vec<Selector>, Status> = asked
            .services
            .iter()
            .map(|text| parse(text, "services"))
            .collect();
        link.accepted = Accepted(selectors?);
        self.write(Write::Link(cluster, Box::new(link))).await?;
        Ok(Response::new(wire::AcceptResponse {}))
    }

    async fn deny(&self, request: Request<wire::DenyRequest>) -> Answer<wire::DenyResponse> {
        let asked = request.into_inner();
        let denied = denied(&asked.who)?;
        self.write(match asked.lift {
            true => Write::Lift(denied),
            false => Write::Deny(denied),
        })
        .await?;
        Ok(Response::new(wire::DenyResponse {}))
    }

    async fn rotate_root(
        &self,
        request: Request<wire::RotateRootRequest>,
    ) -> Answer<wire::RotateRootResponse> {
        use wire::rotate_root_request::Step as Asked;
        let asked = request.into_inner();
        let step = match asked.step() {
            Asked::Unspecified => return Err(Status::invalid_argument("step is missing")),
            Asked::Look => Step::Look,
            Asked::Begin => Step::Begin,
            Asked::Switch => Step::Switch {
                is_forced: asked.force,
            },
            Asked::Finish => Step::Finish,
        };
        let shared = Arc::clone(&self.shared);
        let taken = tokio::task::spawn_blocking(move || shared.rotate_root(step)).await;
        let taken = taken.map_err(|_| fault())?;
        let stand = taken.map_err(|error| match (error.condition(), &error) {
            (Some(condition), _) => refuse(condition, &error.to_string()),
            (None, RotateError::State(StateError::RotationUnderWay | StateError::NoRotation)) => {
                Status::failed_precondition(error.to_string())
            }
            (None, _) => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(stand.into()))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusResponse> {
        use wire::status_request::Kind;
        let asked = request.into_inner();
        let shared = &self.shared;
        let json = match asked.kind() {
            Kind::Unspecified => return Err(Status::invalid_argument("kind is missing")),
            Kind::Status => json(&status::status(shared)),
            Kind::Links => json(&status::links(shared)),
            Kind::Exports => json(&status::exports(shared)),
            Kind::Imports => json(&status::imports(shared)),
            Kind::Routes => json(&status::routes(shared, &asked.name)),
            Kind::Consumers => json(&shared.consumers.seen()),
            Kind::Certificates => json(&status::certificates(shared)),
            Kind::Conditions => json(&status::all_conditions(shared)),
        };
        Ok(Response::new(wire::StatusResponse { json: json? }))
    }
}

impl Admin {
    fn open_to(&self, service: &ServiceId) -> Vec<String> {
        let declared = self.shared.cluster.declared().borrow().clone();
        let open = index::audience(&declared, service);
        open.iter().map(ToString::to_string).collect()
    }
}

impl From<Stand> for wire::RotateRootResponse {
    fn from(stand: Stand) -> Self {
        use wire::rotate_root_response::Phase;
        let phase = match stand.phase {
            None => Phase::Single,
            Some(RotationPhase::Announced) => Phase::Announced,
            Some(RotationPhase::Issuing { .. }) => Phase::Issuing,
        };
        Self {
            phase: phase.into(),
            sequence: stand.sequence,
            lacking: stand.lacking,
            uses: stand.uses,
        }
    }
}

/// A panic in what was asked for; it was logged where it happened.
fn fault() -> Status {
    Status::internal("a fault of the control plane itself")
}

/// A refusal with the code of its condition.
pub(crate) fn refuse(condition: Condition, words: &str) -> Status {
    let mut status = Status::new(
        Code::FailedPrecondition,
        format!("{words}: {}", condition.summary()),
    );
    status
        .metadata_mut()
        .insert("corinth-code", MetadataValue::from_static(condition.code()));
    status
}

fn json(value: &impl Serialize) -> Result<String, Status> {
    serde_json::to_string(value).map_err(|error| Status::internal(error.to_string()))
}

fn parse<T>(text: &str, field: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

fn service(name: &str, namespace: &str) -> Result<ServiceId, Status> {
    parse(&format!("{name}.{namespace}"), "service")
}

fn clusters(names: &[String]) -> Result<BTreeSet<ClusterName>, Status> {
    names.iter().map(|name| parse(name, "to")).collect()
}

/// Who may call a service from now on: those who could, and these.
fn audience(before: Option<&Audience>, to: &[String]) -> Result<Audience, Status> {
    if to.iter().any(|name| name == "*") {
        return Ok(Audience::All);
    }
    let named = clusters(to)?;
    Ok(match before {
        Some(Audience::All) => Audience::All,
        Some(Audience::Only(before)) => Audience::Only(before.union(&named).cloned().collect()),
        None => Audience::Only(named),
    })
}

fn declared_service(ports: &[wire::ServicePort]) -> Result<DeclaredService, Status> {
    let mut service = DeclaredService::default();
    for port in ports {
        let number = u16::try_from(port.port).ok().and_then(PortNumber::new);
        let number = number.ok_or_else(|| Status::invalid_argument("a port is 1 to 65535"))?;
        let endpoints: Result<Vec<_>, Status> = port
            .endpoints
            .iter()
            .map(|text| {
                let address = parse(text, "endpoint")?;
                Endpoint::new(address, Locality::default(), AddressSource::OwnConfig)
                    .map_err(|error| Status::invalid_argument(format!("endpoint: {error}")))
            })
            .collect();
        let declared = DeclaredPort {
            endpoints: endpoints?,
            tls: port.tls,
            ..DeclaredPort::default()
        };
        let protocol = if port.udp {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        if port.udp && port.tls {
            return Err(Status::invalid_argument(
                "`tls` is for connections, and `udp` for datagrams",
            ));
        }
        service.ports.insert((number, protocol), declared);
    }
    Ok(service)
}

fn denied(who: &str) -> Result<Denied, Status> {
    let wrong = |error: corinth_model::SpiffeError| Status::invalid_argument(error.to_string());
    if who.starts_with("spiffe://") {
        return SpiffeId::parse(who).map(Denied::Id).map_err(wrong);
    }
    TrustDomain::parse(who)
        .map(Denied::TrustDomain)
        .map_err(wrong)
}
