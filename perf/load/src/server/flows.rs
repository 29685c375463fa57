//! Datagrams at the server: one socket takes those of all tests, a thread sends for each flow that goes down.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;

use super::{Host, shared::Shared};
use crate::{
    count::{Count, Counter},
    datagram::{Header, MAX_BYTES, Tally},
    flow,
    result::Datagrams,
    role::{Role, flow_role, flows},
    wire::{Report, TestId},
};

/// How often it is looked whether the server stops.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked where a client is.
const FIND_EVERY: Duration = Duration::from_millis(5);

/// Datagrams wait here while the thread is away; the kernel may grant less.
const BUFFER_BYTES: usize = 4 << 20;

/// The flows of a test.
#[derive(Default)]
pub(super) struct Flows {
    by_number: Mutex<HashMap<u32, Flow>>,
}

#[derive(Default)]
struct Flow {
    tally: Tally,
    client: Option<SocketAddr>,
    counter: Arc<Counter>,
    before: Count,
}

/// Binds the socket of all flows.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
    Ok(socket)
}

/// Takes what comes until the server stops.
pub(super) fn receive(host: &Host, socket: &UdpSocket) {
    let mut datagram = vec![0; MAX_BYTES];
    let begun = Instant::now();
    while !host.is_stopping.load(SeqCst) {
        let Ok((length, client)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let now_ns = begun.elapsed().as_nanos() as u64;
        let Some(header) = datagram.get(..length).and_then(Header::read) else {
            continue;
        };
        if let Some(entry) = host.entry(header.test)
            && host.allows(client.ip())
        {
            entry
                .shared
                .flows
                .note(&entry.shared, &header, length, client, now_ns);
        }
    }
}

impl Flows {
    fn note(
        &self,
        shared: &Shared,
        header: &Header,
        length: usize,
        client: SocketAddr,
        now_ns: u64,
    ) {
        let Some(role) = flow_role(&shared.spec, header.flow) else {
            return;
        };
        let mut flows = self.by_number.lock();
        let flow = flows.entry(header.flow).or_default();
        flow.client = Some(client);
        if role == Role::Up {
            flow.tally.note(header.number, header.sent_ns, now_ns);
            flow.counter.received(length);
        }
    }

    /// What was counted until now is forgotten.
    pub(super) fn begin(&self) {
        for flow in self.by_number.lock().values_mut() {
            flow.tally.begin();
            flow.before = flow.counter.look();
        }
    }

    /// Bytes in both directions.
    pub(super) fn bytes(&self) -> u64 {
        let flows = self.by_number.lock();
        let counts = flows.values().map(|flow| flow.counter.look());
        counts
            .map(|count| count.sent_bytes + count.received_bytes)
            .sum()
    }

    /// Writes what was counted.
    pub(super) fn write(&self, shared: &Shared, report: &mut Report) {
        let all = self.by_number.lock();
        for (number, role) in flows(&shared.spec) {
            let Some(flow) = all.get(&number) else {
                continue;
            };
            let count = flow.counter.look().since(flow.before);
            match role {
                Role::Up => {
                    flow.tally
                        .add_to(report.datagrams.get_or_insert_with(Datagrams::default));
                    report.received_bytes.push(count.received_bytes);
                }
                Role::Down => {
                    report.datagrams_sent += count.completed;
                    report.sent_bytes.push(count.sent_bytes);
                }
                Role::Answers => {}
            }
        }
    }
}

/// Starts the threads that send the flows that go down.
pub(super) fn send_all(
    shared: &Arc<Shared>,
    test: TestId,
    socket: &Arc<UdpSocket>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for (number, _) in flows(&shared.spec).filter(|(_, role)| *role == Role::Down) {
        let (shared, socket) = (Arc::clone(shared), Arc::clone(socket));
        let thread = std::thread::Builder::new().name("flow".to_owned());
        threads.push(thread.spawn(move || send(&shared, test, number, &socket))?);
    }
    Ok(threads)
}

fn send(shared: &Shared, test: TestId, number: u32, socket: &UdpSocket) {
    let Some(started) = shared.gate.pass() else {
        return;
    };
    while !shared.gate.is_over() {
        let found = {
            let flows = shared.flows.by_number.lock();
            let flow = flows.get(&number);
            flow.and_then(|flow| Some((flow.client?, Arc::clone(&flow.counter))))
        };
        if let Some((client, counter)) = found {
            let sending = flow::Sending {
                spec: &shared.spec,
                test,
                flow: number,
                counter: &counter,
                gate: &shared.gate,
            };
            // What cannot be sent is lost, which the client sees.
            let _ = sending.run(started, |datagram| socket.send_to(datagram, client));
            return;
        }
        shared.gate.wait_until(Instant::now() + FIND_EVERY);
    }
}
