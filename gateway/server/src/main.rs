//! The gateway of one cluster.
fn main() {}
