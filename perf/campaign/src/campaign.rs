//! A campaign: brings everything up, lets all take turns in every round, and writes down what came out.
//!
//! All systems run at the same time; those whose turn it is not cost next to nothing. In every round each load runs on
//! every system, and everyone goes first in turn, so that what disturbs the machine disturbs all of them. The first
//! round warms up and finds each system's knee; it is not counted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::{
    Fault, Interrupt, Lab, certificates,
    lab::{LinkMtu, Middle, PREFIX},
    load::{CorinthPerf, Load},
    machine,
    measure::Group,
    programs::Programs,
    results::{Problem, Results, SCHEMA, SystemRecord},
    rounds::{self, Turns},
    system::{Place, Recipe, SystemKey, path_text, wireguard},
    wan,
};

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
    /// Of every link, except over the wide-area network.
    pub mtu: LinkMtu,
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
    raise_descriptor_limit(&place);
    certificates::write(&place.certificates)?;
    let mut results = empty(settings);
    let gateway = settings.programs.gateway.as_deref();
    results.environment = machine::describe_gateway(gateway, settings.repository.as_deref());
    let settings = &with_copied_programs(settings, folder.path())?;
    let mut campaign = Campaign {
        settings,
        interrupt,
        say,
        load: CorinthPerf {
            program: settings.load.clone(),
        },
        candidates: candidates(settings, &place, interrupt),
        results,
    };
    match campaign.all() {
        Ok(()) => {}
        Err(Fault::Interrupted) if !campaign.results.samples.is_empty() => {
            campaign.results.partial = true;
        }
        Err(fault) => return Err(fault),
    }
    Ok(campaign.finish())
}

/// A campaign while it goes on.
struct Campaign<'a> {
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    say: Say<'a>,
    load: CorinthPerf,
    candidates: Vec<Candidate>,
    results: Results,
}

impl Campaign<'_> {
    fn all(&mut self) -> Result<(), Fault> {
        let groups = &self.settings.groups;
        if groups.iter().any(|group| *group != Group::Wan) {
            self.local()?;
        }
        if groups.contains(&Group::Wan) {
            match self.over_wan() {
                Err(fault @ Fault::Machine(_)) => self.without_wan(&fault),
                done => done?,
            }
        }
        Ok(())
    }

    /// On wires.
    fn local(&mut self) -> Result<(), Fault> {
        let lab = Lab::lay(Middle::Wire(self.settings.mtu), self.interrupt)?;
        let _server = self.load.serve(&lab)?;
        let recipes = self.working(&lab, &SystemKey::ALL)?;
        let mut turns = Turns {
            lab: &lab,
            load: &self.load,
            settings: self.settings,
            say: self.say,
            results: &mut self.results,
        };
        turns.local(&recipes)
    }

    /// Over a wide-area network.
    fn over_wan(&mut self) -> Result<(), Fault> {
        wan::must_agree_with_theory(self.say, self.interrupt)?;
        for cell in wan::cells() {
            let lab = Lab::lay(Middle::Open, self.interrupt)?;
            let network = wan::join(&lab, &cell.impairment, 1)?;
            let _server = self.load.serve(&lab)?;
            let recipes = self.working(&lab, cell.systems)?;
            let mut turns = Turns {
                lab: &lab,
                load: &self.load,
                settings: self.settings,
                say: self.say,
                results: &mut self.results,
            };
            turns.over_wan(&recipes, cell.measure)?;
            let carried = network.check();
            carried.map_err(|fault| Fault::Machine(fault.to_string()))?;
        }
        Ok(())
    }

    /// The emulator cannot be trusted here: nothing is measured over it.
    fn without_wan(&mut self, fault: &Fault) {
        for cell in wan::cells() {
            let problem = Problem {
                measure: cell.measure,
                system: SystemKey::Corinth,
                round: 1,
                why: fault.to_string(),
            };
            (self.say)(&format!("{}: no data: {}", problem.measure, problem.why));
            self.results.problems.push(problem);
            self.results.push(cell.measure, SystemKey::Corinth, None);
        }
    }

    /// The recipes, among those of `keys`, that come up and carry bytes. Of the others is noted why they do not.
    fn working(&mut self, lab: &Lab, keys: &[SystemKey]) -> Result<Vec<Recipe>, Fault> {
        let mut recipes = Vec::new();
        for candidate in &mut self.candidates {
            let title = candidate.record.key.title();
            let is_wanted = keys.contains(&candidate.record.key);
            let Some(recipe) = candidate.recipe.as_ref().filter(|_| is_wanted) else {
                continue;
            };
            match rounds::bring_up(recipe, lab, &self.load) {
                Ok(()) => {
                    (self.say)(&format!("{title} works"));
                    recipes.push(recipe.clone());
                }
                Err(Fault::Interrupted) => return Err(Fault::Interrupted),
                Err(fault) => {
                    candidate.record.absent = Some(fault.to_string());
                    candidate.recipe = None;
                }
            }
        }
        for candidate in &self.candidates {
            if let Some(why) = &candidate.record.absent {
                (self.say)(&format!(
                    "{} is not measured: {why}",
                    candidate.record.key.title()
                ));
            }
        }
        Ok(recipes)
    }

    fn finish(mut self) -> Results {
        let records = self
            .candidates
            .into_iter()
            .map(|candidate| candidate.record);
        self.results.systems = records.collect();
        self.results
    }
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
        temporary_folder().map(Self::Temporary)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// A folder that carries our number, so that what a killed run left behind is found.
pub(crate) fn temporary_folder() -> Result<TempDir, Fault> {
    let made = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir();
    made.map_err(Fault::file(std::env::temp_dir()))
}

/// What makes and carries load, as it was when a measurement began: whoever builds meanwhile changes nothing.
pub(crate) struct Tools {
    /// Where everything of the measurement lies; gone with it.
    pub(crate) folder: TempDir,
    /// Our gateway.
    pub(crate) gateway: String,
    pub(crate) load: CorinthPerf,
}

impl Tools {
    pub(crate) fn copied(programs: &Programs, load: &Path) -> Result<Self, Fault> {
        let gateway = programs.must_have_gateway()?;
        let folder = temporary_folder()?;
        Ok(Self {
            gateway: path_text(&copied(gateway, folder.path(), "corinth-gateway")?),
            load: CorinthPerf {
                program: copied(load, folder.path(), "corinth-perf")?,
            },
            folder,
        })
    }
}

/// Now, as RFC 3339.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Says what was found, or why there is no figure, which is kept.
pub(crate) fn noted(
    found: Result<f64, Fault>,
    title: &str,
    say: Say<'_>,
    problems: &mut Vec<String>,
) -> Result<Option<f64>, Fault> {
    match found {
        Ok(figure) => {
            say(&format!("{title}: {figure:.1}"));
            Ok(Some(figure))
        }
        Err(Fault::Interrupted) => Err(Fault::Interrupted),
        Err(fault) => {
            let problem = format!("{title}: {fault}");
            say(&problem);
            problems.push(problem);
            Ok(None)
        }
    }
}

pub(crate) fn place(folder: &Path) -> Place {
    let limit = getrlimit(Resource::Nofile);
    Place {
        folder: folder.to_owned(),
        certificates: folder.join("certificates"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: limit.maximum.or(limit.current).unwrap_or(1_024),
    }
}

/// Everything that is started gets as many descriptors as this process may have.
fn raise_descriptor_limit(place: &Place) {
    let most = Some(place.descriptors);
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    // What cannot be raised shows when connections fail.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A build going on beside us must not change what is measured, nor what measures.
fn with_copied_programs(settings: &Settings, folder: &Path) -> Result<Settings, Fault> {
    let mut settings = settings.clone();
    settings.load = copied(&settings.load, folder, "corinth-perf")?;
    if let Some(gateway) = &settings.programs.gateway {
        settings.programs.gateway = Some(copied(gateway, folder, "corinth-gateway")?);
    }
    Ok(settings)
}

pub(crate) fn copied(program: &Path, folder: &Path, name: &str) -> Result<PathBuf, Fault> {
    let copy = folder.join(name);
    fs::copy(program, &copy).map_err(Fault::file(program))?;
    Ok(copy)
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
        started: now(),
        rounds: settings.rounds,
        seconds: settings.seconds,
        environment: Vec::new(),
        systems: Vec::new(),
        samples: BTreeMap::new(),
        problems: Vec::new(),
    }
}
