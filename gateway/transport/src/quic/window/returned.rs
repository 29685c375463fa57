//! How much of a stream the connection's window was given back for (RFC 9000 §4.1): what was read of it and, when it is
//! stopped, all that had arrived up to the furthest byte, also where something is missing before that.

/// What was given back for one stream.
#[derive(Debug, Default)]
pub(in crate::quic) struct Returned {
    read_bytes: u64,
    /// The furthest byte that is known to have arrived.
    end: u64,
}

impl Returned {
    /// So many bytes were read in their order. Returns for how many more the window is given back.
    pub(in crate::quic) fn handle_read(&mut self, bytes: u64) -> u64 {
        self.read_bytes += bytes;
        self.end = self.end.max(self.read_bytes);
        bytes
    }

    /// So many bytes have arrived from `offset` on, which nobody reads.
    pub(in crate::quic) fn handle_unread(&mut self, offset: u64, bytes: u64) {
        self.end = self.end.max(offset.saturating_add(bytes));
    }

    /// The stream is stopped. Returns for how many more bytes the window is given back.
    pub(in crate::quic) fn handle_stop(&mut self) -> u64 {
        let unread = self.end - self.read_bytes;
        self.read_bytes = self.end;
        unread
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_gives_back_what_arrived_unread_and_what_is_missing_before_it() {
        let mut returned = Returned::default();
        assert_eq!(returned.handle_read(100), 100);
        returned.handle_unread(100, 50);
        returned.handle_unread(400, 100);
        returned.handle_unread(200, 100);
        assert_eq!(returned.handle_stop(), 400);
        assert_eq!(returned.handle_stop(), 0);
    }

    proptest! {
        #[test]
        fn whatever_arrived_in_whichever_order_each_byte_is_given_back_once(
            read in prop::collection::vec(0_u64..100_000, 0..20),
            unread in prop::collection::vec((0_u64..1 << 20, 1_u64..2_000), 0..20),
        ) {
            let mut returned = Returned::default();
            let in_order: u64 = read.iter().map(|bytes| returned.handle_read(*bytes)).sum();
            let mut furthest = in_order;
            for (ahead, bytes) in unread {
                returned.handle_unread(in_order + ahead, bytes);
                furthest = furthest.max(in_order + ahead + bytes);
            }
            let given_back = in_order + returned.handle_stop();
            prop_assert_eq!(given_back, furthest);
        }
    }
}
