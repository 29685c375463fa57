//! Datagrams beside the streams of a QUIC connection (RFC 9221).
//!
//! A datagram begins with a byte that says what it is: [`PROBE`] is for whoever watches the path, [`OF_STREAM`] is followed
//! by the number of a stream of the same connection, as a varint (RFC 9000 §16), and what that stream's users put there,
//! and [`CREDIT`] and [`WANTED`] are about how far a stream may be sent. Others are left alone.
//!
//! quinn sends datagrams in the order in which it gets them. So it gets few of those of streams at a time: probes and credit
//! are not to wait behind a queue of them. Nor does it get any for which it would throw others away, as it tells nobody how
//! many these were.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use quinn::{Connection, SendDatagramError, VarInt};
use tokio::sync::{Notify, mpsc};

use super::{
    credit::{CREDIT, WANTED},
    tunnel::Tunnel,
};
use crate::datagram::{Inbox, PLACE_BYTES, Sent};

/// The first byte of a probe of the path.
pub(super) const PROBE: u8 = 0x00;
/// The first byte of a datagram beside a stream.
const OF_STREAM: u8 = 0x01;
/// Probes that wait to be looked at. More are lost, as on any network.
const PROBES_MAX: usize = 16;
/// Kind and number of the stream in front of what is carried.
const HEAD_MAX_BYTES: usize = 1 + 8;
/// Datagrams of the streams of one connection that wait to leave; beyond it the oldest are thrown away.
const WAITING_MAX_BYTES: usize = 1 << 20;
/// The same for probes and credit: those of some thousand streams. Of both, later ones stand for earlier ones, and what is
/// missed is asked for.
const WAITING_AHEAD_MAX_BYTES: usize = 256 << 10;

/// Datagrams of one connection that wait until quinn has room for them.
pub(super) struct Waiting {
    quic: Connection,
    queues: Mutex<Queues>,
    filled: Notify,
}

struct Queues {
    /// Probes and credit.
    ahead: Queue,
    /// What is beside streams.
    of_streams: Queue,
    /// One of a stream that was taken out waits for room: what comes now is behind it.
    is_handing_over: bool,
}

/// The oldest first.
struct Queue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    max_bytes: usize,
}

impl Queue {
    fn up_to(max_bytes: usize) -> Self {
        Self {
            datagrams: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Puts a datagram behind the others; how many older ones were thrown away for it.
    fn put(&mut self, datagram: Bytes) -> u64 {
        self.bytes += datagram.len() + PLACE_BYTES;
        self.datagrams.push_back(datagram);
        let mut evicted = 0;
        while self.bytes > self.max_bytes && self.take().is_some() {
            evicted += 1;
        }
        evicted
    }

    fn take(&mut self) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= datagram.len() + PLACE_BYTES;
        Some(datagram)
    }
}

impl Queues {
    /// Takes what leaves next.
    fn take(&mut self) -> Option<Bytes> {
        let ahead = self.ahead.take();
        self.is_handing_over = ahead.is_none() && !self.of_streams.datagrams.is_empty();
        ahead.or_else(|| self.of_streams.take())
    }

    fn is_of_streams_empty(&self) -> bool {
        self.of_streams.datagrams.is_empty() && !self.is_handing_over
    }
}

impl Waiting {
    /// Nothing waits yet.
    pub(super) fn on(quic: &Connection) -> Arc<Self> {
        Arc::new(Self {
            quic: quic.clone(),
            queues: Mutex::new(Queues {
                ahead: Queue::up_to(WAITING_AHEAD_MAX_BYTES),
                of_streams: Queue::up_to(WAITING_MAX_BYTES),
                is_handing_over: false,
            }),
            filled: Notify::new(),
        })
    }

    /// Sends a probe or credit before everything that is beside streams and not yet quinn's.
    pub(super) fn send_ahead(&self, datagram: Bytes) -> Sent {
        self.send(
            datagram,
            |queues| &mut queues.ahead,
            |queues| queues.ahead.datagrams.is_empty(),
        )
    }

    /// Sends a datagram of a stream, or lets it wait behind the others.
    fn send_of_stream(&self, datagram: Bytes) -> Sent {
        self.send(
            datagram,
            |queues| &mut queues.of_streams,
            Queues::is_of_streams_empty,
        )
    }

    fn send(
        &self,
        datagram: Bytes,
        queue: fn(&mut Queues) -> &mut Queue,
        is_first: fn(&Queues) -> bool,
    ) -> Sent {
        if self
            .quic
            .max_datagram_size()
            .is_none_or(|max| datagram.len() > max)
        {
            return self.unsent();
        }
        if is_first(&self.queues.lock()) {
            // Where there is no room it waits, and is not asked again.
            match self
                .quic
                .send_datagram_wait(datagram.clone())
                .now_or_never()
            {
                Some(Ok(())) => return Sent::Queued { evicted: 0 },
                Some(Err(_)) => return self.unsent(),
                None => {}
            }
        }
        if self.quic.close_reason().is_some() {
            return Sent::Ended;
        }
        let evicted = queue(&mut self.queues.lock()).put(datagram);
        self.filled.notify_one();
        Sent::Queued { evicted }
    }

    /// Why something could not be sent. A peer that takes no datagrams is sent all on the stream.
    fn unsent(&self) -> Sent {
        match self.quic.close_reason() {
            Some(_) => Sent::Ended,
            None => Sent::TooLarge,
        }
    }

    /// Hands over what waits, as there is room, until the connection ends.
    async fn hand_over(&self) {
        loop {
            let next = self.queues.lock().take();
            let Some(datagram) = next else {
                self.filled.notified().await;
                continue;
            };
            // One that no longer fits is lost, as on any network.
            if let Err(SendDatagramError::ConnectionLost(_)) =
                self.quic.send_datagram_wait(datagram).await
            {
                return;
            }
        }
    }
}

/// What comes for the streams of one connection that want datagrams, by the number of the stream.
#[derive(Default)]
pub(super) struct Inboxes {
    by_stream: Mutex<BTreeMap<u64, Weak<Inbox>>>,
    /// Bytes that wait in all of them.
    together: Arc<AtomicUsize>,
}

/// The datagrams beside one stream.
pub(crate) struct QuicDatagrams {
    tunnel: Arc<Tunnel>,
    stream: u64,
    /// What stands in front of each.
    head: Vec<u8>,
    inbox: Arc<Inbox>,
}

impl QuicDatagrams {
    /// From now on the datagrams for this stream are kept.
    pub(super) fn beside(stream: quinn::StreamId, tunnel: &Arc<Tunnel>) -> Self {
        let stream = u64::from(VarInt::from(stream));
        let inbox = Arc::new(Inbox::of_many(&tunnel.inboxes.together));
        let mut by_stream = tunnel.inboxes.by_stream.lock();
        by_stream.insert(stream, Arc::downgrade(&inbox));
        drop(by_stream);
        if !tunnel.is_open() {
            // Whoever ends the others may have been before us.
            inbox.end();
        }
        let mut head = Vec::with_capacity(HEAD_MAX_BYTES);
        head.push(OF_STREAM);
        put_varint(stream, &mut head);
        Self {
            tunnel: Arc::clone(tunnel),
            stream,
            head,
            inbox,
        }
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) fn max_bytes(&self) -> usize {
        let max = self.tunnel.quic.max_datagram_size().unwrap_or(0);
        max.saturating_sub(self.head.len())
    }

    pub(crate) fn try_send(&self, head: &[u8], body: &[u8]) -> Sent {
        let datagram = Bytes::from([&self.head, head, body].concat());
        self.tunnel.waiting.send_of_stream(datagram)
    }
}

impl Drop for QuicDatagrams {
    fn drop(&mut self) {
        self.tunnel.inboxes.by_stream.lock().remove(&self.stream);
    }
}

/// Sorts the datagrams of a connection until it ends, and hands probes to the receiver that is returned. Those that wait to
/// leave are handed over meanwhile.
pub(super) fn sort(tunnel: &Arc<Tunnel>) -> mpsc::Receiver<Bytes> {
    let (found, probes) = mpsc::channel(PROBES_MAX);
    let tunnel = Arc::clone(tunnel);
    tokio::spawn(async move {
        tokio::select! {
            () = receive(&tunnel, &found) => {}
            () = tunnel.waiting.hand_over() => {}
        }
        let by_stream = std::mem::take(&mut *tunnel.inboxes.by_stream.lock());
        for inbox in by_stream.values().filter_map(Weak::upgrade) {
            inbox.end();
        }
    });
    probes
}

/// Takes the datagrams of a connection until it ends.
async fn receive(tunnel: &Tunnel, found: &mpsc::Sender<Bytes>) {
    while let Ok(datagram) = tunnel.quic.read_datagram().await {
        match datagram.first() {
            // Without room it is lost, and the next one is not.
            Some(&PROBE) => drop(found.try_send(datagram)),
            Some(&(CREDIT | WANTED)) => {
                if let Some(answer) = tunnel.credits.handle(&datagram) {
                    // If it does not leave, it is asked for again.
                    let _ = tunnel.waiting.send_ahead(answer);
                }
            }
            _ => {
                if let Some((inbox, content)) = addressed(&tunnel.inboxes, &datagram) {
                    inbox.put(content);
                }
            }
        }
    }
}

/// Whom a datagram is for. A stream that is over, or never was, is nobody.
fn addressed(inboxes: &Inboxes, datagram: &Bytes) -> Option<(Arc<Inbox>, Bytes)> {
    let (kind, rest) = datagram.split_first()?;
    if *kind != OF_STREAM {
        return None;
    }
    let (stream, content) = take_varint(rest)?;
    let inbox = inboxes.by_stream.lock().get(&stream)?.upgrade()?;
    Some((inbox, datagram.slice_ref(content)))
}

pub(super) fn put_varint(value: u64, out: &mut Vec<u8>) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xC000_0000_0000_0000).to_be_bytes()),
    }
}

pub(super) fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let tail = number.iter().skip(1);
    let value = tail.fold(u64::from(first & 0x3F), |sum, byte| {
        (sum << 8) | u64::from(*byte)
    });
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_waits_to_leave_is_bounded_and_the_oldest_make_room() {
        let mut queue = Queue::up_to(WAITING_MAX_BYTES);
        let datagram = |number: u8| Bytes::from(vec![number; WAITING_MAX_BYTES / 4]);
        assert!((0..3).all(|number| queue.put(datagram(number)) == 0));
        assert_eq!(queue.put(datagram(3)), 1);
        let left: Vec<u8> = std::iter::from_fn(|| queue.take())
            .map(|bytes| bytes[0])
            .collect();
        assert_eq!((left, queue.bytes), (vec![1, 2, 3], 0));
    }

    #[test]
    fn a_large_datagram_says_of_every_small_one_that_made_room_for_it() {
        const SMALL: u64 = 1_000;
        let mut queue = Queue::up_to(SMALL as usize * (1 + PLACE_BYTES));
        assert!((0..SMALL).all(|_| queue.put(Bytes::from_static(b"s")) == 0));
        assert_eq!(queue.put(Bytes::from(vec![0; 1_000])), 17);
        assert_eq!(queue.datagrams.len() as u64, SMALL - 17 + 1);
    }

    #[test]
    fn a_datagram_that_is_for_nobody_is_left_alone() {
        let inboxes = Inboxes::default();
        let inbox = Arc::new(Inbox::default());
        let mut by_stream = inboxes.by_stream.lock();
        by_stream.insert(4, Arc::downgrade(&inbox));
        drop(by_stream);
        let of = |bytes: &'static [u8]| {
            let found = addressed(&inboxes, &Bytes::from_static(bytes));
            found.map(|(_, content)| content)
        };
        assert_eq!(of(b"\x01\x04hello"), Some(Bytes::from_static(b"hello")));
        assert_eq!(of(b"\x01\x04"), Some(Bytes::new()));
        for nobody in [
            &b""[..],
            b"\x00\x04hello",
            b"\x01",
            b"\x01\x08hello",
            b"\x01\x44",
        ] {
            assert_eq!(of(nobody), None, "{nobody:?}");
        }
        drop(inbox);
        assert_eq!(of(b"\x01\x04hello"), None);
    }

    proptest! {
        #[test]
        fn numbers_of_streams_return_whole(value in 0_u64..1 << 62, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            prop_assert!(bytes.len() < HEAD_MAX_BYTES);
            bytes.extend(&rest);
            prop_assert_eq!(take_varint(&bytes), Some((value, &rest[..])));
        }
    }
}
