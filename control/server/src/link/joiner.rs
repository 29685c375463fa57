//! The side that was given the token: finds the inviter, proves the secret, records the link.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::link::{Answer, Join, LinkError, LinkMac, Party, Token};
use corinth_api::{Host, HostPort};
use corinth_identity::{
    Bundle, LINK_ALPN, LinkBinding, LinkKey, LinkMessage, describe, link_client_config, root_pin,
};
use corinth_model::Condition;
use rustls::ClientConfig;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::info;

use super::address::judge;
use super::{Linked, conflict, new_link, roots, wire};
use crate::cluster::{Cluster, Write, WriteError};

/// Time for each address of the token until TLS stands, and again until the answer is there.
pub const ADDRESS_MAX: Duration = Duration::from_secs(5);

/// Most socket addresses of one host name that are tried.
const RESOLVED_MAX: usize = 8;

/// Why the two are not linked. Nothing was recorded here.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is our own.
    #[error("the token is of this very cluster")]
    OwnCluster,
    /// We have a link with this name or trust domain.
    #[error("a cluster of this name or trust domain is linked already")]
    AlreadyLinked,
    /// No address led to somebody who takes links.
    #[error("no address of the other cluster takes a link:{0}")]
    Unreachable(Tried),
    /// Somebody answered who is not the inviter, or could not prove to be.
    #[error("{0}")]
    Unproven(String),
    /// The inviter said no.
    #[error("the other cluster refused: {0}")]
    Refused(Condition),
    /// The secret was proven, but no answer came; the other side may hold the link.
    #[error(
        "the connection to {address} broke before the answer came ({error}); if the other cluster holds the link now, \
         delete it there and ask for a new token"
    )]
    NoAnswer {
        /// Whom we had asked.
        address: HostPort,
        /// How it broke.
        error: String,
    },
    /// Our own party does not fit into a message.
    #[error("what this cluster says of itself is too long: {0}")]
    OwnParty(LinkError),
    /// The other side holds the link, but it could not be written down here.
    #[error("{0}; the other cluster holds the link: delete it there and ask for a new token")]
    Write(#[from] WriteError),
    /// Our own work was cut short.
    #[error("recording the link was cut short")]
    CutShort,
}

impl JoinError {
    /// The condition under which operators know this.
    #[must_use]
    pub const fn condition(&self) -> Option<Condition> {
        match self {
            Self::OwnCluster => Some(Condition::OwnCluster),
            Self::AlreadyLinked => Some(Condition::AlreadyLinked),
            Self::Unreachable(_) | Self::NoAnswer { .. } => Some(Condition::LinkUnreachable),
            Self::Unproven(_) => Some(Condition::InviterUnproven),
            Self::Refused(condition) => Some(*condition),
            Self::OwnParty(_) | Self::Write(_) | Self::CutShort => None,
        }
    }
}

/// The addresses that were tried, and what came of it.
#[derive(Debug, Default)]
pub struct Tried(Vec<(HostPort, String)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(address, why)| write!(f, " {address}: {why};"))
    }
}

/// Links this cluster with the inviter of a token: tries its addresses in order, then records the link.
///
/// # Errors
/// Why not.
pub async fn join(
    token: &Token,
    own: &Party,
    one_way: bool,
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn TimeProvider>,
) -> Result<Linked, JoinError> {
    refuse_conflict(token, own, cluster.as_ref())?;
    let joining = Joining::new(token, own, one_way, clock)?;
    let mut tried = Tried::default();
    let mut unproven = None;
    for address in &token.addresses {
        let outcome = timeout(ADDRESS_MAX, joining.at(address)).await;
        match outcome {
            Ok(Ok(inviter)) => return record(token, own, inviter, one_way, cluster).await,
            Ok(Err(Miss::Final(error))) => return Err(error),
            Ok(Err(Miss::Stranger(why))) => unproven = Some(format!("{address}: {why}")),
            Ok(Err(Miss::Unreachable(why))) => tried.0.push((address.clone(), why)),
            Err(_) => tried
                .0
                .push((address.clone(), "it did not answer in time".to_owned())),
        }
    }
    Err(match unproven {
        Some(why) => JoinError::Unproven(why),
        None => JoinError::Unreachable(tried),
    })
}

fn refuse_conflict(token: &Token, own: &Party, cluster: &dyn Cluster) -> Result<(), JoinError> {
    let declared = Arc::clone(&cluster.declared().borrow());
    match conflict(&token.cluster, &token.trust_domain, own, &declared) {
        None => Ok(()),
        Some(super::Conflict::OwnCluster) => Err(JoinError::OwnCluster),
        Some(super::Conflict::AlreadyLinked) => Err(JoinError::AlreadyLinked),
    }
}

/// What is the same for every address.
struct Joining<'a> {
    token: &'a Token,
    key: LinkKey,
    /// Our encoded party.
    party: Vec<u8>,
    one_way: bool,
    config: Arc<ClientConfig>,
}

/// Why one address made no link.
enum Miss {
    /// Nobody there takes links; another address may.
    Unreachable(String),
    /// Somebody else is there; another address may be the inviter's.
    Stranger(String),
    /// The inviter has heard us, or somebody lies: no other address would help.
    Final(JoinError),
}

impl<'a> Joining<'a> {
    fn new(
        token: &'a Token,
        own: &Party,
        one_way: bool,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, JoinError> {
        let mut party = own.clone();
        if one_way {
            // Nobody is to dial us.
            party.addresses.clear();
        }
        let pins = token.root_pins.iter().map(|pin| pin.0).collect();
        Ok(Self {
            token,
            key: LinkKey::of_secret(&token.secret.0),
            party: party.encode().map_err(JoinError::OwnParty)?,
            one_way,
            config: Arc::new(link_client_config(pins, token.trust_domain.clone(), clock)),
        })
    }

    async fn at(&self, address: &HostPort) -> Result<Bundled, Miss> {
        let connecting = async {
            let dialled = dial(address).await;
            let stream = dialled.map_err(|error| Miss::Unreachable(error.to_string()))?;
            self.handshake(stream).await
        };
        let connected = timeout(ADDRESS_MAX, connecting).await;
        let slow = || Err(Miss::Unreachable("it did not answer in time".to_owned()));
        let stream = connected.unwrap_or_else(|_| slow())?;
        self.exchange(stream, address).await
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<TlsStream<S>, Miss> {
        // Not sent: nothing in clear says who is meant.
        let nobody = ServerName::try_from("inviter.invalid").expect("this is a host name");
        let connected = TlsConnector::from(Arc::clone(&self.config))
            .connect(nobody, stream)
            .await;
        connected.map_err(|error| handshake_miss(&error))
    }

    /// The conversation on one connection.
    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: TlsStream<S>,
        address: &HostPort,
    ) -> Result<Bundled, Miss> {
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(LINK_ALPN) {
            return Err(Miss::Unreachable("it does not take links".to_owned()));
        }
        let binding =
            LinkBinding::of(connection).map_err(|error| Miss::Unreachable(error.to_string()))?;
        let says = LinkMessage::Join {
            one_way: self.one_way,
        };
        let join = Join {
            token_id: self.token.id,
            party: self.party.clone(),
            mac: LinkMac(self.key.mac(says, &binding, &self.party)),
            one_way: self.one_way,
        };
        let no_answer = |error: String| {
            Miss::Final(JoinError::NoAnswer {
                address: address.clone(),
                error,
            })
        };
        let answered = async {
            wire::write(&mut stream, &join.encode()).await?;
            wire::read(&mut stream).await
        };
        let answer = timeout(ADDRESS_MAX, answered)
            .await
            .map_err(|_| no_answer("it took too long".to_owned()))?
            .map_err(|error| no_answer(error.to_string()))?;
        let answer = Answer::decode(&answer).map_err(|error| no_answer(error.to_string()))?;
        // It closes by itself if we do not.
        let _ = stream.shutdown().await;
        let unproven = |why: &str| Miss::Final(JoinError::Unproven(format!("{address}: {why}")));
        let (party, mac) = match answer {
            Answer::Linked { party, mac } => (party, mac),
            Answer::Refused(condition) => return Err(Miss::Final(JoinError::Refused(condition))),
        };
        if !self
            .key
            .verifies(LinkMessage::Answer, &binding, &party, &mac.0)
        {
            return Err(unproven("its answer does not prove the token's secret"));
        }
        self.read(&party)
            .ok_or_else(|| unproven("what it says of itself is not what the token says"))
    }

    /// The inviter, if it is who the token says.
    fn read(&self, party: &[u8]) -> Option<Bundled> {
        let party = Party::decode(party).ok()?;
        let is_named =
            party.cluster == self.token.cluster && party.trust_domain == self.token.trust_domain;
        let bundle = roots(&party).filter(|_| is_named)?;
        let pins: BTreeSet<_> = self.token.root_pins.iter().map(|pin| pin.0).collect();
        let mut told = bundle.roots().iter().filter_map(|root| root_pin(root));
        told.any(|pin| pins.contains(&pin))
            .then_some(Bundled { party, bundle })
    }
}

/// A party with its roots.
struct Bundled {
    party: Party,
    bundle: Bundle,
}

fn handshake_miss(error: &io::Error) -> Miss {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(inner) = inner else {
        return Miss::Unreachable(error.to_string());
    };
    if matches!(inner, rustls::Error::InvalidCertificate(_)) {
        // Its certificate was not what the token says.
        return Miss::Stranger(describe(inner));
    }
    Miss::Unreachable(describe(inner))
}

async fn dial(address: &HostPort) -> io::Result<TcpStream> {
    let port = address.port.get();
    let name = match &address.host {
        Host::Address(ip) => return TcpStream::connect((*ip, port)).await,
        Host::Name(name) => name,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name leads nowhere");
    let resolved = tokio::net::lookup_host((&**name, port)).await?;
    for one in resolved.take(RESOLVED_MAX) {
        match TcpStream::connect(one).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Writes the link down: dialled at the token's addresses, and at those of the inviter's own that are alike.
async fn record(
    token: &Token,
    own: &Party,
    inviter: Bundled,
    one_way: bool,
    cluster: Arc<dyn Cluster>,
) -> Result<Linked, JoinError> {
    let mut addresses = token.addresses.clone();
    for more in judge(&token.addresses, &inviter.party.addresses).used {
        if !addresses.contains(&more) {
            addresses.push(more);
        }
    }
    let addresses = addresses.iter().map(HostPort::to_string).collect();
    let link = new_link(&inviter.bundle, addresses);
    // Another attempt may have been faster.
    refuse_conflict(token, own, cluster.as_ref())?;
    let name = inviter.party.cluster.clone();
    let write = move || cluster.write(Write::Link(name, Box::new(link)));
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|_| JoinError::CutShort)??;
    info!(peer = %token.cluster, trust_domain = %token.trust_domain, one_way, "linked by token");
    Ok(Linked {
        cluster: token.cluster.clone(),
        trust_domain: token.trust_domain.clone(),
        one_way,
    })
}
