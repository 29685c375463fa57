//! Tells gateways the tables, change by change, and hears what became of them (`corinth.routes.v1`).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::wire::routes as wire;
use corinth_api::{LinkReport, LinkState, Report, Update};
use corinth_model::{ClusterName, Instance, PortNumber, Reason};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::tables::Change;

/// Updates that wait for a consumer; each is at most 1 MiB, most are 200 bytes.
const QUEUE: usize = 64;
/// Changes within this time are told together, so that a burst is one table at the gateway.
const TOGETHER: Duration = Duration::from_millis(10);
/// Most consumers at a time: gateways and redirectors of one cluster.
const CONSUMERS_MAX: usize = 2_000;

/// Where the tables come from.
pub trait Source: Send + Sync + 'static {
    /// The revision now, and every change of it.
    fn revisions(&self) -> watch::Receiver<u64>;
    /// What a consumer lacks that holds `held`.
    fn since(&self, held: Option<(Instance, u64)>) -> Option<Change>;
    /// A stream that was asked for did not come about.
    fn peering_failed(&self, ticket: u64, reason: Reason);
    /// The links of some gateway have changed.
    fn links_changed(&self);
    /// The import ports that some gateway cannot listen on have changed.
    fn closed_changed(&self);
    /// Whether the source is no more.
    fn ended(&self) -> watch::Receiver<bool>;
}

/// All that follow the tables now.
#[derive(Debug, Clone, Default)]
pub struct Consumers {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: u64,
    consumers: BTreeMap<u64, Consumer>,
}

#[derive(Debug)]
struct Consumer {
    seen: Seen,
    links: BTreeMap<ClusterName, LinkReport>,
    updates: mpsc::Sender<Result<wire::Update, Status>>,
}

/// What is known of one consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// What it is, such as `gateway`.
    pub role: String,
    /// Which instance.
    pub slot: String,
    /// Its program's version.
    pub version: String,
    /// The revision it was told last.
    pub told: u64,
    /// The revision it has in use.
    pub applied: u64,
    /// The revision it could not use, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<(u64, String)>,
    /// Import ports it cannot listen on, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub closed: BTreeMap<PortNumber, String>,
}

impl Consumers {
    /// What is known of all of them.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let shared = self.shared.lock();
        shared
            .consumers
            .values()
            .map(|consumer| consumer.seen.clone())
            .collect()
    }

    /// The import ports that gateways cannot listen on, with who and why.
    #[must_use]
    pub fn closed(&self) -> BTreeMap<PortNumber, String> {
        let mut closed = BTreeMap::new();
        let shared = self.shared.lock();
        for seen in shared.consumers.values().map(|consumer| &consumer.seen) {
            for (port, why) in &seen.closed {
                let words = format!("{}/{}: {why}", seen.role, seen.slot);
                closed.entry(*port).or_insert(words);
            }
        }
        closed
    }

    /// The best link that any gateway has to each peer.
    #[must_use]
    pub fn links(&self) -> BTreeMap<ClusterName, LinkReport> {
        let mut best: BTreeMap<ClusterName, LinkReport> = BTreeMap::new();
        let shared = self.shared.lock();
        for report in shared.consumers.values().flat_map(|one| one.links.values()) {
            let held = best.get(&report.cluster);
            if held.is_none_or(|held| report.state < held.state) {
                best.insert(report.cluster.clone(), report.clone());
            }
        }
        best
    }

    /// Asks a gateway that has a link to `cluster` for a stream to its control plane. Returns whether one was asked.
    #[must_use]
    pub fn ask_for_peering(&self, cluster: &ClusterName, ticket: u64) -> bool {
        let shared = self.shared.lock();
        let linked = shared.consumers.values().filter(|consumer| {
            let link = consumer.links.get(cluster);
            link.is_some_and(|link| link.state == LinkState::Up)
        });
        let asked = Update::OpenPeering {
            cluster: cluster.clone(),
            ticket,
        };
        let asked = wire::Update::from(&asked);
        let mut sent = linked.map(|consumer| consumer.updates.try_send(Ok(asked.clone())).is_ok());
        sent.any(|is_sent| is_sent)
    }

    fn enter(&self, consumer: Consumer) -> Result<u64, Status> {
        let mut shared = self.shared.lock();
        if shared.consumers.len() >= CONSUMERS_MAX {
            return Err(Status::resource_exhausted("too many consumers"));
        }
        shared.next += 1;
        let id = shared.next;
        shared.consumers.insert(id, consumer);
        Ok(id)
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Consumer)) {
        if let Some(consumer) = self.shared.lock().consumers.get_mut(&id) {
            change(consumer);
        }
    }

    fn leave(&self, id: u64) {
        self.shared.lock().consumers.remove(&id);
    }
}

/// The service.
pub struct Routes<S> {
    source: Arc<S>,
    consumers: Consumers,
}

impl<S> Routes<S> {
    /// Serves what `source` holds, and notes who follows in `consumers`.
    pub fn new(source: Arc<S>, consumers: Consumers) -> Self {
        Self { source, consumers }
    }
}

#[tonic::async_trait]
impl<S: Source> wire::routes_server::Routes for Routes<S> {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<wire::Update, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let reports = request.into_inner();
        let (updates, queue) = mpsc::channel(QUEUE);
        let follower = Follower {
            source: Arc::clone(&self.source),
            consumers: self.consumers.clone(),
            updates,
        };
        tokio::spawn(follower.run(reports));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

/// One consumer, as long as it follows.
struct Follower<S> {
    source: Arc<S>,
    consumers: Consumers,
    updates: mpsc::Sender<Result<wire::Update, Status>>,
}

impl<S: Source> Follower<S> {
    async fn run(self, mut reports: Streaming<wire::Report>) {
        let (id, held) = match self.greet(&mut reports).await {
            Ok(greeted) => greeted,
            Err(status) => {
                // Whoever has gone does not hear it.
                let _ = self.updates.send(Err(status)).await;
                return;
            }
        };
        let mut ended = self.source.ended();
        tokio::select! {
            () = self.tell(id, held) => {}
            () = self.hear(id, &mut reports) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
        self.consumers.leave(id);
        self.source.links_changed();
        self.source.closed_changed();
    }

    async fn greet(
        &self,
        reports: &mut Streaming<wire::Report>,
    ) -> Result<(u64, Option<(Instance, u64)>), Status> {
        let first = reports.next().await;
        let first = first.ok_or_else(|| Status::invalid_argument("nothing was reported"))??;
        let Ok(Report::Hello {
            role,
            slot,
            held,
            version,
        }) = Report::decode(first)
        else {
            return Err(Status::invalid_argument("the first report must be a Hello"));
        };
        info!(%role, %slot, version, "a consumer follows");
        let id = self.consumers.enter(Consumer {
            seen: Seen {
                role: role.to_string(),
                slot: slot.to_string(),
                version,
                told: 0,
                applied: 0,
                refused: None,
                closed: BTreeMap::new(),
            },
            links: BTreeMap::new(),
            updates: self.updates.clone(),
        })?;
        Ok((id, held))
    }

    /// Tells every change, until the consumer has gone.
    async fn tell(&self, id: u64, mut held: Option<(Instance, u64)>) {
        let mut revisions = self.source.revisions();
        loop {
            revisions.borrow_and_update();
            if let Some(change) = self.source.since(held) {
                held = Some((change.instance, change.revision));
                self.consumers
                    .change(id, |consumer| consumer.seen.told = change.revision);
                if !self.send(&change).await {
                    return;
                }
            } else if let Some((_, revision)) = held {
                self.consumers.change(id, |consumer| {
                    consumer.seen.told = revision;
                    consumer.seen.applied = revision;
                });
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = self.updates.closed() => return,
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }

    async fn send(&self, change: &Change) -> bool {
        let begin = Update::Begin {
            instance: change.instance,
            revision: change.revision,
            whole: change.is_whole,
        };
        let commit = Update::Commit {
            revision: change.revision,
        };
        let put = change.put.iter().map(|entry| wire::Update::from(&**entry));
        let removed = change.removed.iter();
        let removed = removed.map(|key| wire::Update::from(&Update::Removed(key.clone())));
        let updates = [wire::Update::from(&begin)]
            .into_iter()
            .chain(put)
            .chain(removed)
            .chain([wire::Update::from(&commit)]);
        for update in updates {
            if self.updates.send(Ok(update)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Hears every report, until the consumer has gone or breaks a rule.
    async fn hear(&self, id: u64, reports: &mut Streaming<wire::Report>) {
        while let Some(Ok(report)) = reports.next().await {
            match Report::decode(report) {
                Ok(report) => self.take(id, report),
                Err(error) => {
                    warn!(%error, "a consumer reports what cannot be read");
                    return;
                }
            }
        }
    }

    fn take(&self, id: u64, report: Report) {
        match report {
            // Only the first one counts.
            Report::Hello { .. } => {}
            Report::Applied { revision, closed } => {
                let closed = closed.into_iter().map(|closed| (closed.port, closed.why));
                let closed: BTreeMap<_, _> = closed.collect();
                let mut is_news = false;
                self.consumers.change(id, |consumer| {
                    consumer.seen.applied = revision;
                    consumer.seen.refused = None;
                    is_news = consumer.seen.closed != closed;
                    consumer.seen.closed = closed;
                });
                // Whose ports they are is looked up among all routes: not with every change of the tables.
                if is_news {
                    self.source.closed_changed();
                }
            }
            Report::Refused { revision, why } => {
                warn!(revision, why, "a consumer cannot use the tables");
                self.consumers
                    .change(id, |consumer| consumer.seen.refused = Some((revision, why)));
            }
            Report::Links(links) => {
                let links = links.into_iter().map(|link| (link.cluster.clone(), link));
                self.consumers
                    .change(id, |consumer| consumer.links = links.collect());
                self.source.links_changed();
            }
            Report::PeeringFailed { ticket, reason } => self.source.peering_failed(ticket, reason),
        }
    }
}
