//! Ends the mutual TLS of direct clients on routes opened with *terminate*, and relays what is inside.

use std::{collections::BTreeMap, io::Cursor, sync::Arc, time::Duration};

use corinth_identity::{
    Denials, OwnIdentity, SharedBundles, VerifyError, peer_identity, refusal_of,
    tls::terminate_server_config,
};
use corinth_model::{Direct, DnsName, Export, ExportKey, Failure, Reason, Refusal, SpiffeId};
use parking_lot::Mutex;
use rustls::{
    CertificateError, OtherError, ServerConfig, pki_types::UnixTime, time_provider::TimeProvider,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Chain, Join},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::relay::{self, Carried, Side, idleness};

/// What is copied at once; TLS records hold no more.
const COPY_BYTES: usize = 16 << 10;

/// The TLS configurations of the routes that end TLS here.
pub(crate) struct Terminators {
    own: Arc<OwnIdentity>,
    bundles: SharedBundles,
    denials: Denials,
    clock: Arc<dyn TimeProvider>,
    configs: Mutex<BTreeMap<ExportKey, Made>>,
}

/// A configuration, for as long as its export stays as it was.
struct Made {
    export: Arc<Export>,
    identity: Arc<OwnIdentity>,
    config: Arc<ServerConfig>,
}

type Socket = Join<Chain<Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;

/// A direct client whose TLS ends here.
pub(crate) struct Terminated {
    stream: TlsStream<Socket>,
}

impl Terminators {
    pub(crate) fn new(
        own: Arc<OwnIdentity>,
        bundles: SharedBundles,
        denials: Denials,
        clock: Arc<dyn TimeProvider>,
    ) -> Self {
        Self {
            own,
            bundles,
            denials,
            clock,
            configs: Mutex::default(),
        }
    }

    /// Does the handshake; `received` was read of the socket before. Returns who the client is.
    pub(crate) async fn accept(
        &self,
        export: &Arc<Export>,
        socket: TcpStream,
        received: Vec<u8>,
    ) -> Result<(Terminated, SpiffeId), Reason> {
        let config = self
            .config(export)
            .ok_or(Reason::Failed(Failure::Internal))?;
        let (read, write) = socket.into_split();
        let socket = tokio::io::join(Cursor::new(received).chain(read), write);
        let stream = TlsAcceptor::from(config)
            .accept(socket)
            .await
            .map_err(|error| {
                let cause = error
                    .get_ref()
                    .and_then(|cause| cause.downcast_ref::<rustls::Error>());
                cause.map_or(Reason::Failed(Failure::TlsFailed), reason_of)
            })?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let caller = peer_identity(chain).map_err(Reason::Failed)?.id;
        Ok((Terminated { stream }, caller))
    }

    fn config(&self, export: &Arc<Export>) -> Option<Arc<ServerConfig>> {
        let now = self.clock.current_time()?;
        let configs = self.configs.lock();
        if let Some(made) = configs.get(&export.key())
            && made.export == *export
        {
            if made.identity.next_renewal(now) == Duration::ZERO {
                // The certificate in use stays valid for as long again; the next client tries anew.
                let _ = made.identity.renew(now);
            }
            return Some(Arc::clone(&made.config));
        }
        drop(configs);
        // Made outside the lock; of two that were made at once, the later one stays.
        let made = self.make(export, now)?;
        let config = Arc::clone(&made.config);
        self.configs.lock().insert(export.key(), made);
        Some(config)
    }

    fn make(&self, export: &Arc<Export>, now: UnixTime) -> Option<Made> {
        let Some(Direct::Terminate { callers }) = &export.direct else {
            return None;
        };
        // Where somebody else issues our leaf, it is shown as it is.
        let identity = match self.own.under_names(names_of(export), now) {
            Some(issued) => Arc::new(issued.ok()?),
            None => Arc::clone(&self.own),
        };
        let config = Arc::new(terminate_server_config(
            Arc::clone(&identity),
            callers.iter().cloned().collect(),
            self.bundles.clone(),
            self.denials.clone(),
            Arc::clone(&self.clock),
        ));
        Some(Made {
            export: Arc::clone(export),
            identity,
            config,
        })
    }
}

/// Every name under which a client may look for the route.
fn names_of(export: &Export) -> Vec<DnsName> {
    let route = export.route_name().to_string();
    let service = route
        .split_once('.')
        .map_or("", |(_, service)| service)
        .to_owned();
    let own = [route, service]
        .into_iter()
        .filter_map(|name| DnsName::parse(&name).ok());
    own.chain(export.sni_names.iter().cloned()).collect()
}

/// A good certificate of somebody who is not listed is no failure of TLS.
fn reason_of(error: &rustls::Error) -> Reason {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
        && let Some(VerifyError::CallerNotListed(_)) = inner.downcast_ref()
    {
        return Reason::Refused(Refusal::SourceNotAllowed);
    }
    Reason::Failed(refusal_of(error).unwrap_or(Failure::TlsFailed))
}

impl Terminated {
    /// Relays until both directions have ended, or one fails.
    pub(crate) async fn relay(
        &mut self,
        mut endpoint: TcpStream,
        idle: Option<Duration>,
        carried: &Carried,
    ) -> Result<(), Failure> {
        let relayed = {
            let (from_client, to_client) = tokio::io::split(&mut self.stream);
            let (from_endpoint, to_endpoint) = endpoint.split();
            let both = async {
                tokio::try_join!(
                    copy(
                        (from_client, Side::Client),
                        (to_endpoint, Side::Endpoint),
                        |bytes| {
                            carried.add_sent(bytes);
                        }
                    ),
                    copy(
                        (from_endpoint, Side::Endpoint),
                        (to_client, Side::Client),
                        |bytes| {
                            carried.add_received(bytes);
                        }
                    ),
                )
            };
            tokio::select! {
                ended = both => ended.map(|_| ()),
                () = idleness(idle, carried) => Err(Failure::IdleTimeout),
            }
        };
        if relayed.is_ok() {
            relay::disarm(&endpoint);
        }
        relayed
    }

    /// Cuts the client's connection so that it does not look ended: without the alert that ends TLS, by RST.
    pub(crate) fn abort(self) {
        let (socket, _) = self.stream.into_inner();
        let (read, write) = socket.into_inner();
        let (_, read) = read.into_inner();
        if let Ok(socket) = read.reunite(write) {
            relay::abort(socket);
        }
    }
}

async fn copy(
    (mut from, from_side): (impl AsyncRead + Unpin, Side),
    (mut to, to_side): (impl AsyncWrite + Unpin, Side),
    count: impl Fn(usize),
) -> Result<(), Failure> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let bytes = from
            .read(&mut buffer)
            .await
            .map_err(|_| from_side.reset())?;
        if bytes == 0 {
            return to.shutdown().await.map_err(|_| to_side.reset());
        }
        to.write_all(&buffer[..bytes])
            .await
            .map_err(|_| to_side.reset())?;
        to.flush().await.map_err(|_| to_side.reset())?;
        count(bytes);
    }
}
