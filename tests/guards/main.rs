//! What the repository promises about itself, checked by reading it: which crate may use which, what the pure
//! crates pull in, versions we must not fall below, documents that agree with the code, files that stay short.
//!
//! No test here runs anything of Corinth or needs a network. A failure lists every place and says what to do.

mod arrows;
mod documents;
mod layout;
mod repository;
mod source;
mod versions;

/// Fails with all of `faults` and what to do about them.
fn assert_none(faults: &[String], remedy: &str) {
    assert!(faults.is_empty(), "\n  {}\n{remedy}\n", faults.join("\n  "));
}
