//! Takes the streams that gateways hand over, on a local socket that only its owner may open.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corinth_api::HandOver;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{debug, warn};

/// How long a gateway may take to say what it hands over.
const GREETING: Duration = Duration::from_secs(5);
/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {}: {error}; is another control plane running?", path.display())]
pub struct SocketError {
    /// The socket.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// Listens on a local socket for our eyes only. One that a process left behind is taken over; one that answers is not.
///
/// # Errors
/// If somebody else answers there, or it cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |error| SocketError {
        path: path.to_owned(),
        error,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Takes streams until it is dropped, each on a task of its own.
pub async fn serve<F>(listener: UnixListener, take: impl Fn(HandOver, UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (greeted, mut streams) = tokio::sync::mpsc::channel(64);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let greeted = greeted.clone();
                    tokio::spawn(async move {
                        if let Some(greeting) = greet(stream).await {
                            // The control plane stops.
                            let _ = greeted.send(greeting).await;
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a stream could not be taken over");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    let carry = async {
        while let Some((what, stream)) = streams.recv().await {
            tokio::spawn(take(what, stream));
        }
    };
    tokio::select! {
        () = accept => {}
        () = carry => {}
    }
}

async fn greet(mut stream: UnixStream) -> Option<(HandOver, UnixStream)> {
    match timeout(GREETING, read(&mut stream)).await {
        Ok(Ok(what)) => Some((what, stream)),
        Ok(Err(error)) => {
            debug!(%error, "what was handed over cannot be read");
            None
        }
        Err(_) => None,
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<HandOver> {
    let length =
        HandOver::length(stream.read_u16().await?.to_be_bytes()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    HandOver::decode(&bytes).map_err(io::Error::other)
}
