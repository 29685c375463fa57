//! The control plane as a process.

fn main() {}
