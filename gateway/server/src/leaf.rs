//! Our certificate where the control plane issues it: the key is made here, the control plane signs, and both are kept
//! on disk, so that a start and half of the certificate's life need no control plane.
//!
//! ```text
//! LeafKey ── request ──> control plane ── chain ──> OwnIdentity, then the state directory
//!     ^                        └── issuer: which root signs
//!     └── at half life, and when another root signs
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use corinth_api::{
    identity::{IDENTITY_MESSAGE_MAX_BYTES, IdentityError, SignRequest, SignResponse},
    wire::identity::{self as wire, identity_client::IdentityClient},
};
use corinth_daemon::{
    metrics::{IntCounterVec, Metrics, MetricsError},
    ready::Pending,
};
use corinth_identity::{
    AuthorityError, Leaf, LeafError, LeafKey, OwnIdentity, RenewalError, StateDir, StateError,
};
use corinth_model::{Condition, Failure, Reason, SpiffeId};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{feed::connect, settings::Control};

/// How streams to peers end once our certificate has expired.
const EXPIRED: Reason = Reason::Failed(Failure::CertificateExpired);
/// Key and chain in the state directory; one file, so that they are always those of each other.
const FILE: &str = "gateway-leaf.pem";
/// The clock is looked at this often: it may be set while we wait.
const LOOK: Duration = Duration::from_secs(60);
/// The first gap after a failed request; each further one is twice as long.
const GAP_MIN: Duration = Duration::from_millis(250);
/// The longest gap: short against half of the life of any certificate that is meant to last.
const GAP_MAX: Duration = Duration::from_secs(30);
/// Two certificates are not asked for within this time, however short they live.
const RENEWED_GAP: Duration = Duration::from_secs(1);
/// When another root signs, gateways ask for a certificate under it within this time, each at a moment of its own.
const SPREAD: Duration = Duration::from_secs(2);
/// How long a control plane may take to sign.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A root of our own trust domain.
type Root = CertificateDer<'static>;

/// Why a certificate on disk is not used.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("it is for {0}")]
    OtherIdentity(Box<SpiffeId>),
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("making a key: {0}")]
    Key(#[from] AuthorityError),
    #[error("{0}")]
    Unreachable(String),
    #[error("it does not answer")]
    Silent,
    #[error("it refuses{}: {words}", .code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused { code: Option<String>, words: String },
    #[error("its answer: {0}")]
    Answer(#[from] IdentityError),
    #[error("its certificate cannot be used: {0}")]
    Leaf(#[from] LeafError),
    #[error("its certificate cannot be used: {0}")]
    Other(#[from] RenewalError),
    #[error(
        "its certificate ends at another time than it says, or has ended; do the clocks agree?"
    )]
    End,
}

impl AskError {
    /// For the metric.
    const fn name(&self) -> &'static str {
        match self {
            Self::Key(_) => "no_key",
            Self::Unreachable(_) | Self::Silent => "no_answer",
            Self::Refused { .. } => "refused",
            Self::Answer(_) | Self::Leaf(_) | Self::Other(_) | Self::End => "unusable",
        }
    }
}

/// The certificate on disk, or the wait for the first one. One that has expired is as good as it was to a gateway that
/// ran when it did: it reaches no peer, and says why.
pub(crate) fn kept(state_dir: &StateDir, id: &SpiffeId, now: UnixTime) -> OwnIdentity {
    match read(state_dir, id) {
        Ok(Some(own)) if own.not_after() < now => {
            warn!(
                code = EXPIRED.code(),
                not_after = own.not_after().as_secs(),
                "the certificate on disk has expired; no peer can be reached before the control plane issues the next one"
            );
            return own;
        }
        Ok(Some(own)) => {
            info!(
                not_after = own.not_after().as_secs(),
                "certificate found on disk"
            );
            return own;
        }
        Ok(None) => info!("no certificate on disk; waiting for the control plane"),
        Err(error) => warn!(file = FILE, %error, "the certificate on disk is not used"),
    }
    OwnIdentity::awaiting(id.clone())
}

fn read(state_dir: &StateDir, id: &SpiffeId) -> Result<Option<OwnIdentity>, KeptError> {
    let Some(text) = state_dir.read(FILE)? else {
        return Ok(None);
    };
    let leaf = Leaf::from_pem(&text, &text)?;
    if leaf.id() != id {
        return Err(KeptError::OtherIdentity(Box::new(leaf.id().clone())));
    }
    Ok(Some(OwnIdentity::from_leaf(&leaf)?))
}

/// What `/readyz` shows while there is no certificate that holds: why, and what to do. `None` if there is one.
pub(crate) fn pending(own: &OwnIdentity, socket: &Path, now: UnixTime) -> Option<String> {
    if own.certified().is_none() {
        return Some("certificate: none on disk, and none from the control plane yet".to_owned());
    }
    let (code, socket) = (EXPIRED.code(), socket.display());
    (own.not_after() < now).then(|| {
        format!(
            "certificate: expired at {}, so that no peer can be reached ({code}); start the control plane at {socket}, \
             which issues the next one",
            end(own)
        )
    })
}

/// How long our certificate holds, in words.
pub(crate) fn words(own: &OwnIdentity, now: UnixTime) -> String {
    if own.certified().is_none() {
        return "certificate: none yet".to_owned();
    }
    let until = end(own);
    match own.not_after().as_secs().checked_sub(now.as_secs()) {
        Some(left_s) if own.is_expiring(now) => {
            let code = Condition::CertificateExpiring.code();
            format!("certificate: until {until}, only {left_s} s left ({code})")
        }
        Some(left_s) => format!("certificate: until {until}, {left_s} s left"),
        None => format!("certificate: expired at {until}"),
    }
}

/// The last second of our certificate.
fn end(own: &OwnIdentity) -> String {
    let not_after = own.not_after().as_secs();
    let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after));
    let until = until.and_then(|until| jiff::Timestamp::try_from(until).ok());
    until.map_or_else(|| not_after.to_string(), |until| until.to_string())
}

/// Asks the control plane for our certificates.
pub(crate) struct Asker {
    own: Arc<OwnIdentity>,
    state_dir: Arc<StateDir>,
    socket: PathBuf,
    asked: IntCounterVec,
}

impl Asker {
    pub(crate) fn new(
        own: Arc<OwnIdentity>,
        state_dir: StateDir,
        control: &Control,
        metrics: &Metrics,
    ) -> Result<Self, MetricsError> {
        Ok(Self {
            own,
            state_dir: Arc::new(state_dir),
            socket: control.socket.clone(),
            asked: metrics.counter_vec(
                "certificate_requests_total",
                "Requests to the control plane for a certificate, by what became of them.",
                &["result"],
            )?,
        })
    }

    /// Gets a certificate whenever one is due, until the task is aborted. `first` is done when the first one is there
    /// that holds.
    pub(crate) async fn run(self, first: Option<Pending>, clock: Arc<dyn TimeProvider>) {
        let (told, issuer) = watch::channel(None);
        tokio::select! {
            () = issuer::follow(&self.socket, &told) => {}
            () = self.renew_always(first, issuer, clock) => {}
        }
    }

    async fn renew_always(
        &self,
        mut first: Option<Pending>,
        mut issuer: watch::Receiver<Option<Root>>,
        clock: Arc<dyn TimeProvider>,
    ) {
        let mut gap = GAP_MIN;
        let mut told = None;
        let mut is_told_expiring = false;
        // Another root signs than the one that ours is under.
        let mut is_superseded = false;
        while let Some(now) = clock.current_time() {
            let wait = self.own.next_renewal(now);
            if !wait.is_zero() && !is_superseded {
                tokio::select! {
                    () = sleep(wait.min(LOOK)) => {}
                    root = next(&mut issuer) => is_superseded = self.is_superseded_by(&root).await,
                }
                continue;
            }
            let Err(error) = self.renew(now).await else {
                self.asked.with_label_values(&["signed"]).inc();
                info!(
                    not_after = self.own.not_after().as_secs(),
                    "certificate from the control plane"
                );
                (gap, told, is_told_expiring, first) = (GAP_MIN, None, false, None);
                is_superseded = false;
                sleep(RENEWED_GAP).await;
                continue;
            };
            self.asked.with_label_values(&[error.name()]).inc();
            // The same trouble is told once, not at every try.
            let why = error.to_string();
            if told.as_ref() != Some(&why) {
                warn!(socket = %self.socket.display(), reason = %why, "no certificate from the control plane");
                told = Some(why);
            }
            if first.is_none() && !is_told_expiring && self.own.is_expiring(now) {
                let condition = Condition::CertificateExpiring;
                let not_after = self.own.not_after().as_secs();
                warn!(
                    code = condition.code(),
                    not_after,
                    "{}",
                    condition.summary()
                );
                is_told_expiring = true;
            }
            tokio::select! {
                // Spread, so that gateways that lost it together do not return together.
                () = sleep(gap.mul_f64(0.75 + fastrand::f64() / 2.0)) => gap = (gap * 2).min(GAP_MAX),
                // It is back.
                root = next(&mut issuer) => {
                    gap = GAP_MIN;
                    is_superseded |= self.is_superseded_by(&root).await;
                }
            }
        }
    }

    /// Whether our certificate is not under the root that signs now; answers then after a part of [`SPREAD`].
    async fn is_superseded_by(&self, root: &Root) -> bool {
        match self.own.is_under(root) {
            Ok(true) => false,
            Ok(false) => {
                info!("another root issues by now; a certificate under it is asked for");
                sleep(SPREAD.mul_f64(fastrand::f64())).await;
                true
            }
            Err(error) => {
                warn!(%error, "the control plane tells of a root that is none");
                false
            }
        }
    }

    /// Gets the next certificate, uses it, and then keeps it.
    async fn renew(&self, now: UnixTime) -> Result<(), AskError> {
        let leaf = self.ask(now).await?;
        self.own.replace(&leaf)?;
        let state_dir = Arc::clone(&self.state_dir);
        let write = move || state_dir.write(FILE, leaf.to_pem().as_bytes());
        // A panic in it was logged where it happened.
        if let Ok(Err(error)) = spawn_blocking(write).await {
            warn!(%error, "the certificate is in use but could not be kept for the next start");
        }
        Ok(())
    }

    async fn ask(&self, now: UnixTime) -> Result<Leaf, AskError> {
        let key = LeafKey::generate(self.own.id())?;
        let request = SignRequest::new(key.request().to_vec())?;
        let channel = connect::channel(&self.socket).await;
        let channel = channel.map_err(|error| AskError::Unreachable(connect::words(&error)))?;
        let mut client = IdentityClient::new(channel)
            .max_decoding_message_size(IDENTITY_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(IDENTITY_MESSAGE_MAX_BYTES);
        let answer = timeout(ANSWER_MAX, client.sign(wire::SignRequest::from(request))).await;
        let answer = answer
            .map_err(|_| AskError::Silent)?
            .map_err(|status| refused(&status))?;
        let answer = SignResponse::try_from(answer.into_inner())?;
        let chain = answer.chain.into_iter().map(CertificateDer::from);
        let leaf = key.with_chain(chain.collect())?;
        if leaf.not_after().as_secs() != answer.not_after_s || leaf.not_after() < now {
            return Err(AskError::End);
        }
        Ok(leaf)
    }
}

/// The next root that is told. Cancel-safe.
async fn next(issuer: &mut watch::Receiver<Option<Root>>) -> Root {
    loop {
        if issuer.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(root) = issuer.borrow_and_update().clone() {
            return root;
        }
    }
}

fn refused(status: &tonic::Status) -> AskError {
    let code = status.metadata().get("corinth-code");
    let code = code.and_then(|code| code.to_str().ok());
    // Only codes that are ours are repeated.
    let code = code.and_then(Condition::from_code).map(Condition::code);
    AskError::Refused {
        code: code.map(ToOwned::to_owned),
        words: connect::status_words(status),
    }
}

mod issuer;

#[cfg(test)]
mod tests;
