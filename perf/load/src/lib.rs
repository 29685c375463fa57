//! Loads a path and tells the truth about it.
//!
//! For whoever wants to know what a gateway costs: `corinth-perf server|client`, `corinth bench`, and the campaigns
//! that compare gateways. It never starts a gateway, never changes the machine, and never reports a figure it could
//! not measure: what is missing is missing, not zero.
//!
//! A client tells the server over a control connection ([`wire`]) what it is going to do ([`spec`]); both then run
//! one workload on data connections and count ([`count`]), and the client joins both sides' counts, what it cost
//! ([`cost`]) and the state of the machine ([`environment`]) into one [`result`]. Control and data connections reach
//! the same port of the server: the first bytes of each tell which it is, so that a gateway that maps a single port
//! can be measured.

pub mod client;
pub mod cost;
pub mod count;
pub mod datagram;
pub mod environment;
pub mod error;
pub mod exchange;
pub mod flow;
pub mod gap;
pub mod gate;
pub mod knee;
pub mod latency;
pub mod netlink;
pub mod pattern;
pub mod response;
pub mod result;
pub mod role;
pub mod schedule;
pub mod seen;
pub mod server;
pub mod socket;
pub mod spec;
pub mod stream;
pub mod url;
pub mod wire;

pub use error::Error;
pub use result::TestResult;
pub use spec::TestSpec;
