//! The `corinth` command.
fn main() {}
