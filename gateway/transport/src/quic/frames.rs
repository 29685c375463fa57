//! How what is said about a connection travels: in frames on one stream of each side, and probes in datagrams.
//!
//! A datagram waits for no credit. Streams that nobody reads may use up all that a connection has, and a path must not
//! count as dead for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::{sync::mpsc, time::timeout};

use super::datagram::{PROBE, Waiting};
use crate::{
    StreamError,
    datagram::Sent,
    tls::frame::{self, HEADER_BYTES, Kind},
};

/// What may wait to be sent. More waits only for a peer that asks and does not listen.
const OUTGOING_MAX_BYTES: usize = 4 << 10;
/// What is read at once.
const READ_BYTES: usize = 4 << 10;
/// The last frame has this long to leave.
const CLOSING: Duration = Duration::from_millis(500);

/// What the peer said, and how.
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    pub(super) way: Way,
}

/// How a frame travels. An answer goes back the way the question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Stream,
    Datagram,
}

/// The two control streams of one connection, and its probes.
pub(super) struct Control {
    waiting: Arc<Waiting>,
    send: SendStream,
    recv: RecvStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// `None` before anybody sorts datagrams.
    probes: Option<mpsc::Receiver<Bytes>>,
}

impl Control {
    pub(super) fn new(waiting: &Arc<Waiting>, send: SendStream, recv: RecvStream) -> Self {
        // What is said about the streams goes before what is said on them.
        let _ = send.set_priority(1);
        Self {
            waiting: Arc::clone(waiting),
            send,
            recv,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            probes: None,
        }
    }

    /// From now on probes are heard.
    pub(super) fn hear(&mut self, probes: mpsc::Receiver<Bytes>) {
        self.probes = Some(probes);
    }

    /// Sends a probe, or the answer to one, by the way that waits for nothing.
    pub(super) fn probe(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        let mut datagram = vec![PROBE];
        put(&mut datagram, kind, payload);
        match self.waiting.send_ahead(datagram.into()) {
            Sent::Queued { .. } => Ok(()),
            Sent::Ended => Err(StreamError::Cut),
            // A peer that takes none.
            Sent::TooLarge => self.put(kind, payload),
        }
    }

    /// Answers a probe the way it came.
    pub(super) fn answer(&mut self, way: Way, payload: &[u8]) -> Result<(), StreamError> {
        match way {
            Way::Stream => self.put(Kind::Pong, payload),
            Way::Datagram => self.probe(Kind::Pong, payload),
        }
    }

    /// Queues a frame; it is sent while [`Self::next`] waits.
    pub(super) fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        if self.outgoing.len() > OUTGOING_MAX_BYTES {
            return Err(StreamError::Protocol(
                "a peer that does not read its control stream",
            ));
        }
        put(&mut self.outgoing, kind, payload);
        Ok(())
    }

    /// Sends what is queued while it waits for what the peer says next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Said, StreamError> {
        loop {
            if let Some(said) = self.take()? {
                return Ok(said);
            }
            let Self {
                send,
                recv,
                outgoing,
                incoming,
                probes,
                ..
            } = self;
            tokio::select! {
                sent = send.write(outgoing), if !outgoing.is_empty() => {
                    let sent = sent.map_err(|_| StreamError::Cut)?;
                    outgoing.drain(..sent);
                }
                chunk = recv.read_chunk(READ_BYTES, true) => {
                    let chunk = chunk.map_err(|_| StreamError::Cut)?;
                    incoming.extend_from_slice(&chunk.ok_or(StreamError::Cut)?.bytes);
                }
                Some(datagram) = heard(probes) => return probe_in(&datagram),
            }
        }
    }

    /// The first whole frame of what has arrived.
    fn take(&mut self) -> Result<Option<Said>, StreamError> {
        while let Some((header, rest)) = self.incoming.split_first_chunk::<HEADER_BYTES>() {
            let header = frame::decode(*header).map_err(StreamError::Protocol)?;
            let Some(payload) = rest.get(..header.length) else {
                return Ok(None);
            };
            let payload = payload.to_vec();
            self.incoming.drain(..HEADER_BYTES + header.length);
            if let Some(kind) = header.kind {
                return Ok(Some(Said {
                    kind,
                    payload,
                    way: Way::Stream,
                }));
            }
        }
        Ok(None)
    }

    /// Says that the connection is done with; whether it arrives changes nothing.
    pub(super) async fn close(mut self) -> Result<(), StreamError> {
        put(&mut self.outgoing, Kind::Close, &[]);
        let _ = timeout(CLOSING, self.send.write_all(&self.outgoing)).await;
        Ok(())
    }
}

async fn heard(probes: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match probes {
        Some(probes) => probes.recv().await,
        None => None,
    }
}

/// The probe in a datagram.
fn probe_in(datagram: &[u8]) -> Result<Said, StreamError> {
    const WRONG: StreamError = StreamError::Protocol("a datagram that is no probe and says it is");
    let frame = datagram.get(1..).and_then(<[u8]>::split_first_chunk);
    let (header, payload) = frame.ok_or(WRONG)?;
    let header = frame::decode(*header).map_err(StreamError::Protocol)?;
    match header.kind {
        Some(kind @ (Kind::Ping | Kind::Pong)) if payload.len() == header.length => Ok(Said {
            kind,
            payload: payload.to_vec(),
            way: Way::Datagram,
        }),
        Some(_) | None => Err(WRONG),
    }
}

pub(super) fn put(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.extend_from_slice(&frame::encode(kind, payload.len(), 0));
    out.extend_from_slice(payload);
}
