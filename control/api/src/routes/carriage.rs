//! What carries the streams to a peer, on the wire.

use corinth_model::{Carriage, CongestionChoice, TransportChoice};

use super::RoutesError;
use super::decode::invalid;
use crate::wire::routes as wire;

impl From<TransportChoice> for wire::Transport {
    fn from(transport: TransportChoice) -> Self {
        match transport {
            TransportChoice::Tls => Self::Tls,
            TransportChoice::Quic => Self::Quic,
            TransportChoice::Auto => Self::Auto,
        }
    }
}

impl From<Option<CongestionChoice>> for wire::Congestion {
    fn from(congestion: Option<CongestionChoice>) -> Self {
        match congestion {
            None => Self::Unspecified,
            Some(CongestionChoice::Cubic) => Self::Cubic,
            Some(CongestionChoice::Bbr) => Self::Bbr,
        }
    }
}

/// Reads both numbers.
pub(super) fn carriage(transport: i32, congestion: i32) -> Result<Carriage, RoutesError> {
    Ok(Carriage {
        transport: read_transport(transport)?,
        congestion: read_congestion(congestion)?,
    })
}

/// Where nothing is said, as by control planes of before, it is TLS.
fn read_transport(number: i32) -> Result<TransportChoice, RoutesError> {
    use wire::Transport;
    match Transport::try_from(number) {
        Ok(Transport::Unspecified | Transport::Tls) => Ok(TransportChoice::Tls),
        Ok(Transport::Quic) => Ok(TransportChoice::Quic),
        Ok(Transport::Auto) => Ok(TransportChoice::Auto),
        Err(_) => Err(invalid("peer.transport")),
    }
}

fn read_congestion(number: i32) -> Result<Option<CongestionChoice>, RoutesError> {
    use wire::Congestion;
    match Congestion::try_from(number) {
        Ok(Congestion::Unspecified) => Ok(None),
        Ok(Congestion::Cubic) => Ok(Some(CongestionChoice::Cubic)),
        Ok(Congestion::Bbr) => Ok(Some(CongestionChoice::Bbr)),
        Err(_) => Err(invalid("peer.congestion")),
    }
}
