//! Resident memory.

use std::time::Duration;

use corinth_load::result::Workload;

use crate::{
    Fault,
    load::Demand,
    machine::Cpu,
    measure::{Figure, HELD_CONNECTIONS, Measure, Sample},
    running::{Resident, Running},
    system::Recipe,
};

use super::{Turns, must_work};

/// Until memory is looked at after a start.
const SETTLE_IDLE: Duration = Duration::from_secs(3);
/// How long connections are held; allocators give memory back only after a while (10 s by default for jemalloc).
const HOLD_SECONDS: u32 = 12;

impl<'a> Turns<'a> {
    /// Memory of each system alone, freshly started for each figure.
    pub(super) fn memory(&mut self, recipes: &[Recipe]) -> Result<(), Fault> {
        for recipe in recipes.iter().filter(|recipe| !recipe.gateways.is_empty()) {
            let tried = self.memory_of(recipe);
            let sample = self.note(1, Measure::Memory, recipe.key, tried)?;
            self.results.push(Measure::Memory, recipe.key, sample);
        }
        Ok(())
    }

    fn memory_of(&self, recipe: &Recipe) -> Result<Sample, Fault> {
        let before = Cpu::now()?;
        let under_bulk = self.under_bulk(recipe)?;
        let (idle, holding) = self.holding(recipe)?;
        let mut sample = Sample::empty(Cpu::now()?.since(&before));
        let each =
            |holding: u64, idle: u64| (holding as f64 - idle as f64) / f64::from(HELD_CONNECTIONS);
        sample.put(Figure::IdleBytes, idle.larger_bytes() as f64);
        sample.put(Figure::HoldingBytes, holding.larger_bytes() as f64);
        sample.put(Figure::BulkBytes, under_bulk as f64);
        sample.put(
            Figure::NearConnectionBytes,
            each(holding.a_bytes, idle.a_bytes),
        );
        sample.put(
            Figure::FarConnectionBytes,
            each(holding.b_bytes, idle.b_bytes),
        );
        Ok(sample)
    }

    /// The most the larger gateway has while it carries eight streams.
    fn under_bulk(&self, recipe: &Recipe) -> Result<u64, Fault> {
        let running = self.settled(recipe)?;
        let demand = Demand::new(Workload::Stream, self.settings.seconds, 8);
        let mut highest = None;
        self.load.run(self.lab, recipe.target, &demand, &mut || {
            let now = running.resident().map(Resident::larger_bytes);
            highest = now.max(highest);
        })?;
        highest.ok_or_else(unreadable)
    }

    /// With nothing to do, and while connections are held. At the end all of them pass a few bytes once more, which is
    /// no longer idle: of many looks the median one counts.
    fn holding(&self, recipe: &Recipe) -> Result<(Resident, Resident), Fault> {
        let running = self.settled(recipe)?;
        let idle = running.resident().ok_or_else(unreadable)?;
        let demand = Demand::new(Workload::Idle, HOLD_SECONDS, HELD_CONNECTIONS);
        let mut looks = Vec::new();
        let result = self.load.run(self.lab, recipe.target, &demand, &mut || {
            looks.extend(running.resident());
        })?;
        let held = result.held.map(|held| held.stayed);
        if held != Some(HELD_CONNECTIONS) {
            let held = held.map_or_else(|| "an unknown number".to_owned(), |held| held.to_string());
            return Err(Fault::NoFigure(format!(
                "{held} of {HELD_CONNECTIONS} connections were held"
            )));
        }
        looks.sort_by_key(|look| look.larger_bytes());
        let median = looks.get(looks.len() / 2).ok_or_else(unreadable)?;
        Ok((idle, *median))
    }

    /// Freshly started; it works, and has had a moment since.
    fn settled<'r>(&self, recipe: &'r Recipe) -> Result<Running<'r>, Fault>
    where
        'a: 'r,
    {
        let mut running = Running::start(recipe, self.lab)?;
        must_work(&mut running, self.lab, self.load)?;
        self.lab.interrupt().pause(SETTLE_IDLE)?;
        Ok(running)
    }
}

fn unreadable() -> Fault {
    Fault::NoFigure("its processes have ended".to_owned())
}
