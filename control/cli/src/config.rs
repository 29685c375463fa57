//! `corinth config`: every mistake of a configuration before a gateway sees it.

use std::path::Path;

use corinth_control::settings::{Settings as ControlSettings, SettingsError};
use corinth_gateway::settings::{self, Mistake, Mistakes, Settings, read_file};
use serde::Serialize;

use crate::{
    args::{ConfigArgs, ConfigCommand},
    exit::Exit,
    output::{Cell, Format, Item, Listing, OutputArgs},
    terminal::{Mark, Style, Terminal},
    trouble::Trouble,
};

/// One configuration and what is wrong with it.
#[derive(Serialize)]
struct Report {
    file: String,
    valid: bool,
    mistakes: Vec<Mistake>,
    /// The same for people.
    #[serde(skip)]
    text: String,
}

impl Report {
    fn of(path: &Path, checked: Result<(), Mistakes>) -> Self {
        let (mistakes, text) = match checked {
            Ok(()) => (Vec::new(), String::new()),
            Err(mistakes) => (mistakes.iter().cloned().collect(), format!("{mistakes}\n")),
        };
        Self {
            file: path.display().to_string(),
            valid: mistakes.is_empty(),
            mistakes,
            text,
        }
    }

    fn verdict(&self, style: Style) -> String {
        let (mark, words) = match self.mistakes.len() {
            0 => (Mark::Good, "can be used".to_owned()),
            1 => (Mark::Bad, "1 mistake".to_owned()),
            count => (Mark::Bad, format!("{count} mistakes")),
        };
        format!("{} {}: {words}\n", style.mark(mark), self.file)
    }
}

impl Item for Report {
    const KIND: &'static str = "ConfigReports";
    const HEADERS: &'static [&'static str] = &["FILE", "MISTAKES"];

    fn rows(&self, _: Style) -> Vec<Vec<Cell>> {
        vec![vec![
            Cell::plain(&self.file),
            Cell::plain(self.mistakes.len()),
        ]]
    }

    fn name(&self) -> String {
        self.file.clone()
    }
}

pub(crate) fn config(terminal: &Terminal, args: &ConfigArgs) -> Result<Exit, Trouble> {
    match &args.command {
        ConfigCommand::Validate { files, output } => validate(terminal, files, *output),
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&settings::schema())
                .map_err(|error| Trouble::internal("the schema could not be written", error))?;
            terminal.print(&(schema + "\n"))?;
            Ok(Exit::Done)
        }
        ConfigCommand::Example => {
            terminal.print(settings::example())?;
            Ok(Exit::Done)
        }
    }
}

fn validate(
    terminal: &Terminal,
    files: &[impl AsRef<Path>],
    output: OutputArgs,
) -> Result<Exit, Trouble> {
    let mut listing = Listing::whole(Vec::new());
    let mut unread = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        match read(path) {
            Ok(text) => listing.items.push(Report::of(path, check(&text, path))),
            Err(trouble) => {
                listing
                    .errors
                    .push(format!("{}: {}", trouble.what, trouble.why));
                unread.push(trouble);
            }
        }
    }
    if output.output == Format::Table {
        for report in &listing.items {
            terminal.print(&format!(
                "{}{}",
                report.text,
                report.verdict(terminal.stdout)
            ))?;
        }
    } else {
        listing.print(terminal, output)?;
    }
    for trouble in &unread {
        terminal.complain(trouble);
    }
    if listing.items.iter().any(|report| !report.valid) {
        Ok(Exit::Found)
    } else if unread.is_empty() {
        Ok(Exit::Done)
    } else {
        Ok(Exit::Unreachable)
    }
}

/// The configuration of a node.
pub(crate) enum NodeSettings {
    /// Of its gateway, beside which a control plane may run in the same process.
    Gateway(Box<Settings>),
    /// Of a control plane that is a process of its own.
    Control(Box<ControlSettings>),
}

/// Why a configuration is none.
pub(crate) enum NodeMistakes {
    Gateway(Mistakes),
    Control(SettingsError),
}

impl NodeSettings {
    /// Reads the text of the file at `path`, which is a gateway's if it can be either: both then say the same.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, NodeMistakes> {
        let mistakes = match Settings::parse(text, path) {
            Ok(settings) => return Ok(Self::Gateway(Box::new(settings))),
            Err(mistakes) => mistakes,
        };
        match ControlSettings::parse(text, path) {
            Ok((settings, _)) => Ok(Self::Control(Box::new(settings))),
            Err(error) if ControlSettings::is_meant(text) => Err(NodeMistakes::Control(error)),
            Err(_) => Err(NodeMistakes::Gateway(mistakes)),
        }
    }
}

/// The settings of a configuration, for a command that needs them.
pub(crate) fn usable(path: &Path) -> Result<NodeSettings, Trouble> {
    let text = read(path)?;
    NodeSettings::parse(&text, path).map_err(|mistakes| match mistakes {
        NodeMistakes::Gateway(mistakes) => wrong(path, &mistakes),
        NodeMistakes::Control(error) => Trouble::new(
            Exit::Found,
            format!("{} cannot be used", path.display()),
            error,
            "correct the file; corinth-control reads the same one",
        ),
    })
}

pub(crate) fn wrong(path: &Path, mistakes: &Mistakes) -> Trouble {
    Trouble::new(
        Exit::Found,
        format!("{} cannot be used", path.display()),
        mistakes,
        "correct the file; `corinth config validate FILE` tells whether nothing is left",
    )
}

/// The text of a configuration; what is not UTF-8 stays as a mark that no key or value can hold.
pub(crate) fn read(path: &Path) -> Result<String, Trouble> {
    let bytes = read_file(path).map_err(|error| {
        Trouble::new(
            Exit::Unreachable,
            format!("the configuration {} cannot be read", path.display()),
            error,
            "check the path and who may read the file; `corinth config example` prints a beginning",
        )
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is wrong with the text, or else with the files that it names.
fn check(text: &str, path: &Path) -> Result<(), Mistakes> {
    Settings::parse(text, path)?.load(read_file).map(drop)
}
