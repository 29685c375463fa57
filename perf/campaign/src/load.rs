//! The seam to what makes load: one server that runs all the time, and a client for each load.
//!
//! A load is bounded, ends by itself, and gives figures or the reason why there are none.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use corinth_load::result::{TestResult, Workload};

use crate::{
    Fault, Lab, Side,
    process::{Finished, Process},
    system::{SERVER_PORT, corinth::Congestion, path_text},
};

/// A load may take this much longer than it was asked to.
const GRACE: Duration = Duration::from_secs(20);
/// The server is ready after.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// More failed requests than this, as a share of those that succeeded, and a load says nothing.
const FAILED_SHARE_MAX: f64 = 0.001;

/// Which way the payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    Up,
    /// From server to client.
    Down,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the answer to the one before is there.
    Closed,
    /// On a fixed schedule over all connections, answered or not.
    PerSecond(f64),
}

/// What a client is asked to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// On its connections.
    pub workload: Workload,
    /// For how long.
    pub seconds: u32,
    /// At once.
    pub connections: u32,
    /// For bulk.
    pub direction: Direction,
    /// For requests.
    pub pace: Pace,
    /// Of the client's connections; that of the routes, unless given.
    pub congestion: Option<Congestion>,
    /// What each stream and each flow of datagrams sends at most.
    pub bits_per_second: Option<u64>,
}

impl Demand {
    /// Closed loop, upwards.
    pub fn new(workload: Workload, seconds: u32, connections: u32) -> Self {
        Self {
            workload,
            seconds,
            connections,
            direction: Direction::Up,
            pace: Pace::Closed,
            congestion: None,
            bits_per_second: None,
        }
    }
}

/// What makes load.
pub trait Load {
    /// Starts the server in the last namespace.
    ///
    /// # Errors
    /// When it does not come up.
    fn serve(&self, lab: &Lab) -> Result<Process, Fault>;

    /// Runs a client in the first namespace to its end; `meanwhile` is called now and then.
    ///
    /// # Errors
    /// When there are no figures that may be counted.
    fn run(
        &self,
        lab: &Lab,
        target: SocketAddr,
        demand: &Demand,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<TestResult, Fault>;
}

/// `corinth-perf server` and `corinth-perf client`.
#[derive(Debug, Clone)]
pub struct CorinthPerf {
    /// The program.
    pub program: PathBuf,
}

impl Load for CorinthPerf {
    fn serve(&self, lab: &Lab) -> Result<Process, Fault> {
        let argv = self.words(&["server", "-p", &SERVER_PORT.to_string()]);
        let mut process = lab.start(Side::Server, "load server", &argv)?;
        process.wait_until(READY_LIMIT, lab.interrupt(), |_| {
            lab.is_listening(Side::Server, SERVER_PORT)
        })?;
        Ok(process)
    }

    fn run(
        &self,
        lab: &Lab,
        target: SocketAddr,
        demand: &Demand,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<TestResult, Fault> {
        let argv = self.client(target, demand);
        let limit = Duration::from_secs(demand.seconds.into()) + GRACE;
        let finished = lab.run(Side::Client, &argv, limit, meanwhile)?;
        read(&finished)
    }
}

impl CorinthPerf {
    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let program = path_text(&self.program);
        let arguments = arguments.iter().map(|&word| word.to_owned());
        std::iter::once(program).chain(arguments).collect()
    }

    fn client(&self, target: SocketAddr, demand: &Demand) -> Vec<String> {
        let mut words = self.words(&[
            "client",
            &target.ip().to_string(),
            "-p",
            &target.port().to_string(),
            "--workload",
            demand.workload.name(),
            "-t",
            &demand.seconds.to_string(),
            "-P",
            &demand.connections.to_string(),
            "-J",
        ]);
        if demand.direction == Direction::Down {
            words.push("-R".to_owned());
        }
        if let Pace::PerSecond(rate) = demand.pace {
            words.extend(["--rate".to_owned(), format!("{rate:.0}")]);
        }
        if let Some(congestion) = demand.congestion {
            words.extend(["-C", congestion.name()].map(str::to_owned));
        }
        if let Some(bits) = demand.bits_per_second {
            words.extend(["-b".to_owned(), bits.to_string()]);
        }
        words
    }
}

/// A result, if it may be counted.
fn read(finished: &Finished) -> Result<TestResult, Fault> {
    let no_figure = |why: String| Err(Fault::NoFigure(why));
    let result: TestResult = match serde_json::from_str(&finished.stdout) {
        Ok(result) => result,
        Err(_) if !finished.status.success() => return no_figure(finished.complaint()),
        Err(error) => return no_figure(format!("the client's result cannot be read: {error}")),
    };
    if let Some(fault) = &result.fault {
        return no_figure(fault.clone());
    }
    if result.partial || !finished.status.success() {
        return no_figure(format!(
            "the client did not finish: {}",
            finished.complaint()
        ));
    }
    if let Some(rate) = &result.rate {
        if rate.completed == 0 {
            return no_figure("no request was answered".to_owned());
        }
        if rate.failed as f64 > rate.completed as f64 * FAILED_SHARE_MAX {
            return no_figure(format!(
                "{} of {} requests failed",
                rate.failed,
                rate.completed + rate.failed
            ));
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use corinth_load::result::{Environment, Rate, SCHEMA, TestSpec};

    use super::*;

    fn result() -> TestResult {
        TestResult {
            schema: SCHEMA.to_owned(),
            partial: false,
            fault: None,
            command: Vec::new(),
            started: String::new(),
            test: TestSpec::new(Workload::Crr, "host"),
            environment: Environment::default(),
            server: None,
            intervals: Vec::new(),
            throughput: None,
            up: None,
            down: None,
            rate: None,
            latency: None,
            datagrams: None,
            gap: None,
            held: None,
            verified: None,
            cost: None,
        }
    }

    fn finished(result: &TestResult) -> Finished {
        Finished {
            status: ExitStatus::from_raw(0),
            stdout: serde_json::to_string(result).expect("it is plain"),
            stderr: String::new(),
        }
    }

    #[test]
    fn a_client_is_told_what_is_demanded() {
        let load = CorinthPerf {
            program: "/bin/corinth-perf".into(),
        };
        let mut demand = Demand::new(Workload::Stream, 3, 8);
        demand.direction = Direction::Down;
        let target = "10.0.0.1:80".parse().expect("it is an address");
        assert_eq!(
            load.client(target, &demand).join(" "),
            "/bin/corinth-perf client 10.0.0.1 -p 80 --workload stream -t 3 -P 8 -J -R"
        );
        demand.congestion = Some(Congestion::Bbr);
        assert!(load.client(target, &demand).ends_with(&[
            "-R".to_owned(),
            "-C".to_owned(),
            "bbr".to_owned()
        ]));
        let mut demand = Demand::new(Workload::Rr, 1, 2);
        demand.pace = Pace::PerSecond(1234.4);
        assert!(
            load.client(target, &demand)
                .ends_with(&["--rate".to_owned(), "1234".to_owned()])
        );
    }

    #[test]
    fn what_failed_or_is_partial_gives_no_figures() {
        assert!(read(&finished(&result())).is_ok());
        let mut partial = result();
        partial.partial = true;
        assert!(read(&finished(&partial)).is_err());
        let mut faulty = result();
        faulty.fault = Some("the server went away".to_owned());
        let fault = read(&finished(&faulty)).expect_err("it has a fault");
        assert_eq!(fault.to_string(), "the server went away");
        let mut losing = result();
        losing.rate = Some(Rate {
            completed: 1_000,
            failed: 2,
            per_second: 1_000.0,
        });
        assert!(read(&finished(&losing)).is_err());
        let silent = Finished {
            status: ExitStatus::from_raw(3 << 8),
            stdout: String::new(),
            stderr: "nobody answers\n".to_owned(),
        };
        assert_eq!(
            read(&silent).expect_err("it said nothing").to_string(),
            "nobody answers"
        );
    }
}
