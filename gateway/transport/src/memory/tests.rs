//! Faults of the network, in paused time: each takes exactly as long as it should.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use corinth_api::{StreamKind, StreamOpen};
use corinth_model::{Failure, GatewayId, Slot, TrustDomain};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{MemoryNetwork, MemoryTransport, wire::BUFFER_BYTES};
use crate::{
    BoxFuture, DialError, DialTarget, Fill, Link, LinkState, OpenError, Stream, StreamError,
    StreamSink, Transport,
};

#[tokio::test(start_paused = true)]
async fn a_black_path_is_dead_after_four_probes() {
    let world = World::new();
    let link = world.dial().await;
    world.network.cut(&world.a.id, &world.b.id);
    let began = Instant::now();
    settled(&link, LinkState::Dead).await;
    assert_eq!(began.elapsed(), Duration::from_millis(800));
    assert_eq!(link.open(&peering()).await.err(), Some(OpenError::PathDead));
}

#[tokio::test(start_paused = true)]
async fn a_suspected_path_is_dead_sooner() {
    let world = World::new();
    let link = world.dial().await;
    // While the path is good a suspicion changes nothing, now or later.
    link.suspect();
    world.network.cut(&world.a.id, &world.b.id);
    sleep(Duration::from_millis(100)).await;
    link.suspect();
    let suspected = Instant::now();
    settled(&link, LinkState::Dead).await;
    assert_eq!(suspected.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_healed_in_time_stays_up() {
    let world = World::new();
    let link = world.dial().await;
    for _ in 0..5 {
        world.network.cut(&world.a.id, &world.b.id);
        sleep(Duration::from_millis(799)).await;
        world.network.heal(&world.a.id, &world.b.id);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*link.state().borrow(), LinkState::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_on_a_path_that_stays_black_are_cut_in_the_end() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    world.network.cut(&world.a.id, &world.b.id);
    let began = Instant::now();
    assert!(matches!(
        stream.split().0.reply().await,
        Err(StreamError::Cut)
    ));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(*link.state().borrow(), LinkState::Dead);
}

#[tokio::test(start_paused = true)]
async fn a_dial_on_a_black_path_waits_a_second_for_it() {
    let world = World::new();
    world.network.cut(&world.a.id, &world.b.id);
    let began = Instant::now();
    let error = world
        .a
        .transport
        .dial(&world.b.target())
        .await
        .err()
        .unwrap();
    assert_eq!(error.failure(), Failure::PeerUnreachable);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let target = world.b.target();
    let healed = async {
        sleep(Duration::from_millis(500)).await;
        world.network.heal(&world.a.id, &world.b.id);
    };
    let (link, ()) = tokio::join!(world.a.transport.dial(&target), healed);
    assert_eq!(*link.unwrap().state().borrow(), LinkState::Up);
}

#[tokio::test(start_paused = true)]
async fn nothing_sent_on_a_black_path_arrives_before_it_is_healed() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    let mut served = world.b.next().await;
    world.network.cut(&world.a.id, &world.b.id);
    write(&mut stream, b"late").await;
    let mut unseen = opened(&link).await;
    write(&mut unseen, b"later").await;
    let early = timeout(Duration::from_millis(700), served.split().0.fill()).await;
    assert!(early.is_err(), "{early:?}");
    assert!(world.b.is_quiet());
    world.network.heal(&world.a.id, &world.b.id);
    assert_eq!(read(&mut served).await, b"late");
    assert_eq!(read(&mut world.b.next().await).await, b"later");
}

#[tokio::test(start_paused = true)]
async fn a_reset_on_a_black_path_is_heard_when_it_is_healed() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    let mut served = world.b.next().await;
    world.network.cut(&world.a.id, &world.b.id);
    stream.reset(Failure::ClientReset);
    let early = timeout(Duration::from_millis(700), served.split().0.fill()).await;
    assert!(early.is_err(), "{early:?}");
    world.network.heal(&world.a.id, &world.b.id);
    let fill = served.split().0.fill().await;
    assert!(matches!(
        fill,
        Err(StreamError::Reset(Failure::ClientReset))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_killed_gateway_takes_its_connections_along_and_may_come_back() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    let mut served = world.b.next().await;
    world.network.kill(&world.b.id);
    for side in [&mut stream, &mut served] {
        assert!(matches!(side.split().0.fill().await, Err(StreamError::Cut)));
    }
    assert_eq!(*link.state().borrow(), LinkState::Dead);
    let refused = world
        .a
        .transport
        .dial(&world.b.target())
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, DialError::Connect { .. }));
    let back = world.b.transport.dial(&world.a.target()).await;
    assert!(matches!(back, Err(DialError::Closed)));

    let restarted = Member::join(&world.network, world.b.id.clone(), world.b.address);
    let again = world.dial().await;
    assert!(Arc::ptr_eq(&link, &again));
    let mut stream = opened(&again).await;
    write(&mut stream, b"anew").await;
    assert_eq!(read(&mut restarted.next().await).await, b"anew");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_killed_beyond_a_black_path_is_missed_when_it_is_healed() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    world.network.cut(&world.a.id, &world.b.id);
    world.network.kill(&world.b.id);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(*link.state().borrow(), LinkState::Up);
    world.network.heal(&world.a.id, &world.b.id);
    assert_eq!(*link.state().borrow(), LinkState::Dead);
    assert!(matches!(
        stream.split().0.reply().await,
        Err(StreamError::Cut)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_drain_beyond_a_black_path_is_heard_when_it_is_healed() {
    let world = World::new();
    let link = world.dial().await;
    world.network.cut(&world.a.id, &world.b.id);
    world.b.transport.drain();
    assert_eq!(*link.state().borrow(), LinkState::Up);
    world.network.heal(&world.a.id, &world.b.id);
    assert_eq!(*link.state().borrow(), LinkState::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_transport_leaves_the_network() {
    let World { network, a, b } = World::new();
    let link = a.transport.dial(&b.target()).await.unwrap();
    let target = b.target();
    drop(b);
    assert_eq!(*link.state().borrow(), LinkState::Dead);
    assert!(a.transport.dial(&target).await.is_err());
    drop(network);
}

#[tokio::test(start_paused = true)]
async fn gateways_at_one_address_take_turns() {
    let World { network, a, b } = World::new();
    let second = Member::join(&network, member("b.test", "1"), b.address);
    let mut met = Vec::new();
    for _ in 0..4 {
        met.push(a.transport.dial(&b.target()).await.unwrap().peer().clone());
    }
    assert_eq!(
        met,
        [&b.id, &second.id, &b.id, &second.id].map(GatewayId::clone)
    );
    assert_eq!(a.transport.links().len(), 2);
    assert_eq!(a.transport.links()[0].stats().announced_slots, 2);
}

#[tokio::test(start_paused = true)]
async fn a_direction_holds_exactly_its_buffer() {
    let world = World::new();
    let link = world.dial().await;
    let mut stream = opened(&link).await;
    let mut served = world.b.next().await;
    write(&mut stream, &[1; BUFFER_BYTES]).await;
    let (_, mut half) = stream.split();
    let filled = half.lend(1, |room| {
        room[0][0] = 2;
        Ok(1)
    });
    assert_eq!(filled.unwrap(), 1);
    let full = timeout(Duration::from_secs(5), half.flush()).await;
    assert!(full.is_err(), "one byte more finds no room");
    assert_eq!(read(&mut served).await.len(), BUFFER_BYTES);
    half.flush().await.unwrap();
    assert_eq!(read(&mut served).await, [2]);
}

#[test]
fn a_run_repeats_exactly() {
    let first = faulty_run();
    assert!(first.len() > 100, "{first:?}");
    assert_eq!(first, faulty_run());
}

/// Streams of ten tasks on a path that comes and goes, as a list of what happened when.
fn faulty_run() -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let world = Arc::new(World::new());
        let log = Arc::new(Mutex::new(Vec::new()));
        let tasks = (0..10_u64).map(|task| {
            let (world, log) = (Arc::clone(&world), Arc::clone(&log));
            tokio::spawn(async move {
                for round in 0..10 {
                    sleep(Duration::from_millis(37 * (task + 1))).await;
                    let happened = attempt(&world).await;
                    let at = began.elapsed();
                    log.lock()
                        .push(format!("{at:?} task {task} round {round}: {happened}"));
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for pause in [100, 900, 300, 1_500, 50, 700] {
            world.network.cut(&world.a.id, &world.b.id);
            sleep(Duration::from_millis(pause)).await;
            world.network.heal(&world.a.id, &world.b.id);
            sleep(Duration::from_millis(pause)).await;
            world.network.sever(&world.a.id, &world.b.id);
            log.lock().push(format!("{:?} severed", began.elapsed()));
        }
        for task in tasks {
            task.await.unwrap();
        }
        Arc::into_inner(log).unwrap().into_inner()
    })
}

/// Dials, opens, and waits a little for an answer that never comes.
async fn attempt(world: &World) -> String {
    let link = match world.a.transport.dial(&world.b.target()).await {
        Ok(link) => link,
        Err(error) => return error.to_string(),
    };
    let mut stream = match link.open(&peering()).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    if let Err(error) = stream.split().1.flush().await {
        return error.to_string();
    }
    match timeout(Duration::from_millis(250), stream.split().0.reply()).await {
        Ok(reply) => format!("{reply:?}"),
        Err(_) => "no answer".to_owned(),
    }
}

/// Two linked gateways.
struct World {
    network: MemoryNetwork,
    a: Member,
    b: Member,
}

impl World {
    fn new() -> Self {
        let network = MemoryNetwork::default();
        let a = Member::join(
            &network,
            member("a.test", "0"),
            ([10, 0, 0, 1], 15_443).into(),
        );
        let b = Member::join(
            &network,
            member("b.test", "0"),
            ([10, 0, 0, 2], 15_443).into(),
        );
        Self { network, a, b }
    }

    async fn dial(&self) -> Arc<dyn Link> {
        self.a.transport.dial(&self.b.target()).await.unwrap()
    }
}

/// One gateway, which keeps every stream it is given.
struct Member {
    id: GatewayId,
    address: SocketAddr,
    transport: MemoryTransport,
    served: Arc<Served>,
}

impl Member {
    fn join(network: &MemoryNetwork, id: GatewayId, address: SocketAddr) -> Self {
        let served = Arc::new(Served::default());
        let sink = Arc::clone(&served) as Arc<dyn StreamSink>;
        let transport = network.join(id.clone(), address, sink);
        Self {
            id,
            address,
            transport,
            served,
        }
    }

    fn target(&self) -> DialTarget {
        DialTarget {
            address: self.address,
            trust_domain: self.id.trust_domain.clone(),
        }
    }

    async fn next(&self) -> Stream {
        loop {
            if let Some(stream) = self.served.streams.lock().pop_front() {
                return stream;
            }
            self.served.arrived.notified().await;
        }
    }

    fn is_quiet(&self) -> bool {
        self.served.streams.lock().is_empty()
    }
}

/// Takes each stream out of the loan, which only memory allows: its place is taken by one that is over.
#[derive(Default)]
struct Served {
    streams: Mutex<VecDeque<Stream>>,
    arrived: Notify,
}

impl StreamSink for Served {
    fn accept<'a>(
        &'a self,
        link: &'a Arc<dyn Link>,
        _header: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Ok(over) = link.open(&peering()).await else {
                return;
            };
            self.streams
                .lock()
                .push_back(std::mem::replace(stream, over));
            self.arrived.notify_one();
        })
    }
}

fn member(trust_domain: &str, slot: &str) -> GatewayId {
    GatewayId {
        trust_domain: TrustDomain::parse(trust_domain).unwrap(),
        slot: Slot::parse(slot).unwrap(),
    }
}

fn peering() -> StreamOpen {
    StreamOpen::new(StreamKind::Peering)
}

async fn settled(link: &Arc<dyn Link>, wanted: LinkState) {
    link.state()
        .wait_for(|state| *state == wanted)
        .await
        .unwrap();
}

async fn opened(link: &Arc<dyn Link>) -> Stream {
    let mut stream = link.open(&peering()).await.unwrap();
    stream.split().1.flush().await.unwrap();
    stream
}

async fn write(stream: &mut Stream, bytes: &[u8]) {
    let (_, mut half) = stream.split();
    let filled = half.lend(bytes.len(), |room| {
        let mut left = bytes;
        for piece in room {
            let count = piece.len().min(left.len());
            piece[..count].copy_from_slice(&left[..count]);
            left = &left[count..];
        }
        Ok(bytes.len() - left.len())
    });
    assert_eq!(filled.unwrap(), bytes.len());
    half.flush().await.unwrap();
}

/// What has arrived, at least one byte.
async fn read(stream: &mut Stream) -> Vec<u8> {
    let (mut half, _) = stream.split();
    assert_eq!(half.fill().await.unwrap(), Fill::Data);
    let mut bytes = Vec::new();
    let taken = half.lend(|pieces| {
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
        Ok(bytes.len())
    });
    taken.unwrap();
    bytes
}
