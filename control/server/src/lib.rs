//! The control plane of one cluster: knows what it exports, learns what its peers export, and tells its gateways.
//!
//! ```text
//! declarations ──> index ──> own exports ──┬──> journal ──> peering ══ tunnel ══> peers
//!  (cluster seam)                          │                   │
//!                                          └──> merge <── held ┘ what peers offer, within what is accepted
//!                                                 └──> tables ──> routes ──> gateways
//! ```
//!
//! Deciding is pure and takes time as an argument: `index`, `peering::{journal, held, session, damping}`, `tables`.
//! The rest carries out: files, sockets, gRPC. Streams to peers come through the cluster's own gateways, which hand them
//! over; this process is never reached from outside.
//!
//! What it never does: touch a byte of a user, remove a route because somebody is silent, believe a peer beyond what
//! its link accepts, or keep state anywhere but in its state directory.

mod app;
mod observe;

pub mod admin;
pub mod cluster;
pub mod conditions;
pub mod exchange;
pub mod handover;
pub mod identity;
pub mod index;
pub mod keep;
pub mod link;
pub mod peering;
pub mod plane;
pub mod routes;
pub mod run;
pub mod settings;
pub mod status;
pub mod tables;
pub mod trust;

pub use app::{ControlPlane, StartError};
