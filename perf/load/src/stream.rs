//! One bulk stream: a thread that writes as fast as it may, and one that reads.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create, sendfile},
    net::{RecvFlags, recv},
};

use crate::{
    count::Counter,
    gate::Gate,
    pattern::Pattern,
    spec::{Copying, TestSpec, Verify},
};

/// How one stream is carried; the same on both sides.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    block_bytes: usize,
    copying: Copying,
    verify: Verify,
    pattern: Pattern,
    bits_per_second: Option<u64>,
    total_bytes: Option<u64>,
}

/// Why a stream ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamFault {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side closed it.
    #[error("the other side closed it early")]
    Closed,
    /// Not what was sent.
    #[error("byte {at} is not what was sent")]
    Corrupt {
        /// Counted from the first byte of the stream.
        at: u64,
    },
}

impl StreamPlan {
    /// For the stream of this number.
    pub fn new(spec: &TestSpec, connection: u32) -> Self {
        let streams = u64::from(spec.connections.max(1));
        let number = u64::from(connection) % streams;
        Self {
            block_bytes: stream_block_bytes(spec),
            copying: spec.copying,
            verify: spec.verify,
            pattern: Pattern::new(spec.seed, u64::from(connection)),
            bits_per_second: spec.bits_per_second,
            total_bytes: spec
                .total_bytes
                .map(|total| total / streams + u64::from(number < total % streams)),
        }
    }

    /// Writes until the gate is shut, or all bytes are written and the writing half is closed.
    pub fn send(
        &self,
        stream: &TcpStream,
        counter: &Counter,
        gate: &Gate,
    ) -> Result<(), StreamFault> {
        let mut source = Source::new(self)?;
        let Some(started) = gate.pass() else {
            return Ok(());
        };
        let mut sent_bytes = 0;
        while !gate.is_over() {
            let left_bytes = self
                .total_bytes
                .map_or(u64::MAX, |total| total - sent_bytes);
            if left_bytes == 0 {
                stream.shutdown(Shutdown::Write)?;
                return Ok(());
            }
            let length = usize::try_from(left_bytes)
                .map_or(self.block_bytes, |left| left.min(self.block_bytes));
            let written = match source.write(stream, sent_bytes, length) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if gate.is_over() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            counter.sent(written);
            sent_bytes += written as u64;
            if let Some(bits_per_second) = self.bits_per_second {
                wait_for_turn(started, sent_bytes, bits_per_second, gate);
            }
        }
        Ok(())
    }

    /// Reads until the end; `Ok` if the end was to be expected.
    pub fn receive(
        &self,
        stream: &TcpStream,
        counter: &Counter,
        gate: &Gate,
    ) -> Result<(), StreamFault> {
        let mut buffer = vec![0; self.block_bytes];
        let mut received_bytes = 0_u64;
        loop {
            let got = if self.copying.drops_in_kernel() {
                recv(stream.as_fd(), buffer.as_mut_slice(), RecvFlags::TRUNC)
                    .map(|(_, length)| length)
                    .map_err(io::Error::from)
            } else {
                (&*stream).read(&mut buffer)
            };
            let got = match got {
                Ok(0) if gate.is_over() || Some(received_bytes) == self.total_bytes => {
                    return Ok(());
                }
                Ok(0) => return Err(StreamFault::Closed),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if gate.is_over() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.verify == Verify::EveryByte
                && let Some(at) = self
                    .pattern
                    .first_difference(&buffer[..got], received_bytes)
            {
                return Err(StreamFault::Corrupt {
                    at: received_bytes + at as u64,
                });
            }
            received_bytes += got as u64;
            counter.received(got);
        }
    }
}

/// The size of a write of a stream; in a mix the messages are those of the requests.
fn stream_block_bytes(spec: &TestSpec) -> usize {
    use crate::spec::Workload;
    let bytes = match spec.workload {
        Workload::Stream => spec.message_bytes,
        Workload::Rr
        | Workload::Crr
        | Workload::Udp
        | Workload::Idle
        | Workload::Http
        | Workload::Mix
        | Workload::Probe => Workload::Stream.message_default_bytes(),
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Where the payload comes from.
enum Source {
    /// One block again and again.
    Memory(Vec<u8>),
    /// A new block for each place.
    Pattern(Vec<u8>, Pattern),
    /// A file in memory, which the kernel sends without copying.
    File(std::fs::File),
}

impl Source {
    fn new(plan: &StreamPlan) -> io::Result<Self> {
        let mut block = vec![0; plan.block_bytes];
        plan.pattern.fill(&mut block, 0);
        if plan.verify == Verify::EveryByte {
            return Ok(Self::Pattern(block, plan.pattern));
        }
        if plan.copying.sends_a_file() {
            let mut file = std::fs::File::from(memfd_create("payload", MemfdFlags::CLOEXEC)?);
            file.write_all(&block)?;
            file.seek(SeekFrom::Start(0))?;
            return Ok(Self::File(file));
        }
        Ok(Self::Memory(block))
    }

    fn write(
        &mut self,
        mut stream: &TcpStream,
        offset_bytes: u64,
        length: usize,
    ) -> io::Result<usize> {
        match self {
            Self::Memory(block) => stream.write(&block[..length]),
            Self::Pattern(block, pattern) => {
                pattern.fill(&mut block[..length], offset_bytes);
                stream.write(&block[..length])
            }
            Self::File(file) => {
                let mut from = 0;
                Ok(sendfile(
                    stream.as_fd(),
                    file.as_fd(),
                    Some(&mut from),
                    length,
                )?)
            }
        }
    }
}

/// Waits until the average is no more than asked for.
fn wait_for_turn(started: Instant, sent_bytes: u64, bits_per_second: u64, gate: &Gate) {
    let due = started + Duration::from_secs_f64(sent_bytes as f64 * 8.0 / bits_per_second as f64);
    gate.wait_until(due);
}
