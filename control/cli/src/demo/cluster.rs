//! One cluster of the demo: its applications, its gateway and its control plane, as a machine of its own would run them.

use std::{error::Error, fs, io, net::SocketAddr, ops::RangeInclusive, path::PathBuf, sync::Arc};

use corinth_daemon::{
    admin::{Admin, AdminError, AdminPages, AdminThread, Page},
    drain::Drain,
    metrics::{Metrics, MetricsError},
    ready::Readiness,
};
use corinth_gateway::{
    Door, Gateway, StartError, Surroundings,
    run::Beside,
    settings::{Mistakes, Settings},
};

use super::{place::Place, relay::Relay, service::Instance, yaml};
use crate::{node::Node, version::BUILD};

/// A cluster and what runs in it.
pub(super) struct Cluster {
    pub(super) name: &'static str,
    /// The file that configures it.
    pub(super) config: PathBuf,
    /// Where peers reach its gateway.
    pub(super) announced: SocketAddr,
    /// The network between it and its peers.
    pub(super) relay: Relay,
    /// Where its gateway listens, also when it comes back.
    pub(super) tunnel: SocketAddr,
    /// Where its import ports lie.
    pub(super) import_ports: RangeInclusive<u16>,
    pub(super) instances: Vec<Instance>,
    running: Option<Running>,
}

/// A node as `corinth run` composes it.
struct Running {
    gateway: Arc<Gateway>,
    admin: AdminThread,
    /// The control plane.
    node: Node,
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
    #[error("{0}")]
    Control(Box<dyn Error + Send + Sync>),
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
        let (announced, tunnel) = (place.address()?, place.address()?);
        Ok(Self {
            name,
            announced,
            relay: Relay::start(announced, tunnel)?,
            config: place.path().join(format!("{name}.yaml")),
            tunnel,
            import_ports: place.import_ports()?,
            instances,
            running: None,
        })
    }

    /// Starts the applications and the node.
    pub(super) async fn start(&mut self) -> Result<(), ClusterError> {
        for instance in &mut self.instances {
            instance.start().await?;
        }
        let settings = self.settings()?;
        let admin = settings.listen.admin;
        let (readiness, metrics) = (Readiness::new(), Metrics::new(BUILD)?);
        let surroundings = Surroundings {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            drain: Drain::new(),
        };
        let mut node = Node::default();
        let settings = node
            .start(settings, &metrics, &readiness)
            .map_err(ClusterError::Control)?;
        let gateway = Arc::new(Gateway::start(settings, surroundings)?);
        let admin = Admin::bind(admin, pages(&gateway, readiness, metrics))?.spawn()?;
        self.running = Some(Running {
            gateway,
            admin,
            node,
        });
        Ok(())
    }

    /// Ends everything at once, as losing the power would.
    pub(super) async fn kill(&mut self) {
        for instance in &mut self.instances {
            instance.kill().await;
        }
        if let Some(running) = self.running.take() {
            let Running {
                gateway,
                admin,
                mut node,
            } = running;
            node.kill().await;
            // The pages hold the gateway too.
            admin.stop();
            drop(gateway);
        }
    }

    /// Ends the control plane alone, as a crash of its process would.
    pub(super) async fn kill_control_plane(&mut self) {
        if let Some(running) = &mut self.running {
            running.node.kill().await;
        }
    }

    /// Starts the control plane again, with metrics of its own as another process has.
    pub(super) fn start_control_plane(&mut self) -> Result<(), ClusterError> {
        let settings = self.settings()?;
        if let Some(running) = &mut self.running {
            let started = running
                .node
                .start(settings, &Metrics::new(BUILD)?, &Readiness::new());
            started.map_err(ClusterError::Control)?;
        }
        Ok(())
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

    fn settings(&self) -> Result<Settings, ClusterError> {
        let yaml = yaml::node(self);
        fs::write(&self.config, &yaml)?;
        Ok(Settings::parse(&yaml, &self.config)?)
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
