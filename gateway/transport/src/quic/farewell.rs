//! What was said last on streams that are over, until the peer has acknowledged it: who ends a connection waits for that,
//! because the end of a connection takes away what is still on its way.

use std::time::Duration;

use parking_lot::Mutex;
use quinn::SendStream;
use tokio::time::timeout;

/// Streams that are remembered before it is looked which of them have arrived.
const LOOK_AT: usize = 64;
/// Of a reset nothing tells that it has arrived; it is asked for again after at least this long.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// The sending sides of streams that are over here and perhaps not yet at the peer.
#[derive(Default)]
pub(super) struct Farewells {
    streams: Mutex<Vec<SendStream>>,
}

impl Farewells {
    /// Remembers a stream that is over, unless the peer has acknowledged all of it already.
    pub(super) fn add(&self, stream: SendStream) {
        if has_arrived(&stream) {
            return;
        }
        let mut streams = self.streams.lock();
        // At powers of two, so that looking costs each stream little.
        if streams.len() >= LOOK_AT && streams.len().is_power_of_two() {
            streams.retain(|stream| !has_arrived(stream));
        }
        streams.push(stream);
    }

    /// Waits until the peer has acknowledged everything, or the connection has ended.
    pub(super) async fn arrived(&self, round_trip: Duration) {
        let again = round_trip.max(ASK_AGAIN);
        let streams = std::mem::take(&mut *self.streams.lock());
        for stream in streams {
            while !has_arrived(&stream) {
                match timeout(again, stream.stopped()).await {
                    // All of it is acknowledged, or the peer wants no more of it.
                    Ok(Ok(_)) => break,
                    // The connection has ended.
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
        }
    }
}

/// quinn forgets a stream when all of it is acknowledged, and then has no priority for it.
fn has_arrived(stream: &SendStream) -> bool {
    stream.priority().is_err()
}
