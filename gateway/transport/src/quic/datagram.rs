//! Datagrams beside the streams of a QUIC connection (RFC 9221).
//!
//! A datagram begins with a byte that says what it is: [`PROBE`] is for whoever watches the path, [`OF_STREAM`] is followed
//! by the number of a stream of the same connection, as a varint (RFC 9000 §16), and what that stream's users put there,
//! and [`CREDIT`] and [`WANTED`] are about how far a stream may be sent. Others are left alone.
//!
//! quinn sends datagrams in the order in which it gets them. So it gets few of those of streams at a time: probes and credit
//! are not to wait behind a queue of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use bytes::Bytes;
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

/// Datagrams of the streams of one connection that wait until quinn has room for them.
#[derive(Default)]
pub(super) struct Waiting {
    queue: Mutex<Queue>,
    filled: Notify,
}

/// The oldest first.
#[derive(Default)]
struct Queue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    /// One that was taken out waits for room: what comes now is behind it.
    is_handing_over: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && !self.is_handing_over
    }

    /// Puts a datagram behind the others; `true` if older ones were thrown away for it.
    fn put(&mut self, datagram: Bytes) -> bool {
        self.bytes += datagram.len() + PLACE_BYTES;
        self.datagrams.push_back(datagram);
        let mut has_evicted = false;
        while self.bytes > WAITING_MAX_BYTES && self.take().is_some() {
            has_evicted = true;
        }
        has_evicted
    }

    fn take(&mut self) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= datagram.len() + PLACE_BYTES;
        Some(datagram)
    }
}

impl Waiting {
    /// Sends a datagram, or lets it wait behind the others.
    fn send(&self, quic: &Connection, datagram: Bytes) -> Sent {
        let has_room = quic.datagram_send_buffer_space() >= datagram.len();
        if has_room && self.queue.lock().is_empty() {
            return match quic.send_datagram(datagram) {
                Ok(()) => Sent::Queued { evicted: false },
                // A peer that takes none is sent all on the stream.
                Err(
                    SendDatagramError::TooLarge
                    | SendDatagramError::UnsupportedByPeer
                    | SendDatagramError::Disabled,
                ) => Sent::TooLarge,
                Err(SendDatagramError::ConnectionLost(_)) => Sent::Ended,
            };
        }
        if quic.close_reason().is_some() {
            return Sent::Ended;
        }
        if quic
            .max_datagram_size()
            .is_none_or(|max| datagram.len() > max)
        {
            return Sent::TooLarge;
        }
        let evicted = self.queue.lock().put(datagram);
        self.filled.notify_one();
        Sent::Queued { evicted }
    }

    /// Hands over what waits, as there is room, until the connection ends.
    async fn hand_over(&self, quic: &Connection) {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                let next = queue.take();
                queue.is_handing_over = next.is_some();
                next
            };
            let Some(datagram) = next else {
                self.filled.notified().await;
                continue;
            };
            // One that no longer fits is lost, as on any network.
            if let Err(SendDatagramError::ConnectionLost(_)) =
                quic.send_datagram_wait(datagram).await
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
        self.tunnel.waiting.send(&self.tunnel.quic, datagram)
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
            () = tunnel.waiting.hand_over(&tunnel.quic) => {}
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
                    let _ = tunnel.quic.send_datagram(answer);
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
        let mut queue = Queue::default();
        let datagram = |number: u8| Bytes::from(vec![number; WAITING_MAX_BYTES / 4]);
        assert!((0..3).all(|number| !queue.put(datagram(number))));
        assert!(queue.put(datagram(3)));
        let left: Vec<u8> = std::iter::from_fn(|| queue.take())
            .map(|bytes| bytes[0])
            .collect();
        assert_eq!((left, queue.bytes), (vec![1, 2, 3], 0));
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
