//! Records and frames against a plain rustls peer, over real sockets.

use std::{
    io::{self, IoSliceMut, Read, Write},
    sync::Arc,
    time::Duration,
};

use corinth_identity::{Authority, BundleSet, Denials, OwnIdentity, SharedBundles, tls};
use corinth_model::{GatewayId, Slot, TrustDomain};
use proptest::prelude::*;
use rustls::{
    ClientConnection,
    pki_types::{ServerName, UnixTime},
    time_provider::DefaultTimeProvider,
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{
    Timeouts,
    connection::Connection,
    frame::{self, Kind},
    handshake,
    reader::Event,
};

#[tokio::test]
async fn frames_of_a_plain_rustls_peer_are_read_whatever_their_record_boundaries() {
    let (mut ours, mut theirs) = pair().await;
    let payload: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
    let mut wire = Vec::new();
    for chunk in payload.chunks(frame::PAYLOAD_MAX_BYTES) {
        wire.extend_from_slice(&frame::encode(Kind::Data, chunk.len(), 1));
        wire.extend_from_slice(chunk);
    }
    wire.extend_from_slice(&frame::encode(Kind::End, 0, 1));
    let writer = tokio::task::spawn_blocking(move || {
        for piece in wire.chunks(997) {
            theirs.write_all(piece).unwrap();
        }
        theirs
    });
    assert_eq!(read_until_end(&mut ours).await, payload);
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn a_plain_rustls_peer_reads_what_we_seal_one_frame_per_record() {
    let (mut ours, mut theirs) = pair().await;
    let payload: Vec<u8> = (0..100_000_u32).map(|n| (n / 3) as u8).collect();
    let expected = payload.clone();
    let reader = tokio::task::spawn_blocking(move || read_frames(&mut theirs, expected.len()));
    let mut left = payload.as_slice();
    while !left.is_empty() {
        let sent = lend(&mut ours, left);
        left = &left[sent..];
        ours.flush().await.unwrap();
    }
    assert_eq!(reader.await.unwrap(), payload);
}

#[tokio::test]
async fn keys_are_renewed_in_both_directions_without_losing_a_byte() {
    let (mut ours, mut theirs) = pair().await;
    ours.writer.sealer().set_records_per_key(3);
    let payload = vec![7; 200_000];
    let expected = payload.len();
    let peer = tokio::task::spawn_blocking(move || {
        let read = read_frames(&mut theirs, expected);
        for round in 0..8_u8 {
            theirs.conn.refresh_traffic_keys().unwrap();
            theirs.write_all(&frame::encode(Kind::Data, 1, 1)).unwrap();
            theirs.write_all(&[round]).unwrap();
        }
        theirs.write_all(&frame::encode(Kind::End, 0, 1)).unwrap();
        read
    });
    let mut left = payload.as_slice();
    while !left.is_empty() {
        let sent = lend(&mut ours, &left[..left.len().min(10_000)]);
        left = &left[sent..];
        ours.flush().await.unwrap();
    }
    assert_eq!(read_until_end(&mut ours).await, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(peer.await.unwrap(), payload);
}

#[tokio::test]
async fn key_updates_without_end_close_the_connection() {
    let (mut ours, mut theirs) = pair().await;
    let peer = tokio::task::spawn_blocking(move || {
        for _ in 0..100 {
            if theirs.conn.refresh_traffic_keys().is_err() || theirs.flush().is_err() {
                break;
            }
        }
        theirs
    });
    assert!(ours.next().await.is_err());
    drop(ours);
    drop(peer.await.unwrap());
}

#[tokio::test]
async fn a_record_that_was_changed_on_the_way_ends_the_connection() {
    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(&frame::encode(Kind::End, 0, 1)).unwrap();
    assert!(ours.next().await.is_ok());
    // A record of the right shape that nobody sealed.
    let mut forged = vec![23, 3, 3, 0, 40];
    forged.extend_from_slice(&[0x5a; 40]);
    theirs.sock.write_all(&forged).unwrap();
    assert!(ours.next().await.is_err());
}

#[tokio::test]
async fn a_stream_is_reset_behind_as_many_bytes_as_can_wait() {
    let (mut ours, mut theirs) = pair().await;
    let bytes = vec![7; 1 << 20];
    let mut waiting = 0;
    loop {
        match lend(&mut ours, &bytes) {
            0 => break,
            lent => waiting += lent,
        }
    }
    ours.put(Kind::Reset, 1, b"CRN-1").unwrap();
    ours.writer.flush(&ours.socket).await.unwrap();
    assert_eq!(read_frames(&mut theirs, waiting), bytes[..waiting]);
    let mut header = [0; frame::HEADER_BYTES];
    theirs.read_exact(&mut header).unwrap();
    assert_eq!(frame::decode(header).unwrap().kind, Some(Kind::Reset));
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffer() {
    let (mut ours, mut theirs) = pair().await;
    theirs.write_all(&frame::encode(Kind::Data, 3, 1)).unwrap();
    theirs.write_all(b"abc").unwrap();
    assert_eq!(ours.next().await.unwrap(), Event::Data { stream: 1 });
    ours.reader
        .lend(|chunks| Ok(chunks.iter().map(|chunk| chunk.len()).sum()))
        .unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), ours.next()).await;
    assert!(waited.is_err());
    assert!(ours.reader.holds_no_buffer() && ours.writer.holds_no_buffer());
}

#[test]
fn a_connection_between_streams_is_small() {
    // Beside this: two AEAD contexts and rustls' key schedule on the heap.
    assert!(
        size_of::<Connection>() <= 2_048,
        "{}",
        size_of::<Connection>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_stream(
        sizes in proptest::collection::vec(1_usize..5_000, 1..12),
        cut in 1_usize..3_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (mut ours, mut theirs) = pair().await;
            let mut wire = Vec::new();
            let mut payload = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let chunk = vec![number as u8; *size];
                wire.extend_from_slice(&frame::encode(Kind::Data, chunk.len(), 9));
                wire.extend_from_slice(&chunk);
                payload.extend_from_slice(&chunk);
            }
            wire.extend_from_slice(&frame::encode(Kind::End, 0, 9));
            let writer = tokio::task::spawn_blocking(move || {
                for piece in wire.chunks(cut) {
                    theirs.write_all(piece).unwrap();
                }
                theirs
            });
            assert_eq!(read_until_end(&mut ours).await, payload);
            drop(writer.await.unwrap());
        });
    }
}

type Plain = rustls::StreamOwned<ClientConnection, std::net::TcpStream>;

#[test]
fn an_idle_connection_outlives_lost_keepalive_probes() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let patience = Timeouts::default().unacknowledged;
    super::give_up_after(&SockRef::from(&socket), patience).unwrap();
    // The kernel gives up at the first probe that is due when nothing was heard for that long.
    let first = socket.tcp_keepalive_time().unwrap();
    let further = socket.tcp_keepalive_interval().unwrap();
    let probes = (patience - first).as_secs() / further.as_secs();
    assert!(probes >= 4, "{probes} probes, after {first:?}");
}

/// Our connection as the acceptor, and a plain rustls client at the other end.
async fn pair() -> (Connection, Plain) {
    let now = UnixTime::now();
    let (east, west) = (domain("east"), domain("west"));
    let (own_east, bundle_east) = identity(&east, now);
    let (own_west, bundle_west) = identity(&west, now);
    let clock = Arc::new(DefaultTimeProvider);
    let server =
        tls::tunnel_server_config(own_west, bundle_east, Denials::default(), clock.clone());
    let client = tls::tunnel_client_config(own_east, bundle_west, Denials::default(), &west, clock);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let name = ServerName::from(address.ip());
        let mut connection = ClientConnection::new(Arc::new(client), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        rustls::StreamOwned::new(connection, socket)
    });
    let (mut socket, _): (TcpStream, _) = listener.accept().await.unwrap();
    let secured = handshake::accept(&mut socket, Arc::new(server), Vec::new())
        .await
        .unwrap();
    let gateway = GatewayId {
        trust_domain: east,
        slot: Slot::parse("0").unwrap(),
    };
    let ours = Connection::new(socket, secured, Arc::new(gateway), u64::MAX, 0).unwrap();
    (ours, peer.await.unwrap())
}

fn domain(cluster: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{cluster}.corinth.internal")).unwrap()
}

/// A gateway of `domain`, and the bundles that let others verify it.
fn identity(domain: &TrustDomain, now: UnixTime) -> (Arc<OwnIdentity>, SharedBundles) {
    let authority = Arc::new(Authority::create(domain.clone(), now).unwrap());
    let mut set = BundleSet::new();
    set.insert(authority.bundle(1)).unwrap();
    let gateway = GatewayId {
        trust_domain: domain.clone(),
        slot: Slot::parse("0").unwrap(),
    };
    let day = Duration::from_secs(86_400);
    let own =
        OwnIdentity::issued_by(authority, &gateway.spiffe_id(), Vec::new(), day, now).unwrap();
    (Arc::new(own), SharedBundles::new(set))
}

/// Queues as much of `bytes` as there is room for.
fn lend(connection: &mut Connection, bytes: &[u8]) -> usize {
    let fill = |room: &mut [IoSliceMut<'_>]| -> io::Result<usize> {
        let mut left = bytes;
        for slice in room {
            let take = slice.len().min(left.len());
            slice[..take].copy_from_slice(&left[..take]);
            left = &left[take..];
        }
        Ok(bytes.len() - left.len())
    };
    connection
        .writer
        .lend(&connection.schedule, 1, bytes.len(), fill)
        .unwrap()
}

/// Every payload byte up to END.
async fn read_until_end(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match connection.next().await.unwrap() {
            Event::Data { .. } => {
                let taken = connection.reader.lend(|chunks| {
                    chunks
                        .iter()
                        .for_each(|chunk| bytes.extend_from_slice(chunk));
                    Ok(chunks.iter().map(|chunk| chunk.len()).sum())
                });
                assert!(taken.unwrap() > 0);
            }
            Event::Frame {
                kind: Kind::End, ..
            } => return bytes,
            other @ (Event::Frame { .. } | Event::Ended) => panic!("{other:?} before the end"),
        }
    }
}

/// The payload of DATA frames, read by a peer that knows nothing but rustls.
fn read_frames(from: &mut Plain, bytes: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    while payload.len() < bytes {
        let mut header = [0; frame::HEADER_BYTES];
        from.read_exact(&mut header).unwrap();
        let header = frame::decode(header).unwrap();
        assert_eq!(header.kind, Some(Kind::Data));
        let start = payload.len();
        payload.resize(start + header.length, 0);
        from.read_exact(&mut payload[start..]).unwrap();
    }
    payload
}
