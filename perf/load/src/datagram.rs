//! Datagrams that can be counted.

/// Test (16), connection (4), number (8), time of sending in nanoseconds (8).
pub const HEADER_BYTES: usize = 36;

/// What fits an IPv4 datagram.
pub const MAX_BYTES: usize = 65_507;
