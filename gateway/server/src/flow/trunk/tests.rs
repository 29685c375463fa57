use std::sync::atomic::AtomicUsize;

use corinth_api::HeaderError;
use corinth_daemon::{
    access_log::{AccessLog, AccessLogTarget},
    metrics::{Build, Metrics},
};
use corinth_model::{Slot, TrustDomain};
use corinth_transport::{
    BoxFuture, DialTarget, Stream, StreamSink, Transport,
    memory::{MemoryNetwork, MemoryTransport},
};
use tokio::{sync::watch, time::Instant};

use super::*;
use crate::{inbound::answer, record::Logged};

/// A peer that reads the first streams and says nothing, and answers the others once it is told to.
struct Deaf {
    to: usize,
    seen: AtomicUsize,
    answers: watch::Receiver<bool>,
}

impl StreamSink for Deaf {
    fn accept<'a>(
        &'a self,
        _link: &'a Arc<dyn Link>,
        _header: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()> {
        let is_heard = self.seen.fetch_add(1, Relaxed) >= self.to;
        let mut answers = self.answers.clone();
        Box::pin(async move {
            if is_heard && answers.wait_for(|answers| *answers).await.is_ok() {
                // Of those that were given up nobody hears.
                let _ = answer(stream, &StreamReply::Accepted).await;
            }
            std::future::pending().await
        })
    }

    fn unreadable(&self, _link: &Arc<dyn Link>, error: &HeaderError) {
        panic!("{error}");
    }
}

/// A trunk to a peer that is deaf to so many streams.
struct World {
    trunk: Arc<Trunk>,
    telemetry: Telemetry,
    _gateways: [MemoryTransport; 2],
}

async fn world(deaf_to: usize, answers: watch::Receiver<bool>) -> World {
    let network = MemoryNetwork::default();
    let join = |name: &str, last: u8| {
        let id = GatewayId {
            trust_domain: TrustDomain::parse(name).unwrap(),
            slot: Slot::parse("0").unwrap(),
        };
        let sink = Deaf {
            to: deaf_to,
            seen: AtomicUsize::new(0),
            answers: answers.clone(),
        };
        let address = ([10, 0, 0, last], 15_443).into();
        (
            network.join(id.clone(), address, Arc::new(sink)),
            id,
            address,
        )
    };
    let (near, ..) = join("near.test", 1);
    let (far, id, address) = join("far.test", 2);
    let target = DialTarget {
        address,
        trust_domain: id.trust_domain,
    };
    let link = near.dial(&target).await.unwrap();
    let metrics = Metrics::new(Build {
        binary: "test",
        version: "0",
    })
    .unwrap();
    let log = AccessLog::open(AccessLogTarget::Off, &metrics).unwrap();
    World {
        trunk: Arc::new(Trunk::new(link, &Arc::default())),
        telemetry: Telemetry::new(&metrics, log, Logged::All).unwrap(),
        _gateways: [near, far],
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_others_overtake_is_given_up_at_once() {
    let (_says, answers) = watch::channel(true);
    for deaf_to in [1, 3] {
        let world = world(deaf_to, answers.clone()).await;
        let began = Instant::now();
        let carried = world.trunk.carry(&world.telemetry).await;
        let failure = match carried {
            Err(Broken::Lost(failure)) => failure,
            Ok(()) | Err(Broken::Unsent(_)) => panic!("it was never answered"),
        };
        assert_eq!(failure, Failure::PeerTimeout);
        assert!(world.trunk.was_overtaken());
        assert!(began.elapsed() < Duration::from_secs(2), "{deaf_to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_late_like_all_others_is_waited_for_and_takes_no_more_until_then() {
    let (says, answers) = watch::channel(false);
    let world = world(0, answers).await;
    let trunk = Arc::clone(&world.trunk);
    assert!(trunk.takes_more(0));
    let carrying = tokio::spawn(async move { world.trunk.carry(&world.telemetry).await.is_ok() });
    sleep(Duration::from_secs(5)).await;
    assert!(!carrying.is_finished() && !trunk.takes_more(0));
    says.send_replace(true);
    sleep(Duration::from_millis(10)).await;
    assert!(!carrying.is_finished() && trunk.takes_more(0));
    assert!(!trunk.was_overtaken());
    carrying.abort();
}
