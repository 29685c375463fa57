//! What is written about what happens.

use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::field::{Field, Optional, Value};
use super::mistake::{Findings, MistakeCode, Wrong, nearest, quote};
use super::show::beside;
use super::value::{Choice, word};

/// One record for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// Where records go.
    pub target: AccessTarget,
    /// Which connections have one.
    pub what: AccessScope,
}

/// Where connection records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// Appended to a file.
    File(PathBuf),
}

/// Which connections have a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessScope {
    /// All of them.
    All,
    /// Those that did not end well.
    Errors,
}

/// What the gateway says about itself, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// How much: a level, or levels by module such as `info,corinth=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// For whom lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

impl Choice for AccessScope {
    const WORDS: &'static [(&'static str, Self)] = &[("all", Self::All), ("errors", Self::Errors)];
    const WHAT: &'static str = "which connections to record";
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
    const WHAT: &'static str = "a log format";
}

impl Serialize for AccessScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*self))
    }
}

impl Serialize for LogFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*self))
    }
}

impl Serialize for AccessTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Stdout => serializer.serialize_str("stdout"),
            Self::Stderr => serializer.serialize_str("stderr"),
            Self::Off => serializer.serialize_str("off"),
            Self::File(path) => serializer.collect_str(&path.display()),
        }
    }
}

/// One record for each connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawAccessLog {
    /// `stdout`, `stderr`, `off`, or a path. Default `stdout`.
    target: Option<Field<AccessTarget>>,
    /// `all` or `errors`. Default `all`.
    what: Option<Field<AccessScope>>,
}

/// What the gateway says about itself, on standard error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLog {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or levels by module. Default `info`.
    level: Option<Field<Directive>>,
    /// `text` or `json`. Default `text`.
    format: Option<Field<LogFormat>>,
}

/// Levels by module.
#[derive(Clone, Debug)]
struct Directive(String);

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl Value for Directive {
    const EXPECTED: &'static str = "a log level such as `info` or `info,corinth=debug`";

    fn read(text: &str) -> Result<Self, Wrong> {
        for part in text.split(',') {
            let (module, level) = part
                .split_once('=')
                .map_or((None, part), |(m, l)| (Some(m), l));
            let is_module = |module: &str| {
                !module.is_empty()
                    && module
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
            };
            if !module.is_none_or(is_module) || !LEVELS.contains(&level) {
                let hint = nearest(level, LEVELS)
                    .filter(|near| *near != level)
                    .map_or_else(
                        || format!("levels are {}", LEVELS.join(", ")),
                        |near| format!("did you mean {near}?"),
                    );
                let message = format!("expected {}, found {}", Self::EXPECTED, quote(text));
                return Err(Wrong::new(MistakeCode::InvalidChoice, message, hint));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Value for AccessTarget {
    const EXPECTED: &'static str = "stdout, stderr, off or a path";

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            "off" => Ok(Self::Off),
            _ if text.contains('/') => PathBuf::read(text).map(Self::File),
            _ => {
                let hint = nearest(text, ["stdout", "stderr", "off"]).map_or_else(
                    || "a path has a slash, as in `./access.log`".to_owned(),
                    |near| format!("did you mean {near}?"),
                );
                let message = format!("expected {}, found {}", Self::EXPECTED, quote(text));
                Err(Wrong::new(MistakeCode::InvalidChoice, message, hint))
            }
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^(stdout|stderr|off|.*/.*)$" })
    }
}

impl AccessLog {
    pub(super) fn read(raw: RawAccessLog, origin: &Path, found: &mut Findings) -> Self {
        let target = match raw.target.otherwise(AccessTarget::Stdout, found) {
            AccessTarget::File(path) => AccessTarget::File(beside(origin, &path)),
            other @ (AccessTarget::Stdout | AccessTarget::Stderr | AccessTarget::Off) => other,
        };
        Self {
            target,
            what: raw.what.otherwise(AccessScope::All, found),
        }
    }
}

impl Log {
    pub(super) fn read(raw: RawLog, found: &mut Findings) -> Self {
        Self {
            level: raw.level.otherwise(Directive("info".to_owned()), found).0,
            format: raw.format.otherwise(LogFormat::Text, found),
        }
    }
}
