use std::sync::Arc;

use corinth_api::{StreamKind, StreamOpen, StreamReply};
use corinth_model::{GatewayId, Slot, TrustDomain};
use corinth_transport::{
    BoxFuture, DialTarget, Link, StreamSink, Transport, memory::MemoryNetwork,
};
use tokio::{sync::Notify, time::timeout};

use super::*;

#[test]
fn appetite_grows_with_full_reads_and_falls_with_small_ones() {
    let mut appetite = Appetite::default();
    assert_eq!(appetite.bytes(), Appetite::SMALL_BYTES);
    for _ in 0..8 {
        appetite.got(appetite.bytes());
    }
    assert_eq!(appetite.bytes(), Appetite::LARGE_BYTES);
    for _ in 0..8 {
        appetite.got(100);
    }
    assert_eq!(appetite.bytes(), Appetite::SMALL_BYTES);
}

/// A socket that has got `bytes` and then what `last` does, and has heard of both.
async fn got(bytes: &[u8], last: impl FnOnce(TcpStream)) -> TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    client.write_all(bytes).await.unwrap();
    last(client);
    while !socket
        .ready(Interest::READABLE)
        .await
        .unwrap()
        .is_read_closed()
    {
        tokio::task::yield_now().await;
    }
    socket
}

/// A peer that takes the first stream: it says much, or ends its direction, and then nothing.
struct Far {
    says_much: bool,
    has_stalled: Arc<Notify>,
}

impl StreamSink for Far {
    fn accept<'a>(
        &'a self,
        _: &'a Arc<dyn Link>,
        _: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()> {
        const STALLED: Duration = Duration::from_millis(200);
        Box::pin(async move {
            let (_, mut to_peer) = stream.split();
            to_peer.put_reply(&StreamReply::Accepted).unwrap();
            if !self.says_much {
                to_peer.put_end().unwrap();
            }
            while let Ok(flushed) = timeout(STALLED, to_peer.flush()).await {
                flushed.unwrap();
                if !self.says_much {
                    break;
                }
                let all =
                    |room: &mut [IoSliceMut<'_>]| Ok(room.iter().map(|room| room.len()).sum());
                to_peer.lend(Appetite::LARGE_BYTES, all).unwrap();
            }
            self.has_stalled.notify_one();
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn a_stream_whose_connection_ends_while_both_directions_wait_for_the_client_ends_too() {
    for says_much in [false, true] {
        let network = MemoryNetwork::default();
        let has_stalled = Arc::<Notify>::default();
        let [(near, a, _), (_far, b, address)] =
            [("near.test", 1), ("far.test", 2)].map(|(name, last)| {
                let id = GatewayId {
                    trust_domain: TrustDomain::parse(name).unwrap(),
                    slot: Slot::parse("0").unwrap(),
                };
                let address = ([10, 0, 0, last], 15_443).into();
                let sink = Far {
                    says_much,
                    has_stalled: Arc::clone(&has_stalled),
                };
                (
                    network.join(id.clone(), address, Arc::new(sink)),
                    id,
                    address,
                )
            });
        let target = DialTarget {
            address,
            trust_domain: b.trust_domain.clone(),
        };
        let link = near.dial(&target).await.unwrap();
        let mut stream = link
            .open(&StreamOpen::new(StreamKind::Peering))
            .await
            .unwrap();
        let (mut from_peer, mut to_peer) = stream.split();
        to_peer.flush().await.unwrap();
        assert_eq!(from_peer.reply().await.unwrap(), StreamReply::Accepted);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut rest, carried) = (Rest::default(), Carried::default());
        let relayed = run(
            &mut socket,
            Side::Client,
            &mut rest,
            &mut stream,
            None,
            &carried,
        );
        let severed = async {
            has_stalled.notified().await;
            network.sever(&a, &b);
        };
        let ended = timeout(Duration::from_secs(10), async {
            tokio::join!(relayed, severed)
        });
        assert_eq!(ended.await.unwrap().0, Err(Failure::TunnelCut));
    }
}

#[tokio::test]
async fn an_end_is_seen_only_behind_the_last_byte() {
    let socket = got(b"12", drop).await;
    assert!(!has_ended(&socket).unwrap());
    let mut room = [0; 8];
    assert_eq!(socket.try_read(&mut room).unwrap(), 2);
    assert!(has_ended(&socket).unwrap());
}

#[tokio::test]
async fn a_reset_behind_the_last_byte_is_no_end() {
    let socket = got(b"12", abort).await;
    let mut room = [0; 8];
    // The kernel may have thrown away what it had.
    let _ = socket.try_read(&mut room);
    let found = has_ended(&socket).map_err(|error| error.kind());
    assert!(
        matches!(found, Err(io::ErrorKind::ConnectionReset)),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_socket_that_goes_on_has_not_ended() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    assert!(!has_ended(&socket).unwrap());
}

#[tokio::test(start_paused = true)]
async fn idleness_waits_while_bytes_move() {
    let carried = Carried::default();
    let idle = idleness(Some(Duration::from_secs(4)), &carried);
    tokio::pin!(idle);
    for _ in 0..20 {
        tokio::select! {
            () = &mut idle => panic!("idle although bytes moved"),
            () = tokio::time::sleep(Duration::from_secs(3)) => carried.add_sent(1),
        }
    }
    let begin = tokio::time::Instant::now();
    idle.await;
    assert!(begin.elapsed() <= Duration::from_secs(5));
}
