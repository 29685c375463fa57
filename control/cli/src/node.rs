//! A node outside Kubernetes: one file, from which a control plane and a gateway run in one process.

use std::error::Error;
use std::sync::Arc;

use corinth_control::ControlPlane;
use corinth_control::cluster::file::{Fixed, ObjectsFile};
use corinth_daemon::metrics::Metrics;
use corinth_daemon::ready::Readiness;
use corinth_gateway::run::Beside;
use corinth_gateway::settings::{Control, Identity, Settings, read_file};

use crate::declared::declared;

type Failed = Box<dyn Error + Send + Sync>;

/// The control plane beside the gateway.
#[derive(Default)]
pub(crate) struct Node {
    running: Option<Running>,
}

struct Running {
    plane: ControlPlane,
    objects: Arc<ObjectsFile>,
}

impl Node {
    /// Ends the control plane at once and without a word, as if its process had died.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.plane.kill().await;
        }
    }
}

impl Beside for Node {
    fn start(
        &mut self,
        settings: Settings,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Result<Settings, Failed> {
        if settings.gateways.is_empty() {
            return Ok(settings);
        }
        let pending = readiness.register("control plane");
        let control = control(&settings);
        let objects = corinth_control::run::objects(&control, fixed(&settings)?)?;
        let cluster = Arc::clone(&objects) as Arc<dyn corinth_control::cluster::Cluster>;
        let plane = ControlPlane::start(control, cluster, metrics)?;
        pending.done();
        self.running = Some(Running { plane, objects });
        Ok(follow(settings))
    }

    fn change(&mut self, settings: Settings) -> Result<Settings, Failed> {
        let Some(running) = &self.running else {
            return Ok(settings);
        };
        running.objects.set_static(fixed(&settings)?);
        Ok(follow(settings))
    }

    async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.plane.stop().await;
        }
    }
}

/// The gateway of a node whose control plane knows the rest.
fn follow(settings: Settings) -> Settings {
    let control = Control::in_state_dir(&settings.state_dir);
    settings.follow(control)
}

/// What the node's own file declares.
fn fixed(settings: &Settings) -> Result<Fixed, Failed> {
    let files = settings.load(read_file)?;
    Ok(Fixed {
        declared: declared(settings, &files),
        place: settings.origin().display().to_string(),
    })
}

/// How the control plane of a node runs.
pub(crate) fn control(settings: &Settings) -> corinth_control::settings::Settings {
    let mut control = corinth_control::settings::Settings::new(
        settings.cluster.clone(),
        settings.trust_domain.clone(),
        &settings.state_dir,
    );
    control.slots = settings.slots;
    control.import_ports = settings.listen.import_ports;
    control.taken_ports = settings.taken_ports().clone();
    control.streams_per_peer = settings.limits.streams_per_peer;
    if let Identity::BuiltIn { leaf_lifetime } = settings.identity {
        control.leaf_lifetime = leaf_lifetime;
        control.leaf_lifetime_max = leaf_lifetime;
    }
    control.gateways = settings.gateways.iter().map(ToString::to_string).collect();
    control
}
