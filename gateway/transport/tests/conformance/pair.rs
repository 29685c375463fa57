//! Two gateways and what lies between them, whichever transport joins them.

use std::sync::Arc;

use corinth_api::{SourceClaim, StreamKind, StreamOpen, StreamReply, Traceparent, WorkloadName};
use corinth_model::{
    ClusterName, Failure, GatewayId, Namespace, Protocol, RouteName, Slot, TrustDomain,
};
use corinth_transport::{BoxFuture, DialTarget, Link, LinkState, Stream, StreamSink, Transport};
use tokio::sync::{mpsc, oneshot};

use crate::talk::Talk;

/// What the connections between the two gateways go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// As little as possible.
    Nothing,
    /// Something that can be made to fail. Liveness is probed every 50 ms.
    Faults,
    /// Something that forwards bytes in pieces of varying size, from this seed.
    Pieces(u64),
}

/// One transport under test.
pub(crate) trait Carrier: Sized + 'static {
    /// A writer whose reader has stopped gets rid of at most this many bytes.
    const BUFFERED_MAX_BYTES: usize;

    /// Two gateways of two linked clusters. Only `a` can dial.
    async fn pair(between: Between) -> Pair<Self>;

    /// Where `a` dials `b`.
    fn target(&self) -> DialTarget;

    /// From now on nothing passes, and nobody is told.
    fn cut(&self);

    /// What was cut passes again.
    fn heal(&self);

    /// Every connection is cut at once; new ones may be made.
    fn sever(&self);
}

/// Two gateways of two linked clusters. Only `a` can dial.
pub(crate) struct Pair<C> {
    pub(crate) a: Gateway,
    pub(crate) b: Gateway,
    pub(crate) carrier: C,
}

/// One gateway, seen from its owner.
pub(crate) struct Gateway {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) links: Box<dyn Fn() -> Vec<Arc<dyn Link>>>,
    pub(crate) drain: Box<dyn Fn()>,
    pub(crate) incoming: mpsc::UnboundedReceiver<Incoming>,
}

impl Gateway {
    /// The next stream that a peer opens.
    pub(crate) async fn next(&mut self) -> Incoming {
        self.incoming
            .recv()
            .await
            .expect("the sink lives as long as its transport")
    }

    /// The only link, once it can be used.
    pub(crate) async fn link(&self) -> Arc<dyn Link> {
        let links = (self.links)();
        assert_eq!(links.len(), 1, "there is one peer");
        settled(&links[0], LinkState::Up).await;
        Arc::clone(&links[0])
    }
}

impl<C: Carrier> Pair<C> {
    /// Dials; both sides have their link when this returns.
    pub(crate) async fn dial(&self) -> (Arc<dyn Link>, Arc<dyn Link>) {
        let target = self.carrier.target();
        let near = self.a.transport.dial(&target).await.expect("b answers");
        settled(&near, LinkState::Up).await;
        (near, self.b.link().await)
    }

    /// A stream that `a` opened over `link` and `b` accepted.
    pub(crate) async fn stream(&mut self, link: &Arc<dyn Link>) -> (Stream, Incoming) {
        let mut near = link.open(&header()).await.expect("the link is up");
        near.flush().await.expect("the path is there");
        let mut far = self.b.next().await;
        far.answer(StreamReply::Accepted)
            .await
            .expect("the stream is open");
        assert_eq!(
            near.reply().await.expect("it was answered"),
            StreamReply::Accepted
        );
        (near, far)
    }
}

/// Waits until a link is in this state.
pub(crate) async fn settled(link: &Arc<dyn Link>, wanted: LinkState) {
    let mut state = link.state();
    state
        .wait_for(|state| *state == wanted)
        .await
        .expect("the link is held");
}

/// A stream that a peer opened. The sink serves it until this is dropped.
pub(crate) struct Incoming {
    pub(crate) header: StreamOpen,
    pub(crate) link: Arc<dyn Link>,
    jobs: mpsc::UnboundedSender<Job>,
}

type Job = Box<dyn for<'a> FnOnce(&'a mut Stream) -> BoxFuture<'a, ()> + Send>;

impl Incoming {
    pub(crate) async fn reset(&mut self, failure: Failure) {
        self.with(move |stream| Box::pin(async move { stream.reset(failure) }))
            .await;
    }
}

impl Talk for Incoming {
    /// Runs a job on the task that serves the stream. The job goes on even if this is dropped.
    async fn with<T: Send + 'static>(
        &mut self,
        job: impl for<'a> FnOnce(&'a mut Stream) -> BoxFuture<'a, T> + Send + 'static,
    ) -> T {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |stream| {
            Box::pin(async move {
                // Who asked may have given up.
                let _ = sender.send(job(stream).await);
            })
        });
        assert!(
            self.jobs.send(job).is_ok(),
            "the sink serves as long as somebody asks"
        );
        receiver.await.expect("the job ends")
    }
}

/// Hands every stream of a peer to the test, which tells it what to do.
pub(crate) struct Sink {
    incoming: mpsc::UnboundedSender<Incoming>,
}

impl Sink {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Incoming>) {
        let (incoming, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { incoming }), receiver)
    }
}

impl StreamSink for Sink {
    fn accept<'a>(
        &'a self,
        link: &'a Arc<dyn Link>,
        header: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
            let incoming = Incoming {
                header,
                link: Arc::clone(link),
                jobs: sender,
            };
            if self.incoming.send(incoming).is_err() {
                return;
            }
            while let Some(job) = jobs.recv().await {
                job(stream).await;
            }
        })
    }
}

pub(crate) fn trust_domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).expect("a trust domain")
}

/// The gateway in slot 0 of a trust domain.
pub(crate) fn gateway(text: &str) -> GatewayId {
    GatewayId {
        trust_domain: trust_domain(text),
        slot: Slot::parse("0").expect("a slot"),
    }
}

/// The trust domains of the two sides, and one that neither is linked with.
pub(crate) const A: &str = "a.test";
pub(crate) const B: &str = "b.test";
pub(crate) const STRANGER: &str = "stranger.test";

/// A header in which every field says something.
pub(crate) fn header() -> StreamOpen {
    let route = RouteName::parse("8080.payments.shop.svc.clusterset.local").expect("a route name");
    StreamOpen {
        claim: SourceClaim {
            cluster: ClusterName::parse("west").ok(),
            namespace: Namespace::parse("shop").ok(),
            workload: WorkloadName::parse("cart-7d9f"),
            address: "fd00::17".parse().ok(),
        },
        attempt: 2,
        hops: 1,
        deadline: Some(std::time::Duration::from_millis(1_500)),
        traceparent: Traceparent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ..StreamOpen::new(StreamKind::Service {
            route,
            protocol: Protocol::Tcp,
        })
    }
}
