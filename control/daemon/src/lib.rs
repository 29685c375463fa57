//! Furniture of every binary: what a process needs around its actual work.
//!
//! [`logging`] and [`access_log`] say what happened, [`metrics`] counts it, [`ready`] and [`drain`] hold where the
//! process is in its life, [`signals`] moves it along, [`notify`] tells the supervisor, and [`admin`] shows all of it
//! on a loopback address. [`disk`] replaces files whole,
//! [`background`] does what may wait, and [`yaml`] reads the files that people write.
//!
//! The flow is one way: the binary registers tasks, metrics and pages, then serves; signals flip readiness and drain;
//! the admin server only reads (the log level is the one thing it writes).
//!
//! This crate never looks at a route, a peer or a byte of user traffic, never listens on anything but loopback, and
//! never makes a caller on the data path wait for a log, a scrape or a supervisor.

pub mod access_log;
pub mod admin;
pub mod background;
pub mod disk;
pub mod drain;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod ready;
pub mod signals;
pub mod yaml;
