//! Real packets through real devices in real namespaces. Each test has namespaces of its own; they run one by one,
//! since they look at the clock.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod carries;
mod cleans_up;
mod impairs;
mod lab;
