//! Where words go and how they look: results to stdout, everything else to stderr.
//!
//! Colour never carries a meaning alone, and every glyph has a word to stand in for it where the locale is not
//! UTF-8. A reader that goes away, as in `corinth explain | head -1`, is not an error.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use crate::{exit::Exit, trouble::Trouble};

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal; NO_COLOR, CLICOLOR_FORCE and TERM=dumb are obeyed.
    #[default]
    Auto,
    Always,
    Never,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Warning,
    Bad,
    Skipped,
}

/// How words on one stream may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) is_coloured: bool,
    pub(crate) is_utf8: bool,
}

/// Both streams of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) stdout: Style,
    pub(crate) stderr: Style,
}

const RESET: &str = "\x1b[0m";

impl Colour {
    /// The same wish, for messages that clap writes.
    pub(crate) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

impl Terminal {
    pub(crate) fn detect(colour: Colour) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            stdout: Style::new(colour, io::stdout().is_terminal(), variable),
            stderr: Style::new(colour, io::stderr().is_terminal(), variable),
        }
    }

    /// Writes a result. Ends well when nobody reads any more.
    pub(crate) fn print(&self, text: &str) -> Result<(), Trouble> {
        self.print_on(text).map(|_| ())
    }

    /// The same, for those who have more to say: whether somebody still reads.
    pub(crate) fn print_on(&self, text: &str) -> Result<bool, Trouble> {
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Trouble::new(
                Exit::Internal,
                "the result could not be written to standard output",
                error,
                "check where the output goes: is the disk full?",
            )),
        }
    }

    /// Whether standard output is a screen on which lines can be written over.
    pub(crate) fn can_repaint(&self) -> bool {
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        io::stdout().is_terminal() && !is_dumb
    }

    /// Says something beside the result. Nobody may be listening.
    pub(crate) fn note(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Says what failed, why and what to do.
    pub(crate) fn complain(&self, trouble: &Trouble) {
        let style = self.stderr;
        let label = |text| style.strong(text);
        let lines = format!(
            "{} {}\n  {} {}\n   {} {}\n",
            style.paint("\x1b[1;31m", "error:"),
            trouble.what,
            label("why:"),
            trouble.why,
            label("do:"),
            trouble.remedy,
        );
        self.note(&lines);
    }
}

impl Style {
    fn new(colour: Colour, is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let is_coloured = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto if is_set("NO_COLOR") => false,
            Colour::Auto if is_set("CLICOLOR_FORCE") => {
                variable("CLICOLOR_FORCE").as_deref() != Some("0")
            }
            Colour::Auto => is_terminal && variable("TERM").as_deref() != Some("dumb"),
        };
        // The first one that is set decides (POSIX, "Environment Variables").
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let is_utf8 = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            is_coloured,
            is_utf8,
        }
    }

    /// The glyph of `mark`, or its word.
    pub(crate) fn glyph(self, mark: Mark) -> &'static str {
        match (mark, self.is_utf8) {
            (Mark::Good, true) => "✓",
            (Mark::Warning, true) => "!",
            (Mark::Bad, true) => "✗",
            (Mark::Skipped, true) => "–",
            (Mark::Good, false) => "ok",
            (Mark::Warning, false) => "warn",
            (Mark::Bad, false) => "FAIL",
            (Mark::Skipped, false) => "skip",
        }
    }

    /// [`Self::glyph`] in its colour.
    pub(crate) fn mark(self, mark: Mark) -> String {
        self.tint(mark, self.glyph(mark))
    }

    /// `text` in the colour of `mark`.
    pub(crate) fn tint(self, mark: Mark, text: &str) -> String {
        match mark {
            Mark::Good => self.paint("\x1b[32m", text),
            Mark::Warning => self.paint("\x1b[33m", text),
            Mark::Bad => self.paint("\x1b[31m", text),
            Mark::Skipped => self.paint("\x1b[2m", text),
        }
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.paint("\x1b[1m", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_coloured {
            format!("{code}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

/// `text` in place of whatever a screen shows now, without a moment in which it shows nothing.
pub(crate) fn repainted(text: &str) -> String {
    let lines = text.replace('\n', "\x1b[K\n");
    format!("\x1b[H{lines}\x1b[J")
}

/// Words of somebody else, on one line and without what would steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(colour: Colour, is_terminal: bool, variables: &[(&str, &str)]) -> Style {
        Style::new(colour, is_terminal, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn colour_follows_the_option_then_the_variables_then_the_terminal() {
        let coloured = |colour, is_terminal, variables: &[(&str, &str)]| {
            style(colour, is_terminal, variables).is_coloured
        };
        assert!(coloured(Colour::Auto, true, &[]));
        assert!(!coloured(Colour::Auto, false, &[]));
        assert!(!coloured(Colour::Auto, true, &[("TERM", "dumb")]));
        assert!(!coloured(Colour::Auto, true, &[("NO_COLOR", "1")]));
        assert!(coloured(Colour::Auto, true, &[("NO_COLOR", "")]));
        assert!(coloured(Colour::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!coloured(Colour::Auto, true, &[("CLICOLOR_FORCE", "0")]));
        let both = &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")];
        assert!(!coloured(Colour::Auto, true, both));
        assert!(coloured(Colour::Always, false, &[("NO_COLOR", "1")]));
        assert!(!coloured(Colour::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }

    #[test]
    fn a_repainted_screen_keeps_nothing_of_the_one_before() {
        let screen = repainted("one\n\ntwo\n");
        assert_eq!(screen, "\x1b[Hone\x1b[K\n\x1b[K\ntwo\x1b[K\n\x1b[J");
    }

    #[test]
    fn glyphs_need_a_locale_that_has_them() {
        let is_utf8 = |variables: &[(&str, &str)]| style(Colour::Never, true, variables).is_utf8;
        assert!(is_utf8(&[("LANG", "de_DE.UTF-8")]));
        assert!(is_utf8(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!is_utf8(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(is_utf8(&[("LC_ALL", ""), ("LANG", "de_DE.UTF-8")]));
        assert!(!is_utf8(&[]));
        let plain = style(Colour::Never, true, &[]);
        assert_eq!(plain.mark(Mark::Bad), "FAIL");
        let bright = style(Colour::Always, true, &[("LANG", "C.UTF-8")]);
        assert_eq!(bright.mark(Mark::Good), "\x1b[32m✓\x1b[0m");
    }
}
