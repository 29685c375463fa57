//! What control planes take: how long until an export can be used at a peer, and what a hundred thousand routes cost.
//!
//! ```text
//! propagation   five clusters, each a process with a control plane and a gateway; every tunnel goes through a relay
//!               in this process that gives it the round trip of a wide-area network
//! scale         one control plane and one gateway, each a process of its own; ten peers, played by this process, tell
//!               ten thousand services each
//! ```
//!
//! `cargo bench -p corinth-tests --bench control` runs both, `-- scale` one of them. It fails if a promise is not kept.
//! Nothing leaves loopback, and no privilege is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]

mod child;
mod cluster;
mod echo;
mod figures;
mod propagation;
mod relay;
mod role;
mod scale;
mod teller;

use std::process::ExitCode;

use figures::Figures;

fn main() -> ExitCode {
    if let Some(role) = role::ours() {
        role.play();
        return ExitCode::SUCCESS;
    }
    // `cargo bench` adds `--bench`.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    let runtime = role::runtime();
    let mut figures = Figures::default();
    if is_wanted("propagation") {
        runtime.block_on(propagation::measure(&mut figures));
    }
    if is_wanted("scale") {
        runtime.block_on(scale::measure(&mut figures));
    }
    for line in figures.lines() {
        println!("{line}");
    }
    if figures.is_missed() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
