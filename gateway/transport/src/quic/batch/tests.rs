use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use super::*;

const PACKET_BYTES: usize = 1_000;

/// A socket that writes down what it is given.
#[derive(Debug)]
struct Recording {
    sent: Mutex<Vec<Sent>>,
    is_blocked: AtomicBool,
    segments: AtomicUsize,
    sending: Notify,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    port: u16,
    bytes: Vec<u8>,
    packet_bytes: Option<usize>,
}

#[derive(Debug)]
struct Poller(Arc<Recording>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.is_blocked.load(SeqCst) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Recording {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.is_blocked.load(SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.sent.lock().push(Sent {
            port: transmit.destination.port(),
            bytes: transmit.contents.to_vec(),
            packet_bytes: transmit.segment_size,
        });
        self.sending.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments.load(SeqCst)
    }
}

impl Recording {
    fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock())
    }

    /// How many packets each call had.
    fn take_counts(&self) -> Vec<usize> {
        let counted = |sent: &Sent| sent.bytes.len().div_ceil(PACKET_BYTES);
        self.take().iter().map(counted).collect()
    }
}

fn sockets() -> (Arc<BatchingSocket>, Arc<Recording>) {
    let recording = Arc::new(Recording {
        sent: Mutex::default(),
        is_blocked: AtomicBool::new(false),
        segments: AtomicUsize::new(64),
        sending: Notify::new(),
    });
    (BatchingSocket::over(Arc::clone(&recording) as _), recording)
}

fn send(socket: &BatchingSocket, port: u16, bytes: &[u8], packet_bytes: Option<usize>) {
    try_send(socket, port, bytes, packet_bytes).unwrap();
}

fn try_send(
    socket: &BatchingSocket,
    port: u16,
    bytes: &[u8],
    packet_bytes: Option<usize>,
) -> io::Result<()> {
    socket.try_send(&Transmit {
        destination: (Ipv4Addr::LOCALHOST, port).into(),
        ecn: Some(EcnCodepoint::Ect0),
        contents: bytes,
        segment_size: packet_bytes,
        src_ip: None,
    })
}

fn piece(content: u8) -> Vec<u8> {
    vec![content; PIECE_PACKETS * PACKET_BYTES]
}

fn send_piece(socket: &BatchingSocket, port: u16, content: u8) {
    send(socket, port, &piece(content), Some(PACKET_BYTES));
}

#[tokio::test]
async fn full_pieces_leave_together_once_the_worker_is_idle() {
    let (socket, recording) = sockets();
    for content in 0..3 {
        send_piece(&socket, 1, content);
    }
    assert_eq!(recording.take(), []);
    recording.sending.notified().await;
    let sent = recording.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes, [piece(0), piece(1), piece(2)].concat());
    assert_eq!(sent[0].packet_bytes, Some(PACKET_BYTES));
}

#[tokio::test]
async fn a_call_has_no_more_than_the_kernel_takes() {
    let (socket, recording) = sockets();
    for content in 0..10 {
        send_piece(&socket, 1, content);
    }
    // 63 packets are 63,000 bytes.
    assert_eq!(recording.take_counts(), [63]);
    recording.sending.notified().await;
    recording.sending.notified().await;
    assert_eq!(recording.take_counts(), [7]);
    recording.segments.store(16, SeqCst);
    for content in 0..3 {
        send_piece(&socket, 1, content);
    }
    assert_eq!(recording.take_counts(), [14]);
}

#[tokio::test]
async fn what_is_not_full_leaves_at_once_with_what_is_held() {
    let (socket, recording) = sockets();
    send(&socket, 1, &[1; 100], None);
    assert_eq!(recording.take().len(), 1);
    send_piece(&socket, 1, 2);
    send(&socket, 1, &[3; 2_500], Some(PACKET_BYTES));
    let sent = recording.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes, [piece(2), vec![3; 2_500]].concat());
    send_piece(&socket, 1, 4);
    send(&socket, 1, &[5; 100], None);
    let sent = recording.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes, [piece(4), vec![5; 100]].concat());
}

#[tokio::test]
async fn what_goes_another_way_leaves_behind_what_is_held() {
    let (socket, recording) = sockets();
    send_piece(&socket, 1, 1);
    send(&socket, 2, &[2; 100], None);
    send_piece(&socket, 1, 3);
    // Larger than those that are held.
    send(&socket, 1, &[4; 1_100], None);
    let ports: Vec<_> = recording
        .take()
        .iter()
        .map(|sent| (sent.port, sent.bytes[0]))
        .collect();
    assert_eq!(ports, [(1, 1), (2, 2), (1, 3), (1, 4)]);
}

#[tokio::test]
async fn what_finds_no_room_leaves_later_and_in_order() {
    let (socket, recording) = sockets();
    send_piece(&socket, 1, 1);
    recording.is_blocked.store(true, SeqCst);
    let refused = try_send(&socket, 2, &[2; 100], None).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    yield_now().await;
    yield_now().await;
    assert_eq!(recording.take(), []);
    recording.is_blocked.store(false, SeqCst);
    recording.sending.notified().await;
    send(&socket, 2, &[2; 100], None);
    let contents: Vec<_> = recording.take().iter().map(|sent| sent.bytes[0]).collect();
    assert_eq!(contents, [1, 2]);
}

#[tokio::test]
async fn without_segmentation_nothing_is_held() {
    let (socket, recording) = sockets();
    recording.segments.store(1, SeqCst);
    assert_eq!(socket.max_transmit_segments(), 1);
    send(&socket, 1, &[1; PACKET_BYTES], None);
    assert_eq!(recording.take_counts(), [1]);
}

#[tokio::test]
async fn what_is_held_leaves_when_the_socket_goes() {
    let (socket, recording) = sockets();
    send_piece(&socket, 1, 1);
    drop(socket);
    assert_eq!(recording.take_counts(), [7]);
}
