//! Lets systems take turns.

use std::time::Duration;

use corinth_load::result::{TestResult, Workload};

use crate::{
    Fault, Lab,
    campaign::{Say, Settings},
    load::{Demand, Load},
    machine::{self, Cpu, Fact, KERNEL},
    measure::{Figure, Group, Measure, Sample},
    results::{Problem, Results},
    running::Running,
    system::{Recipe, SystemKey},
    wan,
};

mod memory;

/// Length of a load of the first round.
const WARM_UP_SECONDS: u32 = 2;
/// Until bytes come back through a system that has just started.
const PROBE_ATTEMPTS: u32 = 10;
const PROBE_PAUSE: Duration = Duration::from_millis(300);
/// All systems keep the same schedule: this share of the lowest knee.
const SHARE_OF_KNEE: f64 = 0.5;

const OFFLOADS: &str = "offloads";

/// What a client says of its own end of the path.
fn client_facts(result: &TestResult) -> Vec<Fact> {
    let client = &result.environment;
    let bytes =
        |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
    vec![
        Fact::new(OFFLOADS, client.offloads.join(", ")),
        Fact::new(
            "socket buffers as granted",
            format!(
                "{} bytes to send, {} to receive (client of the first load)",
                bytes(client.send_buffer_bytes),
                bytes(client.receive_buffer_bytes)
            ),
        ),
    ]
}

/// Whether a system can be started and bytes come back through it.
pub(crate) fn bring_up(recipe: &Recipe, lab: &Lab, load: &dyn Load) -> Result<(), Fault> {
    let mut running = Running::start(recipe, lab)?;
    must_work(&mut running, lab, load)
}

/// Waits until bytes come back through a system that has just started.
pub(crate) fn must_work(
    running: &mut Running<'_>,
    lab: &Lab,
    load: &dyn Load,
) -> Result<(), Fault> {
    let demand = Demand::new(Workload::Rr, 1, 1);
    let mut last = Fault::NoFigure("nothing comes back".to_owned());
    for _ in 0..PROBE_ATTEMPTS {
        running.must_run()?;
        match load.run(lab, running.recipe().target, &demand, &mut || {}) {
            Ok(_) => return Ok(()),
            Err(Fault::Interrupted) => return Err(Fault::Interrupted),
            Err(fault) => last = fault,
        }
        lab.interrupt().pause(PROBE_PAUSE)?;
    }
    let said = running.said().join("; ");
    Err(Fault::NoFigure(format!(
        "nothing comes back: {last}; {said}"
    )))
}

/// The rounds while they go on.
pub(crate) struct Turns<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) load: &'a dyn Load,
    pub(crate) settings: &'a Settings,
    pub(crate) say: Say<'a>,
    pub(crate) results: &'a mut Results,
}

/// The schedules of a round.
#[derive(Debug, Default)]
struct Schedules {
    /// System and the rate of its knee.
    knees: Vec<(SystemKey, f64)>,
}

impl Schedules {
    fn per_second(&self, measure: Measure, key: SystemKey) -> Option<f64> {
        let own = || self.knees.iter().find(|(found, _)| *found == key);
        match measure {
            Measure::OpenSame => {
                // One that has no knee has no part in this.
                own()?;
                let lowest = self.knees.iter().map(|(_, rate)| *rate).reduce(f64::min);
                lowest.map(|rate| rate * SHARE_OF_KNEE)
            }
            Measure::OpenOwn => own().map(|(_, rate)| rate * SHARE_OF_KNEE),
            Measure::Bulk1Up
            | Measure::Bulk1Down
            | Measure::Bulk8Up
            | Measure::Bulk8Down
            | Measure::Crr
            | Measure::Rr
            | Measure::Knee
            | Measure::Memory
            | Measure::WanFirstByte
            | Measure::WanBulk => None,
        }
    }
}

impl<'a> Turns<'a> {
    fn wants(&self, measure: Measure) -> bool {
        self.settings.groups.contains(&measure.group())
    }

    /// All that is measured on wires.
    pub(crate) fn local(&mut self, recipes: &[Recipe]) -> Result<(), Fault> {
        if self.wants(Measure::Memory) {
            self.memory(recipes)?;
        }
        let measures = Measure::OF_A_ROUND.into_iter();
        let measures: Vec<_> = measures.filter(|measure| self.wants(*measure)).collect();
        if measures.is_empty() {
            self.note_machine();
            return Ok(());
        }
        let mut running = self.start(recipes)?;
        self.note_machine();
        (self.say)("warm-up, not counted");
        let mut schedules = Schedules::default();
        self.warm_up(&mut running, &mut schedules)?;
        for round in 1..=self.settings.rounds {
            (self.say)(&format!("round {round} of {}", self.settings.rounds));
            self.round(
                round,
                &measures,
                self.settings.seconds,
                &mut running,
                &schedules,
            )?;
        }
        Ok(())
    }

    /// One cell on a wide-area network.
    pub(crate) fn over_wan(&mut self, recipes: &[Recipe], measure: Measure) -> Result<(), Fault> {
        let mut running = self.start(recipes)?;
        self.note_machine();
        let seconds = match measure {
            Measure::WanBulk => self.settings.seconds.max(wan::BULK_SECONDS_MIN),
            Measure::Bulk1Up
            | Measure::Bulk1Down
            | Measure::Bulk8Up
            | Measure::Bulk8Down
            | Measure::Crr
            | Measure::Rr
            | Measure::Knee
            | Measure::OpenSame
            | Measure::OpenOwn
            | Measure::Memory
            | Measure::WanFirstByte => self.settings.seconds,
        };
        (self.say)("warm-up, not counted");
        for system in &mut running {
            let demand = measure.demand(WARM_UP_SECONDS, None);
            self.one(0, measure, demand.as_ref(), system)?;
        }
        for round in 1..=self.settings.rounds {
            (self.say)(&format!(
                "{measure}: round {round} of {}",
                self.settings.rounds
            ));
            self.round(
                round,
                &[measure],
                seconds,
                &mut running,
                &Schedules::default(),
            )?;
        }
        Ok(())
    }

    /// The machine, once, while connections are open.
    fn note_machine(&mut self) {
        let environment = &mut self.results.environment;
        if environment.iter().all(|fact| fact.name != KERNEL) {
            environment.splice(0..0, machine::describe(self.lab));
        }
    }

    /// All at once.
    fn start<'r>(&self, recipes: &'r [Recipe]) -> Result<Vec<Running<'r>>, Fault>
    where
        'a: 'r,
    {
        let mut running = Vec::new();
        for recipe in recipes {
            running.push(Running::start(recipe, self.lab)?);
        }
        for system in &mut running {
            must_work(system, self.lab, self.load)?;
        }
        Ok(running)
    }

    /// Every load once, and the knees.
    fn warm_up(
        &mut self,
        running: &mut [Running<'_>],
        schedules: &mut Schedules,
    ) -> Result<(), Fault> {
        let loads = Measure::OF_A_ROUND.into_iter();
        let loads = loads.filter(|measure| self.wants(*measure) && measure.group() != Group::Open);
        for measure in loads.collect::<Vec<_>>() {
            for system in running.iter_mut() {
                let demand = measure.demand(WARM_UP_SECONDS, None);
                self.one(0, measure, demand.as_ref(), system)?;
            }
        }
        if !self.wants(Measure::Knee) {
            return Ok(());
        }
        for system in running.iter_mut() {
            let demand = Measure::Knee.demand(self.settings.seconds, None);
            let sample = self.one(0, Measure::Knee, demand.as_ref(), system)?;
            let key = system.recipe().key;
            let rate = sample
                .as_ref()
                .and_then(|sample| sample.figure(Figure::PerSecond));
            schedules.knees.extend(rate.map(|rate| (key, rate)));
            self.results.push(Measure::Knee, key, sample);
        }
        Ok(())
    }

    fn round(
        &mut self,
        round: u32,
        measures: &[Measure],
        seconds: u32,
        running: &mut [Running<'_>],
        schedules: &Schedules,
    ) -> Result<(), Fault> {
        for &measure in measures {
            let first = round as usize % running.len().max(1);
            for turn in 0..running.len() {
                let system = &mut running[(first + turn) % running.len()];
                let key = system.recipe().key;
                let rate = schedules.per_second(measure, key);
                let demand = measure.demand(seconds, rate);
                let sample = self.one(round, measure, demand.as_ref(), system)?;
                self.results.push(measure, key, sample);
            }
        }
        Ok(())
    }

    /// One load on one system: a sample, or a note why there is none.
    fn one(
        &mut self,
        round: u32,
        measure: Measure,
        demand: Option<&Demand>,
        system: &mut Running<'_>,
    ) -> Result<Option<Sample>, Fault> {
        let tried = demand.map_or_else(
            || Err(Fault::NoFigure("its knee was not found".to_owned())),
            |demand| self.sample(measure, demand, system),
        );
        self.note(round, measure, system.recipe().key, tried)
    }

    fn sample(
        &mut self,
        measure: Measure,
        demand: &Demand,
        system: &mut Running<'_>,
    ) -> Result<Sample, Fault> {
        system.must_run()?;
        let before = Cpu::now()?;
        let target = system.recipe().target;
        let result = self.load.run(self.lab, target, demand, &mut || {});
        let spent = Cpu::now()?.since(&before);
        let result = result?;
        if self
            .results
            .environment
            .iter()
            .all(|fact| fact.name != OFFLOADS)
        {
            self.results.environment.extend(client_facts(&result));
        }
        Sample::of(measure, &result, spent)
    }

    fn note(
        &mut self,
        round: u32,
        measure: Measure,
        system: SystemKey,
        tried: Result<Sample, Fault>,
    ) -> Result<Option<Sample>, Fault> {
        match tried {
            Ok(sample) => {
                let figures = sample.figures.iter();
                let figures: Vec<_> = figures
                    .map(|(name, value)| format!("{name:?} {value:.4}"))
                    .collect();
                (self.say)(&format!("{measure} {system}: {}", figures.join(", ")));
                Ok(Some(sample))
            }
            Err(Fault::Interrupted) => Err(Fault::Interrupted),
            Err(fault) => {
                let why = fault.to_string();
                (self.say)(&format!("{measure} {system}: no data: {why}"));
                self.results.problems.push(Problem {
                    measure,
                    system,
                    round,
                    why,
                });
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
