//! What leaves for a peer: frames of flows on their stream, and datagrams beside it where they fit.
//!
//! Whoever puts something here never waits. Datagrams that find no room push out the oldest; what opens, answers and
//! ends flows is never thrown away, and a peer that lets too much of it pile up loses the stream. What waits on all streams
//! to one peer is bounded too.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use corinth_api::{FlowFrame, FlowNumber, StreamOpen, StreamReply};
use corinth_model::{Failure, Reason};
use corinth_transport::{Datagrams, Sent, WriteHalf};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::account::{self, Account, PLACE_BYTES, Waiting};
use crate::relay;

/// Datagrams that wait for the stream, however long: a tenth of a second at 80 Mbit/s. Later ones are better than older ones.
const DATA_USUAL_BYTES: usize = 1 << 20;
/// What may wait beyond it for a moment: a stream that begins carries 250 Mbit/s only after a few round trips.
const DATA_MAX_BYTES: usize = 8 << 20;
/// So long. Who would wait longer has no use for what waited.
const MOMENT: Duration = Duration::from_millis(250);
/// What opens, answers and ends flows, while the peer does not read: thousands of flows.
const WORDS_MAX_BYTES: usize = 1 << 20;
/// After the end was put, the peer has so long to read what is before it.
const CLOSING: Duration = Duration::from_secs(10);
/// So much is handed to the stream at once.
const BATCH_BYTES: usize = 64 << 10;

/// What leaves for a peer.
pub(super) struct Outlet {
    queued: Mutex<Queued>,
    /// Something was put, or the end.
    filled: Notify,
    /// Too much has piled up, or the end was put.
    strained: Notify,
    beside: OnceLock<Datagrams>,
}

struct Queued {
    /// Counts frames, so that both kinds leave in the order in which they came.
    next: u64,
    words: Lane,
    data: Lane,
    has_overflowed: bool,
    is_closed: bool,
}

struct Frame {
    number: u64,
    bytes: Vec<u8>,
    /// When it was put here, if it may be too late some time.
    put: Option<Instant>,
}

/// Frames of one kind, the oldest first.
struct Lane {
    frames: VecDeque<Frame>,
    bytes: usize,
    max_bytes: usize,
    account: Arc<Account>,
    /// What the account has of this kind.
    waiting: fn(&Account) -> &Waiting,
    /// So much of this kind may wait for the whole peer.
    peer_max_bytes: usize,
}

impl Outlet {
    /// One of the streams of the peer that has this account.
    pub(super) fn new(account: &Arc<Account>) -> Self {
        let lane = |max_bytes, waiting, peer_max_bytes| Lane {
            frames: VecDeque::new(),
            bytes: 0,
            max_bytes,
            account: Arc::clone(account),
            waiting,
            peer_max_bytes,
        };
        let queued = Queued {
            next: 0,
            words: lane(
                WORDS_MAX_BYTES,
                |account| &account.words,
                account::WORDS_MAX_BYTES,
            ),
            data: lane(
                DATA_MAX_BYTES,
                |account| &account.data,
                account::DATA_MAX_BYTES,
            ),
            has_overflowed: false,
            is_closed: false,
        };
        Self {
            queued: Mutex::new(queued),
            filled: Notify::new(),
            strained: Notify::new(),
            beside: OnceLock::new(),
        }
    }

    /// From now on datagrams that fit leave beside the stream.
    pub(super) fn lead_beside(&self, datagrams: Option<Datagrams>) {
        if let Some(datagrams) = datagrams {
            // Only the first ones are ever led here.
            let _ = self.beside.set(datagrams);
        }
    }

    /// The datagrams beside the stream.
    pub(super) fn beside(&self) -> Option<&Datagrams> {
        self.beside.get()
    }

    pub(super) fn open(&self, flow: FlowNumber, header: &StreamOpen) {
        self.word(|out| FlowFrame::put_open(flow, header, out));
    }

    pub(super) fn reply(&self, flow: FlowNumber, reply: &StreamReply) {
        self.word(|out| FlowFrame::put_reply(flow, reply, out));
    }

    pub(super) fn end(&self, flow: FlowNumber, reason: Reason) {
        self.word(|out| FlowFrame::put_end(flow, reason, out));
    }

    /// Sends a datagram the way that suits its size. Returns how many were thrown away for it, or with it.
    pub(super) fn datagram(&self, flow: FlowNumber, bytes: &[u8], now: Instant) -> u64 {
        if let Some(beside) = self.beside.get() {
            let mut head = Vec::with_capacity(8);
            flow.put(&mut head);
            match beside.try_send(&head, bytes) {
                Sent::Queued { evicted } => return evicted,
                Sent::TooLarge => {}
                Sent::Ended => return 1,
            }
        }
        self.data(flow, bytes, now)
    }

    /// Sends a datagram on the stream, behind what was put there before.
    pub(super) fn data(&self, flow: FlowNumber, bytes: &[u8], now: Instant) -> u64 {
        let mut frame = Vec::with_capacity(bytes.len() + 8);
        if !FlowFrame::put_data(flow, bytes, &mut frame) {
            return 1;
        }
        let mut queued = self.queued.lock();
        let number = queued.number();
        queued.data.push(Frame {
            number,
            bytes: frame,
            put: Some(now),
        });
        let mut dropped = 0;
        while (queued.data.is_over() || queued.data.is_late(now)) && queued.data.pop().is_some() {
            dropped += 1;
        }
        drop(queued);
        self.filled.notify_one();
        dropped
    }

    /// After what is queued the stream ends.
    pub(super) fn close(&self) {
        self.queued.lock().is_closed = true;
        self.filled.notify_one();
        self.strained.notify_one();
    }

    fn word(&self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::with_capacity(128);
        put(&mut frame);
        let mut queued = self.queued.lock();
        let number = queued.number();
        queued.words.push(Frame {
            number,
            bytes: frame,
            put: None,
        });
        let has_overflowed = queued.words.is_over();
        queued.has_overflowed |= has_overflowed;
        drop(queued);
        self.filled.notify_one();
        if has_overflowed {
            self.strained.notify_one();
        }
    }

    /// Writes what is put until the end was put. A peer that does not read fails.
    pub(super) async fn write(&self, to_peer: &mut WriteHalf<'_>) -> Result<(), Failure> {
        // A write that waits for the peer looks at nothing else.
        tokio::select! {
            biased;
            () = self.unread() => Err(Failure::PeerTimeout),
            written = self.write_all(to_peer) => written,
        }
    }

    /// Resolves when too much has piled up, or some time after the end was put.
    async fn unread(&self) {
        loop {
            {
                let queued = self.queued.lock();
                if queued.has_overflowed {
                    return;
                }
                if queued.is_closed {
                    break;
                }
            }
            self.strained.notified().await;
        }
        sleep(CLOSING).await;
    }

    async fn write_all(&self, to_peer: &mut WriteHalf<'_>) -> Result<(), Failure> {
        let mut batch = Vec::new();
        loop {
            let is_last = self.batch(&mut batch);
            let mut left = &batch[..];
            while !left.is_empty() {
                let taken = to_peer.lend(left.len(), |room| relay::copy(left, room));
                let taken = taken.map_err(|_| Failure::TunnelCut)?;
                left = &left[taken..];
                if taken == 0 {
                    to_peer.flush().await.map_err(relay::failure_of)?;
                }
            }
            to_peer.flush().await.map_err(relay::failure_of)?;
            if is_last {
                to_peer.put_end().map_err(relay::failure_of)?;
                return to_peer.flush().await.map_err(relay::failure_of);
            }
            if batch.is_empty() {
                self.filled.notified().await;
            }
        }
    }

    /// Takes the frames that leave next; `true` if nothing follows them.
    fn batch(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        let mut queued = self.queued.lock();
        while batch.len() < BATCH_BYTES
            && let Some(frame) = queued.pop()
        {
            batch.extend_from_slice(&frame);
        }
        queued.is_closed && queued.words.frames.is_empty() && queued.data.frames.is_empty()
    }
}

impl Queued {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The oldest frame of either kind.
    fn pop(&mut self) -> Option<Vec<u8>> {
        let first = |lane: &Lane| lane.frames.front().map_or(u64::MAX, |frame| frame.number);
        if first(&self.words) <= first(&self.data) {
            return self.words.pop();
        }
        self.data.pop()
    }
}

impl Lane {
    fn push(&mut self, frame: Frame) {
        let bytes = frame.bytes.len() + PLACE_BYTES;
        self.bytes += bytes;
        (self.waiting)(&self.account).add(bytes);
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.frames.pop_front()?.bytes;
        let bytes = frame.len() + PLACE_BYTES;
        self.bytes -= bytes;
        (self.waiting)(&self.account).take(bytes);
        Some(frame)
    }

    /// Whether more waits than may for long, and the oldest has.
    fn is_late(&self, now: Instant) -> bool {
        let put = self.frames.front().and_then(|frame| frame.put);
        self.bytes > DATA_USUAL_BYTES && put.is_some_and(|put| now.duration_since(put) > MOMENT)
    }

    /// Whether more waits than this stream, or its peer, may have.
    fn is_over(&self) -> bool {
        let of_peer = (self.waiting)(&self.account).bytes();
        self.bytes > self.max_bytes || of_peer > self.peer_max_bytes
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        (self.waiting)(&self.account).take(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use corinth_api::FlowFrames;

    use super::*;

    fn outlet() -> Outlet {
        Outlet::new(&Arc::default())
    }

    fn number(number: u32) -> FlowNumber {
        FlowNumber::new(number).unwrap()
    }

    /// What leaves, in order: number and payload of DATA, number alone of END.
    fn leaving(outlet: &Outlet) -> Vec<(u32, Option<Vec<u8>>)> {
        let (mut frames, mut batch, mut seen) = (FlowFrames::default(), Vec::new(), Vec::new());
        loop {
            outlet.batch(&mut batch);
            if batch.is_empty() {
                return seen;
            }
            frames.feed(&batch);
            while let Some(frame) = frames.take().unwrap() {
                seen.push(match frame {
                    FlowFrame::Data(flow, bytes) => (flow.get(), Some(bytes.to_vec())),
                    FlowFrame::End(flow, _) => (flow.get(), None),
                    FlowFrame::Open(..) | FlowFrame::Reply(..) => panic!("nobody put it"),
                });
            }
        }
    }

    #[test]
    fn frames_leave_in_the_order_in_which_they_came() {
        let outlet = outlet();
        let now = Instant::now();
        assert_eq!(outlet.data(number(1), b"a", now), 0);
        outlet.end(number(1), Reason::Completed);
        assert_eq!(outlet.data(number(2), b"b", now), 0);
        let expected = vec![
            (1, Some(b"a".to_vec())),
            (1, None),
            (2, Some(b"b".to_vec())),
        ];
        assert_eq!(leaving(&outlet), expected);
    }

    #[test]
    fn without_room_the_oldest_datagrams_go_and_no_word_does() {
        let (outlet, now) = (outlet(), Instant::now());
        outlet.end(number(7), Reason::Completed);
        let datagram = vec![0; 10_000];
        let mut dropped = 0;
        for flow in 1..=1_000 {
            dropped += outlet.data(number(flow), &datagram, now);
        }
        let leaving = leaving(&outlet);
        assert_eq!(leaving.first(), Some(&(7, None)));
        assert_eq!(leaving.len() as u64, 1_001 - dropped);
        assert!(dropped > 160, "{dropped}");
        assert_eq!(leaving.last().map(|(flow, _)| *flow), Some(1_000));
    }

    #[test]
    fn a_burst_waits_for_a_moment_and_not_for_longer() {
        let (outlet, began) = (outlet(), Instant::now());
        let datagram = vec![0; 10_000];
        let put = |after| outlet.data(number(1), &datagram, began + after);
        let burst: u64 = (0..700).map(|_| put(Duration::ZERO)).sum();
        assert_eq!(burst, 0);
        assert_eq!(put(MOMENT), 0);
        // Down to what may wait for any time.
        let late = put(MOMENT * 2);
        assert!((590..602).contains(&late), "{late}");
        assert_eq!(put(MOMENT * 100), 1);
    }

    #[test]
    fn what_waits_for_one_peer_is_bounded_over_all_its_streams() {
        let account = Arc::<Account>::default();
        let outlets: Vec<_> = (0..40).map(|_| Outlet::new(&account)).collect();
        let datagram = vec![0; 60_000];
        let (mut sent, mut dropped, now) = (0, 0, Instant::now());
        for outlet in &outlets {
            for flow in 1..=12 {
                dropped += outlet.data(number(flow), &datagram, now);
                sent += 1;
                assert!(account.data.bytes() <= account::DATA_MAX_BYTES);
            }
        }
        let left: usize = outlets.iter().map(|outlet| leaving(outlet).len()).sum();
        assert_eq!(left as u64, sent - dropped);
        assert!(dropped > 100, "{dropped}");
        assert_eq!(account.data.bytes(), 0);
    }

    #[test]
    fn a_stream_that_is_over_leaves_its_room_to_the_others() {
        let account = Arc::<Account>::default();
        let outlet = Outlet::new(&account);
        let _ = outlet.data(number(1), &[0; 1_000], Instant::now());
        outlet.end(number(1), Reason::Completed);
        assert!(account.data.bytes() > 0 && account.words.bytes() > 0);
        drop(outlet);
        assert_eq!((account.data.bytes(), account.words.bytes()), (0, 0));
    }

    #[test]
    fn words_that_pile_up_on_many_streams_of_one_peer_cost_it_a_stream() {
        let account = Arc::<Account>::default();
        let outlets: Vec<_> = (0..40).map(|_| Outlet::new(&account)).collect();
        for outlet in &outlets {
            // Fewer than one stream may have.
            for flow in 1..=6_000 {
                outlet.end(number(flow), Reason::Completed);
            }
        }
        let has_overflowed = |outlet: &&Outlet| outlet.queued.lock().has_overflowed;
        assert!(outlets.iter().any(|outlet| has_overflowed(&outlet)));
        assert!(!has_overflowed(&&outlets[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_lets_words_pile_up_loses_the_stream() {
        let outlet = outlet();
        let piling_up = async {
            for flow in 1..=20_000 {
                outlet.end(number(flow), Reason::Failed(Failure::EndpointRefused));
                tokio::task::yield_now().await;
            }
            "nobody minded"
        };
        let ended = tokio::select! {
            biased;
            () = outlet.unread() => "lost",
            ended = piling_up => ended,
        };
        assert_eq!(ended, "lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_to_the_end_is_not_waited_for() {
        let outlet = outlet();
        outlet.end(number(1), Reason::Completed);
        outlet.close();
        let began = Instant::now();
        outlet.unread().await;
        assert_eq!(began.elapsed(), CLOSING);
    }
}
