//! Why a command could not do what it was asked, in three lines: what failed, why, what to do.

use std::fmt;

use crate::exit::Exit;

/// Why a command could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) exit: Exit,
    /// What failed.
    pub(crate) what: String,
    /// What was observed.
    pub(crate) why: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Trouble {
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            what: what.into(),
            why: why.to_string(),
            remedy: remedy.into(),
        }
    }

    /// Something that should not happen, whatever the user does.
    pub(crate) fn internal(what: impl Into<String>, why: impl fmt::Display) -> Self {
        let remedy = "try again; if it stays, report it with this message";
        Self::new(Exit::Internal, what, why, remedy)
    }
}
