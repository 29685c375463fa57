//! Resident memory.

use std::time::Duration;

use corinth_load::result::Workload;

use crate::{
    Fault,
    load::Demand,
    machine::Cpu,
    measure::{Figure, HELD_CONNECTIONS, Measure, Sample},
    running::Running,
    system::Recipe,
};

use super::{Turns, must_work};

/// Until memory is looked at after a start.
const SETTLE_IDLE: Duration = Duration::from_secs(3);
/// How long connections are held; allocators give memory back only after a while (10 s by default for jemalloc).
const HOLD_SECONDS: u32 = 14;

impl Turns<'_> {
    /// Memory of each system alone and freshly started: idle, holding connections, and under bulk.
    pub(super) fn memory(&mut self, recipes: &[Recipe]) -> Result<(), Fault> {
        for recipe in recipes.iter().filter(|recipe| !recipe.gateways.is_empty()) {
            let tried = self.memory_of(recipe);
            let sample = self.note(1, Measure::Memory, recipe.key, tried)?;
            self.results.push(Measure::Memory, recipe.key, sample);
        }
        Ok(())
    }

    fn memory_of(&self, recipe: &Recipe) -> Result<Sample, Fault> {
        let mut running = Running::start(recipe, self.lab)?;
        must_work(&mut running, self.lab, self.load)?;
        self.lab.interrupt().pause(SETTLE_IDLE)?;
        let before = Cpu::now()?;
        let unreadable = || Fault::NoFigure("its processes have ended".to_owned());
        let idle = running.resident().ok_or_else(unreadable)?;

        let demand = Demand::new(Workload::Idle, HOLD_SECONDS, HELD_CONNECTIONS);
        let mut holding = None;
        let target = recipe.target;
        let held = self.load.run(self.lab, target, &demand, &mut || {
            holding = running.resident().or(holding);
        })?;
        let held = held
            .held
            .ok_or_else(|| Fault::NoFigure("the result does not say what was held".to_owned()))?;
        if held.stayed < HELD_CONNECTIONS {
            return Err(Fault::NoFigure(format!(
                "only {} of {HELD_CONNECTIONS} connections were held",
                held.stayed
            )));
        }
        let holding = holding.ok_or_else(unreadable)?;

        let mut highest = None;
        let demand = Demand::new(Workload::Stream, self.settings.seconds, 8);
        self.load.run(self.lab, target, &demand, &mut || {
            let now = running.resident().map(|resident| resident.larger_bytes());
            highest = now.max(highest);
        })?;
        let highest = highest.ok_or_else(unreadable)?;

        let mut sample = Sample::empty(Cpu::now()?.since(&before));
        let each =
            |holding: u64, idle: u64| (holding as f64 - idle as f64) / f64::from(HELD_CONNECTIONS);
        sample.put(Figure::IdleBytes, idle.larger_bytes() as f64);
        sample.put(Figure::HoldingBytes, holding.larger_bytes() as f64);
        sample.put(Figure::BulkBytes, highest as f64);
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
}
