//! `corinth-perf compare`: gateways beside each other on one path.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{ArgAction, Args as ClapArgs, ValueEnum};
use corinth_campaign::{
    Interrupt,
    baseline::{self, Baseline},
    campaign::{self, Settings},
    measure::Group,
    programs::Programs,
    report::{Report, document, html, text},
    results::{self, Results, SystemRecord},
    system::SystemKey,
};

use crate::{UNMEASURED, output};

/// Something has become slower than its noise explains.
const REGRESSED: u8 = 12;
/// Where the table of the documentation is, from the top of the repository.
const DOCUMENT: &str = "docs/performance.md";
/// Where the baseline is, from the top of the repository.
const BASELINE: &str = "perf/baseline.json";
/// Below it there is no telling noise from a change.
const ROUNDS_SOUND: u32 = 5;
/// Nobody waits longer.
const ROUNDS_MAX: i64 = 100;
/// Nobody waits longer.
const SECONDS_MAX: i64 = 600;

/// The form of the report on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Aligned tables of medians
    Table,
    /// Everything that was measured
    Json,
    /// Tables in Markdown, with intervals
    Md,
}

/// Arguments of `compare`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Rounds that count; below 5 there are no intervals of confidence
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    rounds: u32,
    /// Length of one load
    #[arg(long, default_value_t = 3, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: u32,
    /// What is measured: bulk,crr,rr,open,memory,wan [default: all but wan]
    #[arg(long, value_delimiter = ',', value_name = "MEASURES")]
    only: Vec<Group>,
    /// What is compared [default: all that are installed]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    systems: Vec<SystemKey>,
    /// Measure over a wide-area network too
    #[arg(long)]
    wan: bool,
    /// Our gateway [default: of target/dist, else of target/release]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Envoy [default: the one in PATH]
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// The form of the report
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Also write the report as one HTML file with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write everything that was measured, for --from
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Measure nothing; report what --save has written
    #[arg(long, value_name = "FILE", conflicts_with_all = ["save", "show", "rounds", "seconds", "only", "systems", "wan"])]
    from: Option<PathBuf>,
    /// Exit with 12 if a ratio is worse than in FILE [default: perf/baseline.json of the repository, if it is there]
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the ratios to the baseline instead
    #[arg(long)]
    write_baseline: bool,
    /// Put the tables into docs/performance.md of the repository
    #[arg(long)]
    write_docs: bool,
    /// Print every configuration and end
    #[arg(long, action = ArgAction::SetTrue)]
    show: bool,
    /// Keep configurations here
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let repository = repository();
    if args.show {
        print(&shown(&campaign::show(&settings(
            &args,
            repository.as_deref(),
        )?)))?;
        return Ok(ExitCode::SUCCESS);
    }
    // What cannot be read or written is found before half an hour is spent.
    let baseline_path = baseline_path(&args, repository.as_deref());
    let baseline = match &baseline_path {
        Some(path) if !args.write_baseline && (args.baseline.is_some() || path.exists()) => {
            Some(read_baseline(path)?)
        }
        Some(_) | None => None,
    };
    let places = Places::find(&args, repository.as_deref(), baseline_path.as_deref())?;
    let results = match &args.from {
        Some(path) => read_results(path)?,
        None => measure(&args, repository.as_deref())?,
    };
    let compared = baseline.map_or_else(Vec::new, |baseline| baseline.compare(&results));
    let report = Report::new(&results, compared);
    let printed = publish(args.output, &report);
    let is_written = places.write(&report);
    printed?;
    for regression in report.regressions() {
        output::complain(&format!(
            "{} is slower than in the baseline",
            regression.row.title
        ));
    }
    let status = status(&report);
    Ok(if is_written || status != ExitCode::SUCCESS {
        status
    } else {
        ExitCode::from(UNMEASURED)
    })
}

/// Where the report goes beside standard output.
struct Places {
    save: Option<PathBuf>,
    html: Option<PathBuf>,
    document: Option<PathBuf>,
    baseline: Option<PathBuf>,
}

impl Places {
    /// Fails if there is no such place.
    fn find(
        args: &Args,
        repository: Option<&Path>,
        baseline: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let document = || {
            let top = repository.context("--write-docs needs the repository")?;
            anyhow::Ok(top.join(DOCUMENT))
        };
        let kept = || {
            let path =
                baseline.context("name the baseline with --baseline: this is no repository")?;
            anyhow::Ok(path.to_owned())
        };
        let places = Self {
            save: args.save.clone(),
            html: args.html.clone(),
            document: args.write_docs.then(document).transpose()?,
            baseline: args.write_baseline.then(kept).transpose()?,
        };
        let all = [
            &places.save,
            &places.html,
            &places.document,
            &places.baseline,
        ];
        for path in all.into_iter().flatten() {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if !folder.is_none_or(Path::is_dir) {
                bail!("there is no folder for {}", path.display());
            }
        }
        Ok(places)
    }

    /// Writes every one it can; says which it could not.
    fn write(&self, report: &Report<'_>) -> bool {
        let results = report.results;
        let mut is_written = true;
        let mut note = |done: anyhow::Result<()>| {
            if let Err(error) = done {
                output::complain(&format!("{error:#}"));
                is_written = false;
            }
        };
        if let Some(path) = &self.save {
            note(json(results).and_then(|text| write(path, &text)));
        }
        if let Some(path) = &self.html {
            note(
                html::page(report)
                    .map_err(Into::into)
                    .and_then(|page| write(path, &page)),
            );
        }
        // What people and later runs rely on is not replaced by half a measurement.
        let is_sound = !results.partial && results.rounds >= ROUNDS_SOUND;
        if let Some(path) = &self.document {
            note(if results.partial {
                Err(kept_as_it_was(path))
            } else {
                document::write(path, &text::markdown(report)).map_err(Into::into)
            });
        }
        if let Some(path) = &self.baseline {
            note(if is_sound {
                json(&Baseline::of(results)).and_then(|text| write(path, &text))
            } else {
                Err(kept_as_it_was(path))
            });
        }
        is_written
    }
}

fn kept_as_it_was(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is left as it was: that takes a measurement to its end, a baseline {ROUNDS_SOUND} rounds",
        path.display()
    )
}

fn json(what: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(what)? + "\n")
}

/// Measures; what was measured before an interruption is kept.
fn measure(args: &Args, repository: Option<&Path>) -> anyhow::Result<Results> {
    let settings = settings(args, repository)?;
    let interrupt = Interrupt::on_signals().context("cannot take signals")?;
    let is_watched = io::stderr().is_terminal();
    let say = |line: &str| {
        if is_watched {
            output::remark(line);
        }
    };
    Ok(campaign::run(&settings, &interrupt, &say)?)
}

fn settings(args: &Args, repository: Option<&Path>) -> anyhow::Result<Settings> {
    let mut groups = if args.only.is_empty() {
        Group::LOCAL.to_vec()
    } else {
        args.only.clone()
    };
    if args.wan && !groups.contains(&Group::Wan) {
        groups.push(Group::Wan);
    }
    let is_wanted = |key: &SystemKey| args.systems.is_empty() || args.systems.contains(key);
    Ok(Settings {
        command: command(),
        systems: SystemKey::ALL.into_iter().filter(is_wanted).collect(),
        groups,
        rounds: args.rounds,
        seconds: args.seconds,
        programs: Programs {
            gateway: gateway(args, repository)?,
            envoy: args.envoy.clone(),
        },
        load: std::env::current_exe().context("this program has no path")?,
        repository: repository.map(Path::to_owned),
        keep: args.keep.clone(),
    })
}

/// The command line without the folder of the program.
fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or_else(
        || "corinth-perf".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    std::iter::once(program)
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// What is measured: what was named, or what was built last for shipping, or for trying.
fn gateway(args: &Args, repository: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = &args.gateway {
        if !path.is_file() {
            bail!("there is no {}", path.display());
        }
        return Ok(Some(fs::canonicalize(path)?));
    }
    let built = |top: &Path| {
        let paths = ["dist", "release"]
            .map(|profile| top.join("target").join(profile).join("corinth-gateway"));
        paths.into_iter().find(|path| path.is_file())
    };
    Ok(repository.and_then(built))
}

/// The repository this is run in, or was built in.
fn repository() -> Option<PathBuf> {
    let is_top = |path: &&Path| path.join("perf/cli").is_dir() && path.join("Cargo.toml").is_file();
    let top_of = |path: &Path| path.ancestors().find(is_top).map(Path::to_owned);
    let here = std::env::current_dir().ok();
    let own = std::env::current_exe().ok();
    [here, own]
        .into_iter()
        .flatten()
        .find_map(|path| top_of(&path))
}

fn baseline_path(args: &Args, repository: Option<&Path>) -> Option<PathBuf> {
    args.baseline
        .clone()
        .or_else(|| Some(repository?.join(BASELINE)))
}

fn read_results(path: &Path) -> anyhow::Result<Results> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let results: Results = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what --save writes", path.display()))?;
    if results.schema != results::SCHEMA {
        bail!(
            "{} has schema {}, not {}",
            path.display(),
            results.schema,
            results::SCHEMA
        );
    }
    Ok(results)
}

fn read_baseline(path: &Path) -> anyhow::Result<Baseline> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let found: Baseline = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what --write-baseline writes", path.display()))?;
    if found.schema != baseline::SCHEMA {
        bail!(
            "{} has schema {}, not {}",
            path.display(),
            found.schema,
            baseline::SCHEMA
        );
    }
    Ok(found)
}

/// The report on standard output.
fn publish(form: Form, report: &Report<'_>) -> anyhow::Result<()> {
    match form {
        Form::Table => print(&text::terminal(report)),
        Form::Md => print(&text::markdown(report)),
        Form::Json => print(&json(report.results)?),
    }
}

/// A regression is worth more than something missing: it was measured.
fn status(report: &Report<'_>) -> ExitCode {
    if !report.regressions().is_empty() {
        return ExitCode::from(REGRESSED);
    }
    if let Some(why) = report.shortcoming() {
        output::complain(&why);
        return ExitCode::from(UNMEASURED);
    }
    ExitCode::SUCCESS
}

/// Every configuration as text.
fn shown(systems: &[SystemRecord]) -> String {
    let mut text = String::new();
    for system in systems {
        let title = system.key.title();
        let version = system.version.as_deref().unwrap_or("no version");
        text += &match &system.absent {
            Some(why) => format!("## {title}: not measured: {why}\n"),
            None => format!("## {title} ({version})\n"),
        };
        text += &format!("{}\n\n", system.key.note());
        for file in &system.files {
            text += &format!("### {}/{}\n{}\n", system.key, file.name, file.text);
        }
        for command in &system.commands {
            text += &format!("$ {command}\n");
        }
        text += "\n";
    }
    text
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write the report")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
