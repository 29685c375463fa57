//! Issues certificates to the gateways of this cluster, so that the key of the authority stays here
//! (`corinth.identity.v1`).
//!
//! Deciding is apart: [`sign`] makes a certificate or a refusal of a request, and [`Issued`] says which certificates
//! should have been renewed. Whoever may open the socket may ask for the certificate of any gateway of this cluster.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::identity::{Issuer, SignRequest, SignResponse};
use corinth_api::wire::identity as wire;
use corinth_daemon::metrics::{IntCounterVec, Metrics, MetricsError};
use corinth_identity::{
    Authority, AuthorityError, Denials, SigningRequest, SigningRequestError, not_after,
};
use corinth_model::{Condition, GatewayId, SpiffeId, TrustDomain};
use parking_lot::Mutex;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::admin::refuse;
use crate::app::Shared;
use crate::link::OwnSide;
use crate::plane::Plane;
use crate::routes::Source;

#[cfg(test)]
mod tests;

/// Most certificates that are remembered: as many gateways as may follow the tables.
const ISSUED_MAX: usize = 2_000;

/// A certificate that was issued, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The gateway.
    pub id: SpiffeId,
    /// What it is answered.
    pub response: SignResponse,
}

/// Why no certificate is issued.
#[derive(Debug, thiserror::Error)]
pub enum SignRefusal {
    /// It is no request, or proves no key that we take.
    #[error(transparent)]
    Request(#[from] SigningRequestError),
    /// The identity is not ours to give.
    #[error("{id} is not in the trust domain {trust_domain}")]
    Foreign {
        /// Who asks.
        id: Box<SpiffeId>,
        /// What is issued here.
        trust_domain: TrustDomain,
    },
    /// The identity is one of ours, but not a gateway's.
    #[error("{0} is not a gateway")]
    NotGateway(Box<SpiffeId>),
    /// The operator denied the identity, or all of the trust domain.
    #[error("{0} is denied")]
    Denied(Box<SpiffeId>),
    /// The authority cannot issue.
    #[error(transparent)]
    NotIssuing(#[from] AuthorityError),
}

impl SignRefusal {
    /// The condition under which operators know this.
    #[must_use]
    pub const fn condition(&self) -> Condition {
        match self {
            Self::Request(SigningRequestError::Key) => Condition::SigningKeyUnfit,
            Self::Request(
                SigningRequestError::Malformed
                | SigningRequestError::Signature
                | SigningRequestError::Identity,
            ) => Condition::SigningRequestInvalid,
            Self::Foreign { .. } => Condition::IdentityForeign,
            Self::NotGateway(_) => Condition::IdentityNotGateway,
            Self::Denied(_) => Condition::IdentityDenied,
            Self::NotIssuing(_) => Condition::NotIssuing,
        }
    }
}

/// Decides on a request. Its key and its identity count, and nothing else in it; the certificate holds for `lifetime`,
/// but never longer than the root.
///
/// # Errors
/// The first rule that is broken.
pub fn sign(
    authority: &Authority,
    denials: &Denials,
    request: &[u8],
    lifetime: Duration,
    now: UnixTime,
) -> Result<Signed, SignRefusal> {
    let request = SigningRequest::read(request)?;
    let id = request.id();
    if id.trust_domain() != authority.trust_domain() {
        let trust_domain = authority.trust_domain().clone();
        let id = Box::new(id.clone());
        return Err(SignRefusal::Foreign { id, trust_domain });
    }
    if GatewayId::try_from(id).is_err() {
        return Err(SignRefusal::NotGateway(Box::new(id.clone())));
    }
    if denials.contains(id) {
        return Err(SignRefusal::Denied(Box::new(id.clone())));
    }
    let chain = authority.issue_for_request(&request, id, &[], now, lifetime)?;
    let chain: Vec<_> = chain.iter().map(|one| one.as_ref().to_vec()).collect();
    let not_after_s = chain.first().and_then(|leaf| not_after(leaf));
    Ok(Signed {
        id: id.clone(),
        response: SignResponse {
            chain,
            not_after_s: not_after_s.expect("a certificate that was just made has an end"),
        },
    })
}

/// The certificate that each gateway was given last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Issued(BTreeMap<String, IssuedLeaf>);

/// One certificate. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedLeaf {
    /// When it was issued.
    pub since_s: u64,
    /// Its last second.
    pub not_after_s: u64,
}

impl IssuedLeaf {
    const fn life_s(self) -> u64 {
        self.not_after_s.saturating_sub(self.since_s)
    }

    /// Whether it ended no longer ago than it had lived.
    const fn is_recent(self, now_s: u64) -> bool {
        self.not_after_s.saturating_add(self.life_s()) >= now_s
    }

    /// From then on it should have been renewed: a quarter of its life is left.
    #[must_use]
    pub const fn last_quarter_s(self) -> u64 {
        self.not_after_s.saturating_sub(self.life_s() / 4)
    }
}

impl Issued {
    /// Remembers a certificate in place of the one its gateway had before. What ended longer ago than it had lived is
    /// forgotten: that gateway is no more.
    pub fn record(&mut self, signed: &Signed, now: UnixTime) {
        let now_s = now.as_secs();
        self.0.retain(|_, leaf| leaf.is_recent(now_s));
        let id = signed.id.to_string();
        if self.0.len() >= ISSUED_MAX && !self.0.contains_key(&id) {
            let first = self.0.iter().min_by_key(|(_, leaf)| leaf.not_after_s);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                self.0.remove(&first);
            }
        }
        let leaf = IssuedLeaf {
            since_s: now_s,
            not_after_s: signed.response.not_after_s,
        };
        self.0.insert(id, leaf);
    }

    /// All of them, by the identity they are for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, IssuedLeaf)> {
        self.0.iter().map(|(id, leaf)| (id.as_str(), *leaf))
    }

    /// Those of whose life less than a quarter is left, and that are not as good as forgotten.
    pub fn expiring(&self, now: UnixTime) -> impl Iterator<Item = (&str, IssuedLeaf)> {
        let (leaves, now_s) = (self.iter(), now.as_secs());
        leaves.filter(move |(_, leaf)| now_s > leaf.last_quarter_s() && leaf.is_recent(now_s))
    }
}

/// What the control plane knows of the certificates it issues.
pub(crate) struct Signing {
    issued: Mutex<Issued>,
    answered: IntCounterVec,
}

impl Signing {
    /// Goes on from what was kept.
    pub(crate) fn new(issued: Issued, metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            issued: Mutex::new(issued),
            answered: metrics.counter_vec(
                "control_signing_requests_total",
                "Requests of gateways for a certificate: signed, or the name of the refusal.",
                &["result"],
            )?,
        })
    }

    pub(crate) fn issued(&self) -> Issued {
        self.issued.lock().clone()
    }
}

/// The service.
pub(crate) struct Identity {
    shared: Arc<Shared>,
}

impl Identity {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn answer(&self, request: wire::SignRequest) -> Result<Signed, SignRefusal> {
        let request = SignRequest::try_from(request).map_err(|_| SigningRequestError::Malformed)?;
        // The one that issues by now: it is replaced in the middle of a change of root.
        let authority = Arc::clone(&self.shared.side.borrow().authority);
        let lifetime = self.shared.settings.leaf_lifetime;
        let now = UnixTime::now();
        let denied = |plane: &Plane| plane.declared().denied.clone();
        let denials = Denials::new(self.shared.look(denied));
        let signed = sign(&authority, &denials, request.der(), lifetime, now)?;
        self.shared.signing.issued.lock().record(&signed, now);
        self.shared.keep_issued();
        Ok(signed)
    }
}

/// Tells which root issues, now and whenever that changes, as long as somebody hears it and we run.
async fn tell_issuer(
    mut side: watch::Receiver<Arc<OwnSide>>,
    mut ended: watch::Receiver<bool>,
    told: mpsc::Sender<Result<wire::Issuer, Status>>,
) {
    let mut before = None;
    loop {
        let root = side.borrow_and_update().authority.root().to_vec();
        if before.as_ref() != Some(&root) {
            let issuer = Issuer::new(root.clone()).map(wire::Issuer::from);
            let issuer = issuer.map_err(|error| Status::internal(error.to_string()));
            if told.send(issuer).await.is_err() {
                return;
            }
            before = Some(root);
        }
        tokio::select! {
            changed = side.changed() => if changed.is_err() { return },
            () = told.closed() => return,
            _ = ended.wait_for(|ended| *ended) => return,
        }
    }
}

#[tonic::async_trait]
impl wire::identity_server::Identity for Identity {
    type FollowIssuerStream = Pin<Box<dyn Stream<Item = Result<wire::Issuer, Status>> + Send>>;

    async fn follow_issuer(
        &self,
        _: Request<wire::FollowIssuerRequest>,
    ) -> Result<Response<Self::FollowIssuerStream>, Status> {
        let (told, queue) = mpsc::channel(1);
        let (side, ended) = (self.shared.side.subscribe(), self.shared.ended());
        tokio::spawn(tell_issuer(side, ended, told));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let answered = &self.shared.signing.answered;
        match self.answer(request.into_inner()) {
            Ok(signed) => {
                answered.with_label_values(&["signed"]).inc();
                info!(id = %signed.id, not_after = signed.response.not_after_s, "certificate issued");
                Ok(Response::new(signed.response.into()))
            }
            Err(refusal) => {
                let condition = refusal.condition();
                answered.with_label_values(&[condition.name()]).inc();
                warn!(code = condition.code(), %refusal, "no certificate issued");
                Err(refuse(condition, &refusal.to_string()))
            }
        }
    }
}
