//! The network between the demo's clusters: what comes for a gateway, by TCP or by UDP, is taken to where that gateway
//! listens, and arrives a little later. It can drop UDP, as some networks do.

mod datagrams;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::datagrams::Udp;

/// How much later everything arrives, in each direction.
pub(super) const DELAY: Duration = Duration::from_millis(4);
/// Connections at once; who comes then waits.
const CONNECTIONS_MAX: usize = 256;
/// Pieces under way in one direction. TCP waits beyond that; datagrams are dropped.
const UNDER_WAY_MAX: usize = 64;
const CHUNK_BYTES: usize = 16 << 10;
/// The way to one gateway, as long as this lives.
pub(super) struct Relay {
    udp: Arc<Udp>,
    _carrying: JoinSet<()>,
}

/// What is on its way, and when it arrives.
type Sent<T> = (Instant, T);

impl Relay {
    /// Carries what comes to `address` to `to`, whether anybody listens there or not.
    pub(super) fn start(address: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let udp = Arc::<Udp>::default();
        let mut carrying = JoinSet::new();
        carrying.spawn(carry_connections(TcpListener::from_std(listener)?, to));
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        carrying.spawn(datagrams::carry(socket, to, Arc::clone(&udp)));
        Ok(Self {
            udp,
            _carrying: carrying,
        })
    }

    /// From now on UDP is dropped, or passes again. What is under way arrives.
    pub(super) fn block_udp(&self, is_blocked: bool) {
        self.udp.block(is_blocked);
    }

    /// How many datagrams were dropped because UDP was blocked.
    pub(super) fn dropped(&self) -> u64 {
        self.udp.dropped()
    }
}

async fn carry_connections(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((near, _)) = accepted {
                    connections.spawn(carry_connection(near, to));
                }
            }
        }
    }
}

/// A connection that breaks on one side breaks on the other.
async fn carry_connection(mut near: TcpStream, to: SocketAddr) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        let _ = near.set_zero_linger();
        return;
    };
    let carried = {
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::try_join!(
            carry_bytes(from_near, to_far),
            carry_bytes(from_far, to_near)
        )
    };
    if carried.is_err() {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

async fn carry_bytes(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let (taken, mut under_way) = mpsc::channel::<Sent<BytesMut>>(UNDER_WAY_MAX);
    let take = async move {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
            // The end travels as bytes do: as none.
            let is_end = from.read_buf(&mut bytes).await? == 0;
            let sent = taken.send((Instant::now() + DELAY, bytes)).await;
            if is_end || sent.is_err() {
                return Ok(());
            }
        }
    };
    let give = async {
        while let Some(bytes) = arrival(&mut under_way).await {
            if bytes.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(take, give).map(|_| ())
}

/// Waits until the next piece arrives.
async fn arrival<T>(under_way: &mut mpsc::Receiver<Sent<T>>) -> Option<T> {
    let (at, what) = under_way.recv().await?;
    sleep_until(at).await;
    Some(what)
}

#[cfg(test)]
mod tests;
