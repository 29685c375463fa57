//! Asks a control plane, over the socket that only its owner may open.
//!
//! ```text
//! --control, --config ── place ──> socket ── client ──> answer ── view ──> what a command shows
//! ```

mod client;
mod place;
mod view;

#[cfg(test)]
pub(crate) mod testing;

pub(crate) use client::{Client, Control, act, ask_each};
pub(crate) use place::{Place, place, places};
pub(crate) use view::{
    Candidate, Certificate, Condition, Consumer, Export, Import, Link, Route, Status, Target,
};
