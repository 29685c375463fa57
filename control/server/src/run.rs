//! A control plane as a process: declarations followed, admin pages served, signals obeyed.

use std::path::Path;
use std::sync::Arc;

use corinth_daemon::admin::{Admin, AdminError, AdminPages, Page};
use corinth_daemon::drain::{Drain, Phase};
use corinth_daemon::logging::{self, LogFormat, LoggingError};
use corinth_daemon::metrics::{Build, Metrics, MetricsError};
use corinth_daemon::notify::Notifier;
use corinth_daemon::ready::Readiness;
use corinth_daemon::signals::Signals;

use crate::app::{ControlPlane, StartError};
use crate::cluster::file::{Fixed, ObjectsFile, Own};
use crate::settings::{Settings, SettingsError};
use crate::status;

/// Why a control plane process ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The log could not be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The file with the declarations cannot be used.
    #[error("the declarations: {0}")]
    Objects(std::io::Error),
    /// The control plane could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The admin pages could not be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Signals could not be listened for.
    #[error("listening for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs a control plane until a signal ends it.
///
/// # Errors
/// Why it did not start.
pub async fn run(config: &Path, build: Build) -> Result<(), RunError> {
    let (settings, process) = Settings::read(config)?;
    let level = logging::init(&process.log, LogFormat::Text)?;
    let signals = Signals::listen().map_err(RunError::Signals)?;
    let readiness = Readiness::new();
    let pending = readiness.register("control plane");
    let metrics = Metrics::new(build)?;
    let drain = Drain::new();
    let objects = objects(&settings, Fixed::default()).map_err(RunError::Objects)?;
    let plane = ControlPlane::start(settings, objects, &metrics)?;
    pending.done();
    let pages = pages(&plane, readiness.clone(), metrics).log_level(level);
    let admin = Admin::bind(process.admin, pages)?.spawn()?;
    let notifier = Notifier::from_env();
    notifier.ready("control plane");
    let signalled = tokio::spawn(signals.drive(readiness, drain.clone()));
    drain.reached(Phase::Draining).await;
    notifier.stopping("draining");
    plane.stop().await;
    admin.stop();
    signalled.abort();
    Ok(())
}

/// The declarations of a node that runs outside Kubernetes: `fixed`, and what the file in its state directory adds.
///
/// # Errors
/// If the file cannot be read.
pub fn objects(settings: &Settings, fixed: Fixed) -> std::io::Result<Arc<ObjectsFile>> {
    let own = Own {
        cluster: settings.cluster.clone(),
        trust_domain: settings.trust_domain.clone(),
    };
    ObjectsFile::open(&settings.objects, own, fixed).map(Arc::new)
}

fn pages(plane: &ControlPlane, readiness: Readiness, metrics: Metrics) -> AdminPages {
    let shared = Arc::clone(plane.shared());
    AdminPages::new(readiness, metrics).page("/status", move || json(&status::status(&shared)))
}

fn json(value: &impl serde::Serialize) -> Page {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Page::json(text + "\n"),
        Err(error) => Page::text(format!("cannot be shown: {error}\n")),
    }
}
