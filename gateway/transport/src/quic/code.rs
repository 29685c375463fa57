//! Our failures in QUIC's error codes, and QUIC's errors as ours.

use corinth_model::{Failure, Reason};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::StreamError;

/// The number of a failure's code, which RESET_STREAM and STOP_SENDING carry: 27 for `CRN027`.
pub(super) fn code_of(failure: Failure) -> VarInt {
    let digits = failure
        .code()
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    VarInt::from_u32(digits.parse().unwrap_or(0))
}

/// The failure a number means, if it is one that we know.
pub(super) fn known_failure_of(code: VarInt) -> Option<Failure> {
    match Reason::from_code(&format!("CRN{:03}", code.into_inner())) {
        Some(Reason::Failed(failure)) => Some(failure),
        Some(Reason::Completed | Reason::Refused(_)) | None => None,
    }
}

/// The failure a number means; one that we do not know is still a reset by the peer.
fn failure_of(code: VarInt) -> Failure {
    known_failure_of(code).unwrap_or(Failure::PeerReset)
}

pub(super) fn read_failed(error: ReadError) -> StreamError {
    match error {
        ReadError::Reset(code) => StreamError::Reset(failure_of(code)),
        ReadError::ConnectionLost(error) => lost(&error),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            StreamError::Cut
        }
    }
}

pub(super) fn write_failed(error: WriteError) -> StreamError {
    match error {
        WriteError::Stopped(code) => StreamError::Reset(failure_of(code)),
        WriteError::ConnectionLost(error) => lost(&error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::Cut,
    }
}

/// What a connection that ended means for what was open on it.
pub(super) fn lost(error: &ConnectionError) -> StreamError {
    match error {
        ConnectionError::TransportError(_) => {
            StreamError::Protocol("what the peer sent is not QUIC as it is specified")
        }
        // A stream that is open when its connection ends is cut for the same reason.
        ConnectionError::ApplicationClosed(close) => match known_failure_of(close.error_code) {
            Some(failure) => StreamError::Reset(failure),
            None => StreamError::Cut,
        },
        ConnectionError::VersionMismatch
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => StreamError::Cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_number_and_comes_back_from_it() {
        for failure in Failure::ALL.iter().copied() {
            assert_eq!(failure_of(code_of(failure)), failure);
        }
    }

    #[test]
    fn a_number_that_is_no_failure_is_a_reset() {
        for code in [0, 1, 999, u64::from(u32::MAX)] {
            let code = VarInt::from_u64(code).unwrap();
            assert_eq!(failure_of(code), Failure::PeerReset);
        }
    }
}
