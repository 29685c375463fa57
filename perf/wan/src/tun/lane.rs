//! One direction: reads, asks the line, waits, writes.

use std::{
    hint, io,
    num::NonZeroU64,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::setpriority_process,
    thread::{gettid, set_current_timer_slack},
};
use tun_rs::SyncDevice;

use super::waking::Waking;
use crate::{
    fault::Fault,
    impair::{Line, Verdict},
    packet::Router,
    timeline::Direction,
};

/// How many packets are read, or written, before the other gets its turn.
const TURN_PACKETS: u32 = 64;
/// The largest packet a device gives.
const PACKET_MAX_BYTES: usize = 65_536;
/// Before programs that compute, behind what the kernel does. Without the right to it, it is not so.
const PRIORITY: i32 = -15;

/// Asks lanes to stop, and keeps what made one stop by itself.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: AtomicBool,
    broken: Mutex<Option<(Direction, String)>>,
}

impl Stop {
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn fault(&self) -> Result<(), Fault> {
        match &*self.broken.lock() {
            None => Ok(()),
            Some((direction, said)) => Err(Fault::Broken {
                direction: *direction,
                said: said.clone(),
            }),
        }
    }
}

/// What a thread needs for one direction.
pub(super) struct Lane {
    pub(super) direction: Direction,
    pub(super) source: Arc<SyncDevice>,
    pub(super) sink: Arc<SyncDevice>,
    pub(super) line: Arc<Mutex<Line>>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) stop: Arc<Stop>,
    pub(super) router: Router,
    pub(super) began: Instant,
}

/// Whether there was more to do than one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Done,
    More,
}

impl Lane {
    /// Carries packets until it is asked to stop, or a device is gone.
    pub(super) fn run(self) {
        // Both make it more exact; it works without.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let _ = setpriority_process(Some(gettid()), PRIORITY);

        if let Err(error) = self.carry() {
            let mut broken = self.stop.broken.lock();
            broken.get_or_insert((self.direction, error.to_string()));
        }
    }

    fn carry(&self) -> io::Result<()> {
        let mut packet = vec![0; PACKET_MAX_BYTES];
        let mut waking = Waking::default();
        let mut asleep = Duration::ZERO;
        while !self.stop.is_asked() {
            let read = self.read(&mut packet, asleep)?;
            let written = self.write();
            asleep = Duration::ZERO;
            if read == Turn::Done && written == Turn::Done {
                asleep = self.wait(&mut waking)?;
            }
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Reads what came. The first of it came so much earlier than it is seen.
    fn read(&self, packet: &mut [u8], mut unseen: Duration) -> io::Result<Turn> {
        for _ in 0..TURN_PACKETS {
            let bytes = match rustix::io::read(&*self.source, &mut *packet) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN) => return Ok(Turn::Done),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let came = self.now().saturating_sub(std::mem::take(&mut unseen));
            let verdict = self.line.lock().accept(&packet[..bytes], came);
            match verdict {
                Verdict::Silent => {}
                Verdict::TooBig { mtu_bytes } => self.tell(&packet[..bytes], mtu_bytes),
            }
        }
        Ok(Turn::More)
    }

    fn tell(&self, packet: &[u8], mtu_bytes: u32) {
        let Some(answer) = self.router.too_big(packet, mtu_bytes) else {
            return;
        };
        if rustix::io::write(&*self.source, &answer).is_ok() {
            self.line.lock().told();
        }
    }

    fn write(&self) -> Turn {
        for _ in 0..TURN_PACKETS {
            let now = self.now();
            let Some((packet, due)) = self.line.lock().take(now) else {
                return Turn::Done;
            };
            let written = rustix::io::write(&*self.sink, &packet);
            let mut line = self.line.lock();
            match written {
                Ok(_) => line.delivered(packet.len(), now.saturating_sub(due)),
                Err(_) => line.refused(),
            }
        }
        Turn::More
    }

    /// Until something can be read, is due soon, or has changed. Tells how long what woke us has probably been there.
    fn wait(&self, waking: &mut Waking) -> io::Result<Duration> {
        let until = self.line.lock().due();
        let until = until.map(|due| due.saturating_sub(waking.spin()));
        let left = until.map(|until| until.saturating_sub(self.now()));
        if left.is_some_and(|left| left.is_zero()) {
            hint::spin_loop();
            return Ok(Duration::ZERO);
        }
        let timeout = left.map(timespec);
        let mut fds = [
            PollFd::new(&*self.source, PollFlags::IN),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [source, wake] = fds.map(|fd| fd.revents());
        if !wake.is_empty() {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        // A device that is gone says only that.
        if source.contains(PollFlags::ERR) && !source.contains(PollFlags::IN) {
            return Err(io::Error::other("its device is gone"));
        }
        if let Some(until) = until
            && source.is_empty()
            && wake.is_empty()
        {
            waking.observe(self.now().saturating_sub(until));
        }
        Ok(waking.typical())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
