//! What all connections of a test share, and what its session hears of.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::flows::Flows;
use crate::{
    exchange::Corrupt,
    gate::Gate,
    seen::Seen,
    spec::{TestSpec, Workload},
    wire::{Ask, Report},
};

/// What a session hears of.
pub(super) enum Event {
    /// A message on the control connection.
    Asked(Ask),
    /// A control connection ended.
    Gone {
        /// Which of those that the client has had.
        control: u32,
        /// How.
        reason: String,
    },
    /// The client is back with a new one, and what came with its preamble.
    Resumed(TcpStream, Vec<u8>),
    /// A data connection.
    Arrived(Arrival),
    /// A worker came to its end.
    Finished,
    /// A worker found a fault.
    Failed(String),
    /// The server stops.
    Stopping,
}

/// A data connection, and what came with its preamble.
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) connection: u32,
    pub(super) rest: Vec<u8>,
}

/// What all connections of a test share.
pub(super) struct Shared {
    pub(super) spec: TestSpec,
    pub(super) gate: Gate,
    pub(super) stopped: watch::Sender<bool>,
    connections_max: u32,
    connections: AtomicU32,
    answered: AtomicU64,
    /// In both directions, on the connections that have no thread.
    bytes: AtomicU64,
    corrupt: AtomicU32,
    seen: Mutex<Seen>,
    pub(super) flows: Flows,
}

/// A place among the connections a test may have.
pub(super) struct ConnectionPlace<'a>(&'a Shared);

impl Shared {
    /// Nobody is connected yet.
    pub(super) fn new(spec: TestSpec, connections_max: u32) -> Self {
        Self {
            spec,
            gate: Gate::default(),
            stopped: watch::channel(false).0,
            connections_max,
            connections: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            corrupt: AtomicU32::new(0),
            seen: Mutex::default(),
            flows: Flows::default(),
        }
    }

    /// Whether a test may have one more than these connections.
    pub(super) const fn has_room(&self, connections: usize) -> bool {
        (connections as u64) < self.connections_max as u64
    }

    /// Writes what came.
    pub(super) fn write(&self, report: &mut Report) {
        report.answered = self.answered.load(Relaxed);
        report.duplicated = self.seen.lock().duplicated();
        report.corrupt_connections = self.corrupt.load(Relaxed);
        self.flows.write(self, report);
    }

    /// Takes a place for a connection, if there is one.
    pub(super) fn take_connection(&self) -> Option<ConnectionPlace<'_>> {
        let taken = self.connections.fetch_update(Relaxed, Relaxed, |count| {
            (count < self.connections_max).then_some(count + 1)
        });
        taken.ok().map(|_| ConnectionPlace(self))
    }

    /// Payload was carried on a connection that has no thread.
    pub(super) fn note_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Payload on the connections that have no thread.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// A request came.
    pub(super) fn note_request(&self, number: Result<u64, Corrupt>) {
        self.answered.fetch_add(1, Relaxed);
        match number {
            Ok(number) if self.spec.workload == Workload::Probe => self.seen.lock().note(number),
            Ok(_) => {}
            Err(_) => self.note_corrupt(),
        }
    }

    /// Something came that was not sent.
    pub(super) fn note_corrupt(&self) {
        self.corrupt.fetch_add(1, Relaxed);
    }
}

impl Drop for ConnectionPlace<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
