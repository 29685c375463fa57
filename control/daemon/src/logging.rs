//! Log lines on stderr, and the handle that changes how many of them while the process runs.
//!
//! A directive is a default level and levels for parts of the program: `info,corinth_gateway=debug,hyper=warn`.
//! What the directive does not name is at the default; without a default it is off. The parser is strict, because a
//! mistyped level that is silently taken for a target switches everything off.

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

/// Longest directive taken, in bytes; room for dozens of targets.
pub const DIRECTIVE_MAX_BYTES: usize = 1024;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: coloured where stderr is a terminal and `NO_COLOR` is not set.
    #[default]
    Text,
    /// One JSON object per line, fields of the event at the top.
    Json,
}

/// The level of a running process; clones change the same one.
#[derive(Clone, Debug)]
pub struct LogLevel {
    shared: Arc<Shared>,
}

/// A level that was set for a while; [`LogLevel::revert`] takes it back.
#[derive(Debug)]
#[must_use = "without it the level stays until someone sets another"]
pub struct TemporaryLevel {
    revision: u64,
}

/// Why a log level was not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LoggingError {
    /// Nothing between two commas, or nothing at all.
    #[error("empty log directive; write for example `info,corinth_gateway=debug`")]
    Empty,
    /// More than [`DIRECTIVE_MAX_BYTES`].
    #[error("log directive longer than {DIRECTIVE_MAX_BYTES} bytes")]
    TooLong,
    /// Not one of the six levels.
    #[error(
        "{0:?} is not a log level; write error, warn, info, debug, trace or off, or target=level"
    )]
    Level(String),
    /// A target that is not a module path.
    #[error("{0:?} is not a log target; write a module path such as corinth_gateway::session")]
    Target(String),
    /// Two default levels.
    #[error("more than one default level; write one and name targets for the rest")]
    TwoDefaults,
    /// Not `text` or `json`.
    #[error("{0:?} is not a log format; write text or json")]
    Format(String),
    /// Logging was set up before in this process.
    #[error("logging is already set up in this process")]
    AlreadySet,
    /// The subscriber this handle changes is gone.
    #[error("logging of this process has ended")]
    Gone,
}

#[derive(Debug)]
struct Shared {
    filter: reload::Handle<Targets, Registry>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What holds when nothing temporary does.
    lasting: String,
    current: String,
    /// Counts changes, so that a late revert does not undo a newer choice.
    revision: u64,
}

/// Starts logging to stderr at `directive`, for the whole process. Fails on a bad directive and when called twice.
pub fn init(directive: &str, format: LogFormat) -> Result<LogLevel, LoggingError> {
    let (subscriber, level) = subscriber(directive, format, io::stderr, wants_colour())?;
    subscriber::set_global_default(subscriber).map_err(|_| LoggingError::AlreadySet)?;
    Ok(level)
}

impl LogLevel {
    /// Sets the level from now on.
    pub fn set(&self, directive: &str) -> Result<(), LoggingError> {
        self.change(directive, |state, directive| state.lasting = directive)
            .map(drop)
    }

    /// Sets the level until [`Self::revert`] is called with what this returns.
    pub fn set_temporarily(&self, directive: &str) -> Result<TemporaryLevel, LoggingError> {
        let revision = self.change(directive, |_, _| {})?;
        Ok(TemporaryLevel { revision })
    }

    /// Returns to the last lasting level; `false` if someone has set another level since.
    pub fn revert(&self, level: TemporaryLevel) -> bool {
        let mut state = self.shared.state.lock();
        if state.revision != level.revision {
            return false;
        }
        let Ok(targets) = parse(&state.lasting) else {
            return false;
        };
        state.current = state.lasting.clone();
        self.shared.filter.reload(targets).is_ok()
    }

    /// The directive in force.
    pub fn current(&self) -> String {
        self.shared.state.lock().current.clone()
    }

    fn change(
        &self,
        directive: &str,
        keep: impl FnOnce(&mut State, String),
    ) -> Result<u64, LoggingError> {
        let directive = directive.trim();
        let targets = parse(directive)?;
        let mut state = self.shared.state.lock();
        self.shared
            .filter
            .reload(targets)
            .map_err(|_| LoggingError::Gone)?;
        state.current = directive.to_owned();
        state.revision += 1;
        keep(&mut state, directive.to_owned());
        Ok(state.revision)
    }
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format(shortened(other))),
        }
    }
}

/// Checks a directive without using it, for configuration that is read before logging starts.
pub fn check_directive(directive: &str) -> Result<(), LoggingError> {
    parse(directive.trim()).map(drop)
}

/// A subscriber that writes to `writer`, and the handle to its level.
fn subscriber<W>(
    directive: &str,
    format: LogFormat,
    writer: W,
    colour: bool,
) -> Result<(impl Subscriber + Send + Sync, LogLevel), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let directive = directive.trim();
    let (filter, handle) = reload::Layer::new(parse(directive)?);
    let lines = match format {
        LogFormat::Text => fmt::layer().with_ansi(colour).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
    };
    let state = State {
        lasting: directive.to_owned(),
        current: directive.to_owned(),
        revision: 0,
    };
    let level = LogLevel {
        shared: Arc::new(Shared {
            filter: handle,
            state: Mutex::new(state),
        }),
    };
    Ok((Registry::default().with(filter).with(lines), level))
}

fn parse(directive: &str) -> Result<Targets, LoggingError> {
    if directive.len() > DIRECTIVE_MAX_BYTES {
        return Err(LoggingError::TooLong);
    }
    let mut default = None;
    let mut targets = Targets::new();
    for part in directive.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(LoggingError::Empty);
        }
        match part.split_once('=') {
            Some((target, level)) => {
                targets = targets.with_target(parse_target(target.trim())?, parse_level(level)?);
            }
            None if default.is_some() => return Err(LoggingError::TwoDefaults),
            None => default = Some(parse_level(part)?),
        }
    }
    Ok(targets.with_default(default.unwrap_or(LevelFilter::OFF)))
}

fn parse_level(level: &str) -> Result<LevelFilter, LoggingError> {
    let names = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let level = level.trim();
    names
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(level))
        .map(|(_, filter)| filter)
        .ok_or_else(|| LoggingError::Level(shortened(level)))
}

fn parse_target(target: &str) -> Result<&str, LoggingError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte);
    if target.is_empty() || !target.bytes().all(plain) {
        return Err(LoggingError::Target(shortened(target)));
    }
    Ok(target)
}

/// The first 64 characters of what someone wrote, enough to find the mistake.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn wants_colour() -> bool {
    // Any value but the empty one asks for plain text (no-color.org).
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use tracing::{debug, info};

    use super::*;

    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A subscriber for one thread, its level and what it wrote.
    pub(crate) fn logging(
        directive: &str,
        format: LogFormat,
    ) -> (subscriber::DefaultGuard, LogLevel, Lines) {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, level) =
            subscriber(directive, format, move || writer.clone(), false).unwrap();
        (subscriber::set_default(subscriber), level, lines)
    }

    fn chatter() {
        info!(target: "corinth_gateway::session", "an info");
        debug!(target: "corinth_gateway::session", "a detail");
        info!(target: "hyper", "another's info");
    }

    fn heard(lines: &Lines) -> Vec<&'static str> {
        let text = lines.take();
        let said = ["an info", "a detail", "another's info"];
        said.into_iter()
            .filter(|said| text.contains(said))
            .collect()
    }

    #[test]
    fn a_new_level_takes_effect_at_once() {
        let (_guard, level, lines) = logging("warn", LogFormat::Text);
        chatter();
        assert!(heard(&lines).is_empty());
        level.set(" off,corinth_gateway=debug ").unwrap();
        assert_eq!(level.current(), "off,corinth_gateway=debug");
        chatter();
        assert_eq!(heard(&lines), ["an info", "a detail"]);
        level.set("INFO").unwrap();
        chatter();
        assert_eq!(heard(&lines), ["an info", "another's info"]);
        level.set("trace,corinth_gateway::session=off").unwrap();
        chatter();
        assert_eq!(heard(&lines), ["another's info"]);
    }

    #[test]
    fn a_bad_level_changes_nothing() {
        let (_guard, level, lines) = logging("info", LogFormat::Text);
        level.set("inof").unwrap_err();
        level.set("off,x=loud").unwrap_err();
        assert_eq!(level.current(), "info");
        chatter();
        assert_eq!(heard(&lines), ["an info", "another's info"]);
    }

    #[test]
    fn mistakes_are_named() {
        let long = format!("info,{}=debug", "a".repeat(DIRECTIVE_MAX_BYTES));
        let cases = [
            ("", LoggingError::Empty),
            ("info,,hyper=off", LoggingError::Empty),
            ("inof", LoggingError::Level("inof".to_owned())),
            ("hyper=", LoggingError::Level(String::new())),
            ("hyper=5\n", LoggingError::Level("5".to_owned())),
            ("=debug", LoggingError::Target(String::new())),
            ("a b=debug", LoggingError::Target("a b".to_owned())),
            ("[span]=debug", LoggingError::Target("[span]".to_owned())),
            ("info,debug", LoggingError::TwoDefaults),
            (&long, LoggingError::TooLong),
        ];
        for (directive, error) in cases {
            assert_eq!(check_directive(directive), Err(error), "{directive}");
        }
        check_directive("info, corinth_gateway::relay = trace").unwrap();
        let error = LoggingError::Level("a\u{1b}[2J".to_owned());
        assert!(!error.to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_temporary_level_returns_to_the_lasting_one() {
        let (_guard, level, _lines) = logging("info", LogFormat::Text);
        let first = level.set_temporarily("debug").unwrap();
        let second = level.set_temporarily("trace").unwrap();
        assert!(!level.revert(first));
        assert_eq!(level.current(), "trace");
        assert!(level.revert(second));
        assert_eq!(level.current(), "info");
        let third = level.set_temporarily("debug").unwrap();
        level.set("warn").unwrap();
        assert!(!level.revert(third));
        assert_eq!(level.current(), "warn");
    }

    #[test]
    fn json_lines_carry_fields_at_the_top() {
        let (_guard, _level, lines) = logging("info", LogFormat::Json);
        info!(target: "corinth", peer = "west", open = 3, "link \u{1b}[31mup\n");
        let text = lines.take();
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "link \u{1b}[31mup\n");
        assert_eq!(line["peer"], "west");
        assert_eq!(line["open"], 3);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "corinth");
    }

    #[test]
    fn formats_parse() {
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        let error = "yaml".parse::<LogFormat>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"yaml\" is not a log format; write text or json"
        );
    }

    #[test]
    fn a_level_outlives_its_subscriber_with_an_error() {
        let (guard, level, _lines) = logging("info", LogFormat::Text);
        drop(guard);
        assert_eq!(level.set("debug"), Err(LoggingError::Gone));
        assert_eq!(level.current(), "info");
    }
}
