//! One line per change.
