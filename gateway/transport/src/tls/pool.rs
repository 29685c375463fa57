//! The connections of a link on which we may open a stream, and who waits for one.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::connection::Connection;

/// Dials in flight at most, however many streams wait.
pub(super) const DIALS_MAX: u32 = 64;
/// Connections kept warm beyond those in use.
const SPARE: usize = 1;
/// A connection beyond the spare that nobody used for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The connections of a link on which we may open a stream.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Box<Connection>>>,
    /// Connections being dialled to become ours.
    pub(super) dialling: u32,
    /// Connections with a stream on them.
    pub(super) busy: u32,
    /// A closed pool takes nothing back.
    pub(super) closed: bool,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    /// Takes the connection used last, of the calling worker if there is one: it is the warmest, and the
    /// others can grow old.
    pub(super) fn take(&mut self, now_unix_seconds: u64) -> Option<Box<Connection>> {
        loop {
            let at = self
                .idle
                .iter()
                .rposition(|idle| idle.connection.is_home())
                .or_else(|| self.idle.len().checked_sub(1))?;
            let Idle { mut connection, .. } = self.idle.swap_remove(at);
            if connection.retire_at <= now_unix_seconds {
                connection.close();
                continue;
            }
            // A word of the peer that has arrived is heard before another stream is opened.
            match connection.try_next() {
                Ok(None) => return Some(connection),
                Ok(Some(_)) => connection.close(),
                Err(_) => {}
            }
        }
    }

    /// Queues for the first connection that returns or is dialled.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Box<Connection>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(sender);
        receiver
    }

    /// How many more dials are worth starting for those that wait and for the spare.
    pub(super) fn dials_wanted(&mut self) -> u32 {
        self.waiting.retain(|waiting| !waiting.is_closed());
        let spare = SPARE.saturating_sub(self.idle.len());
        let wanted = (self.waiting.len() + spare) as u32;
        wanted.min(DIALS_MAX).saturating_sub(self.dialling)
    }

    /// A connection became free: to who waits longest, else it stays warm.
    pub(super) fn give(&mut self, mut connection: Box<Connection>, now: Instant) {
        if self.closed || connection.draining {
            connection.close();
            return;
        }
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(returned) => connection = returned,
            }
        }
        self.idle.push(Idle {
            connection,
            since: now,
        });
    }

    /// Nothing more will come: who waits is told by its closed channel.
    pub(super) fn fail_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Ends every idle connection.
    pub(super) fn clear(&mut self) {
        for idle in self.idle.drain(..) {
            idle.connection.close();
        }
    }

    /// Looks at each idle connection whose socket became readable since; costs no system call for the others.
    pub(super) fn look(&mut self) {
        let mut at = 0;
        while at < self.idle.len() {
            if is_quiet(&mut self.idle[at].connection) {
                at += 1;
            } else {
                // To DRAIN, CLOSE is the answer; anything else that comes here ends it as well.
                self.idle.swap_remove(at).connection.close();
            }
        }
    }

    /// Closes what was idle too long, all but the spare.
    pub(super) fn shrink(&mut self, now: Instant) {
        while self.idle.len() > SPARE {
            let Some(oldest) = (0..self.idle.len()).min_by_key(|at| self.idle[*at].since) else {
                return;
            };
            if now.duration_since(self.idle[oldest].since) < IDLE_MAX {
                return;
            }
            self.idle.swap_remove(oldest).connection.close();
        }
    }

    pub(super) fn idle(&self) -> u32 {
        self.idle.len() as u32
    }
}

/// `true` while the connection stays fit for a stream.
fn is_quiet(connection: &mut Connection) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    match connection.socket.poll_read_ready(&mut context) {
        Poll::Pending => true,
        // Finding nothing to read is what makes the next look pend again.
        Poll::Ready(Ok(())) => matches!(connection.try_next(), Ok(None)),
        Poll::Ready(Err(_)) => false,
    }
}
