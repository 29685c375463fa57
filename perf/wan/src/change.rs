//! A change of an impairment, as words: `delay 30ms loss 0.1%`, `blackout`, `clear`.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use thiserror::Error;

use crate::{
    impairment::{
        Discipline, GilbertElliott, Impairment, Loss, Mtu, Order, Oversize, Path, QueueLimit, Rate,
        Udp,
    },
    units::{self, Misread},
};

/// What is policed may come at once for this long.
const POLICED_BURST: Duration = Duration::from_millis(20);
/// The least of it: a few packets.
const POLICED_BURST_MIN_BYTES: u64 = 15_000;
/// How late a reordered packet comes if nobody says.
const LATE_BY_DEFAULT: Duration = Duration::from_millis(1);

/// A change of an impairment. Parsed from words:
///
/// `delay TIME`, `jitter TIME`, `jitter-order kept|free`, `loss SHARE` or
/// `loss ge:TO_BAD,TO_GOOD[,BAD_LOSS[,GOOD_LOSS]]`, `reorder SHARE[,TIME]`, `duplicate SHARE`, `corrupt SHARE`,
/// `rate RATE|off`, `queue SIZE|Nbdp`, `aqm drop-tail|codel[,TARGET,INTERVAL]`, `mtu BYTES|off`,
/// `oversize told|vanishes`, `udp pass|blocked|RATE`, `drop-size FROM-TO|off`, `blackout`, `up`, and `clear`: back to
/// what it was at the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    edits: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq)]
enum Edit {
    Delay(Duration),
    Jitter(Duration),
    JitterOrder(Order),
    Loss(Loss),
    Reorder(f64, Duration),
    Duplicate(f64),
    Corrupt(f64),
    Rate(Option<u64>),
    Queue(QueueLimit),
    Discipline(Discipline),
    Mtu(Option<u32>),
    Oversize(Oversize),
    Udp(Udp),
    DropSizes(Option<RangeInclusive<u32>>),
    Path(Path),
    Clear,
}

/// Words that are no change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoChange {
    /// Nothing was said.
    #[error("an empty change; write, for instance, `delay 30ms loss 0.1%`, `blackout` or `clear`")]
    Empty,
    /// A word nobody knows.
    #[error(
        "`{0}` is no impairment; there are delay, jitter, jitter-order, loss, reorder, duplicate, corrupt, rate, \
         queue, aqm, mtu, oversize, udp, drop-size, blackout, up and clear"
    )]
    Unknown(String),
    /// A word without its value.
    #[error("`{0}` needs a value")]
    NoValue(String),
    /// A word that is about something that is not there.
    #[error("`{word}` is about a {needs}, and there is none")]
    Missing {
        /// The word.
        word: &'static str,
        /// What it is about.
        needs: &'static str,
    },
    /// A value that cannot be read.
    #[error("{what}: {why}")]
    Value {
        /// The word before it.
        what: String,
        /// What is wrong.
        why: Misread,
    },
    /// A value that is not one of a few.
    #[error("{what}: `{value}` is not one of: {choices}")]
    Choice {
        /// The word before it.
        what: String,
        /// What was said.
        value: String,
        /// What could have been.
        choices: &'static str,
    },
}

impl FromStr for Change {
    type Err = NoChange;

    fn from_str(text: &str) -> Result<Self, NoChange> {
        let mut words = text.split_whitespace();
        let mut edits = Vec::new();
        while let Some(word) = words.next() {
            let plain = match word {
                "blackout" => Some(Edit::Path(Path::Blackout)),
                "up" => Some(Edit::Path(Path::Up)),
                "clear" => Some(Edit::Clear),
                _ => None,
            };
            let edit = match plain {
                Some(edit) => edit,
                None => Edit::parse(word, words.next())?,
            };
            edits.push(edit);
        }
        if edits.is_empty() {
            return Err(NoChange::Empty);
        }
        Ok(Self { edits })
    }
}

impl Change {
    /// The changed impairment; `initial` is what `clear` leads back to.
    pub fn applied(&self, current: &Impairment, initial: &Impairment) -> Impairment {
        let mut changed = current.clone();
        // A queue needs its rate, whichever is named first; and so on.
        let is_needed = |edit: &&Edit| matches!(edit, Edit::Rate(_) | Edit::Mtu(_) | Edit::Clear);
        let (first, then): (Vec<&Edit>, Vec<&Edit>) = self.edits.iter().partition(is_needed);
        for edit in first.into_iter().chain(then) {
            edit.apply(&mut changed, initial);
        }
        changed
    }
}

impl Change {
    /// The changed impairment, unless a word of the change would do nothing.
    ///
    /// # Errors
    /// [`NoChange::Missing`], for a queue without a rate and the like.
    pub fn tried(
        &self,
        current: &Impairment,
        initial: &Impairment,
    ) -> Result<Impairment, NoChange> {
        let changed = self.applied(current, initial);
        for edit in &self.edits {
            let (word, needs, is_there) = match edit {
                Edit::Queue(_) => ("queue", "rate", changed.rate.is_some()),
                Edit::Discipline(_) => ("aqm", "rate", changed.rate.is_some()),
                Edit::Oversize(_) => ("oversize", "mtu", changed.mtu.is_some()),
                Edit::Delay(_)
                | Edit::Jitter(_)
                | Edit::JitterOrder(_)
                | Edit::Loss(_)
                | Edit::Reorder(..)
                | Edit::Duplicate(_)
                | Edit::Corrupt(_)
                | Edit::Rate(_)
                | Edit::Mtu(_)
                | Edit::Udp(_)
                | Edit::DropSizes(_)
                | Edit::Path(_)
                | Edit::Clear => continue,
            };
            if !is_there {
                return Err(NoChange::Missing { word, needs });
            }
        }
        Ok(changed)
    }
}

impl Edit {
    fn parse(word: &str, value: Option<&str>) -> Result<Self, NoChange> {
        let read = Value { word, value };
        match word {
            "delay" => read.as_a(units::time).map(Self::Delay),
            "jitter" => read.as_a(units::time).map(Self::Jitter),
            "jitter-order" => read
                .choose(
                    &[("kept", Order::Kept), ("free", Order::Free)],
                    "kept, free",
                )
                .map(Self::JitterOrder),
            "loss" => read.loss().map(Self::Loss),
            "reorder" => read.reorder(),
            "duplicate" => read.as_a(units::share).map(Self::Duplicate),
            "corrupt" => read.as_a(units::share).map(Self::Corrupt),
            "rate" => read.unless_off(units::rate).map(Self::Rate),
            "queue" => read.queue().map(Self::Queue),
            "aqm" => read.discipline().map(Self::Discipline),
            "mtu" => read.unless_off(small_size).map(Self::Mtu),
            "oversize" => {
                let choices = [("told", Oversize::Told), ("vanishes", Oversize::Vanishes)];
                read.choose(&choices, "told, vanishes").map(Self::Oversize)
            }
            "udp" => read.udp().map(Self::Udp),
            "drop-size" => read.unless_off(sizes).map(Self::DropSizes),
            _ => Err(NoChange::Unknown(word.to_owned())),
        }
    }

    fn apply(&self, to: &mut Impairment, initial: &Impairment) {
        match self {
            Self::Delay(delay) => to.delay = *delay,
            Self::Jitter(amount) => to.jitter.amount = *amount,
            Self::JitterOrder(order) => to.jitter.order = *order,
            Self::Loss(loss) => to.loss = *loss,
            Self::Reorder(probability, late_by) => {
                to.reordering.probability = *probability;
                to.reordering.late_by = *late_by;
            }
            Self::Duplicate(share) => to.duplication = *share,
            Self::Corrupt(share) => to.corruption = *share,
            Self::Rate(None) => to.rate = None,
            Self::Rate(Some(rate)) => {
                let new = Rate::new(*rate);
                to.rate.get_or_insert(new).bits_per_second = *rate;
            }
            Self::Queue(limit) => {
                if let Some(rate) = &mut to.rate {
                    rate.limit = *limit;
                }
            }
            Self::Discipline(discipline) => {
                if let Some(rate) = &mut to.rate {
                    rate.discipline = *discipline;
                }
            }
            Self::Mtu(bytes) => {
                let oversize = to.mtu.map(|mtu| mtu.oversize).unwrap_or_default();
                to.mtu = bytes.map(|bytes| Mtu { bytes, oversize });
            }
            Self::Oversize(oversize) => {
                if let Some(mtu) = &mut to.mtu {
                    mtu.oversize = *oversize;
                }
            }
            Self::Udp(udp) => to.udp = *udp,
            Self::DropSizes(sizes) => to.dropped_sizes.clone_from(sizes),
            Self::Path(path) => to.path = *path,
            Self::Clear => to.clone_from(initial),
        }
    }
}

/// A word and what follows it.
struct Value<'a> {
    word: &'a str,
    value: Option<&'a str>,
}

impl<'a> Value<'a> {
    fn text(&self) -> Result<&'a str, NoChange> {
        self.value
            .ok_or_else(|| NoChange::NoValue(self.word.to_owned()))
    }

    fn wrap<T>(&self, read: Result<T, Misread>) -> Result<T, NoChange> {
        read.map_err(|why| NoChange::Value {
            what: self.word.to_owned(),
            why,
        })
    }

    fn as_a<T>(&self, read: impl Fn(&str) -> Result<T, Misread>) -> Result<T, NoChange> {
        self.wrap(read(self.text()?))
    }

    fn unless_off<T>(
        &self,
        read: impl Fn(&str) -> Result<T, Misread>,
    ) -> Result<Option<T>, NoChange> {
        match self.text()? {
            "off" => Ok(None),
            text => self.wrap(read(text)).map(Some),
        }
    }

    fn choose<T: Copy>(&self, choices: &[(&str, T)], names: &'static str) -> Result<T, NoChange> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| NoChange::Choice {
                what: self.word.to_owned(),
                value: text.to_owned(),
                choices: names,
            })
    }

    fn loss(&self) -> Result<Loss, NoChange> {
        let text = self.text()?;
        let Some(chain) = text.strip_prefix("ge:") else {
            let share = self.as_a(units::share)?;
            return Ok(if share == 0.0 {
                Loss::Never
            } else {
                Loss::Bernoulli(share)
            });
        };
        let shares = self.wrap(
            chain
                .split(',')
                .map(units::share)
                .collect::<Result<Vec<_>, _>>(),
        )?;
        match *shares.as_slice() {
            [to_bad, to_good, ref rest @ ..] if rest.len() <= 2 => {
                Ok(Loss::GilbertElliott(GilbertElliott {
                    to_bad,
                    to_good,
                    bad_loss: rest.first().copied().unwrap_or(1.0),
                    good_loss: rest.get(1).copied().unwrap_or(0.0),
                }))
            }
            _ => Err(NoChange::Choice {
                what: self.word.to_owned(),
                value: text.to_owned(),
                choices: "SHARE, ge:TO_BAD,TO_GOOD[,BAD_LOSS[,GOOD_LOSS]]",
            }),
        }
    }

    fn reorder(&self) -> Result<Edit, NoChange> {
        let (share, late_by) = match self.text()?.split_once(',') {
            Some((share, late_by)) => (share, self.wrap(units::time(late_by))?),
            None => (self.text()?, LATE_BY_DEFAULT),
        };
        Ok(Edit::Reorder(self.wrap(units::share(share))?, late_by))
    }

    fn queue(&self) -> Result<QueueLimit, NoChange> {
        let text = self.text()?;
        let factor = text.strip_suffix("bdp");
        match factor.map(|factor| factor.parse::<f64>()) {
            Some(Ok(factor)) => Ok(QueueLimit::Bdp(factor)),
            Some(Err(_)) => self.wrap(Err(Misread::Size(text.to_owned()))),
            None => self.as_a(units::size).map(QueueLimit::Bytes),
        }
    }

    fn discipline(&self) -> Result<Discipline, NoChange> {
        let Some(times) = self.text()?.strip_prefix("codel,") else {
            let choices = [
                ("drop-tail", Discipline::DropTail),
                ("codel", Discipline::CODEL),
            ];
            return self.choose(&choices, "drop-tail, codel, codel,TARGET,INTERVAL");
        };
        let (target, interval) = times.split_once(',').unwrap_or((times, "100ms"));
        Ok(Discipline::CoDel {
            target: self.wrap(units::time(target))?,
            interval: self.wrap(units::time(interval))?,
        })
    }

    fn udp(&self) -> Result<Udp, NoChange> {
        match self.text()? {
            "pass" => Ok(Udp::Passes),
            "blocked" => Ok(Udp::Blocked),
            text => {
                let bits_per_second = self.wrap(units::rate(text))?;
                let burst = bits_per_second as f64 / 8.0 * POLICED_BURST.as_secs_f64();
                Ok(Udp::Policed {
                    bits_per_second,
                    burst_bytes: (burst as u64).max(POLICED_BURST_MIN_BYTES),
                })
            }
        }
    }
}

fn small_size(text: &str) -> Result<u32, Misread> {
    let misread = || Misread::Size(text.to_owned());
    u32::try_from(units::size(text)?).map_err(|_| misread())
}

/// `1201-1500`, or one size.
fn sizes(text: &str) -> Result<RangeInclusive<u32>, Misread> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Ok(small_size(from)?..=small_size(to)?)
}

#[cfg(test)]
mod tests;
