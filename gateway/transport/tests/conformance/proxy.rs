//! What lies between two gateways on a real network, and can be made to fail: a TCP proxy.

use std::{io, net::SocketAddr};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// Forwards connections to one address.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    condition: watch::Sender<Condition>,
}

/// How the path is.
#[derive(Debug, Clone, Copy, Default)]
struct Condition {
    /// Connections stay, and nothing passes.
    is_black: bool,
    /// How often all connections were cut.
    severed: u32,
}

impl Proxy {
    /// Listens on the loopback address of the same family. With a seed, bytes are forwarded in pieces of
    /// 1 to 2,000 bytes.
    pub(crate) async fn to(upstream: SocketAddr, pieces: Option<u64>) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(upstream.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let condition = watch::Sender::new(Condition::default());
        let watched = condition.subscribe();
        tokio::spawn(async move {
            let mut seed = pieces;
            while let Ok((client, _)) = listener.accept().await {
                seed = seed.map(|seed| seed.wrapping_add(1));
                tokio::spawn(carry(client, upstream, watched.clone(), seed));
            }
        });
        Ok(Self { address, condition })
    }

    pub(crate) fn cut(&self) {
        self.condition
            .send_modify(|condition| condition.is_black = true);
    }

    pub(crate) fn heal(&self) {
        self.condition
            .send_modify(|condition| condition.is_black = false);
    }

    pub(crate) fn sever(&self) {
        self.condition
            .send_modify(|condition| condition.severed += 1);
    }
}

async fn carry(
    mut client: TcpStream,
    upstream: SocketAddr,
    condition: watch::Receiver<Condition>,
    seed: Option<u64>,
) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let severed = condition.borrow().severed;
    let mut ended = condition.clone();
    let carried = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let there = pump(client_read, server_write, condition.clone(), seed);
        let back = pump(server_read, client_write, condition, seed.map(|seed| !seed));
        tokio::select! {
            carried = async { tokio::try_join!(there, back) } => carried.map(|_| ()),
            _ = ended.wait_for(|now| now.severed != severed) => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    };
    if carried.is_err() {
        // A connection that is cut is not one that ended: both sides get a TCP reset.
        for socket in [&client, &server] {
            let _ = SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut condition: watch::Receiver<Condition>,
    seed: Option<u64>,
) -> io::Result<()> {
    let mut sizes = seed.map(fastrand::Rng::with_seed);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let most = sizes
            .as_mut()
            .map_or(buffer.len(), |sizes| sizes.usize(1..=2_000));
        let received = from.read(&mut buffer[..most]).await?;
        // What comes while the path is black waits here until it passes again.
        let passes = condition.wait_for(|condition| !condition.is_black).await;
        passes.map_err(|_| io::ErrorKind::BrokenPipe)?;
        if received == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..received]).await?;
    }
}
