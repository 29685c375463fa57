//! Exit codes: they tell "I found something wrong" from "I could not look".

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Internal,
    Usage,
    Unreachable,
    TimedOut,
    Partial,
    Found,
    Warned,
    Interrupted,
}

impl Exit {
    pub(crate) const ALL: &[Self] = &[
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::Unreachable,
        Self::TimedOut,
        Self::Partial,
        Self::Found,
        Self::Warned,
        Self::Interrupted,
    ];

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::Partial => 5,
            Self::Found => 10,
            Self::Warned => 11,
            Self::Interrupted => 130,
        }
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; what was looked at is well",
            Self::Internal => "an error that none of the others names",
            Self::Usage => "wrong usage: an unknown command, option, value or code",
            Self::Unreachable => "could not reach, or may not read, what was to be looked at",
            Self::TimedOut => "--wait ran out of time",
            Self::Partial => "partial answer: some did not answer, the rest is printed",
            Self::Found => {
                "looked, and found errors: a mistake in a configuration, a failed check, a step that is blocked"
            }
            Self::Warned => "looked, and found warnings, with --fail-on warning",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
