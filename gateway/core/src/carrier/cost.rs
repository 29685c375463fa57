//! What a carrier takes of the processors for each byte.

use std::time::Duration;

use super::Carrier;

/// So much is looked at together.
const SAMPLE_MIN_BYTES: u64 = 8 << 20;
/// Less in a look is no load: what the process does besides would be counted with it.
const LOOK_MIN_BYTES: u64 = 1 << 20;
/// A sample counts for a carrier that moved so many hundredths of all bytes in it.
const NEARLY_ALL_PERCENT: u64 = 90;
/// How much of a new sample goes into what is known.
const NEW_SHARE: f64 = 0.125;

/// What the carriers of a gateway take of the processors for each byte, to all peers together. Known of times in which one of
/// them carried nearly everything; all that the process did is counted then, as a byte costs in other places too. It is shown
/// and not gone by: small requests cost far more for each byte than bulk, whatever carries them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Costs {
    quic: Option<f64>,
    tls: Option<f64>,
    sample: Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Sample {
    processors: Duration,
    quic_bytes: u64,
    tls_bytes: u64,
}

impl Costs {
    /// In a look the process took so much of the processors, while so many bytes came and went by each carrier.
    pub fn handle_look(&mut self, processors: Duration, quic_bytes: u64, tls_bytes: u64) {
        if quic_bytes.saturating_add(tls_bytes) < LOOK_MIN_BYTES {
            self.sample = Sample::default();
            return;
        }
        self.sample.processors += processors;
        self.sample.quic_bytes += quic_bytes;
        self.sample.tls_bytes += tls_bytes;
        let bytes = self.sample.quic_bytes + self.sample.tls_bytes;
        if bytes < SAMPLE_MIN_BYTES {
            return;
        }
        let sample = std::mem::take(&mut self.sample);
        let is_nearly_all =
            |moved: u64| moved.saturating_mul(100) >= bytes.saturating_mul(NEARLY_ALL_PERCENT);
        let known = if is_nearly_all(sample.quic_bytes) {
            &mut self.quic
        } else if is_nearly_all(sample.tls_bytes) {
            &mut self.tls
        } else {
            return;
        };
        let measured = sample.processors.as_secs_f64() / bytes as f64;
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
}
