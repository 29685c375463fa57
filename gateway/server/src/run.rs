//! A gateway as a process: configuration watched, admin pages served, signals obeyed.

use std::{
    error::Error,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use corinth_daemon::{
    admin::{Admin, AdminError, AdminPages, Page},
    drain::{Drain, Phase},
    logging::{self, LogLevel, LoggingError},
    metrics::{Build, Metrics, MetricsError},
    notify::Notifier,
    ready::Readiness,
    signals::Signals,
};
use tracing::{error, info, warn};

use crate::{
    Gateway, StartError, Surroundings,
    settings::{ConfigWatch, LastGood, LastGoodError, LogFormat, Mistakes, Settings, read_file},
};

/// Why a gateway process ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be read.
    #[error("reading {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is wrong and there is no earlier one.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The gateway could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The log could not be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The admin pages could not be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// What runs beside the gateway could not start.
    #[error("{0}")]
    Beside(Box<dyn Error + Send + Sync>),
    /// Signals could not be listened for.
    #[error("listening for signals: {0}")]
    Signals(std::io::Error),
}

/// What runs in the same process, beside the gateway, from the same file.
pub trait Beside {
    /// Starts, before the gateway does, and yields the settings the gateway is to use.
    ///
    /// # Errors
    /// Why it does not; then the gateway does not start either.
    fn start(
        &mut self,
        settings: Settings,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Result<Settings, Box<dyn Error + Send + Sync>>;

    /// Takes a changed file, and yields the settings the gateway is to use.
    ///
    /// # Errors
    /// Why it cannot; then nothing changes.
    fn change(&mut self, settings: Settings) -> Result<Settings, Box<dyn Error + Send + Sync>>;

    /// Ends, before the gateway does.
    fn stop(&mut self) -> impl Future<Output = ()>;
}

/// Nothing beside the gateway.
struct Alone;

impl Beside for Alone {
    fn start(
        &mut self,
        settings: Settings,
        _: &Metrics,
        _: &Readiness,
    ) -> Result<Settings, Box<dyn Error + Send + Sync>> {
        Ok(settings)
    }

    fn change(&mut self, settings: Settings) -> Result<Settings, Box<dyn Error + Send + Sync>> {
        Ok(settings)
    }

    async fn stop(&mut self) {}
}

/// Runs a gateway until a signal ends it.
pub async fn run(config: &Path, build: Build) -> Result<(), RunError> {
    run_beside(config, build, &mut Alone).await
}

/// Runs a gateway, and something beside it, until a signal ends both.
pub async fn run_beside(
    config: &Path,
    build: Build,
    beside: &mut impl Beside,
) -> Result<(), RunError> {
    let (settings, fallback) = read(config)?;
    let level = start_log(&settings)?;
    if let Some(fallback) = fallback {
        error!(
            config = %config.display(),
            "the configuration is wrong; starting from the last good one\n{fallback}"
        );
    }
    let signals = Signals::listen().map_err(RunError::Signals)?;
    let readiness = Readiness::new();
    let metrics = Metrics::new(build)?;
    let drain = Drain::new();
    let last_good = LastGood::new(&settings.state_dir);
    let mut watch = ConfigWatch::start(&settings);
    let admin_address = settings.listen.admin;
    let surroundings = Surroundings {
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
    };
    let settings = beside
        .start(settings, &metrics, &readiness)
        .map_err(RunError::Beside)?;
    let gateway = Arc::new(Gateway::start(settings, surroundings)?);
    keep(&last_good, &gateway.settings());
    let pages = pages(&gateway, readiness.clone(), metrics, level);
    let admin = Admin::bind(admin_address, pages)?.spawn()?;
    let notifier = Arc::new(Notifier::from_env());
    let served = Arc::clone(&gateway);
    let told = tokio::spawn(tell_ready(
        readiness.clone(),
        Arc::clone(&notifier),
        move || status(&served),
    ));

    let signalled = tokio::spawn(signals.drive(readiness, drain.clone()));
    loop {
        tokio::select! {
            _ = drain.reached(Phase::Draining) => break,
            change = watch.next() => match change {
                Some(Ok(settings)) => match beside.change(settings) {
                    Ok(settings) => apply(&gateway, settings, &last_good),
                    Err(error) => error!("the new configuration was not applied; the old one stays: {error}"),
                },
                Some(Err(mistakes)) => {
                    error!("the new configuration is wrong; the old one stays\n{mistakes}");
                }
                None => warn!("the configuration is no longer watched"),
            },
        }
    }
    notifier.stopping("draining");
    beside.stop().await;
    gateway.stop().await;
    // Until here the pages tell that the gateway is draining, and what it still carries.
    admin.stop();
    told.abort();
    signalled.abort();
    Ok(())
}

/// Tells the supervisor once there is nothing left to wait for: a gateway that follows a control plane needs tables.
async fn tell_ready(
    readiness: Readiness,
    notifier: Arc<Notifier>,
    status: impl FnOnce() -> String,
) {
    if readiness.reached().await {
        notifier.ready(&status());
    }
}

/// The configuration, or the last good one with the mistakes of the present.
fn read(config: &Path) -> Result<(Settings, Option<Mistakes>), RunError> {
    let failed = |source| RunError::Read {
        path: config.to_owned(),
        source,
    };
    let text = read_file(config).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let mistakes = match Settings::parse(&text, config) {
        Ok(settings) => match settings.load(read_file) {
            Ok(_) => return Ok((settings, None)),
            Err(mistakes) => mistakes,
        },
        Err(mistakes) => mistakes,
    };
    let state_dir = Settings::state_dir_of(&text, config);
    let Ok(Some(kept)) = LastGood::new(&state_dir).load() else {
        return Err(mistakes.into());
    };
    match Settings::parse(&kept.text, config) {
        Ok(settings) => Ok((settings, Some(mistakes))),
        Err(_) => Err(mistakes.into()),
    }
}

fn start_log(settings: &Settings) -> Result<LogLevel, LoggingError> {
    let format = match settings.log.format {
        LogFormat::Text => logging::LogFormat::Text,
        LogFormat::Json => logging::LogFormat::Json,
    };
    logging::init(&settings.log.level, format)
}

fn apply(gateway: &Gateway, settings: Settings, last_good: &LastGood) {
    match gateway.apply(settings) {
        Ok(()) => keep(last_good, &gateway.settings()),
        Err(error) => error!("the new configuration was not applied; the old one stays: {error}"),
    }
}

fn keep(last_good: &LastGood, settings: &Settings) {
    let kept: Result<(), LastGoodError> = last_good.store(settings.text());
    if let Err(error) = kept {
        warn!(%error, "the configuration is in use but could not be kept for the next start");
    }
}

fn pages(
    gateway: &Arc<Gateway>,
    readiness: Readiness,
    metrics: Metrics,
    level: LogLevel,
) -> AdminPages {
    let (config, routes, links) = (
        Arc::clone(gateway),
        Arc::clone(gateway),
        Arc::clone(gateway),
    );
    let (control, certified) = (Arc::clone(gateway), Arc::clone(gateway));
    let pages = AdminPages::new(readiness, metrics).log_level(level);
    let pages = if gateway.control().is_some() {
        pages.page("/control", move || json(&control.control_page()))
    } else {
        pages
    };
    pages
        .remark(move || certified.certificate())
        .page("/config", move || json(&config.settings()))
        .page("/routes", move || json(&routes.routes()))
        .page("/links", move || json(&links.links()))
}

fn json(value: &impl serde::Serialize) -> Page {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Page::json(text + "\n"),
        Err(error) => Page::text(format!("cannot be shown: {error}\n")),
    }
}

fn status(gateway: &Gateway) -> String {
    let doors: Vec<String> = gateway
        .listening()
        .iter()
        .map(|open| format!("{:?} {}", open.door, open.address))
        .collect();
    let text = doors.join(", ");
    info!(listening = %text, "ready");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::feed;

    #[tokio::test]
    async fn the_supervisor_hears_of_readiness_when_there_are_tables_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        let notifier = Arc::new(Notifier::to(path.as_os_str()).unwrap());
        let readiness = Readiness::new();
        let tables = readiness.register(feed::PENDING);
        let telling = tell_ready(readiness, notifier, || "up".to_owned());
        tokio::pin!(telling);
        assert!((&mut telling).now_or_never().is_none());
        let mut heard = [0; 64];
        assert!(supervisor.recv(&mut heard).is_err());
        tables.done();
        telling.await;
        let length = supervisor.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\nSTATUS=up\n");
    }
}
