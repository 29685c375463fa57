//! What a carrier takes of the processors for each byte.

use std::time::Duration;

use super::Carrier;

/// Less in a look is no load: what the process does besides would be counted with it.
const LOOK_MIN_BYTES: u64 = 4 << 20;
/// A look counts for a carrier that moved so many hundredths of all bytes in it.
const NEARLY_ALL_PERCENT: u64 = 90;
/// A carrier is cheaper if it takes at most so much of what the other one does.
const CHEAPER: f64 = 0.8;
/// How much of a new look goes into what is known.
const NEW_SHARE: f64 = 0.125;

/// What the carriers of a gateway take of the processors for each byte, to all peers together. Moved by looks in which one of
/// them carried nearly everything; all that the process did is counted then, as a byte costs in other places too.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Costs {
    quic: Option<f64>,
    tls: Option<f64>,
}

impl Costs {
    /// In a look the process took so much of the processors, while so many bytes came and went by each carrier.
    pub fn handle_look(&mut self, processors: Duration, quic_bytes: u64, tls_bytes: u64) {
        let bytes = quic_bytes.saturating_add(tls_bytes);
        let is_nearly_all =
            |moved: u64| moved.saturating_mul(100) >= bytes.saturating_mul(NEARLY_ALL_PERCENT);
        let known = if bytes < LOOK_MIN_BYTES {
            return;
        } else if is_nearly_all(quic_bytes) {
            &mut self.quic
        } else if is_nearly_all(tls_bytes) {
            &mut self.tls
        } else {
            return;
        };
        let measured = processors.as_secs_f64() / bytes as f64;
        *known = Some(known.map_or(measured, |known| {
            measured.mul_add(NEW_SHARE, known * (1.0 - NEW_SHARE))
        }));
    }

    /// Seconds of a processor for each byte; `None` as long as it carried nothing alone.
    pub const fn seconds_per_byte(&self, carrier: Carrier) -> Option<f64> {
        match carrier {
            Carrier::Quic => self.quic,
            Carrier::Tls => self.tls,
        }
    }

    /// The one that takes clearly less; `None` where that is not known of both, or they are alike.
    pub fn cheaper(&self) -> Option<Carrier> {
        let (quic, tls) = (self.quic?, self.tls?);
        if quic <= tls * CHEAPER {
            Some(Carrier::Quic)
        } else if tls <= quic * CHEAPER {
            Some(Carrier::Tls)
        } else {
            None
        }
    }
}
