//! Furniture of every binary: logging, metrics, admin server, readiness, drain, signals.
