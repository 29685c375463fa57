//! Sends one flow of datagrams at its rate; the same on both sides.

use std::{io, time::Instant};

use crate::{
    count::Counter,
    datagram::Header,
    gate::Gate,
    pattern::Pattern,
    schedule::{self, Schedule},
    spec::TestSpec,
    wire::TestId,
};

/// What a sender of datagrams works with.
pub struct Sending<'a> {
    /// The test.
    pub spec: &'a TestSpec,
    /// Its name.
    pub test: TestId,
    /// The number of the flow.
    pub flow: u32,
    /// Counts datagrams as completed, and bytes.
    pub counter: &'a Counter,
    /// Ends it.
    pub gate: &'a Gate,
}

impl Sending<'_> {
    /// Sends until the end of the test. Datagrams the network refuses are sent and lost.
    pub fn run(
        &self,
        started: Instant,
        send: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        schedule::sleep_precisely();
        let length = usize::try_from(self.spec.message_bytes).map_err(io::Error::other)?;
        let mut datagram = vec![0; length];
        Pattern::new(self.spec.seed, u64::from(self.flow)).fill(&mut datagram, 0);
        let end = started + self.spec.omit() + self.spec.duration();
        let per_second = self
            .spec
            .bits_per_second
            .map(|bits| bits as f64 / 8.0 / length as f64);
        let schedule = per_second.map(|rate| Schedule::new(started, rate));
        for number in 0.. {
            if let Some(schedule) = &schedule {
                let due = schedule.due(number);
                if due >= end || !schedule::wait_until(due, self.gate) {
                    break;
                }
            }
            let now = Instant::now();
            if now >= end || self.gate.is_over() {
                break;
            }
            let header = Header {
                test: self.test,
                flow: self.flow,
                number,
                sent_ns: now.duration_since(started).as_nanos() as u64,
            };
            header.write(&mut datagram);
            match send(&datagram) {
                Ok(_) => {}
                // Nobody listens, or a queue is full: lost on its way.
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error),
            }
            self.counter.sent(length);
            self.counter.completed();
        }
        Ok(())
    }
}

fn is_loss(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lost = [
        Errno::CONNREFUSED,
        Errno::NOBUFS,
        Errno::AGAIN,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::PERM,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| lost.iter().any(|errno| errno.raw_os_error() == code))
}
