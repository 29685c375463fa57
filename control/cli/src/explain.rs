//! `corinth explain`: what a code means and what to do about it, built in and without a network.

use corinth_gateway::settings::MistakeCode;
use corinth_model::{Condition, Reason, Refusal};
use serde::Serialize;

use crate::{
    args::ExplainArgs,
    check,
    exit::Exit,
    output::{Cell, Format, Item, Listing},
    terminal::{Style, Terminal},
    trouble::Trouble,
};

/// One code: of a connection's end, of a condition, of a check, or of a mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Code {
    code: &'static str,
    name: String,
    class: Class,
    /// Who has to look into it, where that is known from the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<String>,
    pub(crate) meaning: &'static str,
    pub(crate) remedy: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    Completed,
    Refusal,
    Failure,
    Condition,
    Check,
    Configuration,
}

impl Code {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Reason::all()
            .map(Self::of_reason)
            .chain(Condition::ALL.iter().copied().map(Self::of_condition))
            .chain(check::CATALOGUE.iter().map(Self::of_check))
            .chain(MistakeCode::all().map(Self::of_mistake))
    }

    pub(crate) fn of_reason(reason: Reason) -> Self {
        let (class, side) = match reason {
            Reason::Completed => (Class::Completed, None),
            Reason::Refused(_) => (Class::Refusal, None),
            Reason::Failed(failure) => (Class::Failure, Some(failure.culprit().to_string())),
        };
        Self {
            code: reason.code(),
            name: reason.name().to_owned(),
            class,
            side,
            meaning: reason.summary(),
            remedy: reason.hint(),
        }
    }

    fn of_condition(condition: Condition) -> Self {
        Self {
            code: condition.code(),
            name: condition.name().to_owned(),
            class: Class::Condition,
            side: None,
            meaning: condition.summary(),
            remedy: condition.hint(),
        }
    }

    fn of_check(check: &'static check::Check) -> Self {
        Self {
            code: check.code,
            name: check.name.to_owned(),
            class: Class::Check,
            side: None,
            meaning: check.sentence,
            remedy: check.remedy,
        }
    }

    fn of_mistake(mistake: MistakeCode) -> Self {
        Self {
            code: mistake.code(),
            name: snake_case(&format!("{mistake:?}")),
            class: Class::Configuration,
            side: None,
            meaning: mistake.summary(),
            remedy: "run corinth config validate FILE, which names the line and what to write there",
        }
    }

    /// Those of this code or name, in any case; `-` in a name is as good as `_`. A name may belong to a refusal and to a
    /// mistake in a configuration.
    fn find(text: &str) -> Vec<Self> {
        let text = text.to_ascii_lowercase().replace('-', "_");
        let is_meant = |code: &Self| {
            code.code.eq_ignore_ascii_case(&text)
                || code.name == text
                || code.name.replace('_', "") == text
        };
        Self::all().filter(is_meant).collect()
    }
}

impl Item for Code {
    const KIND: &'static str = "Codes";
    const HEADERS: &'static [&'static str] = &["CODE", "NAME", "CLASS", "MEANING"];

    fn rows(&self, _: Style) -> Vec<Vec<Cell>> {
        vec![vec![
            Cell::plain(self.code),
            Cell::plain(&self.name),
            Cell::plain(self.class.as_str()),
            Cell::plain(self.meaning),
        ]]
    }

    fn name(&self) -> String {
        self.code.to_owned()
    }
}

impl Class {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refusal => "refusal",
            Self::Failure => "failure",
            Self::Condition => "condition",
            Self::Check => "check",
            Self::Configuration => "configuration",
        }
    }
}

pub(crate) fn explain(terminal: &Terminal, args: &ExplainArgs) -> Result<Exit, Trouble> {
    let Some(asked) = &args.code else {
        Listing::whole(Code::all().collect()).print(terminal, args.output)?;
        return Ok(Exit::Done);
    };
    let codes = Code::find(asked);
    if codes.is_empty() {
        return Err(Trouble::new(
            Exit::Usage,
            format!("there is no code {}", asked.escape_debug()),
            format!(
                "codes are CRN and three digits, such as {}, or their names",
                Refusal::Forbidden.code()
            ),
            "run corinth explain for all of them",
        ));
    }
    match args.output.output {
        Format::Table => {
            let pages: Vec<_> = codes
                .iter()
                .map(|code| page(code, terminal.stdout))
                .collect();
            terminal.print(&pages.join("\n"))?;
        }
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => {
            Listing::whole(codes).print(terminal, args.output)?;
        }
    }
    Ok(Exit::Done)
}

/// What to do about `code`, and the code as it is written.
pub(crate) fn remedy(code: &str) -> Option<(&'static str, &'static str)> {
    let found = Code::all().find(|known| known.code.eq_ignore_ascii_case(code));
    found.map(|code| (code.remedy, code.code))
}

/// One code, as a person reads it.
fn page(code: &Code, style: Style) -> String {
    let side = code.side.as_deref().map_or_else(String::new, |side| {
        let who = match side {
            "client" => "who opened the connection",
            "local" => "this gateway, or its configuration",
            "peer" => "the peer's gateway, or the network to it",
            _ => "the application that was called",
        };
        format!("  side   {side}: {who}\n")
    });
    format!(
        "{} {} ({})\n  means  {}\n{side}  do     {}\n",
        style.strong(code.code),
        style.strong(&code.name),
        code.class.as_str(),
        code.meaning,
        code.remedy
    )
}

/// `UnknownKey` as `unknown_key`.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_found_by_code_and_by_name() {
        for code in Code::all() {
            assert_eq!(Code::find(code.code), vec![code.clone()]);
            assert_eq!(Code::find(&code.code.to_lowercase()), vec![code.clone()]);
            assert!(Code::find(&code.name).contains(&code), "{}", code.name);
        }
        let found = |text| {
            let codes = Code::find(text).into_iter();
            codes.map(|code| code.code).collect::<Vec<_>>()
        };
        assert_eq!(found("UnknownKey"), ["CRN904"]);
        assert_eq!(found("peer-unreachable"), ["CRN023"]);
        assert_eq!(found("invalid_name"), ["CRN008", "CRN908"]);
        assert!(found("CRN999").is_empty());
        assert!(found("").is_empty());
    }

    #[test]
    fn codes_are_distinct() {
        let codes: BTreeSet<_> = Code::all().map(|code| code.code).collect();
        assert_eq!(codes.len(), Code::all().count());
    }
}
