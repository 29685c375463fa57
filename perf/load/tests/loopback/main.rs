//! Client and server on one machine, with and without a gateway between them. Nothing here depends on how fast the
//! machine is.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod breaks;
mod carries;
mod fixture;
mod gateway;
mod meters;
mod refuses;
