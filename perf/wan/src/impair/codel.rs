//! CoDel, as RFC 8289 writes it (section 5), without a queue of its own.

use std::time::Duration;

/// A packet at the head of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// How long it waited.
    pub(super) sojourn: Duration,
    /// What waits behind it.
    pub(super) backlog_bytes: u64,
}

/// What to do with the packet at the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    Send,
    /// Drop it and ask again, at the same time, about the next one.
    Drop,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) target: Duration,
    pub(super) interval: Duration,
}

/// The state of RFC 8289, under its names.
#[derive(Debug, Default)]
pub(super) struct CoDel {
    first_above_time: Option<Duration>,
    drop_next: Duration,
    count: u32,
    lastcount: u32,
    dropping: bool,
    /// What was dropped just before, at the same dequeue.
    just_dropped: JustDropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum JustDropped {
    #[default]
    Nothing,
    /// The packet with which dropping began.
    First,
    /// One more.
    Next,
}

impl CoDel {
    /// About the packet at the head, when the line is free. `packet_max_bytes` is the largest packet there is: less
    /// than that behind the head is no standing queue.
    pub(super) fn advise(
        &mut self,
        head: Head,
        packet_max_bytes: u64,
        times: Times,
        now: Duration,
    ) -> Advice {
        let ok_to_drop = self.ok_to_drop(head, packet_max_bytes, times, now);
        let just_dropped = std::mem::take(&mut self.just_dropped);
        if just_dropped == JustDropped::First {
            // What is behind the first is sent, whatever it waited.
            return Advice::Send;
        }
        if !ok_to_drop {
            self.dropping = false;
            return Advice::Send;
        }
        if !self.dropping {
            self.enter(times, now);
            return Advice::Drop;
        }
        if just_dropped == JustDropped::Next {
            self.drop_next = control_law(self.drop_next, times.interval, self.count);
        }
        if now < self.drop_next {
            return Advice::Send;
        }
        self.count = self.count.saturating_add(1);
        self.just_dropped = JustDropped::Next;
        Advice::Drop
    }

    /// The queue was found empty.
    pub(super) const fn empty(&mut self) {
        self.first_above_time = None;
        self.dropping = false;
        self.just_dropped = JustDropped::Nothing;
    }

    fn ok_to_drop(
        &mut self,
        head: Head,
        packet_max_bytes: u64,
        times: Times,
        now: Duration,
    ) -> bool {
        if head.sojourn < times.target || head.backlog_bytes <= packet_max_bytes {
            self.first_above_time = None;
            return false;
        }
        match self.first_above_time {
            None => {
                self.first_above_time = Some(now + times.interval);
                false
            }
            Some(since) => now >= since,
        }
    }

    fn enter(&mut self, times: Times, now: Duration) {
        self.dropping = true;
        self.just_dropped = JustDropped::First;
        // If it dropped not long ago, the rate that controlled the queue then is where to begin.
        let delta = self.count.saturating_sub(self.lastcount);
        let is_recent = now.saturating_sub(self.drop_next) < times.interval * 16;
        self.count = if delta > 1 && is_recent { delta } else { 1 };
        self.drop_next = control_law(now, times.interval, self.count);
        self.lastcount = self.count;
    }
}

fn control_law(from: Duration, interval: Duration, count: u32) -> Duration {
    from + interval.div_f64(f64::from(count).sqrt())
}
