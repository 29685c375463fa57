//! Why there is no network, or none any more.

use std::{io, time::Duration};

use thiserror::Error;

use crate::{Direction, NoChange, Nonsense};

/// Why there is no network, or none any more.
#[derive(Debug, Error)]
pub enum Fault {
    /// The effective user is not root.
    #[error("making network namespaces and TUN devices needs root; run this with sudo")]
    NotRoot,
    /// A value makes no sense.
    #[error("{}: {nonsense}", name_of(*direction))]
    Nonsense {
        /// Whose.
        direction: Direction,
        /// What is wrong.
        nonsense: Nonsense,
    },
    /// A step of the timeline would do nothing.
    #[error("the change at {at:?}: {why}")]
    Step {
        /// When.
        at: Duration,
        /// Why.
        why: NoChange,
    },
    /// A name that cannot be one.
    #[error("`{name}` is no name for {what}: {rule}")]
    Name {
        /// What was given.
        name: String,
        /// For what.
        what: &'static str,
        /// How a name is.
        rule: &'static str,
    },
    /// Both sides are the same.
    #[error("both sides are `{0}`; a path leads from one namespace to another")]
    SameNamespace(String),
    /// The sides could not reach each other.
    #[error("{0} and {1} are not in one network")]
    Addresses(String, String),
    /// The device's MTU.
    #[error("a device cannot have an MTU of {0} bytes: 1280, which IPv6 needs, to 65535")]
    DeviceMtu(u32),
    /// netem was asked for and cannot do it.
    #[error("netem cannot carry this: {0}")]
    Netem(String),
    /// A program is missing.
    #[error("`{program}` cannot be started: {source}; install the Debian package iproute2")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program refused.
    #[error("`{command}` failed: {said}")]
    Refused {
        /// With its arguments.
        command: String,
        /// What it printed.
        said: String,
    },
    /// A namespace cannot be entered.
    #[error("entering the network namespace `{name}`: {source}")]
    Enter {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// No TUN device.
    #[error(
        "making the TUN device `{device}` in the namespace `{namespace}`: {source}; is /dev/net/tun there, and the \
         name free?"
    )]
    Device {
        /// Its name.
        device: String,
        /// Where.
        namespace: String,
        /// Why.
        source: io::Error,
    },
    /// A running path broke.
    #[error("{} broke: {said}", name_of(*direction))]
    Broken {
        /// Which way.
        direction: Direction,
        /// Why.
        said: String,
    },
    /// Something of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Fault {
    /// Whether the fault is in what was asked for, not in the machine.
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Nonsense { .. }
            | Self::Step { .. }
            | Self::Name { .. }
            | Self::SameNamespace(_)
            | Self::Addresses(..)
            | Self::DeviceMtu(_) => true,
            Self::NotRoot
            | Self::Netem(_)
            | Self::NoProgram { .. }
            | Self::Refused { .. }
            | Self::Enter { .. }
            | Self::Device { .. }
            | Self::Broken { .. }
            | Self::System { .. } => false,
        }
    }

    /// What a program said that refused; else all of it.
    pub(crate) fn said(&self) -> String {
        if let Self::Refused { said, .. } = self {
            return said.clone();
        }
        self.to_string()
    }

    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

const fn name_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Back => "back",
    }
}
