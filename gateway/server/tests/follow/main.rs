//! Gateways that follow a control plane, which is played by the test.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod applies;
mod certified;
mod fixture;
mod hands_over;
mod withdraws;
