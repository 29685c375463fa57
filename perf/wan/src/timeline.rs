//! What changes by itself as time goes by.

use std::{ops::Not, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    change::{Change, NoChange},
    units::{self, Misread},
};

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first side to the second.
    Forward,
    /// From the second side to the first.
    Back,
}

impl Direction {
    /// Both, in the order of everything that comes in pairs.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Back];

    /// The place in everything that comes in pairs.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Forward => 0,
            Self::Back => 1,
        }
    }
}

impl Not for Direction {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// A change at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Since the start.
    pub at: Duration,
    /// Only this direction; both if none is named.
    pub direction: Option<Direction>,
    /// What changes.
    pub change: Change,
}

/// What is wrong with a timeline.
#[derive(Debug, Error)]
pub enum NoTimeline {
    /// The time of a step.
    #[error("step {step} of the timeline: {why}")]
    Time {
        /// Counted from 1.
        step: usize,
        /// What is wrong.
        why: Misread,
    },
    /// The change of a step.
    #[error("step {step} of the timeline: {why}")]
    Change {
        /// Counted from 1.
        step: usize,
        /// What is wrong.
        why: NoChange,
    },
    /// The text is no list of steps.
    #[error("the timeline is no YAML list of `at`, `change` and optionally `direction`: {0}")]
    Yaml(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    at: String,
    #[serde(default)]
    direction: RawDirection,
    change: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawDirection {
    #[default]
    Both,
    Forward,
    Back,
}

impl Step {
    /// A step from a time and a change as words, which may begin with `forward` or `back`.
    ///
    /// # Errors
    /// When one of them cannot be read; it is called step number `step`.
    pub fn parse(at: &str, change: &str, step: usize) -> Result<Self, NoTimeline> {
        let change = change.trim();
        let (direction, change) = match change.split_once(char::is_whitespace) {
            Some(("forward", rest)) => (Some(Direction::Forward), rest),
            Some(("back", rest)) => (Some(Direction::Back), rest),
            Some(_) | None => (None, change),
        };
        Ok(Self {
            at: units::time(at).map_err(|why| NoTimeline::Time { step, why })?,
            direction,
            change: change
                .parse()
                .map_err(|why| NoTimeline::Change { step, why })?,
        })
    }
}

/// Steps from YAML:
/// ```yaml
/// - at: 5s
///   change: blackout
/// - at: 8s
///   direction: forward
///   change: up delay 50ms
/// ```
///
/// # Errors
/// At the first fault.
pub fn from_yaml(text: &str) -> Result<Vec<Step>, NoTimeline> {
    let raw: Vec<RawStep> =
        serde_saphyr::from_str(text).map_err(|fault| NoTimeline::Yaml(one_line(&fault)))?;
    let steps = raw.into_iter().zip(1..);
    steps
        .map(|(raw, number)| {
            let step = Step::parse(&raw.at, &raw.change, number)?;
            let direction = match raw.direction {
                RawDirection::Both => step.direction,
                RawDirection::Forward => Some(Direction::Forward),
                RawDirection::Back => Some(Direction::Back),
            };
            Ok(Step { direction, ..step })
        })
        .collect()
}

fn one_line(fault: &serde_saphyr::Error) -> String {
    let text = fault.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_is_read_from_yaml() {
        let text = "- at: 5s\n  change: blackout\n- at: 8s\n  direction: forward\n  change: up delay 50ms\n";
        let steps = from_yaml(text).unwrap();
        assert_eq!(
            steps,
            [
                Step::parse("5s", "blackout", 1).unwrap(),
                Step::parse("8s", "forward up delay 50ms", 2).unwrap()
            ]
        );
        assert_eq!(steps[1].direction, Some(Direction::Forward));
    }

    #[test]
    fn faults_of_a_timeline_name_the_step() {
        let faults = [
            (
                "- at: 5\n  change: blackout\n",
                "step 1 of the timeline: `5` is no time; write 30ms, 500us or 2s",
            ),
            (
                "- at: 5s\n  change: up\n- at: 6s\n  change: dealy 1ms\n",
                "step 2 of the timeline: `dealy` is no impairment",
            ),
        ];
        for (text, expected) in faults {
            let fault = from_yaml(text).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
        let fault = from_yaml("- when: 5s\n  change: blackout\n").unwrap_err();
        assert!(matches!(fault, NoTimeline::Yaml(_)), "{fault}");
    }
}
