//! Gateways that follow a control plane, which is played by the test.

mod applies;
mod fixture;
mod hands_over;
mod withdraws;
