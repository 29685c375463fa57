//! Datagrams on their way: each sender has a socket of its own towards the gateway, so that answers find back.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{DELAY, Sent, UNDER_WAY_MAX, arrival};

/// Senders of datagrams at once; what others send is dropped.
const FLOWS_MAX: usize = 64;
/// A sender that gets no answer for as long is forgotten: longer than gateways wait for one.
const FLOW_IDLE: Duration = Duration::from_secs(15);
/// More than gateways send in one.
const DATAGRAM_MAX_BYTES: usize = 2_048;

/// What becomes of datagrams.
#[derive(Default)]
pub(super) struct Udp {
    is_blocked: AtomicBool,
    /// So many were dropped while it was.
    pub(super) dropped: watch::Sender<u64>,
}

impl Udp {
    pub(super) fn block(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        *self.dropped.borrow()
    }

    /// Whether this one passes; else it counts as dropped.
    fn passes(&self) -> bool {
        let is_blocked = self.is_blocked.load(Relaxed);
        if is_blocked {
            self.dropped.send_modify(|dropped| *dropped += 1);
        }
        !is_blocked
    }
}

/// Carries what comes to `socket` to `to`, and what is answered back.
pub(super) async fn carry(socket: Arc<UdpSocket>, to: SocketAddr, udp: Arc<Udp>) {
    let mut flows = HashMap::new();
    let mut running = JoinSet::new();
    let mut datagram = [0; DATAGRAM_MAX_BYTES];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut datagram) => received,
            Some(Ok(client)) = running.join_next() => {
                flows.remove(&client);
                continue;
            }
        };
        let Ok((length, client)) = received else {
            continue;
        };
        if !udp.passes() || (flows.len() >= FLOWS_MAX && !flows.contains_key(&client)) {
            continue;
        }
        let flow: &mut mpsc::Sender<Sent<Vec<u8>>> = flows.entry(client).or_insert_with(|| {
            let (taken, under_way) = mpsc::channel(UNDER_WAY_MAX);
            let (socket, udp) = (Arc::clone(&socket), Arc::clone(&udp));
            running.spawn(async move {
                // What cannot be carried is lost, as in any network.
                let _ = carry_flow(client, under_way, &socket, to, &udp).await;
                client
            });
            taken
        });
        let _ = flow.try_send((Instant::now() + DELAY, datagram[..length].to_vec()));
    }
}

/// What one client sends, and what comes back for it.
async fn carry_flow(
    client: SocketAddr,
    mut there: mpsc::Receiver<Sent<Vec<u8>>>,
    socket: &UdpSocket,
    to: SocketAddr,
    udp: &Udp,
) -> io::Result<()> {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    far.connect(to).await?;
    let (taken, mut back) = mpsc::channel::<Sent<Vec<u8>>>(UNDER_WAY_MAX);
    let take = async {
        let mut datagram = [0; DATAGRAM_MAX_BYTES];
        loop {
            let length = timeout(FLOW_IDLE, far.recv(&mut datagram)).await??;
            if udp.passes() {
                let _ = taken.try_send((Instant::now() + DELAY, datagram[..length].to_vec()));
            }
        }
    };
    let give_there = async {
        while let Some(datagram) = arrival(&mut there).await {
            far.send(&datagram).await?;
        }
        Ok(())
    };
    let give_back = async {
        while let Some(datagram) = arrival(&mut back).await {
            socket.send_to(&datagram, client).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = take => ended,
        ended = give_there => ended,
        ended = give_back => ended,
    }
}
