//! Packets that came to another worker's socket than their connection belongs to, handed over.
//!
//! The sockets of a port share it, and the kernel spreads packets over them by both addresses. When the peer's address
//! changes, its packets come to another socket, and only their connection ID says whose they are. What has a long header
//! begins a connection and belongs where it came, and so does what another slot has issued the ID of: it is answered by a
//! reset. Of what begins connections no more is taken than [`Beginnings`] says.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{
    beginnings::{Beginnings, Claim, Origins},
    ids::{self, SlotTag},
};

/// Batches of packets that are taken from a socket at once. quinn has room for 32, each of 64 KiB, which on a busy machine
/// would all be touched, and are no faster.
const RECEIVED_AT_ONCE: usize = 8;

/// Packets, or batches of them, that wait for one worker. More are lost, as on any network.
const WAITING_MAX: usize = 256;

/// The number of an endpoint, which stands in its connection IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointNumber(pub(super) u8);

/// Where every endpoint's packets can be left.
#[derive(Debug)]
pub(super) struct Post {
    slot: SlotTag,
    boxes: RwLock<BTreeMap<EndpointNumber, Arc<Mailbox>>>,
    handed_over: AtomicU64,
    origins: Origins,
}

/// What waits for one endpoint.
struct Mailbox {
    /// Only who shares the port hands over: what is answered has to come from where it was sent to.
    port: u16,
    waiting: Mutex<VecDeque<(RecvMeta, Vec<u8>)>>,
    waker: AtomicWaker,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Post {
    pub(super) fn of(slot: SlotTag) -> Self {
        Self {
            slot,
            boxes: RwLock::default(),
            handed_over: AtomicU64::new(0),
            origins: Origins::default(),
        }
    }

    /// From where peers have come.
    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// What stands for our slot in connection IDs.
    pub(super) fn slot(&self) -> SlotTag {
        self.slot
    }

    /// Opens a box under the first free number; `None` if there are too many endpoints.
    fn open(&self, port: u16) -> Option<(EndpointNumber, Arc<Mailbox>)> {
        let mut boxes = self.boxes.write();
        let number = (0..=u8::MAX)
            .map(EndpointNumber)
            .find(|number| !boxes.contains_key(number))?;
        let mailbox = Arc::new(Mailbox {
            port,
            waiting: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        boxes.insert(number, Arc::clone(&mailbox));
        Some((number, mailbox))
    }

    /// Leaves packets that came to `port` for whom they belong to; `false` if that is nobody.
    fn leave(&self, owner: EndpointNumber, port: u16, meta: RecvMeta, packets: &[u8]) -> bool {
        let mailbox = self.boxes.read().get(&owner).map(Arc::clone);
        let Some(mailbox) = mailbox else {
            return false;
        };
        if mailbox.port != port {
            // Lost: who answered that nobody knows it would end a connection that lives.
            return true;
        }
        let mut waiting = mailbox.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push_back((meta, packets.to_vec()));
        }
        drop(waiting);
        self.handed_over.fetch_add(1, Relaxed);
        mailbox.waker.wake();
        true
    }

    /// Packets, or batches of them, that were handed over.
    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over.load(Relaxed)
    }
}

/// The socket of one endpoint among those that share a port.
#[derive(Debug)]
pub(super) struct SharedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    number: EndpointNumber,
    mailbox: Arc<Mailbox>,
    post: Arc<Post>,
    beginnings: Mutex<Beginnings>,
}

impl SharedSocket {
    /// Joins those that hand over to each other.
    ///
    /// # Errors
    ///
    /// There are as many as can be numbered.
    pub(super) fn join(post: &Arc<Post>, socket: Arc<dyn AsyncUdpSocket>) -> io::Result<Self> {
        let (number, mailbox) = post
            .open(socket.local_addr()?.port())
            .ok_or_else(|| io::Error::other("too many sockets for QUIC"))?;
        Ok(Self {
            socket,
            number,
            mailbox,
            post: Arc::clone(post),
            beginnings: Mutex::new(Beginnings::new(Instant::now())),
        })
    }

    /// What stands in the connection IDs of its endpoint.
    pub(super) fn number(&self) -> EndpointNumber {
        self.number
    }

    /// Takes what others have left here.
    fn collect(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut waiting = self.mailbox.waiting.lock();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((left, packets)) = waiting.pop_front() else {
                break;
            };
            // All endpoints have buffers of the same size.
            let fits = packets.len().min(buf.len());
            buf[..fits].copy_from_slice(&packets[..fits]);
            *meta = RecvMeta { len: fits, ..left };
            count += 1;
        }
        count
    }

    /// The other endpoint of our slot that issued the connection ID of these packets, if there may be one.
    fn owner_of(&self, packets: &[u8]) -> Option<EndpointNumber> {
        let (number, slot) = ids::issuer(packets)?;
        (slot == self.post.slot && number != self.number).then_some(number)
    }

    /// Throws away what is too much and hands over what is not ours. What nothing is left of stays in the list, empty: it
    /// was work as well, and who asks goes by that.
    fn sort(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            meta.len = self.thin_out(&mut buf[..meta.len], *meta);
            meta.len = self.sort_batch(&mut buf[..meta.len], *meta);
        }
    }

    /// Throws away what begins connections beyond what is taken, of what the kernel has put together; how many bytes are
    /// left.
    fn thin_out(&self, batch: &mut [u8], meta: RecvMeta) -> usize {
        let stride = meta.stride.max(1);
        let mut kept = 0;
        for start in (0..batch.len()).step_by(stride) {
            let datagram = start..batch.len().min(start + stride);
            let is_taken = Claim::of(&batch[datagram.clone()]).is_none_or(|claim| {
                let (source, origins) = (meta.addr.ip(), self.post.origins());
                let mut beginnings = self.beginnings.lock();
                beginnings.take(claim, source, origins, Instant::now())
            });
            if !is_taken {
                continue;
            }
            if kept < start {
                batch.copy_within(datagram.clone(), kept);
            }
            kept += datagram.len();
        }
        kept
    }

    /// Hands over what is not ours of what the kernel has put together; how many bytes are left. All of it came from one
    /// address, but behind that there may be several connections.
    fn sort_batch(&self, batch: &mut [u8], meta: RecvMeta) -> usize {
        let stride = meta.stride.max(1);
        let (mut start, mut kept) = (0, 0);
        while start < batch.len() {
            let owner = self.owner_of(&batch[start..]);
            let mut end = batch.len().min(start + stride);
            while end < batch.len() && self.owner_of(&batch[end..]) == owner {
                end = batch.len().min(end + stride);
            }
            let run = start..end;
            let meta = RecvMeta {
                len: run.len(),
                ..meta
            };
            let is_left = owner.is_some_and(|owner| {
                self.post
                    .leave(owner, self.mailbox.port, meta, &batch[run.clone()])
            });
            if !is_left {
                batch.copy_within(run.clone(), kept);
                kept += run.len();
            }
            start = end;
        }
        kept
    }
}

impl Drop for SharedSocket {
    fn drop(&mut self) {
        self.post.boxes.write().remove(&self.number);
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Before we look, so that nothing is missed that comes meanwhile.
        self.mailbox.waker.register(cx.waker());
        let collected = self.collect(bufs, meta);
        if collected > 0 {
            return Poll::Ready(Ok(collected));
        }
        let most = bufs.len().min(RECEIVED_AT_ONCE);
        let (bufs, meta) = (&mut bufs[..most], &mut meta[..most]);
        let received = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        self.sort(bufs, &mut meta[..received]);
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use quinn::{Runtime, TokioRuntime};
    use socket2::{Domain, Socket, Type};

    use super::*;

    const SLOT: SlotTag = SlotTag(9);
    const PACKET_BYTES: usize = 20;

    /// One of two sockets that share a port.
    fn socket(post: &Arc<Post>, port: u16) -> SharedSocket {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        socket.bind(&address.into()).unwrap();
        let socket = TokioRuntime.wrap_udp_socket(UdpSocket::from(socket));
        SharedSocket::join(post, socket.unwrap()).unwrap()
    }

    fn packet(owner: &SharedSocket, slot: SlotTag, content: u8) -> [u8; PACKET_BYTES] {
        let mut packet = [content; PACKET_BYTES];
        packet[..3].copy_from_slice(&[0x40, owner.number.0, slot.0]);
        packet
    }

    /// What `socket` keeps of packets that came at once.
    fn sorted(socket: &SharedSocket, batch: &[&[u8]]) -> Vec<u8> {
        let mut bytes = batch.concat();
        let mut metas = [RecvMeta {
            len: bytes.len(),
            stride: PACKET_BYTES,
            ..RecvMeta::default()
        }];
        socket.sort(&mut [IoSliceMut::new(&mut bytes)], &mut metas);
        bytes.truncate(metas[0].len);
        bytes
    }

    /// What was left for `socket`.
    fn collected(socket: &SharedSocket) -> Vec<u8> {
        let mut bytes = [0; 10 * PACKET_BYTES];
        let mut metas = [RecvMeta::default()];
        let mut all = Vec::new();
        while socket.collect(&mut [IoSliceMut::new(&mut bytes)], &mut metas) > 0 {
            assert_eq!(metas[0].stride, PACKET_BYTES);
            all.extend_from_slice(&bytes[..metas[0].len]);
        }
        all
    }

    #[tokio::test]
    async fn packets_that_came_at_once_go_each_to_its_own_worker() {
        let post = Arc::new(Post::of(SLOT));
        let a = socket(&post, 0);
        let b = socket(&post, a.local_addr().unwrap().port());
        let (one, two) = (packet(&a, SLOT, 1), packet(&b, SLOT, 2));
        let (three, four) = (packet(&b, SLOT, 3), packet(&a, SLOT, 4));
        let short = &packet(&b, SLOT, 5)[..PACKET_BYTES - 4];
        let kept = sorted(&a, &[&one, &two, &three, &four, short]);
        assert_eq!(kept, [one, four].concat());
        assert_eq!(collected(&b), [&two[..], &three, short].concat());
        assert_eq!(sorted(&a, &[&two, &three]), b"");
        assert_eq!(sorted(&a, &[&one, &four]), [one, four].concat());
    }

    #[tokio::test]
    async fn what_another_slot_or_nobody_has_issued_stays_where_it_came() {
        let post = Arc::new(Post::of(SLOT));
        let a = socket(&post, 0);
        let b = socket(&post, a.local_addr().unwrap().port());
        let others = packet(&b, SlotTag(8), 1);
        let mut begins = packet(&b, SLOT, 2);
        begins[0] |= 0x80;
        let mut nobodys = packet(&b, SLOT, 3);
        nobodys[1] = 77;
        let batch: [&[u8]; 3] = [&others, &begins, &nobodys];
        assert_eq!(sorted(&a, &batch), batch.concat());
        assert_eq!(collected(&b), b"");
    }

    #[tokio::test]
    async fn beginnings_beyond_what_is_taken_are_thrown_away_and_other_packets_stay() {
        const FLOOD: usize = 50;
        let post = Arc::new(Post::of(SLOT));
        let a = socket(&post, 0);
        let ours = packet(&a, SLOT, 1);
        let mut begins = [2; PACKET_BYTES];
        begins[..8].copy_from_slice(&[0xc0, 0, 0, 0, 1, 0, 0, 0]);
        let batch = [&begins[..], &ours].repeat(FLOOD);
        let kept = sorted(&a, &batch);
        let is_of = |first: u8| move |packet: &&[u8]| packet[0] == first;
        let packets = || kept.chunks(PACKET_BYTES);
        assert_eq!(packets().filter(is_of(0x40)).count(), FLOOD);
        let lost = post.origins().lost() as usize;
        assert!(lost > 0);
        assert_eq!(packets().filter(is_of(0xc0)).count(), FLOOD - lost);
    }

    #[tokio::test]
    async fn a_packet_for_a_connection_of_another_port_is_lost() {
        let post = Arc::new(Post::of(SLOT));
        let (a, elsewhere) = (socket(&post, 0), socket(&post, 0));
        assert_eq!(sorted(&a, &[&packet(&elsewhere, SLOT, 1)]), b"");
        assert_eq!(collected(&elsewhere), b"");
    }
}
