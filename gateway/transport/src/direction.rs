//! How far each direction of a stream has come, the same over every transport.

/// The direction from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// More may come.
    Open,
    /// It ended well.
    Ended,
    /// It was cut.
    Broken,
}

/// The direction to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// More may be sent.
    Open,
    /// The end was put; what is queued may still wait for its flush.
    Ended,
    /// It was cut.
    Broken,
}
