//! Serves the streams that the peer opens, each on a task of its own.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use corinth_api::StreamReply;
use corinth_model::{Failure, Refusal};
use tokio::time::timeout;
use tracing::debug;

use super::{
    Shared,
    link::QuicLink,
    stream::{Place, QuicStream},
    tunnel::Tunnel,
};
use crate::{Link, LinkState, Stream};

/// Takes one stream after the other until the connection ends.
pub(super) async fn streams(shared: Arc<Shared>, link: Arc<QuicLink>, tunnel: Arc<Tunnel>) {
    while let Ok((send, recv)) = tunnel.quic.accept_bi().await {
        let place = Place::on(&tunnel, &link);
        let stream = Box::new(QuicStream::new(send, recv, place));
        tokio::spawn(serve(
            Arc::clone(&shared),
            Arc::clone(&link),
            tunnel.term.not_after,
            stream,
        ));
    }
}

/// One stream, from its header to its end.
async fn serve(
    shared: Arc<Shared>,
    link: Arc<QuicLink>,
    not_after: u64,
    mut stream: Box<QuicStream>,
) {
    let header = match timeout(shared.settings.timeouts.first_frame, stream.header()).await {
        Ok(Ok(header)) => header,
        Ok(Err(error)) => {
            debug!(peer = %link.peer, %error, "a stream without a header");
            stream.reset(error.failure());
            return;
        }
        Err(_) => {
            stream.reset(Failure::FirstFrameTimeout);
            return;
        }
    };
    if *link.state.borrow() == LinkState::Closed {
        stream.reset(Failure::PeerReset);
        return;
    }
    if not_after <= shared.now_unix_seconds() {
        stream.reset(Failure::CertificateExpired);
        return;
    }
    let as_dyn = Arc::clone(&link) as Arc<dyn Link>;
    let header = match header {
        Ok(header) => header,
        Err(error) => {
            // The other streams of the connection are not at fault: this one alone ends.
            shared.sink.unreadable(&as_dyn, &error);
            let reply = StreamReply::Failed(Failure::HeaderInvalid);
            stream.refuse(&reply, Failure::HeaderInvalid).await;
            return;
        }
    };
    let Some(_held) = shared.hold(&link.peer.trust_domain) else {
        let reply = StreamReply::Refused(Refusal::OverLimit);
        stream.refuse(&reply, Failure::PeerReset).await;
        return;
    };
    link.accepted.fetch_add(1, Relaxed);
    let mut stream = Stream::quic(stream);
    shared.sink.accept(&as_dyn, header, &mut stream).await;
}
