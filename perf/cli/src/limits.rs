//! What every measurement may be asked for at most.

/// Nobody waits longer.
pub(crate) const ROUNDS_MAX: i64 = 100;
/// Nobody waits longer.
pub(crate) const SECONDS_MAX: i64 = 600;
/// A round trip that is farther than any on Earth.
pub(crate) const ROUND_TRIP_MAX_MS: i64 = 2_000;
