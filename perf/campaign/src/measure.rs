//! What is measured of each system, and how a result becomes figures.

use std::{collections::BTreeMap, fmt, str::FromStr};

use corinth_load::result::{Latency, TestResult, Workload};
use serde::{Deserialize, Serialize};

use crate::{
    Fault,
    lab::CONGESTION,
    load::{Demand, Direction, Pace},
    machine::Spent,
};

/// Clients that open, ask, and close at once.
pub const CRR_CONNECTIONS: u32 = 64;
/// Connections on which the knee is looked for, and on which the schedule is kept.
pub const KNEE_CONNECTIONS: u32 = 32;
/// Streams over a network that loses: a single one meets so few losses that chance decides.
pub const WAN_STREAMS: u32 = 4;
/// Connections that are held.
pub const HELD_CONNECTIONS: u32 = 8_000;

/// One load, or one look at memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Bulk from client to server on one connection.
    #[serde(rename = "bulk-1-up")]
    Bulk1Up,
    /// Bulk from server to client on one connection.
    #[serde(rename = "bulk-1-down")]
    Bulk1Down,
    /// Bulk from client to server on eight connections.
    #[serde(rename = "bulk-8-up")]
    Bulk8Up,
    /// Bulk from server to client on eight connections.
    #[serde(rename = "bulk-8-down")]
    Bulk8Down,
    /// Connect, request, response, close.
    Crr,
    /// One request after the other on one kept connection.
    Rr,
    /// As many requests as go through kept connections, closed loop.
    Knee,
    /// Requests on a schedule that is the same for all: half of the lowest knee.
    OpenSame,
    /// Requests on a schedule of half of its own knee.
    OpenOwn,
    /// Resident memory, idle, holding connections, and under bulk.
    Memory,
    /// Over 60 ms: connect, request, first byte of the response.
    WanFirstByte,
    /// Over 100 Mb/s, 100 ms, 0.1 % loss: bulk on a few connections.
    WanBulk,
}

impl Measure {
    /// Those of a round, in their order.
    pub const OF_A_ROUND: [Self; 8] = [
        Self::Bulk1Up,
        Self::Bulk1Down,
        Self::Bulk8Up,
        Self::Bulk8Down,
        Self::Crr,
        Self::Rr,
        Self::OpenSame,
        Self::OpenOwn,
    ];

    /// In files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk1Up => "bulk-1-up",
            Self::Bulk1Down => "bulk-1-down",
            Self::Bulk8Up => "bulk-8-up",
            Self::Bulk8Down => "bulk-8-down",
            Self::Crr => "crr",
            Self::Rr => "rr",
            Self::Knee => "knee",
            Self::OpenSame => "open-same",
            Self::OpenOwn => "open-own",
            Self::Memory => "memory",
            Self::WanFirstByte => "wan-first-byte",
            Self::WanBulk => "wan-bulk",
        }
    }

    /// What selects it on the command line.
    pub const fn group(self) -> Group {
        match self {
            Self::Bulk1Up | Self::Bulk1Down | Self::Bulk8Up | Self::Bulk8Down => Group::Bulk,
            Self::Crr => Group::Crr,
            Self::Rr => Group::Rr,
            Self::Knee | Self::OpenSame | Self::OpenOwn => Group::Open,
            Self::Memory => Group::Memory,
            Self::WanFirstByte | Self::WanBulk => Group::Wan,
        }
    }

    /// What a client is asked to do for it; `per_second` is the schedule of those that have one. Memory asks for more
    /// than one thing.
    pub fn demand(self, seconds: u32, per_second: Option<f64>) -> Option<Demand> {
        let bulk = |connections, direction| Demand {
            direction,
            ..Demand::new(Workload::Stream, seconds, connections)
        };
        let scheduled = |rate| Demand {
            pace: Pace::PerSecond(rate),
            ..Demand::new(Workload::Rr, seconds, KNEE_CONNECTIONS)
        };
        match self {
            Self::Bulk1Up => Some(bulk(1, Direction::Up)),
            Self::WanBulk => Some(bulk(WAN_STREAMS, Direction::Up)),
            Self::Bulk1Down => Some(bulk(1, Direction::Down)),
            Self::Bulk8Up => Some(bulk(8, Direction::Up)),
            Self::Bulk8Down => Some(bulk(8, Direction::Down)),
            Self::Crr => Some(Demand::new(Workload::Crr, seconds, CRR_CONNECTIONS)),
            Self::Rr => Some(Demand::new(Workload::Rr, seconds, 1)),
            Self::Knee => Some(Demand::new(Workload::Rr, seconds, KNEE_CONNECTIONS)),
            Self::OpenSame | Self::OpenOwn => per_second.map(scheduled),
            Self::WanFirstByte => Some(Demand::new(Workload::Crr, seconds, 1)),
            Self::Memory => None,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Measures that are chosen together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Throughput and what it costs.
    Bulk,
    /// New connections.
    Crr,
    /// One request after the other.
    Rr,
    /// Requests on a schedule.
    Open,
    /// Resident memory.
    Memory,
    /// Over a wide-area network.
    Wan,
}

impl Group {
    /// Those of a campaign without a wide-area network.
    pub const LOCAL: [Self; 5] = [Self::Bulk, Self::Crr, Self::Rr, Self::Open, Self::Memory];

    /// On the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Crr => "crr",
            Self::Rr => "rr",
            Self::Open => "open",
            Self::Memory => "memory",
            Self::Wan => "wan",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = || Self::LOCAL.into_iter().chain([Self::Wan]);
        let found = all().find(|group| group.name() == text);
        found.ok_or_else(|| {
            let names: Vec<_> = all().map(Self::name).collect();
            format!("no such measure; there are {}", names.join(", "))
        })
    }
}

/// One number of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Payload that was received, in Gb/s.
    GigabitsPerSecond,
    /// CPU seconds of the machine for 10⁹ bytes of payload.
    CpuSecondsPerGb,
    /// Requests answered.
    PerSecond,
    /// CPU seconds of the machine for 1,000 requests.
    CpuSecondsPerThousand,
    /// Half of the requests took at most this, in µs.
    P50Us,
    /// 99 % of the requests took at most this, in µs.
    P99Us,
    /// Memory of the larger gateway that has done nothing.
    IdleBytes,
    /// Memory of the larger gateway that holds connections.
    HoldingBytes,
    /// Memory of the larger gateway at its highest while it carries eight bulk streams.
    BulkBytes,
    /// Memory of gateway A for each connection it holds.
    NearConnectionBytes,
    /// Memory of gateway B for each connection it holds.
    FarConnectionBytes,
}

/// What one load, or look, gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its figures; what could not be measured is absent.
    pub figures: BTreeMap<Figure, f64>,
    /// Percentile and microseconds, for drawing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
    /// Share of the machine that processes outside of the campaign used.
    pub outside_share: f64,
    /// Share of the machine that the hypervisor took.
    pub stolen_share: f64,
}

impl Sample {
    /// Without figures yet.
    pub fn empty(spent: Spent) -> Self {
        Self {
            figures: BTreeMap::new(),
            curve: Vec::new(),
            outside_share: spent.outside_share,
            stolen_share: spent.stolen_share,
        }
    }

    /// The figures of `measure` in a result.
    ///
    /// # Errors
    /// When there is none of those that it is measured for.
    pub fn of(measure: Measure, result: &TestResult, spent: Spent) -> Result<Self, Fault> {
        let lacks = |what: &str| Fault::NoFigure(format!("the result has no {what}"));
        let mut sample = Self::empty(spent);
        match measure.demand(1, Some(1.0)).map(|demand| demand.workload) {
            Some(Workload::Stream) => {
                must_have_congestion_control(result, CONGESTION)?;
                let throughput = result
                    .throughput
                    .as_ref()
                    .ok_or_else(|| lacks("throughput"))?;
                let bits = throughput.bits_per_second.filter(|bits| *bits > 0.0);
                let bytes = throughput.received_bytes.filter(|bytes| *bytes > 0);
                let bits = bits.ok_or_else(|| lacks("received bytes"))?;
                let bytes = bytes.ok_or_else(|| lacks("received bytes"))?;
                sample.put(Figure::GigabitsPerSecond, bits / 1e9);
                sample.put(
                    Figure::CpuSecondsPerGb,
                    spent.cpu_seconds / (bytes as f64 / 1e9),
                );
            }
            Some(_) | None => {
                let rate = result.rate.as_ref().ok_or_else(|| lacks("rate"))?;
                sample.put(Figure::PerSecond, rate.per_second);
                sample.put(
                    Figure::CpuSecondsPerThousand,
                    spent.cpu_seconds / (rate.completed as f64 / 1e3),
                );
                if let Some(latency) = &result.latency {
                    sample.take_latency(latency)?;
                }
            }
        }
        Ok(sample)
    }

    fn take_latency(&mut self, latency: &Latency) -> Result<(), Fault> {
        if !latency.valid {
            let achieved = latency.achieved_percent;
            return Err(Fault::NoFigure(achieved.map_or_else(
                || "the schedule was not met".to_owned(),
                |percent| format!("only {percent:.1} % of the schedule was met"),
            )));
        }
        self.put(Figure::P50Us, latency.p50_us);
        self.put(Figure::P99Us, latency.p99_us);
        self.curve.clone_from(&latency.curve);
        Ok(())
    }

    /// Adds a figure.
    pub fn put(&mut self, figure: Figure, value: f64) {
        self.figures.insert(figure, value);
    }

    /// A figure, if it was measured.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied()
    }
}

/// Of connections that are kept, the result says what they had; of others, what is usual on this machine.
pub(crate) fn must_have_congestion_control(result: &TestResult, wanted: &str) -> Result<(), Fault> {
    let other = result.environment.congestion_control.as_deref();
    match other.filter(|name| *name != wanted) {
        Some(other) => Err(Fault::NoFigure(format!(
            "the congestion control of the client was {other}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_are_those_of_the_code() {
        for measure in Measure::OF_A_ROUND.into_iter().chain([
            Measure::Knee,
            Measure::Memory,
            Measure::WanFirstByte,
            Measure::WanBulk,
        ]) {
            let written = serde_json::to_string(&measure).expect("it is a word");
            assert_eq!(written, format!("\"{measure}\""));
        }
    }

    #[test]
    fn a_schedule_needs_a_rate() {
        assert_eq!(Measure::OpenOwn.demand(3, None), None);
        let demand = Measure::OpenOwn
            .demand(3, Some(500.0))
            .expect("it has a rate");
        assert_eq!(demand.pace, Pace::PerSecond(500.0));
        assert_eq!(demand.connections, KNEE_CONNECTIONS);
    }
}
