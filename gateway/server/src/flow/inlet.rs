//! What comes from a peer: frames of flows on their stream, and datagrams beside it, as one sequence of frames.

use bytes::Bytes;
use corinth_api::{FlowFrame, FlowFrames, FlowNumber};
use corinth_model::Failure;
use corinth_transport::{Datagrams, Fill, ReadHalf};
use tokio::task::coop::consume_budget;

use crate::{record::Telemetry, relay};

/// What came.
enum Came {
    OnStream(Fill),
    Beside(Option<Bytes>),
}

/// Hands every frame to `each`, until the peer ends the stream.
pub(super) async fn read(
    from_peer: &mut ReadHalf<'_>,
    mut beside: Option<&Datagrams>,
    telemetry: &Telemetry,
    mut each: impl FnMut(FlowFrame<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut frames = FlowFrames::default();
    loop {
        let came = tokio::select! {
            filled = from_peer.fill() => Came::OnStream(filled.map_err(relay::failure_of)?),
            datagram = next(beside) => Came::Beside(datagram),
        };
        match came {
            Came::OnStream(Fill::End) => return Ok(()),
            Came::OnStream(Fill::Data) => {
                let fed = from_peer.lend(|pieces| {
                    pieces.iter().for_each(|piece| frames.feed(piece));
                    Ok(pieces.iter().map(|piece| piece.len()).sum())
                });
                fed.map_err(|_| Failure::TunnelCut)?;
                while let Some(frame) = frames.take().map_err(|_| Failure::ProtocolViolation)? {
                    each(frame)?;
                }
            }
            Came::Beside(Some(datagram)) => {
                let dropped = beside.map_or(0, Datagrams::take_dropped);
                telemetry.datagrams_dropped("unread", dropped);
                // One without a number is for nobody.
                if let Some((flow, content)) = FlowNumber::take(&datagram) {
                    each(FlowFrame::Data(flow, content))?;
                }
            }
            // The stream will say why.
            Came::Beside(None) => beside = None,
        }
        consume_budget().await;
    }
}

async fn next(beside: Option<&Datagrams>) -> Option<Bytes> {
    match beside {
        Some(datagrams) => datagrams.take().await,
        None => std::future::pending().await,
    }
}
