//! Services over UDP between gateways on loopback.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod carries;
mod drains;
mod ends;
mod limits;
mod node;
