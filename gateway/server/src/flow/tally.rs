//! What one flow has carried, when it last did, and how long its silence is waited for.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use corinth_model::{Failure, PortNumber, Reason};
use tokio::{sync::Notify, time::Instant};

use crate::relay::{Carried, Side};

/// Once everything that was asked at the port of DNS has been answered, nothing more is to be expected soon.
pub(crate) const ANSWERED: Duration = Duration::from_secs(5);
/// While the gateway stops, a flow that says nothing for so long is not waited for.
const DRAINING: Duration = Duration::from_secs(5);
/// Why a datagram of a flow that is over was thrown away.
pub(super) const OVER: &str = "over";
/// The port of DNS (RFC 1035 §4.2.1).
const DNS: u16 = 53;

/// How long a flow may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Before the first answer.
    pub(crate) unanswered: Duration,
    /// After it.
    pub(crate) idle: Duration,
    /// At the port of DNS, once everything that was asked is answered.
    pub(crate) answered: Duration,
}

/// What one flow has carried.
pub(crate) struct Tally {
    pub(crate) carried: Carried,
    /// Whose socket it has: the client's, or the endpoint's.
    side: Side,
    /// The service asks and answers by single datagrams.
    is_dns: AtomicBool,
    from_socket: AtomicU64,
    to_socket: AtomicU64,
    dropped: AtomicU64,
    began: Instant,
    /// Milliseconds after `began`.
    moved_ms: AtomicU64,
    /// Something came that changes how long is waited.
    pub(crate) news: Notify,
}

impl Tally {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            carried: Carried::default(),
            side,
            is_dns: AtomicBool::new(false),
            from_socket: AtomicU64::new(0),
            to_socket: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            began: Instant::now(),
            moved_ms: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    /// The service has this port.
    pub(crate) fn serves(&self, port: PortNumber) {
        self.is_dns.store(port.get() == DNS, Relaxed);
    }

    /// A datagram of the socket was taken.
    pub(crate) fn took(&self, bytes: usize) {
        self.carried.add_sent(bytes);
        self.count(&self.from_socket, self.side == Side::Endpoint);
    }

    /// A datagram was given to the socket.
    pub(crate) fn gave(&self, bytes: usize) {
        self.carried.add_received(bytes);
        self.count(&self.to_socket, self.side == Side::Client);
    }

    fn count(&self, datagrams: &AtomicU64, is_answer: bool) {
        let before = datagrams.fetch_add(1, Relaxed);
        let now = self.began.elapsed().as_millis();
        self.moved_ms
            .store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
        if is_answer && (before == 0 || self.is_dns.load(Relaxed)) {
            self.news.notify_one();
        }
    }

    /// So many datagrams were thrown away, of this flow or of others for its sake.
    pub(crate) fn drop_some(&self, datagrams: u64) {
        if datagrams > 0 {
            self.dropped.fetch_add(datagrams, Relaxed);
        }
    }

    /// How many were, since this was last asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }

    /// Datagrams from the socket, and to it.
    pub(crate) fn datagrams(&self) -> (u64, u64) {
        (self.from_socket.load(Relaxed), self.to_socket.load(Relaxed))
    }

    /// Whether the endpoint has said anything.
    pub(crate) fn is_answered(&self) -> bool {
        self.answers() > 0
    }

    fn answers(&self) -> u64 {
        match self.side {
            Side::Client => self.to_socket.load(Relaxed),
            Side::Endpoint => self.from_socket.load(Relaxed),
        }
    }

    fn questions(&self) -> u64 {
        match self.side {
            Side::Client => self.from_socket.load(Relaxed),
            Side::Endpoint => self.to_socket.load(Relaxed),
        }
    }

    /// When it is over unless something moves before.
    pub(crate) fn due(&self, patience: Patience, is_draining: bool) -> Instant {
        let answers = self.answers();
        let usual = if answers == 0 {
            patience.unanswered
        } else if self.is_dns.load(Relaxed) && answers >= self.questions() {
            patience.idle.min(patience.answered)
        } else {
            patience.idle
        };
        let wait = if is_draining {
            usual.min(DRAINING)
        } else {
            usual
        };
        self.began + Duration::from_millis(self.moved_ms.load(Relaxed)) + wait
    }

    /// Why a flow ended that fell silent: one that was answered is complete.
    pub(crate) fn silenced(&self) -> Reason {
        if self.is_answered() {
            Reason::Completed
        } else {
            Reason::Failed(Failure::IdleTimeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        unanswered: Duration::from_secs(30),
        idle: Duration::from_secs(180),
        answered: ANSWERED,
    };

    fn tally(side: Side, port: u16) -> Tally {
        let tally = Tally::new(side);
        tally.serves(PortNumber::new(port).unwrap());
        tally
    }

    fn wait(tally: &Tally, is_draining: bool) -> u64 {
        (tally.due(PATIENCE, is_draining) - tally.began).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_waited_for_longer_once_there_was_an_answer() {
        let tally = tally(Side::Client, 51_820);
        tally.took(10);
        assert_eq!(wait(&tally, false), 30);
        assert_eq!(tally.silenced(), Reason::Failed(Failure::IdleTimeout));
        tally.gave(10);
        assert_eq!(wait(&tally, false), 180);
        assert_eq!(tally.silenced(), Reason::Completed);
        assert_eq!(wait(&tally, true), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_puts_the_end_off() {
        let tally = tally(Side::Client, 51_820);
        tokio::time::advance(Duration::from_secs(20)).await;
        tally.took(10);
        assert_eq!(wait(&tally, false), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn dns_is_over_soon_after_every_question_was_answered() {
        for (side, ask, answer) in [
            (
                Side::Client,
                Tally::took as fn(&Tally, usize),
                Tally::gave as fn(&Tally, usize),
            ),
            (Side::Endpoint, Tally::gave, Tally::took),
        ] {
            let tally = tally(side, 53);
            ask(&tally, 30);
            ask(&tally, 30);
            answer(&tally, 60);
            assert_eq!(wait(&tally, false), 180, "one question is open");
            answer(&tally, 60);
            assert_eq!(wait(&tally, false), 5);
        }
    }
}
