//! Services over UDP. A *flow* is what passes between one client address and one import port; it has no end but silence.
//!
//! ```text
//! client ──> socket, near ──> trunk, outlet ══ stream of kind FLOWS, datagrams ══> inlet, far ──> endpoint
//! ```
//!
//! Each worker keeps one stream of kind FLOWS to each gateway that it sends flows to, the *trunk*; frames of all its
//! flows travel on it, and beside it as datagrams where the transport has some. Nothing here waits for a slow taker:
//! what finds no room is thrown away and counted, the oldest first.

mod account;
mod arrived;
mod client;
mod companion;
mod endpoint;
mod far;
mod inlet;
mod near;
mod outlet;
mod quota;
mod session;
mod socket;
mod tally;
mod trunk;

pub(crate) use companion::Companion;
pub(crate) use far::carry;
pub(crate) use near::serve;
pub(crate) use quota::{FlowLimits, FlowQuota};
pub(crate) use tally::{ANSWERED, Patience, Tally};
pub(crate) use trunk::Trunks;
