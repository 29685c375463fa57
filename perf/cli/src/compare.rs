//! `corinth-perf compare`: gateways beside each other on one path.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{ArgAction, Args as ClapArgs, ValueEnum};
use corinth_campaign::{
    Interrupt,
    baseline::{self, Baseline},
    campaign::{self, Settings},
    lab::LinkMtu,
    measure::Group,
    programs::Programs,
    report::{
        Report,
        document::{self, Part},
        html, text,
    },
    results::{self, Results, SystemRecord},
    system::SystemKey,
};

use crate::{
    UNMEASURED,
    limits::{ROUNDS_MAX, SECONDS_MAX},
    output::{self, print},
    repository::{self, json, write},
};

/// Something has become slower than its noise explains.
const REGRESSED: u8 = 12;
/// Where the table of the documentation is, from the top of the repository.
const DOCUMENT: &str = "docs/performance.md";
/// Where the baseline is, from the top of the repository.
const BASELINE: &str = "perf/baseline.json";
/// Below it there is no telling noise from a change.
const ROUNDS_SOUND: u32 = 5;

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
    /// The MTU of every link but the wide-area network's; the baseline is one of 1500
    #[arg(long, default_value_t = LinkMtu::ETHERNET.0, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_280..=65_535), conflicts_with = "write_baseline")]
    mtu: u32,
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["save", "show", "rounds", "seconds", "only", "systems", "mtu", "wan"])]
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
    let repository = repository::top();
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
        Some(path)
            if !args.write_baseline
                && (args.baseline.is_some()
                    || (path.exists() && args.mtu == LinkMtu::ETHERNET.0)) =>
        {
            Some(repository::read(
                path,
                "--write-baseline",
                baseline::SCHEMA,
                |found: &Baseline| &found.schema,
            )?)
        }
        Some(_) | None => None,
    };
    let places = Places::find(&args, repository.as_deref(), baseline_path.as_deref())?;
    let results = match &args.from {
        Some(path) => repository::read(path, "--save", results::SCHEMA, |found: &Results| {
            &found.schema
        })?,
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
                document::write(path, Part::Compared, &text::markdown(report)).map_err(Into::into)
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

/// Measures; what was measured before an interruption is kept.
fn measure(args: &Args, repository: Option<&Path>) -> anyhow::Result<Results> {
    let settings = settings(args, repository)?;
    let interrupt = Interrupt::on_signals().context("cannot take signals")?;
    Ok(campaign::run(&settings, &interrupt, &output::progress())?)
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
        command: repository::command(),
        systems: SystemKey::ALL.into_iter().filter(is_wanted).collect(),
        groups,
        rounds: args.rounds,
        seconds: args.seconds,
        mtu: LinkMtu(args.mtu),
        programs: Programs {
            gateway: repository::gateway(args.gateway.as_deref(), repository)?,
            envoy: args.envoy.clone(),
        },
        load: std::env::current_exe().context("this program has no path")?,
        repository: repository.map(Path::to_owned),
        keep: args.keep.clone(),
    })
}

fn baseline_path(args: &Args, repository: Option<&Path>) -> Option<PathBuf> {
    args.baseline
        .clone()
        .or_else(|| Some(repository?.join(BASELINE)))
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
