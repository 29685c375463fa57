//! The corinth command.
