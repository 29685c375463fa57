//! What small requests notice of bulk on the same tunnel, and whether datagrams arrive.
//!
//! A stream is held at half of what the tunnel can carry, and beside it requests go out on a schedule: how much longer do
//! they take than alone? Then a service over UDP sends at half of that rate as well: how many of its datagrams are lost?
//! The ways take turns within every round, over one emulated wide-area network.

use std::{path::Path, time::Duration};

use corinth_load::result::{TestResult, Workload};
use corinth_wan::{Impairment, Rate};
use serde::{Deserialize, Serialize};

use crate::{
    Fault, Interrupt, Lab,
    campaign::{self, Say, Tools},
    lab::Middle,
    load::{CorinthPerf, Demand, Load, Pace},
    matrix::megabits,
    programs::Programs,
    rounds,
    running::Running,
    statistics::Summary,
    system::corinth::{self, Tunnel, Way},
    wan,
};

/// The form of what is written down.
pub const SCHEMA: &str = "corinth-perf-beside/1";
/// How much longer the slowest of 100 requests may take beside bulk.
pub const TIMES_MOST: f64 = 3.0;
/// What is asked of each network.
const REQUESTS_PER_SECOND: f64 = 200.0;
/// On so many connections.
const REQUEST_CONNECTIONS: u32 = 8;
/// Of the load that finds out how much a way carries.
const KNEE_SECONDS: u32 = 4;
/// Of what it carries, bulk and datagrams take this part.
const SHARE: f64 = 0.5;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command line, for the report.
    pub command: String,
    /// There and back, in milliseconds.
    pub round_trip_ms: u32,
    /// Of the network, in bits per second, each way.
    pub bits_per_second: u64,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// Our gateway.
    pub programs: Programs,
    /// What makes load.
    pub load: std::path::PathBuf,
}

/// What one way did, round by round; none where there was no figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Which way.
    pub way: Way,
    /// What one stream carried that had the way for itself, in Mb/s.
    pub knee_megabits: f64,
    /// The slowest of 100 requests without bulk, in µs.
    pub alone_us: Vec<Option<f64>>,
    /// And with bulk at half of the knee.
    pub beside_us: Vec<Option<f64>>,
    /// Datagrams that were lost at half of the knee, in percent.
    pub lost_percent: Vec<Option<f64>>,
}

impl Series {
    /// How many times longer requests took beside bulk, round by round.
    pub fn times(&self) -> Option<Summary> {
        let pairs = self.alone_us.iter().zip(&self.beside_us);
        let times: Vec<f64> = pairs
            .filter_map(|(alone, beside)| Some((*beside)? / alone.filter(|us| *us > 0.0)?))
            .collect();
        Summary::of(&times)
    }

    fn summary(of: &[Option<f64>]) -> Option<Summary> {
        Summary::of(&of.iter().flatten().copied().collect::<Vec<_>>())
    }
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
    /// There and back, in milliseconds.
    pub round_trip_ms: u32,
    /// Of the network, in bits per second.
    pub bits_per_second: u64,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// Every way.
    pub series: Vec<Series>,
    /// Why figures are missing.
    pub problems: Vec<String>,
}

impl Results {
    /// A table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Measured {} by `{}`: {} ms, {} Mb/s each way; median of {} interleaved rounds of {} s each [95 % interval of the \
             median]. Requests: {REQUESTS_PER_SECOND} each second on {REQUEST_CONNECTIONS} connections.\n\n\
             | way | one stream, Mb/s | p99 alone, ms | p99 beside bulk at half of it, ms | times (at most {TIMES_MOST}) | \
             datagrams lost at half of it, % |\n|---|---:|---:|---:|---:|---:|\n",
            self.started,
            self.command,
            self.round_trip_ms,
            self.bits_per_second / 1_000_000,
            self.rounds,
            self.seconds,
        );
        let milliseconds = |of: &[Option<f64>]| {
            let thousandths: Vec<_> = of.iter().map(|us| us.map(|us| us / 1e3)).collect();
            shown(Series::summary(&thousandths), 2)
        };
        for series in &self.series {
            text += &format!(
                "| {} | {:.0} | {} | {} | {} | {} |\n",
                series.way.name(),
                series.knee_megabits,
                milliseconds(&series.alone_us),
                milliseconds(&series.beside_us),
                shown(series.times(), 2),
                shown(Series::summary(&series.lost_percent), 3),
            );
        }
        for problem in &self.problems {
            text += &format!("\nno figure: {problem}\n");
        }
        text
    }

    /// What is not as good as it should be.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for series in &self.series {
            let way = series.way.name();
            if series.times().is_some_and(|times| times.low > TIMES_MOST) {
                missed.push(format!("requests notice bulk by {way}"));
            }
            let lost = Series::summary(&series.lost_percent);
            if lost.is_some_and(|lost| lost.median > 0.0) {
                missed.push(format!("datagrams are lost by {way}"));
            }
        }
        missed
    }
}

fn shown(summary: Option<Summary>, digits: usize) -> String {
    summary.map_or_else(
        || "no data".to_owned(),
        |summary| {
            let Summary {
                median, low, high, ..
            } = summary;
            format!("{median:.digits$} [{low:.digits$} – {high:.digits$}]")
        },
    )
}

/// Measures every way.
///
/// # Errors
/// When not even a start can be made, or it was interrupted.
pub fn run(settings: &Settings, interrupt: &Interrupt, say: Say<'_>) -> Result<Results, Fault> {
    let started = campaign::now();
    let tools = Tools::copied(&settings.programs, &settings.load)?;
    wan::must_agree_with_theory(say, interrupt)?;
    let lab = Lab::lay(Middle::Open, interrupt)?;
    let impairment = Impairment {
        delay: Duration::from_millis(settings.round_trip_ms.into()) / 2,
        rate: Some(Rate::new(settings.bits_per_second)),
        ..Impairment::default()
    };
    let network = wan::join(&lab, &impairment, 1)?;
    let _server = tools.load.serve(&lab)?;
    let mut turns = Turns {
        settings,
        say,
        load: &tools.load,
        lab: &lab,
        problems: Vec::new(),
    };
    let series = turns.all(&tools.folder.path().join("beside"), &tools.gateway)?;
    let problems = turns.problems;
    let carried = network.check();
    carried.map_err(|fault| Fault::Machine(fault.to_string()))?;
    Ok(Results {
        schema: SCHEMA.to_owned(),
        command: settings.command.clone(),
        started,
        round_trip_ms: settings.round_trip_ms,
        bits_per_second: settings.bits_per_second,
        rounds: settings.rounds,
        seconds: settings.seconds,
        series,
        problems,
    })
}

struct Turns<'a> {
    settings: &'a Settings,
    say: Say<'a>,
    load: &'a CorinthPerf,
    lab: &'a Lab,
    problems: Vec<String>,
}

impl Turns<'_> {
    fn all(&mut self, folder: &Path, gateway: &str) -> Result<Vec<Series>, Fault> {
        let place = campaign::place(folder);
        let ways = [Way::Tls, Way::Quic, Way::Auto];
        let recipes = ways.map(|way| {
            let recipe = corinth::recipe_with_datagrams(&place, gateway, Tunnel::new(way));
            (way, recipe)
        });
        let mut running = Vec::new();
        for (way, recipe) in &recipes {
            let mut started = Running::start(recipe, self.lab)?;
            rounds::must_work(&mut started, self.lab, self.load)?;
            let demand = Demand::new(Workload::Stream, KNEE_SECONDS, 1);
            let found = self.load.run(self.lab, recipe.target, &demand, &mut || {});
            let knee_megabits = found.and_then(|result| megabits(&result))?;
            (self.say)(&format!("{}: {knee_megabits:.0} Mb/s", way.name()));
            let series = Series {
                way: *way,
                knee_megabits,
                alone_us: Vec::new(),
                beside_us: Vec::new(),
                lost_percent: Vec::new(),
            };
            running.push((started, series));
        }
        let count = running.len();
        for round in 0..self.settings.rounds as usize {
            for turn in 0..count {
                let (system, series) = &mut running[(round + turn) % count];
                self.turn(system, series)?;
            }
        }
        Ok(running.into_iter().map(|(_, series)| series).collect())
    }

    fn turn(&mut self, system: &mut Running<'_>, series: &mut Series) -> Result<(), Fault> {
        let seconds = self.settings.seconds;
        let half = (series.knee_megabits * 1e6 * SHARE) as u64;
        let alone = Demand {
            pace: Pace::PerSecond(REQUESTS_PER_SECOND),
            ..Demand::new(Workload::Rr, seconds, REQUEST_CONNECTIONS)
        };
        let beside = Demand {
            workload: Workload::Mix,
            bits_per_second: Some(half),
            ..alone
        };
        let datagrams = Demand {
            bits_per_second: Some(half),
            ..Demand::new(Workload::Udp, seconds, 1)
        };
        let way = series.way;
        series.alone_us.push(self.one(system, way, &alone, p99_us)?);
        series
            .beside_us
            .push(self.one(system, way, &beside, p99_us)?);
        series
            .lost_percent
            .push(self.one(system, way, &datagrams, lost_percent)?);
        Ok(())
    }

    /// One load: its figure, or a note why there is none.
    fn one(
        &mut self,
        system: &mut Running<'_>,
        way: Way,
        demand: &Demand,
        figure: impl Fn(&TestResult) -> Result<f64, Fault>,
    ) -> Result<Option<f64>, Fault> {
        system.must_run()?;
        let target = system.recipe().target;
        let tried = self.load.run(self.lab, target, demand, &mut || {});
        let title = format!("{}, {}", way.name(), demand.workload);
        let found = tried.and_then(|result| figure(&result));
        campaign::noted(found, &title, self.say, &mut self.problems)
    }
}

fn lacks(what: &str) -> Fault {
    Fault::NoFigure(format!("the result has no {what}"))
}

fn p99_us(result: &TestResult) -> Result<f64, Fault> {
    let latency = result.latency.as_ref().ok_or_else(|| lacks("latency"))?;
    if !latency.valid {
        return Err(Fault::NoFigure("the schedule was not met".to_owned()));
    }
    Ok(latency.p99_us)
}

fn lost_percent(result: &TestResult) -> Result<f64, Fault> {
    let datagrams = result.datagrams.as_ref();
    let datagrams = datagrams.filter(|datagrams| datagrams.sent > 0);
    Ok(datagrams.ok_or_else(|| lacks("datagrams"))?.lost_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(beside_us: &[f64], lost_percent: &[f64]) -> Results {
        let all = |values: &[f64]| values.iter().copied().map(Some).collect();
        Results {
            schema: SCHEMA.to_owned(),
            command: "corinth-perf beside".to_owned(),
            started: "then".to_owned(),
            round_trip_ms: 10,
            bits_per_second: 500_000_000,
            rounds: 5,
            seconds: 5,
            series: vec![Series {
                way: Way::Quic,
                knee_megabits: 400.0,
                alone_us: vec![Some(12_000.0); beside_us.len()],
                beside_us: all(beside_us),
                lost_percent: all(lost_percent),
            }],
            problems: Vec::new(),
        }
    }

    #[test]
    fn requests_may_take_three_times_as_long_beside_bulk() {
        let found = results(&[24_000.0; 5], &[0.0; 5]);
        assert_eq!(found.missed(), Vec::<String>::new());
        assert!(
            found
                .markdown()
                .contains("| quic | 400 | 12.00 [12.00 – 12.00] | 24.00")
        );
        let slow = results(&[48_000.0; 5], &[0.0; 5]);
        assert_eq!(slow.missed(), ["requests notice bulk by quic"]);
    }

    #[test]
    fn no_datagram_may_be_lost() {
        let found = results(&[12_000.0; 5], &[0.0, 0.1, 0.1, 0.1, 0.0]);
        assert_eq!(found.missed(), ["datagrams are lost by quic"]);
    }
}
