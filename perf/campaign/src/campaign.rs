//! A campaign: brings everything up, lets all take turns in every round, and writes down what came out.
//!
//! All systems run at the same time; those whose turn it is not cost next to nothing. In every round each load runs on
//! every system, and everyone goes first in turn, so that what disturbs the machine disturbs all of them. The first
//! round warms up and finds each system's knee; it is not counted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Fault, Interrupt, Lab, certificates,
    lab::{Middle, PREFIX},
    load::{CorinthPerf, Demand, Load},
    machine::{self, Cpu},
    measure::{Figure, Group, HELD_CONNECTIONS, Measure, Sample},
    programs::Programs,
    results::{Problem, Results, SCHEMA, SystemRecord},
    running::Running,
    system::{Place, Recipe, SystemKey, wireguard},
};

use corinth_load::result::Workload;

/// Length of a load of the first round.
const WARM_UP_SECONDS: u32 = 2;
/// Until bytes come back through a system that has just started.
const PROBE_ATTEMPTS: u32 = 10;
const PROBE_PAUSE: Duration = Duration::from_millis(300);
/// Until memory is looked at after a start.
const SETTLE_IDLE: Duration = Duration::from_secs(3);
/// How long connections are held; allocators give memory back only after a while (10 s by default for jemalloc).
const HOLD_SECONDS: u32 = 14;
/// All systems keep the same schedule: this share of the lowest knee.
const SHARE_OF_KNEE: f64 = 0.5;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command line, for the report.
    pub command: String,
    /// What is compared.
    pub systems: Vec<SystemKey>,
    /// What is measured.
    pub groups: Vec<Group>,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// Where what is compared is.
    pub programs: Programs,
    /// What makes load.
    pub load: PathBuf,
    /// The repository, for its revision.
    pub repository: Option<PathBuf>,
    /// Where configurations and certificates stay; otherwise they are removed.
    pub keep: Option<PathBuf>,
}

/// Takes note of how it goes.
pub type Say<'a> = &'a dyn Fn(&str);

/// A system that is there, and what the report says of it.
struct Candidate {
    record: SystemRecord,
    recipe: Option<Recipe>,
}

/// Every configuration, without running anything.
pub fn show(settings: &Settings) -> Vec<SystemRecord> {
    let shown = Place {
        folder: "/run/corinth-perf".into(),
        certificates: "/run/corinth-perf/certificates".into(),
        ..place(Path::new(""))
    };
    let keys = |_: &str| Ok(wireguard::Keys::shown());
    let record = |key: &SystemKey| match settings.programs.find(*key, &shown, &keys) {
        Ok(found) => SystemRecord {
            key: *key,
            version: found.version,
            absent: None,
            commands: found.recipe.commands(),
            files: found.recipe.files,
        },
        Err(fault) => absent(*key, &fault),
    };
    settings.systems.iter().map(record).collect()
}

/// Runs the campaign to its end, or until it is interrupted; then the results are partial.
///
/// # Errors
/// When not even a start can be made.
pub fn run(settings: &Settings, interrupt: &Interrupt, say: Say<'_>) -> Result<Results, Fault> {
    let folder = Folder::make(settings)?;
    let place = place(folder.path());
    certificates::write(&place.certificates)?;
    let settings = &with_copied_gateway(settings, folder.path())?;
    let candidates = candidates(settings, &place, interrupt);
    let lab = Lab::lay(Middle::Wire, interrupt)?;
    let load = CorinthPerf {
        program: settings.load.clone(),
    };
    let _server = load.serve(&lab)?;
    let mut results = empty(settings);
    let mut running = Vec::new();
    for mut candidate in candidates {
        if let Some(recipe) = &candidate.recipe {
            match bring_up(recipe, &lab, &load) {
                Ok(()) => say(&format!("{} works", candidate.record.key.title())),
                Err(Fault::Interrupted) => return Err(Fault::Interrupted),
                Err(fault) => candidate.record.absent = Some(fault.to_string()),
            }
        }
        if let Some(why) = &candidate.record.absent {
            say(&format!(
                "{} is not measured: {why}",
                candidate.record.key.title()
            ));
        } else {
            running.extend(candidate.recipe);
        }
        results.systems.push(candidate.record);
    }
    let mut turns = Turns {
        lab: &lab,
        load: &load,
        settings,
        say,
        results,
    };
    match turns.all(&running) {
        Ok(()) => {}
        Err(Fault::Interrupted) => turns.results.partial = true,
        Err(fault) => return Err(fault),
    }
    Ok(turns.results)
}

/// The folder of a campaign.
enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn make(settings: &Settings) -> Result<Self, Fault> {
        if let Some(path) = &settings.keep {
            fs::create_dir_all(path).map_err(Fault::file(path))?;
            return Ok(Self::Kept(
                fs::canonicalize(path).map_err(Fault::file(path))?,
            ));
        }
        let made = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir();
        made.map(Self::Temporary)
            .map_err(Fault::file(std::env::temp_dir()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

fn place(folder: &Path) -> Place {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile);
    Place {
        folder: folder.to_owned(),
        certificates: folder.join("certificates"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: limit.maximum.or(limit.current).unwrap_or(1_024),
    }
}

/// A build going on beside us must not change what is measured.
fn with_copied_gateway(settings: &Settings, folder: &Path) -> Result<Settings, Fault> {
    let mut settings = settings.clone();
    if let Some(gateway) = &settings.programs.gateway {
        let copy = folder.join("corinth-gateway");
        fs::copy(gateway, &copy).map_err(Fault::file(gateway))?;
        settings.programs.gateway = Some(copy);
    }
    Ok(settings)
}

fn candidates(settings: &Settings, place: &Place, interrupt: &Interrupt) -> Vec<Candidate> {
    let keys = |wg: &str| wireguard::Keys::generate(wg, &place.folder, interrupt);
    let shown = show(settings).into_iter();
    let found = shown.map(|record| {
        let recipe = settings.programs.find(record.key, place, &keys);
        match recipe {
            Ok(found) => Candidate {
                recipe: Some(found.recipe),
                record,
            },
            Err(fault) => Candidate {
                recipe: None,
                record: absent(record.key, &fault),
            },
        }
    });
    found.collect()
}

fn absent(key: SystemKey, fault: &Fault) -> SystemRecord {
    SystemRecord {
        key,
        version: None,
        absent: Some(fault.to_string()),
        files: Vec::new(),
        commands: Vec::new(),
    }
}

fn empty(settings: &Settings) -> Results {
    Results {
        schema: SCHEMA.to_owned(),
        partial: false,
        command: settings.command.clone(),
        started: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        rounds: settings.rounds,
        seconds: settings.seconds,
        environment: Vec::new(),
        systems: Vec::new(),
        samples: std::collections::BTreeMap::new(),
        problems: Vec::new(),
    }
}

/// Whether a system can be started and bytes come back through it.
fn bring_up(recipe: &Recipe, lab: &Lab, load: &dyn Load) -> Result<(), Fault> {
    let mut running = Running::start(recipe, lab)?;
    must_work(&mut running, lab, load)
}

fn must_work(running: &mut Running<'_>, lab: &Lab, load: &dyn Load) -> Result<(), Fault> {
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
struct Turns<'a> {
    lab: &'a Lab,
    load: &'a dyn Load,
    settings: &'a Settings,
    say: Say<'a>,
    results: Results,
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

impl Turns<'_> {
    fn wants(&self, measure: Measure) -> bool {
        self.settings.groups.contains(&measure.group())
    }

    fn all(&mut self, recipes: &[Recipe]) -> Result<(), Fault> {
        if self.wants(Measure::Memory) {
            self.memory(recipes)?;
        }
        let mut running = Vec::new();
        for recipe in recipes {
            running.push(Running::start(recipe, self.lab)?);
        }
        for system in &mut running {
            must_work(system, self.lab, self.load)?;
        }
        let repository = self.settings.repository.as_deref();
        let gateway = self.settings.programs.gateway.as_deref();
        self.results.environment = machine::describe(self.lab, repository, gateway);
        (self.say)("warm-up, not counted");
        let mut schedules = Schedules::default();
        self.warm_up(&mut running, &mut schedules)?;
        for round in 1..=self.settings.rounds {
            (self.say)(&format!("round {round} of {}", self.settings.rounds));
            self.round(round, &mut running, &schedules)?;
        }
        Ok(())
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
        running: &mut [Running<'_>],
        schedules: &Schedules,
    ) -> Result<(), Fault> {
        for measure in Measure::OF_A_ROUND {
            if !self.wants(measure) {
                continue;
            }
            let first = round as usize % running.len().max(1);
            for turn in 0..running.len() {
                let system = &mut running[(first + turn) % running.len()];
                let key = system.recipe().key;
                let rate = schedules.per_second(measure, key);
                let demand = measure.demand(self.settings.seconds, rate);
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
        &self,
        measure: Measure,
        demand: &Demand,
        system: &mut Running<'_>,
    ) -> Result<Sample, Fault> {
        system.must_run()?;
        let before = Cpu::now()?;
        let target = system.recipe().target;
        let result = self.load.run(self.lab, target, demand, &mut || {});
        let spent = Cpu::now()?.since(&before);
        Sample::of(measure, &result?, spent)
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

    /// Memory of each system alone and freshly started: idle, holding connections, and under bulk.
    fn memory(&mut self, recipes: &[Recipe]) -> Result<(), Fault> {
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
