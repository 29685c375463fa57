//! The first words on a connection from a gateway to its control plane: which stream is handed over.

use std::net::SocketAddr;

use corinth_model::{GatewayId, SpiffeId};
use prost::Message;

use crate::wire::link as wire;

/// The most bytes of the message, its length not counted.
pub const HAND_OVER_MAX_BYTES: usize = 4096;

/// A stream that a gateway hands to its control plane; the stream's own bytes follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOver {
    /// A stream of kind PEERING that a peer opened.
    Peering {
        /// The peer's gateway, as the tunnel's handshake proved it.
        peer: GatewayId,
    },
    /// A stream of kind PEERING that the control plane asked for.
    Opened {
        /// What it was asked for with.
        ticket: u64,
        /// As in `Peering`.
        peer: GatewayId,
    },
    /// The raw TLS bytes of somebody who speaks `corinth-link/1`, from the ClientHello on.
    Joining {
        /// Where they come from, for limits and records.
        source: SocketAddr,
    },
}

/// Why bytes do not begin a stream that is handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// More bytes than [`HAND_OVER_MAX_BYTES`].
    #[error("the message has {bytes} bytes; at most {HAND_OVER_MAX_BYTES} are allowed")]
    TooLong {
        /// How many came, or are announced.
        bytes: usize,
    },
    /// Not protobuf.
    #[error("the message is not well formed")]
    Malformed(#[source] prost::DecodeError),
    /// No kind, or one of a later version.
    #[error("what is handed over is unknown here; is the gateway newer?")]
    UnknownKind,
    /// A field whose content breaks its rule.
    #[error("the field {field} is missing or not valid")]
    Invalid {
        /// The field's name in the protocol file.
        field: &'static str,
    },
}

impl HandOver {
    /// Bytes of the length in front of the message.
    pub const LENGTH_BYTES: usize = 2;

    /// The length, then the message: all that goes before the stream's own bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::HandOver::from(self).encode_to_vec();
        let length = u16::try_from(message.len()).expect("an identity is at most 2,048 bytes long");
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(message);
        bytes
    }

    /// The length of the message, from the bytes in front of it.
    ///
    /// # Errors
    /// [`HandOverError::TooLong`].
    pub fn length(bytes: [u8; Self::LENGTH_BYTES]) -> Result<usize, HandOverError> {
        let bytes = usize::from(u16::from_be_bytes(bytes));
        if bytes > HAND_OVER_MAX_BYTES {
            return Err(HandOverError::TooLong { bytes });
        }
        Ok(bytes)
    }

    /// Reads the message without its length; it must fill `bytes` exactly. Fields of later versions are skipped.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandOverError> {
        if bytes.len() > HAND_OVER_MAX_BYTES {
            return Err(HandOverError::TooLong { bytes: bytes.len() });
        }
        wire::HandOver::decode(bytes)
            .map_err(HandOverError::Malformed)?
            .try_into()
    }
}

impl From<&HandOver> for wire::HandOver {
    fn from(hand_over: &HandOver) -> Self {
        use wire::hand_over::What;
        let what = match hand_over {
            HandOver::Peering { peer } => What::Peering(wire::Peering {
                peer: peer.to_string(),
            }),
            HandOver::Opened { ticket, peer } => What::Opened(wire::Opened {
                ticket: *ticket,
                peer: peer.to_string(),
            }),
            HandOver::Joining { source } => What::Joining(wire::Joining {
                source: source.to_string(),
            }),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<wire::HandOver> for HandOver {
    type Error = HandOverError;

    fn try_from(hand_over: wire::HandOver) -> Result<Self, HandOverError> {
        use wire::hand_over::What;
        Ok(match hand_over.what.ok_or(HandOverError::UnknownKind)? {
            What::Peering(peering) => Self::Peering {
                peer: gateway("peering.peer", &peering.peer)?,
            },
            What::Opened(opened) => Self::Opened {
                ticket: opened.ticket,
                peer: gateway("opened.peer", &opened.peer)?,
            },
            What::Joining(joining) => Self::Joining {
                source: joining.source.parse().map_err(|_| HandOverError::Invalid {
                    field: "joining.source",
                })?,
            },
        })
    }
}

fn gateway(field: &'static str, text: &str) -> Result<GatewayId, HandOverError> {
    let id = SpiffeId::parse(text).map_err(|_| HandOverError::Invalid { field })?;
    GatewayId::try_from(&id).map_err(|_| HandOverError::Invalid { field })
}

#[cfg(test)]
mod tests;
