//! What happened to the packets of one direction.

use serde::Serialize;

/// What happened to the packets of one direction. With the TUN engine every packet that arrived, and every duplicate
/// made, is delivered, dropped for one of the reasons, or still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Packets taken from the sender's side.
    pub arrived_packets: u64,
    /// Their IP bytes.
    pub arrived_bytes: u64,
    /// Packets given to the receiver's side.
    pub delivered_packets: u64,
    /// Their IP bytes.
    pub delivered_bytes: u64,
    /// Packets that are queued or on their way.
    pub held_packets: u64,
    /// Copies made in addition.
    pub duplicated: u64,
    /// Packets with a flipped bit.
    pub corrupted: u64,
    /// Packets held back behind others.
    pub reordered: u64,
    /// Senders told by ICMP that a packet was too large.
    pub too_big_told: u64,
    /// Packets dropped, by reason.
    pub dropped: Dropped,
    /// Packets the sender's kernel dropped before they came this far, because its device was full. They did not arrive.
    pub device_dropped: u64,
    /// Packets delivered more than 0.1 ms after they were due: then the emulator was too slow, or the machine.
    pub late_packets: u64,
    /// The latest of all.
    pub late_max_us: u64,
    /// The most bytes that waited for the bottleneck.
    pub queue_max_bytes: u64,
}

/// Packets dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// Lost by chance.
    pub lost: u64,
    /// The queue was full.
    pub queue_full: u64,
    /// `CoDel` wanted a shorter queue.
    pub codel: u64,
    /// UDP beyond its rate.
    pub udp_policed: u64,
    /// UDP is blocked.
    pub udp_blocked: u64,
    /// Of a size that vanishes.
    pub by_size: u64,
    /// Larger than the MTU.
    pub oversize: u64,
    /// During a blackout.
    pub blackout: u64,
    /// Link-local or not IP: never leaves a network, so it never crosses a wide one.
    pub local: u64,
    /// The emulator held as much as it may.
    pub overflow: u64,
    /// The receiver's side did not take it.
    pub refused: u64,
}

impl Dropped {
    /// All of them.
    pub const fn sum(&self) -> u64 {
        self.lost
            + self.queue_full
            + self.codel
            + self.udp_policed
            + self.udp_blocked
            + self.by_size
            + self.oversize
            + self.blackout
            + self.local
            + self.overflow
            + self.refused
    }
}
