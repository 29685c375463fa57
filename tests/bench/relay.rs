//! A wide-area network in user space: connections through it have its round trip, and nothing else of it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Chunks on their way; with 64 KiB in each, more than a window of TCP.
const IN_FLIGHT_MAX: usize = 256;
const CHUNK_BYTES: usize = 64 << 10;

/// Leads to one address.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
}

impl Relay {
    /// Takes connections, which lead nowhere before [`Self::lead_to`].
    pub(crate) async fn listen(round_trip: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(OnceLock::new());
        let known = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if let Some(target) = known.get().copied() {
                    tokio::spawn(carry(near, target, round_trip));
                }
            }
        });
        Self { address, target }
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.set(target).expect("it leads to one address");
    }
}

async fn carry(near: TcpStream, target: SocketAddr, round_trip: Duration) {
    // The handshake of TCP takes a round trip as well.
    sleep(round_trip).await;
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let half = round_trip / 2;
    // A reset would have to be told at once; here the one direction ends with the other.
    tokio::join!(
        pump(near_read, far_write, half),
        pump(far_read, near_write, half)
    );
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (on_its_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT_MAX);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let chunk = (Instant::now() + delay, buffer[..count].to_vec());
            if on_its_way.send(chunk).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
