//! At which rate a path delivers (draft-ietf-ccwg-bbr §4.1).
//!
//! With each packet that is sent it is noted how much had been delivered by then, and when. When the packet is
//! acknowledged, what was delivered since then was so in the time since then; or in the time in which it was sent, if that
//! was longer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Notes that are kept: more packets are hardly ever on their way, and for those no rate is known.
const NOTES_MAX: usize = 1 << 16;

/// What was delivered, and when.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    now: Note,
    /// Acknowledged since the last look.
    new_bytes: u64,
    /// One for all packets that left before more was delivered, the oldest first.
    notes: VecDeque<Note>,
    /// When the newest packet was sent that was acknowledged since the last look, and what was noted then.
    newest: Option<(Instant, Note)>,
    is_resting: bool,
}

/// How it was when a packet was sent.
#[derive(Debug, Clone, Copy)]
struct Note {
    /// When that was.
    sent_at: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
    /// When that was sent which was delivered last.
    delivered_sent_at: Instant,
}

/// What one acknowledgement says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    bytes: u64,
    /// In which they were delivered, and sent.
    pub(super) interval: Duration,
    /// Had been delivered when the packet was sent.
    pub(super) prior_bytes: u64,
    pub(super) rtt: Duration,
}

impl Sample {
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.interval.as_secs_f64().max(f64::EPSILON)
    }
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        let note = Note {
            sent_at: now,
            delivered_bytes: 0,
            delivered_at: now,
            delivered_sent_at: now,
        };
        Self {
            now: note,
            new_bytes: 0,
            notes: VecDeque::new(),
            newest: None,
            is_resting: true,
        }
    }

    /// All that was delivered.
    pub(super) fn bytes(&self) -> u64 {
        self.now.delivered_bytes
    }

    /// Nothing is on its way: the time until something is sent counts for nothing.
    pub(super) fn rest(&mut self) {
        self.is_resting = true;
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_resting) {
            self.now.delivered_at = now;
            self.now.delivered_sent_at = now;
        }
        self.now.sent_at = now;
        // As long as nothing was delivered, one note says it for all.
        let is_noted = self.notes.back().is_some_and(|last| {
            last.delivered_bytes == self.now.delivered_bytes
                && last.delivered_at == self.now.delivered_at
        });
        if is_noted {
            return;
        }
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(self.now);
    }

    pub(super) fn acknowledged(&mut self, sent: Instant, bytes: u64) {
        self.now.delivered_bytes += bytes;
        self.new_bytes += bytes;
        while self.notes.get(1).is_some_and(|next| next.sent_at <= sent) {
            self.notes.pop_front();
        }
        let is_newer = self.newest.is_none_or(|(newest, _)| newest < sent);
        if let Some(note) = self.notes.front()
            && note.sent_at <= sent
            && is_newer
        {
            self.newest = Some((sent, *note));
        }
    }

    /// How much was acknowledged since the last time.
    pub(super) fn newly_acknowledged(&mut self) -> u64 {
        std::mem::take(&mut self.new_bytes)
    }

    /// What was acknowledged since the last time says this.
    pub(super) fn sample(&mut self, now: Instant) -> Option<Sample> {
        let (sent, note) = self.newest.take()?;
        self.now.delivered_at = now;
        self.now.delivered_sent_at = sent;
        let delivering = now.saturating_duration_since(note.delivered_at);
        let sending = sent.saturating_duration_since(note.delivered_sent_at);
        Some(Sample {
            bytes: self.now.delivered_bytes - note.delivered_bytes,
            interval: delivering.max(sending),
            prior_bytes: note.delivered_bytes,
            rtt: now.saturating_duration_since(sent),
        })
    }
}
