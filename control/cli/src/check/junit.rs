//! The outcomes as JUnit XML, one case for each.

use std::fmt::Write;

use super::{Outcome, State};

pub(super) fn junit(outcomes: &[Outcome]) -> String {
    let count = |state| {
        outcomes
            .iter()
            .filter(|outcome| outcome.state == state)
            .count()
    };
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"corinth check\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\">\n",
        outcomes.len(),
        count(State::Error),
        count(State::Skipped)
    );
    for outcome in outcomes {
        let subject = outcome.subject.as_deref();
        let subject = subject.map_or_else(String::new, |subject| format!("{subject}: "));
        let name = format!("{} {subject}{}", outcome.code, outcome.sentence);
        let classname = outcome.category.replace(' ', "-");
        let _ = writeln!(
            xml,
            "    <testcase classname=\"corinth.check.{classname}\" name=\"{}\">",
            escaped(&name)
        );
        let seen = escaped(&outcome.seen);
        let _ = match outcome.state {
            State::Ok => Ok(()),
            State::Warning => writeln!(
                xml,
                "      <system-out>warning: {seen}; {}</system-out>",
                escaped(&outcome.remedy)
            ),
            State::Error => writeln!(
                xml,
                "      <failure message=\"{seen}\">{}</failure>",
                escaped(&outcome.remedy)
            ),
            State::Skipped => writeln!(xml, "      <skipped message=\"{seen}\"/>"),
        };
        xml.push_str("    </testcase>\n");
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text as XML holds it, also in attributes; control characters that it cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            letter if letter.is_control() => xml.push('\u{fffd}'),
            letter => xml.push(letter),
        }
    }
    xml
}
