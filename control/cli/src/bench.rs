//! `corinth bench`: what the way through the tunnel costs, next to the direct way to the same service.
//!
//! Both ways take turns within each round, so that what else the machine does hits both. A figure that could not be
//! measured is missing, not zero.

use std::{io::IsTerminal, sync::atomic::Ordering::Relaxed, time::Duration};

use corinth_daemon::signals::Signals;
use corinth_load::{
    Error, TestResult, TestSpec,
    client::{self, Setup, Unwatched},
    spec::{Direction, Reuse, Workload},
};
use serde::Serialize;

use crate::{
    args::BenchArgs,
    exit::Exit,
    output::{Cell, Item, Listing},
    terminal::{Style, Terminal},
    trouble::Trouble,
};

/// Connections that open one after the other while new connections are counted.
const OPENERS: u32 = 8;
/// Requests that may fail of those that were sent.
const FAILED_SHARE_MAX: f64 = 0.001;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    BulkUp,
    BulkDown,
    NewConnections,
    KeptMedian,
    KeptTail,
}

/// What a load yields, figure by figure.
struct Load {
    spec: TestSpec,
    measures: &'static [Measure],
}

/// What the loads have met.
#[derive(Default)]
struct Seen {
    /// One of them came to its end.
    answered: bool,
    /// What is missing, and why.
    errors: Vec<String>,
}

/// One line of the result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figure {
    measure: &'static str,
    unit: &'static str,
    /// Medians of the rounds.
    through: Option<f64>,
    direct: Option<f64>,
    overhead: Option<Overhead>,
}

/// The median of what the rounds differ by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Overhead {
    /// In the unit of the figure; above zero is slower.
    amount: f64,
    /// Of the direct way.
    percent: f64,
}

/// What the rounds gave for one measure, in their order.
#[derive(Debug, Default)]
struct Rounds {
    through: Vec<Option<f64>>,
    direct: Vec<Option<f64>>,
}

impl Measure {
    const fn title(self) -> &'static str {
        match self {
            Self::BulkUp => "bulk, to the service",
            Self::BulkDown => "bulk, from the service",
            Self::NewConnections => "new connections",
            Self::KeptMedian => "request on a kept connection, p50",
            Self::KeptTail => "request on a kept connection, p99",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::BulkUp | Self::BulkDown => "Gb/s",
            Self::NewConnections => "per second",
            Self::KeptMedian | Self::KeptTail => "µs",
        }
    }

    /// Whether more of it is worse.
    const fn is_time(self) -> bool {
        match self {
            Self::BulkUp | Self::BulkDown | Self::NewConnections => false,
            Self::KeptMedian | Self::KeptTail => true,
        }
    }

    fn of(self, result: &TestResult) -> Option<f64> {
        match self {
            Self::BulkUp | Self::BulkDown => {
                let throughput = result.throughput.as_ref()?;
                Some(throughput.bits_per_second? / 1e9)
            }
            Self::NewConnections => Some(result.rate.as_ref()?.per_second),
            Self::KeptMedian => Some(result.latency.as_ref()?.p50_us),
            Self::KeptTail => Some(result.latency.as_ref()?.p99_us),
        }
        .filter(|figure| *figure > 0.0)
    }
}

/// What is run against `target`: a server of corinth-perf, or whatever answers HTTP.
fn loads(target: &str, duration: Duration) -> Vec<Load> {
    const KEPT: &[Measure] = &[Measure::KeptMedian, Measure::KeptTail];
    let new = |workload| {
        let mut spec = TestSpec::new(workload, target);
        spec.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // What starts slowly does not count.
        spec.omit_ms = spec.duration_ms / 10;
        spec
    };
    let load = |spec, measures| Load { spec, measures };
    if target.contains("://") {
        let mut fresh = new(Workload::Http);
        fresh.reuse = Reuse::OncePerRequest;
        fresh.connections = OPENERS;
        return vec![
            load(fresh, &[Measure::NewConnections]),
            load(new(Workload::Http), KEPT),
        ];
    }
    let mut down = new(Workload::Stream);
    down.direction = Direction::Down;
    let mut fresh = new(Workload::Crr);
    fresh.connections = OPENERS;
    vec![
        load(new(Workload::Stream), &[Measure::BulkUp]),
        load(down, &[Measure::BulkDown]),
        load(fresh, &[Measure::NewConnections]),
        load(new(Workload::Rr), KEPT),
    ]
}

/// Measures both ways and prints what lies between them.
pub(crate) fn bench(terminal: &Terminal, args: &BenchArgs) -> Result<Exit, Trouble> {
    let setup = Setup {
        token: args.token.clone(),
        connect_timeout: Duration::from_secs(5),
        ..Setup::default()
    };
    end_on_signal(&setup)?;
    let ways = [Some(&args.through), args.direct.as_ref()];
    let ways = ways.map(|target| target.map(|target| loads(target, args.duration)));
    let [Some(through), direct] = ways else {
        return Err(Trouble::internal("nothing to measure", "no address"));
    };
    let mut rounds: Vec<(Measure, Rounds)> = through
        .iter()
        .flat_map(|load| load.measures)
        .map(|measure| (*measure, Rounds::default()))
        .collect();
    let mut seen = Seen::default();
    for round in 1..=args.rounds {
        if std::io::stderr().is_terminal() {
            terminal.note(&format!("round {round} of {}\n", args.rounds));
        }
        for (number, load) in through.iter().enumerate() {
            let near = measure(load, &setup, &mut seen)?;
            let far = match &direct {
                Some(loads) => loads
                    .get(number)
                    .map(|load| measure(load, &setup, &mut seen)),
                None => None,
            };
            let far = far.transpose()?.flatten();
            for (measure, rounds) in &mut rounds {
                if load.measures.contains(measure) {
                    let figure = |result: &Option<TestResult>| measure.of(result.as_ref()?);
                    rounds.through.push(figure(&near));
                    rounds.direct.push(figure(&far));
                }
            }
            if setup.interrupted.load(Relaxed) {
                seen.errors
                    .push("interrupted; what is missing was not measured".to_owned());
                list(rounds, seen.errors).print(terminal, args.output)?;
                return Ok(Exit::Interrupted);
            }
        }
    }
    let is_whole = seen.errors.is_empty();
    for error in &seen.errors {
        terminal.note(&format!("{error}\n"));
    }
    list(rounds, seen.errors).print(terminal, args.output)?;
    Ok(if is_whole { Exit::Done } else { Exit::Found })
}

/// Runs one load. What makes no sense, or cannot be reached from the start, ends the command; what went wrong later
/// is missing, and said.
fn measure(load: &Load, setup: &Setup, seen: &mut Seen) -> Result<Option<TestResult>, Trouble> {
    if setup.interrupted.load(Relaxed) {
        return Ok(None);
    }
    let why = match client::run(&load.spec, setup, &mut Unwatched) {
        Err(error) if error.is_usage() || !seen.answered => return Err(trouble(&error)),
        Err(error) => error.to_string(),
        Ok(_) if setup.interrupted.load(Relaxed) => return Ok(None),
        Ok(result) if result.partial => result
            .fault
            .unwrap_or_else(|| "it was cut short".to_owned()),
        Ok(result) => {
            seen.answered = true;
            match failed(&result) {
                None => return Ok(Some(result)),
                Some(why) => why,
            }
        }
    };
    let (workload, target) = (load.spec.workload.name(), &load.spec.target);
    seen.errors.push(format!("{workload} to {target}: {why}"));
    Ok(None)
}

/// A rate says nothing where requests were left unanswered.
fn failed(result: &TestResult) -> Option<String> {
    let rate = result.rate.as_ref()?;
    let all = rate.completed + rate.failed;
    (rate.failed as f64 > all as f64 * FAILED_SHARE_MAX)
        .then(|| format!("{} of {all} requests failed", rate.failed))
}

fn trouble(error: &Error) -> Trouble {
    let exit = if error.is_usage() {
        Exit::Usage
    } else {
        Exit::Unreachable
    };
    let remedy = "start `corinth-perf server` as the service, or give the URL of an HTTP service";
    Trouble::new(exit, "the service cannot be measured", error, remedy)
}

/// The first signal ends the test that runs; what was measured before is still shown.
fn end_on_signal(setup: &Setup) -> Result<(), Trouble> {
    let cannot = |error| Trouble::internal("signals cannot be received", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let interrupted = setup.interrupted.clone();
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(cannot)?
    };
    // It ends with the process.
    std::thread::spawn(move || {
        runtime.block_on(signals.recv());
        interrupted.store(true, Relaxed);
    });
    Ok(())
}

fn list(rounds: Vec<(Measure, Rounds)>, errors: Vec<String>) -> Listing<Figure> {
    let figures = rounds.into_iter().map(|(measure, rounds)| Figure {
        measure: measure.title(),
        unit: measure.unit(),
        through: median(rounds.through.iter().copied().flatten()),
        direct: median(rounds.direct.iter().copied().flatten()),
        overhead: rounds.overhead(measure),
    });
    Listing {
        items: figures.collect(),
        errors,
    }
}

impl Rounds {
    /// Neighbours are compared, not medians: what disturbed a round disturbed both of its halves.
    fn overhead(&self, measure: Measure) -> Option<Overhead> {
        let pairs = || {
            let pairs = self.through.iter().zip(&self.direct);
            pairs.filter_map(|(through, direct)| Some(((*through)?, (*direct)?)))
        };
        let sign = if measure.is_time() { 1.0 } else { -1.0 };
        Some(Overhead {
            amount: median(pairs().map(|(through, direct)| sign * (through - direct)))?,
            percent: median(
                pairs().map(|(through, direct)| sign * (through / direct - 1.0) * 1e2),
            )?,
        })
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

impl Item for Figure {
    const KIND: &'static str = "BenchFigures";
    const HEADERS: &'static [&'static str] = &["MEASURE", "UNIT", "THROUGH", "DIRECT", "OVERHEAD"];

    fn rows(&self, _: Style) -> Vec<Vec<Cell>> {
        let digits = if self.unit == "Gb/s" { 2 } else { 0 };
        let figure = |figure: f64| format!("{figure:.digits$}");
        let overhead = self.overhead.map(|Overhead { amount, percent }| {
            format!("{amount:+.digits$} {} ({percent:+.0} %)", self.unit)
        });
        vec![vec![
            Cell::plain(self.measure),
            Cell::plain(self.unit),
            Cell::optional(self.through.map(figure)),
            Cell::optional(self.direct.map(figure)),
            Cell::optional(overhead),
        ]]
    }

    fn name(&self) -> String {
        self.measure.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_nothing_is_nothing() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
    }

    #[test]
    fn overhead_compares_neighbours() {
        let rounds = Rounds {
            through: vec![Some(30.0), Some(300.0), Some(31.0)],
            direct: vec![Some(20.0), Some(290.0), Some(20.0)],
        };
        let overhead = rounds.overhead(Measure::KeptMedian).unwrap();
        assert_eq!(overhead.amount, 10.0);
        assert_eq!(overhead.percent, 50.0);
    }

    #[test]
    fn less_throughput_is_overhead() {
        let rounds = Rounds {
            through: vec![Some(5.0)],
            direct: vec![Some(20.0)],
        };
        let overhead = rounds.overhead(Measure::BulkUp).unwrap();
        assert_eq!((overhead.amount, overhead.percent), (15.0, 75.0));
    }

    #[test]
    fn a_round_that_lacks_a_half_is_left_out() {
        let rounds = Rounds {
            through: vec![None, Some(12.0)],
            direct: vec![Some(1.0), Some(10.0)],
        };
        assert_eq!(rounds.overhead(Measure::KeptTail).unwrap().amount, 2.0);
        let nothing = Rounds {
            through: vec![Some(1.0)],
            direct: vec![None],
        };
        assert_eq!(nothing.overhead(Measure::KeptTail), None);
    }

    #[test]
    fn a_url_is_asked_over_http_and_an_address_as_our_own_server() {
        let workloads = |target| {
            let loads = loads(target, Duration::from_secs(1));
            loads
                .iter()
                .map(|load| load.spec.workload)
                .collect::<Vec<_>>()
        };
        assert_eq!(workloads("http://a:1/"), [Workload::Http, Workload::Http]);
        assert_eq!(
            workloads("a:1"),
            [
                Workload::Stream,
                Workload::Stream,
                Workload::Crr,
                Workload::Rr
            ]
        );
        for target in ["http://a:1/", "a:1"] {
            for load in loads(target, Duration::from_secs(1)) {
                assert_eq!(load.spec.fault(), None);
            }
        }
    }
}
