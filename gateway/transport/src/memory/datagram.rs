//! Datagrams beside a stream in memory: they pass while the path does, up to a size.

use std::sync::Arc;

use super::wire::{Side, Wire};
use crate::datagram::{Inbox, Sent};

/// As little as a QUIC packet takes on any path, so that larger ones have to find another way in tests too.
const MAX_BYTES: usize = 1_150;

/// The datagrams beside one stream.
pub(crate) struct MemoryDatagrams {
    wire: Arc<Wire>,
    side: Side,
}

impl MemoryDatagrams {
    pub(super) fn beside(wire: &Arc<Wire>, side: Side) -> Self {
        Self {
            wire: Arc::clone(wire),
            side,
        }
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        self.wire.inbox(self.side)
    }

    pub(crate) fn max_bytes(&self) -> usize {
        MAX_BYTES
    }

    pub(crate) fn try_send(&self, head: &[u8], body: &[u8]) -> Sent {
        if head.len() + body.len() > MAX_BYTES {
            return Sent::TooLarge;
        }
        self.wire.pass([head, body].concat().into(), self.side);
        Sent::Queued { evicted: 0 }
    }
}
