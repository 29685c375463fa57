//! What lies between two gateways on a real network, and can be made to fail: a UDP proxy.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use tokio::net::UdpSocket;

/// Bytes of a connection ID, and where it stands in a packet with a short header.
const ID: std::ops::Range<usize> = 1..9;
/// Set in the first byte of a long header.
const LONG: u8 = 0x80;
/// Looks like any other packet with a short header.
const SHORT: u8 = 0x40;
/// Bits are changed in so many of the first bytes: half of them the header's.
const SPOILED_MAX_BYTES: usize = 31;
/// Bytes of a stateless reset, and of the token at its end.
const RESET_BYTES: usize = 40;
pub(crate) const TOKEN_BYTES: usize = 16;

/// Forwards datagrams to one address.
pub(crate) struct UdpProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    front: UdpSocket,
    upstream: Mutex<SocketAddr>,
    is_black: AtomicBool,
    /// Nothing passes towards the server.
    is_black_there: AtomicBool,
    /// Before each datagram goes a copy of it with one bit changed.
    is_noisy: AtomicBool,
    /// How many such copies there were.
    spoiled: AtomicU64,
    flows: Mutex<HashMap<SocketAddr, Arc<Flow>>>,
    seed: Option<u64>,
    resets: Resets,
}

/// The reset keys of both gateways: what it takes to cut a QUIC connection from outside.
pub(crate) struct Resets {
    pub(crate) client: [u8; 32],
    pub(crate) server: [u8; 32],
}

/// What one client address sends and gets.
struct Flow {
    client: SocketAddr,
    is_black: AtomicBool,
    /// Bytes towards the server.
    carried: AtomicU64,
    back: UdpSocket,
    /// The connection IDs used last, towards server and client.
    to_server: Mutex<Option<Vec<u8>>>,
    to_client: Mutex<Option<Vec<u8>>>,
}

impl UdpProxy {
    /// Listens on the loopback address of the same family. With a seed, datagrams are lost, doubled and put out of order
    /// now and then.
    pub(crate) async fn to(
        upstream: SocketAddr,
        seed: Option<u64>,
        resets: Resets,
    ) -> io::Result<Self> {
        let front = UdpSocket::bind(SocketAddr::new(upstream.ip(), 0)).await?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            front,
            upstream: Mutex::new(upstream),
            is_black: AtomicBool::new(false),
            is_black_there: AtomicBool::new(false),
            is_noisy: AtomicBool::new(false),
            spoiled: AtomicU64::new(0),
            flows: Mutex::default(),
            seed,
            resets,
        });
        tokio::spawn(there(Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Forgets where it sends from: to the server every client has another address from now on.
    pub(crate) fn rebind(&self) {
        self.shared.flows.lock().clear();
    }

    /// Leads everybody to another server from now on, as a load balancer does.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock() = upstream;
        self.rebind();
    }

    /// The connection ID that a client has used last, and the address it sent from.
    pub(crate) fn last_used(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let flows = self.shared.flows.lock();
        let mut used = flows.values().map(|flow| {
            let id = flow.to_server.lock().clone();
            id.map(|id| (id, flow.client))
        });
        used.find_map(|used| used)
    }

    /// From now on nothing passes that comes from, or goes to, a port that was used before.
    pub(crate) fn strand(&self) {
        for flow in self.shared.flows.lock().values() {
            flow.is_black.store(true, Relaxed);
        }
    }

    /// From now on nothing passes from or to this one of the ports that clients have sent from.
    pub(crate) fn strand_one(&self, client: SocketAddr) {
        self.shared.flows.lock()[&client]
            .is_black
            .store(true, Relaxed);
    }

    /// The ports that clients have sent from.
    pub(crate) fn clients(&self) -> usize {
        self.shared.flows.lock().len()
    }

    /// Bytes towards the server from each of these ports.
    pub(crate) fn carried(&self) -> BTreeMap<SocketAddr, u64> {
        let flows = self.shared.flows.lock();
        let carried = flows.iter();
        carried
            .map(|(client, flow)| (*client, flow.carried.load(Relaxed)))
            .collect()
    }

    pub(crate) fn cut(&self) {
        self.shared.is_black.store(true, Relaxed);
    }

    /// The same towards the server alone.
    pub(crate) fn cut_there(&self) {
        self.shared.is_black_there.store(true, Relaxed);
    }

    /// From now on each datagram comes twice, first with one bit changed.
    pub(crate) fn make_noise(&self) {
        self.shared.is_noisy.store(true, Relaxed);
    }

    /// How many datagrams came with one bit changed.
    pub(crate) fn spoiled(&self) -> u64 {
        self.shared.spoiled.load(Relaxed)
    }

    pub(crate) fn heal(&self) {
        self.shared.is_black.store(false, Relaxed);
    }

    /// Tells both ends of every connection that the other one does not know it, as only the other one could.
    pub(crate) fn sever(&self) {
        let Shared {
            front,
            flows,
            resets,
            ..
        } = &*self.shared;
        for flow in flows.lock().values() {
            if let Some(id) = &*flow.to_server.lock() {
                let _ = front.try_send_to(&reset(&resets.server, id), flow.client);
            }
            if let Some(id) = &*flow.to_client.lock() {
                let _ = flow.back.try_send(&reset(&resets.client, id));
            }
        }
    }
}

/// What a gateway with this key makes resets with on ports from which it dials.
pub(crate) fn dialling_key(key: &[u8; 32]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let derived = hmac::sign(&key, b"corinth quic dialling");
    derived.as_ref().try_into().expect("32 bytes")
}

/// The token of a stateless reset of who holds `key` for the connection that it calls `id`.
pub(crate) fn token(key: &[u8; 32], id: &[u8]) -> [u8; TOKEN_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let token = hmac::sign(&key, id);
    *token.as_ref().first_chunk().expect("32 bytes")
}

/// A stateless reset of who holds `key` for the connection that it calls `id` (RFC 9000 §10.3).
fn reset(key: &[u8; 32], id: &[u8]) -> [u8; RESET_BYTES] {
    let mut packet = [0x5a; RESET_BYTES];
    packet[0] = SHORT;
    packet[RESET_BYTES - TOKEN_BYTES..].copy_from_slice(&token(key, id));
    packet
}

async fn there(shared: Arc<Shared>) {
    let mut buffer = vec![0; 64 << 10];
    let mut disorder = shared.seed.map(Disorder::new);
    while let Ok((received, client)) = shared.front.recv_from(&mut buffer).await {
        let Some(flow) = flow_of(&shared, client).await else {
            return;
        };
        let datagram = &buffer[..received];
        note(&flow.to_server, datagram);
        flow.carried.fetch_add(received as u64, Relaxed);
        if shared.is_black_there.load(Relaxed) {
            continue;
        }
        for datagram in passing(&shared, &flow, &mut disorder, datagram) {
            // What does not leave is lost, as on any network.
            let _ = flow.back.send(&datagram).await;
        }
    }
}

async fn flow_of(shared: &Arc<Shared>, client: SocketAddr) -> Option<Arc<Flow>> {
    if let Some(flow) = shared.flows.lock().get(&client) {
        return Some(Arc::clone(flow));
    }
    let upstream = *shared.upstream.lock();
    let back = UdpSocket::bind(SocketAddr::new(upstream.ip(), 0))
        .await
        .ok()?;
    back.connect(upstream).await.ok()?;
    let flow = Arc::new(Flow {
        client,
        is_black: AtomicBool::new(false),
        carried: AtomicU64::new(0),
        back,
        to_server: Mutex::new(None),
        to_client: Mutex::new(None),
    });
    shared.flows.lock().insert(client, Arc::clone(&flow));
    tokio::spawn(back_again(Arc::clone(shared), Arc::clone(&flow)));
    Some(flow)
}

async fn back_again(shared: Arc<Shared>, flow: Arc<Flow>) {
    let mut buffer = vec![0; 64 << 10];
    let mut disorder = shared.seed.map(|seed| Disorder::new(!seed));
    // A server that has gone shows as an error, and may come back.
    loop {
        let Ok(received) = flow.back.recv(&mut buffer).await else {
            continue;
        };
        let datagram = &buffer[..received];
        note(&flow.to_client, datagram);
        for datagram in passing(&shared, &flow, &mut disorder, datagram) {
            let _ = shared.front.send_to(&datagram, flow.client).await;
        }
    }
}

fn note(place: &Mutex<Option<Vec<u8>>>, datagram: &[u8]) {
    let is_short = datagram.first().is_some_and(|first| first & LONG == 0);
    if let Some(id) = datagram.get(ID).filter(|_| is_short) {
        *place.lock() = Some(id.to_vec());
    }
}

/// What leaves when this arrives.
fn passing(
    shared: &Shared,
    flow: &Flow,
    disorder: &mut Option<Disorder>,
    datagram: &[u8],
) -> Vec<Vec<u8>> {
    if shared.is_black.load(Relaxed) || flow.is_black.load(Relaxed) {
        return Vec::new();
    }
    let datagram = datagram.to_vec();
    let mut passing = Vec::new();
    if shared.is_noisy.load(Relaxed) {
        passing.push(shared.spoil(datagram.clone()));
    }
    match disorder {
        Some(disorder) => passing.extend(disorder.pass(datagram)),
        None => passing.push(datagram),
    }
    passing
}

impl Shared {
    /// Another bit each time: of the header as of what it stands before.
    fn spoil(&self, mut datagram: Vec<u8>) -> Vec<u8> {
        let number = self.spoiled.fetch_add(1, Relaxed);
        let at = number as usize % datagram.len().min(SPOILED_MAX_BYTES);
        datagram[at] ^= 1 << (number % 8);
        datagram
    }
}

/// Loses, doubles and holds back, the same way for the same seed.
struct Disorder {
    dice: fastrand::Rng,
    held: Option<Vec<u8>>,
}

impl Disorder {
    fn new(seed: u64) -> Self {
        Self {
            dice: fastrand::Rng::with_seed(seed),
            held: None,
        }
    }

    fn pass(&mut self, datagram: Vec<u8>) -> Vec<Vec<u8>> {
        let mut passing = match self.dice.u8(..100) {
            0..2 => Vec::new(),
            2..4 => vec![datagram.clone(), datagram],
            4..14 if self.held.is_none() => {
                self.held = Some(datagram);
                return Vec::new();
            }
            _ => vec![datagram],
        };
        passing.extend(self.held.take());
        passing
    }
}
