//! Opens a stream at one gateway of a peer, and keeps what was sent until it is accepted.
//!
//! The OPEN leaves at once with whatever the client has said so far, also nothing. What was sent is kept,
//! up to a limit, until the answer: after a refusal or a failed dial it goes to the next candidate; after
//! a death it goes there only if none of it had left, or the route allows it to be delivered twice.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use corinth_api::{StreamOpen, StreamReply};
use corinth_core::Outcome;
use corinth_model::{Failure, Replay};
use corinth_transport::{Link, LinkState, Stream, StreamError, WriteHalf};
use tokio::net::TcpStream;

use crate::{relay, said::Said};

/// What is kept of the client's first bytes until the stream is accepted; it waits beyond.
const KEPT_MAX_BYTES: usize = 64 << 10;
/// How much is read of the client at once while it waits.
const READ_BYTES: usize = 16 << 10;

/// Why one attempt gave no accepted stream.
#[derive(Debug)]
pub(crate) enum Missed {
    /// The next candidate may be tried.
    Next(Outcome),
    /// The request may have been delivered: nobody else may get it.
    Lost(Failure),
    /// The client is gone.
    Client(Failure),
}

/// One attempt's view of the client and the limits.
pub(crate) struct Opening<'a> {
    /// `None` while the client waits to be told before it speaks.
    pub(crate) client: Option<&'a TcpStream>,
    pub(crate) said: &'a mut Said,
    pub(crate) replay: Replay,
    pub(crate) deadline: Duration,
}

impl Opening<'_> {
    /// Opens a stream on `link` and waits until it is accepted.
    pub(crate) async fn run(
        &mut self,
        link: &Arc<dyn Link>,
        header: &StreamOpen,
    ) -> Result<Stream, Missed> {
        self.said.rewind();
        let mut stream = link
            .open(header)
            .await
            .map_err(|error| Missed::Next(Outcome::Failed(error.failure())))?;
        match self.wait(link, &mut stream).await {
            Ok(StreamReply::Accepted) => Ok(stream),
            Ok(StreamReply::Refused(refusal)) => {
                tokio::spawn(tidy(stream));
                Err(Missed::Next(Outcome::Refused(refusal)))
            }
            Ok(StreamReply::Failed(failure)) => {
                tokio::spawn(tidy(stream));
                Err(Missed::Next(Outcome::Failed(failure)))
            }
            Err(Broken::Client(failure)) => {
                stream.reset(failure);
                Err(Missed::Client(failure))
            }
            Err(Broken::Stream(failure)) => {
                stream.reset(failure);
                Err(self.after_death(failure))
            }
        }
    }

    /// What had left may have arrived.
    fn after_death(&self, failure: Failure) -> Missed {
        let nothing_left = self.said.bytes.is_empty();
        if nothing_left || self.replay == Replay::Idempotent {
            Missed::Next(Outcome::Failed(failure))
        } else {
            Missed::Lost(failure)
        }
    }

    async fn wait(
        &mut self,
        link: &Arc<dyn Link>,
        stream: &mut Stream,
    ) -> Result<StreamReply, Broken> {
        let late_after = late_after(link.as_ref());
        let deadline = tokio::time::sleep(self.deadline);
        let mut state = link.state();
        let (mut from_peer, mut to_peer) = stream.split();
        let speaking = self.speak(&mut to_peer);
        tokio::pin!(speaking, deadline);
        let late = tokio::time::sleep(late_after);
        tokio::pin!(late);
        let mut is_late = false;
        loop {
            tokio::select! {
                biased;
                reply = from_peer.reply() => {
                    return reply.map_err(|error| Broken::Stream(error.failure()));
                }
                broken = &mut speaking => return Err(broken),
                () = &mut late, if !is_late => {
                    is_late = true;
                    link.suspect();
                }
                state = gone(&mut state) => return Err(Broken::Stream(state)),
                () = &mut deadline => return Err(Broken::Stream(Failure::PeerTimeout)),
            }
        }
    }

    /// Sends what the client has said and goes on listening to it. Ends only when something broke.
    async fn speak(&mut self, to_peer: &mut WriteHalf<'_>) -> Broken {
        let Err(broken) = self.try_speak(to_peer).await;
        broken
    }

    async fn try_speak(
        &mut self,
        to_peer: &mut WriteHalf<'_>,
    ) -> Result<std::convert::Infallible, Broken> {
        if let Some(client) = self.client {
            self.listen(client)?;
        }
        loop {
            while self.said.queued < self.said.bytes.len() {
                let rest = &self.said.bytes[self.said.queued..];
                let queued = to_peer.lend(rest.len(), |room| relay::copy(rest, room));
                self.said.queued += queued.map_err(|_| CUT)?;
                to_peer.flush().await.map_err(stream_broken)?;
            }
            if self.said.ended && !self.said.end_is_queued {
                to_peer.put_end().map_err(stream_broken)?;
                self.said.end_is_queued = true;
            }
            to_peer.flush().await.map_err(stream_broken)?;
            let Some(client) = self.client else {
                return std::future::pending().await;
            };
            while !self.listen(client)? {
                if self.said.ended || self.said.bytes.len() >= KEPT_MAX_BYTES {
                    return std::future::pending().await;
                }
                client.readable().await.map_err(|_| CLIENT_GONE)?;
            }
        }
    }

    /// Takes what the client has said by now; `true` if that is news.
    fn listen(&mut self, client: &TcpStream) -> Result<bool, Broken> {
        if self.said.ended || self.said.bytes.len() >= KEPT_MAX_BYTES {
            return Ok(false);
        }
        let room = READ_BYTES.min(KEPT_MAX_BYTES - self.said.bytes.len());
        let mut chunk = [0; READ_BYTES];
        match client.try_read(&mut chunk[..room]) {
            Ok(0) => self.said.ended = true,
            Ok(bytes) => self.said.bytes.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(_) => return Err(CLIENT_GONE),
        }
        Ok(true)
    }
}

/// Ends a stream that was turned away in good order, so that its connection can carry the next one.
pub(crate) async fn tidy(mut stream: Stream) {
    /// A peer that says no has nothing more to say.
    const PATIENCE: Duration = Duration::from_secs(1);
    let (mut from_peer, mut to_peer) = stream.split();
    let ending = async {
        // It may have been queued already.
        let _ = to_peer.put_end();
        if to_peer.flush().await.is_ok() {
            relay::discard(&mut from_peer).await;
        }
    };
    // The stream is dropped either way, and reset if it has not ended.
    let _ = tokio::time::timeout(PATIENCE, ending).await;
}

/// What ended the wait for an answer.
enum Broken {
    Client(Failure),
    Stream(Failure),
}

const CUT: Broken = Broken::Stream(Failure::TunnelCut);
const CLIENT_GONE: Broken = Broken::Client(Failure::ClientGone);

fn stream_broken(error: StreamError) -> Broken {
    Broken::Stream(error.failure())
}

/// An answer later than this makes us look at the path: three times what the path usually takes.
pub(crate) fn late_after(link: &dyn Link) -> Duration {
    const FLOOR: Duration = Duration::from_millis(300);
    link.stats().rtt.map_or(FLOOR, |rtt| (rtt * 3).max(FLOOR))
}

/// Resolves when nothing will come back on the link.
pub(crate) async fn gone(state: &mut tokio::sync::watch::Receiver<LinkState>) -> Failure {
    match state
        .wait_for(|state| matches!(state, LinkState::Dead | LinkState::Closed))
        .await
    {
        Ok(state) if *state == LinkState::Dead => Failure::PathDead,
        Ok(_) | Err(_) => Failure::Withdrawn,
    }
}

/// How long an attempt took, for the core.
pub(crate) fn accepted_after(began: Instant) -> Outcome {
    Outcome::Accepted {
        after: began.elapsed(),
    }
}
