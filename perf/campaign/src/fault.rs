//! Why something could not be measured.

use std::{io, path::PathBuf};

/// Why something could not be measured. A line that a person can act on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Namespaces are for root.
    #[error("network namespaces need root")]
    NotRoot,
    /// A program is not on this machine.
    #[error("{program} is not installed ({how})")]
    NotInstalled {
        /// What was looked for.
        program: String,
        /// Where it comes from.
        how: String,
    },
    /// A command that must succeed did not.
    #[error("`{command}`: {said}")]
    Command {
        /// With its arguments.
        command: String,
        /// On standard error, or how it ended.
        said: String,
    },
    /// A process that must run has ended.
    #[error("{name} ended ({how}): {said}")]
    Ended {
        /// Which one.
        name: String,
        /// Its exit status.
        how: String,
        /// Its last lines.
        said: String,
    },
    /// A process did not become ready.
    #[error("{name} was not ready within {seconds} s: {said}")]
    NotReady {
        /// Which one.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// Its last lines.
        said: String,
    },
    /// A load gave nothing that may be counted.
    #[error("{0}")]
    NoFigure(String),
    /// The kernel does not do as told.
    #[error("{0}")]
    Machine(String),
    /// Something about a file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What about it.
        error: io::Error,
    },
    /// Certificates could not be made.
    #[error("making certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
}

impl Fault {
    /// For `map_err` on what is done to a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
