//! Acts: takes connections in, asks the core what to do with them, carries them, records them.
//!
//! ```text
//! worker ── intake ──> session ── opening ──> transport ══ tunnel ══> peer
//!   │        (which service?)  (plan, attempts)                        │
//!   └─ tunnel_port ──> transport ── inbound ──> endpoint    relay / splice, then record
//! ```
//!
//! One thread and runtime per worker; a connection stays on the worker that accepted it. Everything that
//! decides is in corinth-core, everything that carries in corinth-transport; settings make both.
//!
//! What this crate never does: talk to Kubernetes, keep user bytes, trust a header for who somebody is, or
//! hold the core over an await.

mod app;
mod body;
mod control;
mod dialers;
mod feed;
mod flow;
mod greeting;
mod handover;
mod inbound;
mod intake;
mod keeper;
mod leaf;
mod limits;
mod listen;
mod node;
mod observe;
mod opening;
mod pages;
mod quic_keys;
mod record;
mod relay;
mod said;
mod session;
mod shared;
mod splice;
mod steering;
mod terminate;
mod transports;
mod tunnel_port;
mod wanted;
mod worker;

pub mod run;
pub mod settings;

pub use app::{Gateway, StartError, Surroundings};
pub use listen::{Door, ListenError, Listening};
pub use node::IdentityError;
pub use pages::{ControlPage, ControlRow, RefusedRow};
pub use quic_keys::QuicKeysError;
