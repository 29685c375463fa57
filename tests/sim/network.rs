//! Streams between clusters. Each is ordered and carries encoded messages; what one stream carries overtakes what
//! another does, and a stream that was cut may still deliver what was on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::Time;

/// Most messages on their way in one direction; a writer waits until there is room.
pub(crate) const IN_FLIGHT_MAX: usize = 16;

/// What arrives.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// The stream, at the side that did not open it.
    Opened,
    /// An encoded message.
    Bytes(Vec<u8>),
    /// The other side has ended the stream.
    End,
}

/// A stream; side 0 has opened it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) sides: [usize; 2],
    /// To each side, in order, each with its time.
    queues: [VecDeque<(Time, Item)>; 2],
    /// Whether each side still has it.
    pub(crate) is_open: [bool; 2],
}

/// All streams, and which clusters cannot reach which others.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) streams: BTreeMap<u64, Stream>,
    next: u64,
    /// Nothing gets from the one to the other before this time.
    blocked: BTreeMap<(usize, usize), Time>,
}

impl Network {
    pub(crate) fn open(&mut self, from: usize, to: usize) -> u64 {
        self.next += 1;
        let stream = Stream {
            sides: [from, to],
            queues: [VecDeque::new(), VecDeque::new()],
            is_open: [true, true],
        };
        self.streams.insert(self.next, stream);
        self.next
    }

    pub(crate) fn block(&mut self, from: usize, to: usize, until: Time) {
        let end = self.blocked.entry((from, to)).or_insert(until);
        *end = until.max(*end);
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn blocked_until(&self, from: usize, to: usize, now: Time) -> Option<Time> {
        let until = self.blocked.get(&(from, to)).copied();
        until.filter(|until| *until > now)
    }

    /// Whether a writer may put another message on its way.
    pub(crate) fn has_room(&self, id: u64, from: usize) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.queues[1 - stream.side(from)].len() < IN_FLIGHT_MAX)
    }

    /// Puts something on its way. When it arrives, and to which side.
    pub(crate) fn send(
        &mut self,
        id: u64,
        from: usize,
        item: Item,
        (now, delay): (Time, Duration),
    ) -> Option<(Time, usize)> {
        let (from, to) = {
            let stream = self.streams.get(&id)?;
            let from = stream.side(from);
            (stream.sides[from], stream.sides[1 - from])
        };
        let at = self.blocked_until(from, to, now).unwrap_or(now) + delay;
        let stream = self.streams.get_mut(&id)?;
        let side = stream.side(to);
        let queue = &mut stream.queues[side];
        let at = queue.back().map_or(at, |(before, _)| at.max(*before));
        queue.push_back((at, item));
        Some((at, side))
    }

    /// What has arrived at this side; or when it will, if the way is blocked.
    pub(crate) fn arrive(&mut self, id: u64, side: usize, now: Time) -> Result<Item, Option<Time>> {
        let sides = self.streams.get(&id).ok_or(None)?.sides;
        let blocked = self.blocked_until(sides[1 - side], sides[side], now);
        let stream = self.streams.get_mut(&id).ok_or(None)?;
        let queue = &mut stream.queues[side];
        match (queue.front(), blocked) {
            (None, _) => Err(None),
            (Some((at, _)), _) if *at > now => Err(Some(*at)),
            (Some(_), Some(until)) => Err(Some(until)),
            (Some(_), None) => queue.pop_front().map(|(_, item)| item).ok_or(None),
        }
    }

    /// What is on its way to this side is lost.
    pub(crate) fn lose(&mut self, id: u64, side: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.queues[side].clear();
        }
    }

    /// Forgets streams that nobody has any more.
    pub(crate) fn sweep(&mut self) {
        self.streams.retain(|_, stream| {
            stream.is_open != [false, false] || stream.queues.iter().any(|queue| !queue.is_empty())
        });
    }
}

impl Stream {
    /// Which side a cluster is on.
    pub(crate) fn side(&self, cluster: usize) -> usize {
        usize::from(self.sides[1] == cluster)
    }
}
