//! Why a test could not be run at all. A test that ran and was cut short has a partial result instead.

use std::io;

/// What stood in the way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The test makes no sense.
    #[error("{0}")]
    Spec(String),
    /// The target is no address.
    #[error("{target} is no host and port: {reason}")]
    Target {
        /// As given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers.
    #[error("{target} cannot be reached: {source}; does `corinth-perf server` listen there?")]
    Unreachable {
        /// As given.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server said no.
    #[error("the server at {target} refuses: {reason}")]
    Refused {
        /// As given.
        target: String,
        /// Its words.
        reason: String,
    },
    /// Whoever answers does not speak as a server of ours does.
    #[error("{target} does not answer as a server of corinth-perf does: {reason}")]
    NoServer {
        /// As given.
        target: String,
        /// What was seen.
        reason: String,
    },
    /// This machine would not let us.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path holds no rate at all.
    #[error("no rate was found that the path holds: {0}")]
    NoKnee(String),
}

impl Error {
    /// Whether whoever asked has to ask differently.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Spec(_) | Self::Target { .. })
    }

    /// For what this machine refused, with what was tried.
    pub fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local {
            what: what.into(),
            source,
        }
    }
}
