use std::net::Ipv4Addr;

use super::*;

/// An address nobody listens on.
fn free() -> SocketAddr {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// Somebody who listens by UDP, the way there, and somebody who calls.
async fn udp() -> (UdpSocket, Relay, UdpSocket) {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free();
    let relay = Relay::start(address, far.local_addr().unwrap()).unwrap();
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    near.connect(address).await.unwrap();
    (far, relay, near)
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = [0; 100];
    let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
    (datagram[..length].to_vec(), from)
}

#[tokio::test]
async fn bytes_arrive_later_both_ways_and_so_does_their_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free();
    let _relay = Relay::start(address, listener.local_addr().unwrap()).unwrap();
    let mut near = TcpStream::connect(address).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let began = Instant::now();
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut asked = Vec::new();
    far.read_to_end(&mut asked).await.unwrap();
    assert_eq!(asked, b"question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    let mut answered = Vec::new();
    near.read_to_end(&mut answered).await.unwrap();
    assert_eq!(answered, b"answer");
    assert!(began.elapsed() >= 2 * DELAY);
}

#[tokio::test]
async fn a_connection_to_nobody_and_one_that_is_reset_are_reset() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free();
    let _relay = Relay::start(address, listener.local_addr().unwrap()).unwrap();
    let mut reset = TcpStream::connect(address).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    far.set_zero_linger().unwrap();
    drop((far, listener));
    let mut nobody = TcpStream::connect(address).await.unwrap();
    for near in [&mut reset, &mut nobody] {
        let error = near.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn datagrams_arrive_later_and_answers_find_back() {
    let (far, _relay, near) = udp().await;
    let began = Instant::now();
    near.send(b"question").await.unwrap();
    let (question, client) = receive(&far).await;
    assert_eq!(question, b"question");
    far.send_to(b"answer", client).await.unwrap();
    assert_eq!(receive(&near).await.0, b"answer");
    assert!(began.elapsed() >= 2 * DELAY);
}

#[tokio::test]
async fn blocked_datagrams_are_dropped_in_both_directions_until_they_pass_again() {
    let (far, relay, near) = udp().await;
    near.send(b"before").await.unwrap();
    let (_, client) = receive(&far).await;
    relay.block_udp(true);
    let mut dropped = relay.udp.dropped.subscribe();
    near.send(b"lost").await.unwrap();
    far.send_to(b"lost", client).await.unwrap();
    dropped.wait_for(|dropped| *dropped == 2).await.unwrap();
    relay.block_udp(false);
    near.send(b"after").await.unwrap();
    assert_eq!(receive(&far).await.0, b"after");
    far.send_to(b"after", client).await.unwrap();
    assert_eq!(receive(&near).await.0, b"after");
    assert_eq!(relay.dropped(), 2);
}
