//! `corinth version`.

use corinth_daemon::metrics::Build;
use serde::Serialize;

use crate::{
    args::VersionArgs,
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Style, Terminal},
    trouble::Trouble,
};

/// What this program is.
pub(crate) const BUILD: Build = Build {
    binary: "corinth",
    version: env!("CARGO_PKG_VERSION"),
};

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

impl Item for Version {
    const KIND: &'static str = "Version";
    const HEADERS: &'static [&'static str] = &[];

    fn rows(&self, _: Style) -> Vec<Vec<Cell>> {
        vec![vec![Cell::plain(format!("{} {}", self.name, self.version))]]
    }

    fn name(&self) -> String {
        self.version.to_owned()
    }
}

pub(crate) fn version(terminal: &Terminal, args: &VersionArgs) -> Result<Exit, Trouble> {
    let version = Version {
        name: BUILD.binary,
        version: BUILD.version,
    };
    Listing::whole(vec![version]).print(terminal, args.output)?;
    Ok(Exit::Done)
}
