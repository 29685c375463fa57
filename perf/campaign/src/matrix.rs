//! Bulk over wide-area networks of every kind: which tunnel is faster where, and whether `auto` finds out.
//!
//! Each cell is a network of its own: a round trip and a share of packets that are lost, both ways together having the
//! round trip, each way the loss. Everyone takes turns on it, several rounds long. Nothing is said about CPU: the
//! emulator has its share of it.

use std::{fmt, time::Duration};

use corinth_load::result::{TestResult, Workload};
use corinth_wan::{Impairment, Loss, Rate};
use serde::{Deserialize, Serialize};

use crate::{
    Fault, Interrupt, Lab,
    campaign::{self, Say, Tools},
    lab::Middle,
    load::{Demand, Load},
    measure::{WAN_STREAMS, must_have_congestion_control},
    programs::Programs,
    rounds,
    running::Running,
    statistics::Summary,
    system::{
        self, Place, Recipe,
        corinth::{self, Congestion, Tunnel, Way},
    },
    wan,
};

pub mod report;

/// The form of what is written down.
pub const SCHEMA: &str = "corinth-perf-matrix/1";
/// Of all loads that warm up.
const WARM_UP_SECONDS: u32 = 2;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// There and back, in milliseconds.
    pub round_trip_ms: u32,
    /// Of 100 packets, each way.
    pub lost_percent: f64,
}

impl Cell {
    /// Every pair of a round trip and a loss.
    pub fn all(round_trips_ms: &[u32], lost_percent: &[f64]) -> Vec<Self> {
        let cells = lost_percent.iter().flat_map(|&lost_percent| {
            round_trips_ms.iter().map(move |&round_trip_ms| Self {
                round_trip_ms,
                lost_percent,
            })
        });
        cells.collect()
    }

    fn impairment(self, rate: Rate) -> Impairment {
        let loss = if self.lost_percent > 0.0 {
            Loss::Bernoulli(self.lost_percent / 100.0)
        } else {
            Impairment::default().loss
        };
        Impairment {
            delay: Duration::from_millis(self.round_trip_ms.into()) / 2,
            loss,
            rate: Some(rate),
            ..Impairment::default()
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms, {} %", self.round_trip_ms, self.lost_percent)
    }
}

/// Who carries bytes across it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The connections of the client itself, with this congestion control.
    Direct(Congestion),
    /// Our gateways.
    Tunnel(Tunnel),
}

impl Lane {
    /// The direct path with either, and each way of ours with the same or none.
    pub fn all(congestion: Option<Congestion>) -> Vec<Self> {
        let direct = [Congestion::Cubic, Congestion::Bbr].map(Self::Direct);
        let ways = [Way::Tls, Way::Quic, Way::Auto];
        let ours = ways.map(|way| Self::Tunnel(Tunnel { way, congestion }));
        direct.into_iter().chain(ours).collect()
    }

    /// For people.
    pub fn title(self) -> String {
        match self {
            Self::Direct(congestion) => format!("direct, {}", congestion.name()),
            Self::Tunnel(tunnel) => {
                let way = match tunnel.way {
                    Way::Tls => "TLS",
                    Way::Quic => "QUIC",
                    Way::Auto => "auto",
                };
                tunnel.congestion.map_or_else(
                    || way.to_owned(),
                    |congestion| format!("{way}, {}", congestion.name()),
                )
            }
        }
    }

    fn is(self, way: Way) -> bool {
        matches!(self, Self::Tunnel(tunnel) if tunnel.way == way)
    }

    fn recipe(self, place: &Place, gateway: &str) -> Recipe {
        match self {
            Self::Direct(_) => system::direct(place),
            Self::Tunnel(tunnel) => corinth::recipe(place, gateway, tunnel),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command line, for the report.
    pub command: String,
    /// The networks.
    pub cells: Vec<Cell>,
    /// Of all networks, in bits per second, each way.
    pub bits_per_second: u64,
    /// Of the tunnels; none is what gateways do that were not told.
    pub congestion: Option<Congestion>,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// Our gateway.
    pub programs: Programs,
    /// What makes load.
    pub load: std::path::PathBuf,
}

/// What one lane did in one cell: Mb/s of payload as received, round by round; none where there was no figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Where.
    pub cell: Cell,
    /// Who.
    pub lane: Lane,
    /// How fast.
    pub megabits: Vec<Option<f64>>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The command line.
    pub command: String,
    /// When it began, as RFC 3339.
    pub started: String,
    /// Of every network, in bits per second.
    pub bits_per_second: u64,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// It did not come to its end.
    pub partial: bool,
    /// Every cell and lane.
    pub series: Vec<Series>,
    /// Why figures are missing.
    pub problems: Vec<String>,
}

impl Results {
    /// The cells there are figures of, in the order in which they were measured.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for series in &self.series {
            if !cells.contains(&series.cell) {
                cells.push(series.cell);
            }
        }
        cells
    }

    /// The lanes there are figures of.
    pub fn lanes(&self) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = Vec::new();
        for series in &self.series {
            if !lanes.contains(&series.lane) {
                lanes.push(series.lane);
            }
        }
        lanes
    }

    fn megabits(&self, cell: Cell, which: impl Fn(Lane) -> bool) -> Vec<&[Option<f64>]> {
        let of_cell = self.series.iter().filter(|series| series.cell == cell);
        of_cell
            .filter(|series| which(series.lane))
            .map(|series| series.megabits.as_slice())
            .collect()
    }

    /// Median and interval of a lane.
    pub fn summary(&self, cell: Cell, lane: Lane) -> Option<Summary> {
        let found = self.megabits(cell, |other| other == lane);
        let values: Vec<f64> = found.first()?.iter().flatten().copied().collect();
        Summary::of(&values)
    }

    /// What `one` did beside the better of `others`, round by round: the better is who has the higher median.
    pub fn ratio(&self, cell: Cell, one: Way, others: impl Fn(Lane) -> bool) -> Option<Summary> {
        let ours = *self.megabits(cell, |lane| lane.is(one)).first()?;
        let better = self
            .megabits(cell, others)
            .into_iter()
            .filter_map(|series| {
                let values: Vec<f64> = series.iter().flatten().copied().collect();
                Some((Summary::of(&values)?.median, series))
            })
            .max_by(|left, right| left.0.total_cmp(&right.0))?
            .1;
        let pairs = ours.iter().zip(better);
        let ratios: Vec<f64> = pairs
            .filter_map(|(ours, theirs)| Some((*ours)? / theirs.filter(|value| *value > 0.0)?))
            .collect();
        Summary::of(&ratios)
    }
}

/// Measures every cell, until it is interrupted; then the results are partial.
///
/// # Errors
/// When not even a start can be made.
pub fn run(settings: &Settings, interrupt: &Interrupt, say: Say<'_>) -> Result<Results, Fault> {
    let tools = Tools::copied(&settings.programs, &settings.load)?;
    wan::must_agree_with_theory(say, interrupt)?;
    let mut matrix = Matrix {
        settings,
        interrupt,
        say,
        tools,
        results: empty(settings),
    };
    for (number, &cell) in settings.cells.iter().enumerate() {
        match matrix.cell(number, cell) {
            Ok(()) => {}
            Err(Fault::Interrupted) if !matrix.results.series.is_empty() => {
                matrix.results.partial = true;
                break;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(matrix.results)
}

fn empty(settings: &Settings) -> Results {
    Results {
        schema: SCHEMA.to_owned(),
        command: settings.command.clone(),
        started: campaign::now(),
        bits_per_second: settings.bits_per_second,
        rounds: settings.rounds,
        seconds: settings.seconds,
        partial: false,
        series: Vec::new(),
        problems: Vec::new(),
    }
}

struct Matrix<'a> {
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    say: Say<'a>,
    tools: Tools,
    results: Results,
}

impl Matrix<'_> {
    fn cell(&mut self, number: usize, cell: Cell) -> Result<(), Fault> {
        let lab = Lab::lay(Middle::Open, self.interrupt)?;
        let rate = Rate::new(self.settings.bits_per_second);
        // The same losses for everyone who measures again, other ones in each cell.
        let network = wan::join(&lab, &cell.impairment(rate), number as u64 + 1)?;
        let _server = self.tools.load.serve(&lab)?;
        let place = campaign::place(&self.tools.folder.path().join(format!("cell-{number}")));
        let lanes: Vec<(Lane, Recipe)> = Lane::all(self.settings.congestion)
            .into_iter()
            .map(|lane| (lane, lane.recipe(&place, &self.tools.gateway)))
            .collect();
        let mut running = Vec::new();
        for (lane, recipe) in &lanes {
            let mut started = Running::start(recipe, &lab)?;
            rounds::must_work(&mut started, &lab, &self.tools.load)?;
            running.push((*lane, started, Vec::new()));
        }
        for (lane, system, _) in &mut running {
            self.one(&lab, cell, *lane, system, WARM_UP_SECONDS)?;
        }
        let count = running.len();
        for round in 0..self.settings.rounds {
            for turn in 0..count {
                let (lane, system, megabits) = &mut running[(round as usize + turn) % count];
                megabits.push(self.one(&lab, cell, *lane, system, self.settings.seconds)?);
            }
        }
        let series = running.into_iter().map(|(lane, _, megabits)| Series {
            cell,
            lane,
            megabits,
        });
        self.results.series.extend(series);
        let carried = network.check();
        carried.map_err(|fault| Fault::Machine(fault.to_string()))
    }

    /// One load on one lane: Mb/s, or a note why there is no figure.
    fn one(
        &mut self,
        lab: &Lab,
        cell: Cell,
        lane: Lane,
        system: &mut Running<'_>,
        seconds: u32,
    ) -> Result<Option<f64>, Fault> {
        system.must_run()?;
        let mut demand = Demand::new(Workload::Stream, seconds, WAN_STREAMS);
        demand.congestion = match lane {
            Lane::Direct(congestion) => Some(congestion),
            Lane::Tunnel(_) => None,
        };
        let target = system.recipe().target;
        let tried = self.tools.load.run(lab, target, &demand, &mut || {});
        let title = format!("{cell}: {}, Mb/s", lane.title());
        let found = tried.and_then(|result| {
            if let Some(congestion) = demand.congestion {
                must_have_congestion_control(&result, congestion.name())?;
            }
            megabits(&result)
        });
        campaign::noted(found, &title, self.say, &mut self.results.problems)
    }
}

/// What was received, in Mb/s.
pub(crate) fn megabits(result: &TestResult) -> Result<f64, Fault> {
    let bits = result
        .throughput
        .as_ref()
        .and_then(|all| all.bits_per_second);
    let bits = bits.filter(|bits| *bits > 0.0);
    bits.map(|bits| bits / 1e6)
        .ok_or_else(|| Fault::NoFigure("the result has no received bytes".to_owned()))
}

#[cfg(test)]
mod tests;
