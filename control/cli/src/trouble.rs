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
    pub(crate) cause: Cause,
}

/// What others may have to know of a trouble beyond its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This user may not ask.
    Forbidden,
    Other,
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
            cause: Cause::Other,
        }
    }

    /// This user may not ask.
    pub(crate) fn forbidden(
        what: impl Into<String>,
        why: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            cause: Cause::Forbidden,
            ..Self::new(Exit::Unreachable, what, why, remedy)
        }
    }

    /// Something that should not happen, whatever the user does.
    pub(crate) fn internal(what: impl Into<String>, why: impl fmt::Display) -> Self {
        let remedy = "try again; if it stays, report it with this message";
        Self::new(Exit::Internal, what, why, remedy)
    }
}
