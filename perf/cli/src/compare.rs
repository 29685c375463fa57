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
    let baseline_path = baseline_path(&args, repository.as_deref());
    let results = match &args.from {
        Some(path) => read_results(path)?,
        None => measure(&args, repository.as_deref())?,
    };
    if let Some(path) = &args.save {
        write(path, &serde_json::to_string_pretty(&results)?)?;
    }
    let compared = match &baseline_path {
        Some(path) if !args.write_baseline && (args.baseline.is_some() || path.exists()) => {
            read_baseline(path)?.compare(&results)
        }
        Some(_) | None => Vec::new(),
    };
    let report = Report::new(&results, compared);
    publish(&args, repository.as_deref(), &report)?;
    if args.write_baseline {
        let path =
            baseline_path.context("name the baseline with --baseline: this is no repository")?;
        let text = serde_json::to_string_pretty(&Baseline::of(&results))? + "\n";
        write(&path, &text)?;
    }
    Ok(status(&report))
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

/// The report, in every form that was asked for.
fn publish(args: &Args, repository: Option<&Path>, report: &Report<'_>) -> anyhow::Result<()> {
    match args.output {
        Form::Table => print(&text::terminal(report))?,
        Form::Md => print(&text::markdown(report))?,
        Form::Json => print(&(serde_json::to_string_pretty(report.results)? + "\n"))?,
    }
    if let Some(path) = &args.html {
        write(path, &html::page(report)?)?;
    }
    if args.write_docs {
        let top = repository.context("--write-docs needs the repository")?;
        document::write(&top.join(DOCUMENT), &text::markdown(report))?;
    }
    for regression in report.regressions() {
        output::complain(&format!(
            "{} is slower than in the baseline",
            regression.row.title
        ));
    }
    Ok(())
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
