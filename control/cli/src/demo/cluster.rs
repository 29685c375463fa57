//! One cluster of the demo: its applications and its gateway, as a machine of its own would run them.

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc};

use corinth_daemon::{
    admin::{Admin, AdminError, AdminPages, AdminThread, Page},
    drain::Drain,
    metrics::{Metrics, MetricsError},
    ready::Readiness,
};
use corinth_gateway::{
    Door, Gateway, StartError, Surroundings,
    settings::{Mistakes, Settings},
};

use super::{place::Place, service::Instance};
use crate::version::BUILD;

/// A cluster and what runs in it.
pub(super) struct Cluster {
    pub(super) name: &'static str,
    /// The file that configures its gateway.
    pub(super) config: PathBuf,
    /// Where peers reach its gateway, also when it comes back.
    pub(super) tunnel: SocketAddr,
    pub(super) instances: Vec<Instance>,
    running: Option<Running>,
}

/// A gateway, with what `corinth run` puts around it.
struct Running {
    gateway: Arc<Gateway>,
    admin: AdminThread,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    #[error("writing what the demo needs: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Admin(#[from] AdminError),
    #[error("{0}")]
    Metrics(#[from] MetricsError),
}

impl Cluster {
    /// A cluster in which nothing runs yet. `instances` are services and the names of their instances.
    pub(super) fn new(
        name: &'static str,
        instances: &[(&str, &str)],
        place: &mut Place,
    ) -> io::Result<Self> {
        let instances = instances
            .iter()
            .map(|(service, instance)| Ok(Instance::new(name, service, instance, place.address()?)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            name,
            config: place.path().join(format!("{name}.yaml")),
            tunnel: place.address()?,
            instances,
            running: None,
        })
    }

    /// Starts the applications, and the gateway with the configuration `yaml`.
    pub(super) async fn start(&mut self, yaml: &str) -> Result<(), ClusterError> {
        for instance in &mut self.instances {
            instance.start().await?;
        }
        let settings = self.settings(yaml)?;
        let admin = settings.listen.admin;
        let (readiness, metrics) = (Readiness::new(), Metrics::new(BUILD)?);
        let surroundings = Surroundings {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            drain: Drain::new(),
        };
        let gateway = Arc::new(Gateway::start(settings, surroundings)?);
        let admin = Admin::bind(admin, pages(&gateway, readiness, metrics))?.spawn()?;
        self.running = Some(Running { gateway, admin });
        Ok(())
    }

    /// Changes the gateway to the configuration `yaml`, while it runs.
    pub(super) fn apply(&self, yaml: &str) -> Result<(), ClusterError> {
        let settings = self.settings(yaml)?;
        match &self.running {
            Some(running) => Ok(running.gateway.apply(settings)?),
            None => Ok(()),
        }
    }

    /// Ends everything at once, as losing the power would.
    pub(super) async fn kill(&mut self) {
        for instance in &mut self.instances {
            instance.kill().await;
        }
        if let Some(Running { gateway, admin }) = self.running.take() {
            // The pages hold the gateway too.
            admin.stop();
            drop(gateway);
        }
    }

    /// The instance of this name.
    pub(super) fn instance(&mut self, name: &str) -> Option<&mut Instance> {
        self.instances
            .iter_mut()
            .find(|instance| instance.who.instance == name)
    }

    /// Where the instances of `service` listen.
    pub(super) fn endpoints(&self, service: &str) -> Vec<String> {
        let instances = self
            .instances
            .iter()
            .filter(|instance| instance.who.service == service);
        instances
            .map(|instance| instance.address.to_string())
            .collect()
    }

    /// The running gateway.
    pub(super) fn gateway(&self) -> Option<&Gateway> {
        self.running.as_ref().map(|running| &*running.gateway)
    }

    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.running
            .as_ref()
            .map(|running| running.admin.local_addr())
    }

    /// Where its gateway listens for local clients.
    pub(super) fn address_of(&self, door: Door) -> Option<SocketAddr> {
        self.gateway()?.address_of(door)
    }

    /// Hands the public roots to peers, as `corinth bundle` prints them.
    pub(super) fn hand_out_bundle(&self) -> io::Result<()> {
        let pem = self.gateway().map_or("", Gateway::bundle_pem);
        fs::write(self.config.with_extension("pem"), pem)
    }

    fn settings(&self, yaml: &str) -> Result<Settings, ClusterError> {
        fs::write(&self.config, yaml)?;
        Ok(Settings::parse(yaml, &self.config)?)
    }
}

/// The pages that `corinth routes` and `corinth links` ask for.
fn pages(gateway: &Arc<Gateway>, readiness: Readiness, metrics: Metrics) -> AdminPages {
    let (routes, links) = (Arc::clone(gateway), Arc::clone(gateway));
    AdminPages::new(readiness, metrics)
        .page("/routes", move || json(&routes.routes()))
        .page("/links", move || json(&links.links()))
}

fn json(value: &impl serde::Serialize) -> Page {
    Page::json(serde_json::to_string_pretty(value).unwrap_or_default() + "\n")
}
