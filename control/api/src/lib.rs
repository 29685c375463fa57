//! The wire: what gateways write to each other, and the validation of everything foreign.
//!
//! The protocol files under `proto/` say what travels, `src/gen/` holds the code generated from them and stays private
//! here. Each conversation has one module that turns wire messages into types of the model and back:
//!
//! ```text
//! bytes ── length ── protobuf ── every field checked ──> model types ──> protobuf ──> bytes
//! ```
//!
//! A value that leaves `decode` needs no second check. What this crate never does: read a socket or a clock, decide who
//! may do what, or echo a peer's raw bytes in an error.

mod flow;
mod handover;
mod host_port;
pub mod identity;
pub mod link;
pub mod peering;
mod routes;
mod tunnel;

pub use flow::{DATAGRAM_MAX_BYTES, FlowError, FlowFrame, FlowFrames, FlowNumber};
pub use handover::{HAND_OVER_MAX_BYTES, HandOver, HandOverError};
pub use host_port::{Host, HostPort, HostPortError};
pub use routes::{
    ADDRESSES_MAX, CLOSED_MAX, ClosedPort, Entry, EntryKey, LINKS_MAX, LinkReport, LinkState,
    LinkedPeer, MEMBERS_MAX, ROOT_MAX_BYTES, ROOTS_MAX, ROUTES_MESSAGE_MAX_BYTES, Report,
    RoutesError, SNI_NAMES_MAX, Update, WORDS_MAX_BYTES,
};
pub use tunnel::{
    DEADLINE_MAX, HEADER_MAX_BYTES, HeaderError, REFUSAL_MESSAGE_MAX_BYTES, SourceClaim,
    StreamKind, StreamOpen, StreamReply, Traceparent, WORKLOAD_MAX_BYTES, WorkloadName,
};

/// Messages and services as the code generator writes them. A message of somebody else is not to be believed before
/// the module of its conversation has turned it into types of the model.
pub mod wire {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::use_self,
        clippy::or_fun_call,
        clippy::wildcard_enum_match_arm
    )]

    pub mod admin {
        include!("gen/corinth.admin.v1.rs");
    }
    pub mod identity {
        include!("gen/corinth.identity.v1.rs");
    }
    pub mod link {
        include!("gen/corinth.link.v1.rs");
    }
    pub mod peering {
        include!("gen/corinth.peering.v1.rs");
    }
    pub mod routes {
        include!("gen/corinth.routes.v1.rs");
    }
    pub(crate) mod tunnel {
        include!("gen/corinth.tunnel.v1.rs");
    }
}
