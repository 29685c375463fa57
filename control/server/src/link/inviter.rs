//! The side that made the token: ends TLS of somebody unknown, and believes nothing of what they say until they have
//! proven the token's secret.
//!
//! A stranger costs one handshake and one MAC, within five seconds, at most ten of them at a time and twenty begun in
//! any second; while no token is open, nothing at all.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::HostPort;
use corinth_api::link::{Answer, Join, LinkError, LinkMac, Party};
use corinth_identity::{
    AuthorityError, LINK_ALPN, LinkBinding, LinkKey, LinkMessage, StateError, link_server_config,
};
use corinth_model::Condition;
use parking_lot::Mutex;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::address::AddressClass;
use super::invitations::{Invitations, RedeemError};
use super::{Linked, OwnSide, conflict, new_link, roots, wire};
use crate::cluster::{Cluster, Write, WriteError};

/// Time for everything, from the first byte to the last.
pub const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Most attempts under way.
pub const UNDER_WAY_MAX: usize = 10;

/// Most attempts begun in any second.
pub const BEGUN_MAX_PER_SECOND: usize = 20;

/// Takes those who want to link.
pub struct Inviter {
    own: watch::Receiver<Arc<OwnSide>>,
    invitations: Arc<Invitations>,
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn TimeProvider>,
    under_way: Semaphore,
    begun: Mutex<VecDeque<Instant>>,
    /// Held from looking for conflicts until the link is recorded, off the runtime's threads: of two who want the same
    /// name only one gets it.
    linking: Arc<Mutex<()>>,
}

/// Why an attempt did not make a link.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// No token is open; nothing was read.
    #[error("no token is open")]
    Closed,
    /// Too many attempts at once; nothing was read.
    #[error("too many attempts to link at once")]
    TooMany,
    /// The whole did not come to its end in time.
    #[error("it took longer than {} seconds", ATTEMPT_MAX.as_secs())]
    Slow,
    /// The joiner was told no.
    #[error(transparent)]
    Refused(#[from] Condition),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] LinkError),
    /// We have no leaf to show.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// That the token was used could not be written down; it is as before.
    #[error(transparent)]
    State(#[from] StateError),
    /// The link could not be written down; the token is used all the same.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Our clock cannot be read, or our own work was cut short.
    #[error("{0}")]
    Own(&'static str),
}

impl Inviter {
    /// Takes joiners on behalf of `own`, with tokens out of `invitations`, and records links in `cluster`.
    #[must_use]
    pub fn new(
        own: watch::Receiver<Arc<OwnSide>>,
        invitations: Arc<Invitations>,
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn TimeProvider>,
    ) -> Self {
        Self {
            own,
            invitations,
            cluster,
            clock,
            under_way: Semaphore::new(UNDER_WAY_MAX),
            begun: Mutex::default(),
            linking: Arc::default(),
        }
    }

    /// Whether anybody could link now; a gateway takes `corinth-link/1` only then.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.clock
            .current_time()
            .is_some_and(|now| self.invitations.is_open(now))
    }

    /// Serves one connection, whose raw bytes a gateway hands over; `source` is for records. Ends within
    /// [`ATTEMPT_MAX`], and at once if no token is open or too many try.
    ///
    /// # Errors
    /// Why there is no link.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        source: impl fmt::Display,
    ) -> Result<Linked, InviteError> {
        let outcome = self.limited(stream).await;
        match &outcome {
            Ok(linked) => info!(
                peer = %linked.cluster, trust_domain = %linked.trust_domain, one_way = linked.one_way,
                "linked by token"
            ),
            Err(InviteError::Closed | InviteError::TooMany) => {
                debug!(%source, "an attempt to link was not looked at");
            }
            Err(error @ (InviteError::State(_) | InviteError::Write(_) | InviteError::Own(_))) => {
                warn!(%source, %error, "an attempt to link failed on this side");
            }
            Err(error) => info!(%source, %error, "an attempt to link failed"),
        }
        outcome
    }

    async fn limited(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<Linked, InviteError> {
        if !self.is_open() {
            return Err(InviteError::Closed);
        }
        let Ok(_permit) = self.under_way.try_acquire() else {
            return Err(InviteError::TooMany);
        };
        if !self.may_begin(Instant::now()) {
            return Err(InviteError::TooMany);
        }
        let deadline = Instant::now() + ATTEMPT_MAX;
        let own = Arc::clone(&self.own.borrow());
        let heard = timeout_at(deadline, self.hear(&own, stream)).await;
        let mut heard = heard.unwrap_or(Err(InviteError::Slow))?;
        let decided = self.decide(&own, &heard).await;
        let says = match &decided {
            Ok(_) => heard.agree(&own)?,
            Err(InviteError::Refused(condition)) => Answer::Refused(*condition),
            Err(_) => return decided,
        };
        let told = timeout_at(deadline, answer(&mut heard.stream, &says)).await;
        if decided.is_ok() && !matches!(told, Ok(Ok(()))) {
            warn!(
                "linked, but the other cluster may not have heard it; if it has not, delete the link"
            );
        }
        decided
    }

    /// Counts a begun attempt, unless there were too many in the last second.
    fn may_begin(&self, now: Instant) -> bool {
        let mut begun = self.begun.lock();
        while begun
            .front()
            .is_some_and(|first| now.duration_since(*first) >= Duration::from_secs(1))
        {
            begun.pop_front();
        }
        let may = begun.len() < BEGUN_MAX_PER_SECOND;
        if may {
            begun.push_back(now);
        }
        may
    }

    /// Ends TLS and reads what the joiner says.
    async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        own: &OwnSide,
        stream: S,
    ) -> Result<Heard<S>, InviteError> {
        let clock = Arc::clone(&self.clock);
        let config = link_server_config(&own.authority, &own.slot, self.now()?, clock)?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(LINK_ALPN) {
            return Err(rustls::Error::NoApplicationProtocol.into());
        }
        let binding = LinkBinding::of(connection)?;
        let join = Join::decode(&wire::read(&mut stream).await?)?;
        let key = self.invitations.key(&join.token_id);
        Ok(Heard {
            stream,
            binding,
            join,
            key,
        })
    }

    /// Takes a joiner who proves a token: reads what it is, uses the token, records the link.
    async fn decide<S>(&self, own: &Arc<OwnSide>, heard: &Heard<S>) -> Result<Linked, InviteError> {
        let Heard {
            binding, join, key, ..
        } = heard;
        let says = LinkMessage::Join {
            one_way: join.one_way,
        };
        if !key.verifies(says, binding, &join.party, &join.mac.0) {
            return Err(Condition::TokenRefused.into());
        }
        let party = Party::decode(&join.party).map_err(|_| Condition::EntryInvalid)?;
        let now = self.now()?;
        let deciding = Deciding {
            own: Arc::clone(own),
            invitations: Arc::clone(&self.invitations),
            cluster: Arc::clone(&self.cluster),
            linking: Arc::clone(&self.linking),
        };
        let join = join.clone();
        let work = move || deciding.link(&join, &party, now);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| InviteError::Own("recording the link was cut short"))?
    }

    fn now(&self) -> Result<UnixTime, InviteError> {
        let now = self.clock.current_time();
        now.ok_or(InviteError::Own("the clock cannot be read"))
    }
}

/// Somebody who has said what they want.
struct Heard<S> {
    stream: TlsStream<S>,
    binding: LinkBinding,
    join: Join,
    key: LinkKey,
}

impl<S> Heard<S> {
    /// The yes to it.
    fn agree(&self, own: &OwnSide) -> Result<Answer, LinkError> {
        let party = own.party.encode()?;
        let mac = LinkMac(self.key.mac(LinkMessage::Answer, &self.binding, &party));
        Ok(Answer::Linked { party, mac })
    }
}

/// What is needed to record a link, off the runtime's threads.
struct Deciding {
    own: Arc<OwnSide>,
    invitations: Arc<Invitations>,
    cluster: Arc<dyn Cluster>,
    linking: Arc<Mutex<()>>,
}

impl Deciding {
    fn link(&self, join: &Join, party: &Party, now: UnixTime) -> Result<Linked, InviteError> {
        let _linking = self.linking.lock();
        let declared = Arc::clone(&self.cluster.declared().borrow());
        let own = &self.own.party;
        if let Some(conflict) = conflict(&party.cluster, &party.trust_domain, own, &declared) {
            return Err(conflict.condition().into());
        }
        let bundle = roots(party).ok_or(Condition::EntryInvalid)?;
        self.invitations
            .redeem(&join.token_id, now)
            .map_err(|error| match error {
                RedeemError::Refused => InviteError::Refused(Condition::TokenRefused),
                RedeemError::State(error) => InviteError::State(error),
            })?;
        let addresses = dialled(join, party, own);
        let link = new_link(&bundle, addresses);
        self.cluster
            .write(Write::Link(party.cluster.clone(), Box::new(link)))?;
        Ok(Linked {
            cluster: party.cluster.clone(),
            trust_domain: party.trust_domain.clone(),
            one_way: join.one_way,
        })
    }
}

/// Where the joiner is dialled: nowhere if only it uses us, and on loopback only if that is how we are reached too.
fn dialled(join: &Join, party: &Party, own: &Party) -> Vec<String> {
    if join.one_way {
        return Vec::new();
    }
    let is_local = own.addresses.iter().any(is_loopback);
    let may = |address: &&HostPort| is_local || !is_loopback(address);
    let addresses = party.addresses.iter().filter(may);
    addresses.map(HostPort::to_string).collect()
}

fn is_loopback(address: &HostPort) -> bool {
    match &address.host {
        corinth_api::Host::Address(ip) => {
            matches!(AddressClass::of(*ip), Some(AddressClass::Loopback) | None)
        }
        corinth_api::Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
    }
}

/// Answers, and waits until the other side has read it and closed: whatever lies unread when we close could cost it the
/// answer. The link is there by then, so that nothing depends on how this ends.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut TlsStream<S>,
    answer: &Answer,
) -> io::Result<()> {
    /// A joiner has nothing more to say.
    const REST_MAX_BYTES: u64 = 64;
    /// How long it may take to close.
    const CLOSE_MAX: Duration = Duration::from_secs(1);

    wire::write(stream, &answer.encode()).await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    let mut limited = stream.take(REST_MAX_BYTES);
    let _ = timeout(CLOSE_MAX, limited.read_to_end(&mut rest)).await;
    Ok(())
}

impl fmt::Debug for Inviter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inviter")
            .field("invitations", &self.invitations)
            .finish_non_exhaustive()
    }
}
