//! What goes over the cables of a host, read as it passes.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;

/// Every protocol, in network order as a packet socket wants it (packet(7)).
const ETH_P_ALL: u16 = 0x0003_u16.to_be();
/// How often the reader looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// The largest packet between network namespaces: the kernel cuts them smaller only for real wires.
const PACKET_MAX_BYTES: usize = 128 << 10;
/// Ethernet: two addresses and a type.
const FRAME_HEADER_BYTES: usize = 14;

/// Reads the TCP connections of one port.
pub struct Capture {
    is_over: Arc<AtomicBool>,
    reader: JoinHandle<Traffic>,
}

/// What the two sides of TCP connections sent each other, in clear or not.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By addresses and ports, in the order in which it passed.
    directions: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Capture {
    /// Reads, from now on, what passes `host` from or to a TCP port.
    ///
    /// # Panics
    /// When packets cannot be read.
    pub fn start(host: &Host, port: u16) -> Self {
        let all = Protocol::from(i32::from(ETH_P_ALL));
        let socket = host.within(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)));
        let socket = socket.expect("we are root");
        socket.set_read_timeout(Some(LOOK)).expect("it is a socket");
        // What the system allows; what it allows at least is enough for a few connections.
        let _ = socket.set_recv_buffer_size(8 << 20);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let reader = thread::spawn(move || read(&socket, port, &over));
        Self { is_over, reader }
    }

    /// Ends, and gives what passed.
    ///
    /// # Panics
    /// When packets could not be read.
    pub fn stop(self) -> Traffic {
        self.is_over.store(true, SeqCst);
        self.reader.join().expect("packets are read")
    }
}

impl Traffic {
    /// Whether these bytes passed as they are.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let mut directions = self.directions.values();
        directions.any(|sent| is_within(sent, bytes))
    }

    /// How many bytes the connections carried, headers of packets not counted.
    pub fn bytes(&self) -> usize {
        self.directions.values().map(Vec::len).sum()
    }
}

/// Whether `bytes` are a part of `sent`. Most places are ruled out by one byte.
fn is_within(sent: &[u8], bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else {
        return true;
    };
    let mut left = sent;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

fn read(mut socket: &Socket, port: u16, is_over: &AtomicBool) -> Traffic {
    let mut traffic = Traffic::default();
    let mut packet = vec![0; PACKET_MAX_BYTES];
    loop {
        // Others may never fall silent: at the end only what has passed by then is read.
        let is_end = is_over.load(SeqCst);
        if is_end {
            socket.set_nonblocking(true).expect("it is a socket");
        }
        match socket.read(&mut packet) {
            Ok(bytes) => {
                if let Some((direction, payload)) = segment(&packet[..bytes], port) {
                    let sent = traffic.directions.entry(direction).or_default();
                    sent.extend_from_slice(payload);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if is_end {
                    return traffic;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
        }
    }
}

/// Who sent what to whom, if the frame is a TCP segment from or to `port` (RFC 791, RFC 8200, RFC 9293).
fn segment(frame: &[u8], port: u16) -> Option<(Vec<u8>, &[u8])> {
    const TCP: u8 = 6;
    let kind = frame.get(12..FRAME_HEADER_BYTES)?;
    let packet = frame.get(FRAME_HEADER_BYTES..)?;
    let (protocol, addresses, header_bytes, packet_bytes) = match kind {
        [0x08, 0x00] => (
            *packet.get(9)?,
            packet.get(12..20)?,
            usize::from(packet[0] & 0x0f) * 4,
            number(packet, 2)?,
        ),
        [0x86, 0xdd] => (
            *packet.get(6)?,
            packet.get(8..40)?,
            40,
            number(packet, 4)? + 40,
        ),
        _ => return None,
    };
    if protocol != TCP {
        return None;
    }
    // Short frames are filled up to the least length of Ethernet.
    let segment = packet.get(header_bytes..packet_bytes.min(packet.len()))?;
    let ports = [number(segment, 0)?, number(segment, 2)?];
    if !ports.contains(&usize::from(port)) {
        return None;
    }
    let payload_at = usize::from(segment.get(12)? >> 4) * 4;
    let direction = [addresses, segment.get(..4)?].concat();
    Some((direction, segment.get(payload_at..)?))
}

/// The 16 bits at `at`.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bits = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([bits[0], bits[1]])))
}
