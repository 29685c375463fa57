//! Labs: builders for the tests that span crates.
