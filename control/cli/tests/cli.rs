//! The built binary, as people and scripts run it: each command, and what it says to wrong input.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod cli {
    mod alone;
    mod basics;
    mod bench;
    mod codes;
    mod config;
    mod control;
    mod demo;
    mod node;
    mod plane;
    mod state;
    mod support;
}
