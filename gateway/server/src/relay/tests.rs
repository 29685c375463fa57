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
