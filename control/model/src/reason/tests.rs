//! Codes are stable, unique and complete.
