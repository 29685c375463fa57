//! Services over UDP: a name server, a tunnel in the tunnel, floods, and what becomes of flows when a path dies.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use corinth_identity::tls;
use corinth_lab::{Dnsmasq, Gateway, Ground, Lab, WAIT, until};
use quinn::{
    Endpoint, EndpointConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

over_both_transports![
    a_name_server_answers_also_with_four_thousand_bytes,
    datagrams_of_a_tunnel_inside_pass_whole,
    quic_inside_passes,
    a_flood_of_flows_is_refused_and_others_go_on,
    a_host_that_is_not_there_is_found_out,
    the_death_of_a_path_moves_flows_to_another_cluster,
];

const DNS: &str = "dns.lab:53";
const DNS_PORT: u16 = 20_053;
const ECHO: &str = "echo.lab:51820";
const ECHO_PORT: u16 = 20_820;
/// What one answer is waited for before it is asked again.
const PATIENCE: Duration = Duration::from_millis(500);
/// A dead path is noticed within a second, and its traffic has moved within two.
const MOVED: Duration = Duration::from_secs(3);

/// Keys that make an export or import one over UDP.
fn udp() -> serde_json::Value {
    json!({ "protocol": "udp" })
}

/// One gateway on each side, and `service` behind west at `endpoint`.
fn joined(
    lab: &Lab,
    service: &str,
    port: u16,
    endpoint: SocketAddr,
    limits: serde_json::Value,
) -> (Gateway, Gateway) {
    let west = lab
        .gateway("west")
        .peer("east")
        .exports_with(service, &[endpoint], &["east"], udp())
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports_with(service, port, &["west"], udp())
        .with("limits", limits)
        .start();
    east.await_links(1);
    (east, west)
}

/// A client of `to`, at a port of its own.
fn client(lab: &Lab, to: SocketAddr) -> UdpSocket {
    let any = SocketAddr::new(
        match to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        },
        0,
    );
    let socket = lab.client.datagrams(any, PATIENCE);
    // Answers from elsewhere are not heard.
    lab.client.within(|| socket.connect(to)).unwrap();
    socket
}

/// Asks again, as clients do, until an answer that is meant comes.
fn ask(socket: &UdpSocket, words: &[u8], is_meant: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut room = vec![0; 65_536];
    until("an answer", WAIT, || {
        socket.send(words).ok()?;
        let length = socket.recv(&mut room).ok()?;
        is_meant(&room[..length]).then(|| room[..length].to_vec())
    })
}

/// Says back what it hears, with a word in front, until dropped.
struct Echo {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn start(lab: &Lab, on: SocketAddr, word: &'static str) -> Self {
        let socket = lab.server.datagrams(on, Duration::from_millis(50));
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut room = vec![0; 65_536];
            while !over.load(Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut room) {
                    let answer = [word.as_bytes(), &room[..length]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A question for the records of a type (RFC 1035 §4), with room for large answers (RFC 6891 §6.1.2).
fn question(id: u16, name: &str, of_type: u16) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(of_type.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
    // OPT: the root, its type, 8,192 bytes, no flags, no data.
    message.extend([0, 0, 41, 0x20, 0x00, 0, 0, 0, 0, 0, 0]);
    message
}

fn a_name_server_answers_also_with_four_thousand_bytes(ground: Ground) {
    const A: u16 = 1;
    const TXT: u16 = 16;
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 53);
    let text = "x".repeat(240);
    let long = (0..17).map(|number| format!("--txt-record=long.lab,{number:02}{text}"));
    let records = [String::from("--host-record=short.lab,192.0.2.7")]
        .into_iter()
        .chain(long)
        .collect::<Vec<_>>();
    let _dnsmasq = Dnsmasq::start(&lab.server, endpoint, &records);
    let (east, west) = joined(&lab, DNS, DNS_PORT, endpoint, json!({}));

    let socket = client(&lab, east.at(DNS_PORT));
    let answer = ask(&socket, &question(7, "short.lab", A), |answer| {
        answer.starts_with(&[0, 7])
    });
    assert!(answer.ends_with(&[0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0]) || answer.len() > 30);
    assert!(answer.windows(4).any(|bytes| bytes == [192, 0, 2, 7]));
    let answer = ask(&socket, &question(8, "long.lab", TXT), |answer| {
        answer.starts_with(&[0, 8])
    });
    assert!(answer.len() > 4_000, "{} bytes", answer.len());
    assert_eq!(answer[2] & 0x02, 0, "the answer was cut");
    for number in 0..17 {
        let text = format!("{number:02}{text}");
        assert!(
            answer
                .windows(text.len())
                .any(|bytes| bytes == text.as_bytes())
        );
    }
    // Answered flows of a name server are over soon.
    let is_complete =
        |record: &corinth_lab::Record| record.text("intake") == "flow" && record.code() == "CRN000";
    let record = east.await_record(is_complete);
    assert_eq!(record.text("peer"), "west");
    assert!(record.number("datagrams_received") >= 2);
    west.await_record(|record| record.text("intake") == "peer_flow" && record.code() == "CRN000");
}

/// WireGuard with its usual MTU sends datagrams of 1,420 bytes and less, as fast as it likes.
fn datagrams_of_a_tunnel_inside_pass_whole(ground: Ground) {
    const SIZE: usize = 1_420;
    const COUNT: usize = 2_000;
    const AT_ONCE: usize = 20;
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 51_820);
    let _echo = Echo::start(&lab, endpoint, "");
    let (east, _west) = joined(&lab, ECHO, ECHO_PORT, endpoint, json!({}));
    let socket = client(&lab, east.at(ECHO_PORT));
    ask(&socket, b"hello", |answer| answer == b"hello");

    let mut room = vec![0; 65_536];
    let mut heard = vec![false; COUNT];
    let mut next = 0;
    while next < COUNT {
        let until = (next + AT_ONCE).min(COUNT);
        for number in next..until {
            let mut datagram = vec![number as u8; SIZE];
            datagram[..8].copy_from_slice(&(number as u64).to_be_bytes());
            socket.send(&datagram).unwrap();
        }
        for _ in next..until {
            let Ok(length) = socket.recv(&mut room) else {
                break;
            };
            if length != SIZE {
                // An answer to what was asked at first.
                continue;
            }
            let number = u64::from_be_bytes(room[..8].try_into().unwrap()) as usize;
            assert!(room[8..SIZE].iter().all(|byte| *byte == number as u8));
            heard[number] = true;
        }
        next = until;
    }
    let lost = heard.iter().filter(|heard| !**heard).count();
    assert!(lost <= COUNT / 100, "{lost} of {COUNT} were lost");
}

/// An application that speaks QUIC itself, by any service's import port: a megabyte goes and comes back.
fn quic_inside_passes(ground: Ground) {
    const BYTES: usize = 1 << 20;
    const NAME: &str = "inner.lab";
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 51_820);
    let (server, client) = quic_sides(NAME);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let make = |socket: UdpSocket, server| {
        socket.set_nonblocking(true).unwrap();
        Endpoint::new(
            EndpointConfig::default(),
            server,
            socket,
            Arc::new(TokioRuntime),
        )
        .unwrap()
    };
    let listening = make(lab.server.datagrams(endpoint, WAIT), Some(server));
    let (east, _west) = joined(&lab, ECHO, ECHO_PORT, endpoint, json!({}));
    let from = SocketAddr::new(lab.family.address(corinth_lab::Net::Near, 100), 0);
    let dialling = make(lab.client.datagrams(from, WAIT), None);
    let served = runtime.spawn(async move {
        let connection = listening.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let bytes = recv.read_to_end(BYTES).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        connection.closed().await;
    });
    let sent: Vec<u8> = (0..BYTES)
        .map(|number| ((number * 31) >> 3) as u8)
        .collect();
    let echoed = async {
        let dialled = dialling.connect_with(client, east.at(ECHO_PORT), NAME);
        let connection = dialled.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let writing = async {
            send.write_all(&sent).await.unwrap();
            send.finish().unwrap();
        };
        let (echoed, ()) = tokio::join!(recv.read_to_end(BYTES), writing);
        connection.close(0_u32.into(), b"");
        dialling.wait_idle().await;
        echoed.unwrap()
    };
    let echoed = runtime.block_on(async { tokio::time::timeout(WAIT, echoed).await });
    assert!(echoed.expect("it passes in time") == sent);
    runtime.block_on(served).unwrap();
}

/// How the application's two sides know each other.
pub(crate) fn quic_sides(name: &str) -> (quinn::ServerConfig, quinn::ClientConfig) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let only = &[&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(tls::provider()))
        .with_protocol_versions(only)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(tls::provider()))
        .with_protocol_versions(only)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = QuicServerConfig::try_from(server).unwrap();
    let client = QuicClientConfig::try_from(client).unwrap();
    (
        quinn::ServerConfig::with_crypto(Arc::new(server)),
        quinn::ClientConfig::new(Arc::new(client)),
    )
}

fn a_flood_of_flows_is_refused_and_others_go_on(ground: Ground) {
    const LIMIT: usize = 50;
    const FLOOD: usize = 400;
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 51_820);
    let _echo = Echo::start(&lab, endpoint, "");
    let limits = json!({ "flowsPerClient": LIMIT });
    let (east, _west) = joined(&lab, ECHO, ECHO_PORT, endpoint, limits);
    let to = east.at(ECHO_PORT);
    let before = client(&lab, to);
    ask(&before, b"before", |answer| answer == b"before");

    let flood: Vec<_> = (0..FLOOD).map(|_| client(&lab, to)).collect();
    for socket in &flood {
        socket.send(b"flood").unwrap();
    }
    let record = east.await_record(|record| record.code() == "CRN012");
    assert_eq!(record.text("intake"), "flow");
    let refused = || {
        let dropped = "corinth_datagrams_dropped_total";
        east.metric(dropped, &["cause=\"flow_limit\""]) as usize
    };
    until("the flood is refused", WAIT, || {
        (refused() == FLOOD - (LIMIT - 1)).then_some(())
    });
    assert_eq!(
        ask(&before, b"still here", |answer| answer == b"still here"),
        b"still here"
    );
    // Another client has a share of its own, but another address of the same /64 is no other client.
    let from = lab.family.address(corinth_lab::Net::Near, 101);
    let other = lab.client.datagrams(SocketAddr::new(from, 0), PATIENCE);
    lab.client.within(|| other.connect(to)).unwrap();
    if from.is_ipv6() {
        other.send(b"me too").unwrap();
        assert!(other.recv(&mut [0; 16]).is_err());
        return;
    }
    assert_eq!(
        ask(&other, b"me too", |answer| answer == b"me too"),
        b"me too"
    );
}

/// Its neighbours ask for it in vain, and say so.
fn a_host_that_is_not_there_is_found_out(ground: Ground) {
    const NOBODY: u8 = 200;
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let nobody = lab.family.socket(corinth_lab::Net::Far, NOBODY, 51_820);
    let (east, west) = joined(&lab, ECHO, ECHO_PORT, nobody, json!({}));
    client(&lab, east.at(ECHO_PORT)).send(b"hello").unwrap();
    let record = west.await_record(|record| record.text("intake") == "peer_flow");
    assert_eq!(record.code(), "CRN022");
    let record = east.await_record(|record| record.text("intake") == "flow");
    assert_eq!(record.code(), "CRN022");
}

fn the_death_of_a_path_moves_flows_to_another_cluster(ground: Ground) {
    let Some(lab) = Lab::on(ground).alone().build() else {
        return;
    };
    let (first, second) = (lab.server_at(0, 51_820), lab.server_at(1, 51_820));
    let _echo = (
        Echo::start(&lab, first, "west: "),
        Echo::start(&lab, second, "south: "),
    );
    let offering = |cluster, endpoint| {
        lab.gateway(cluster)
            // Both clusters run on one host: what they dial would leave from the address that is cut.
            .awaits("east")
            .exports_with(ECHO, &[endpoint], &["east"], udp())
            .start()
    };
    let (west, _south) = (offering("west", first), offering("south", second));
    let east = lab
        .gateway("east")
        .peer("west")
        .peer("south")
        .imports_with(ECHO, ECHO_PORT, &["west", "south"], udp())
        .start();
    east.await_links(2);
    let socket = client(&lab, east.at(ECHO_PORT));
    ask(&socket, b"hello", |answer| answer == b"west: hello");

    let cut = Instant::now();
    lab.west.firewall().drop_to(west.tunnel().ip());
    lab.west.firewall().drop_from(west.tunnel().ip());
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    ask(&socket, b"hello", |answer| answer == b"south: hello");
    let took = cut.elapsed();
    assert!(took < MOVED, "it took {took:?}");
    east.await_record(|record| {
        record.text("intake") == "flow" && ["CRN025", "CRN026"].contains(&record.code())
    });
}

/// Without a file that names peers: linked by a token, offered by command.
mod by_command {
    use corinth_lab::Family;

    use super::{Echo, Lab, ask, client};
    use crate::nodes::{accept, link, node};

    on_both_families![a_service_over_udp_is_offered_accepted_and_taken_back];

    fn a_service_over_udp_is_offered_accepted_and_taken_back(family: Family) {
        let Some(lab) = Lab::on(family).build() else {
            return;
        };
        let endpoint = lab.server_at(0, 51_820);
        let _echo = Echo::start(&lab, endpoint, "");
        let (west, east) = (node(&lab, "west"), node(&lab, "east"));
        link(&west, &east);
        let at = endpoint.to_string();
        let what = ["export", "echo.lab", "--port", "51820", "--udp"];
        west.told(&[&what[..], &["--endpoint", &at, "--to", "east"]].concat());
        let to = accept(&east, "west", "echo.lab");
        assert_eq!(east.items(&["imports"])[0]["ports"][0]["protocol"], "udp");
        let socket = client(&lab, to);
        assert_eq!(
            ask(&socket, b"hello", |answer| answer == b"hello"),
            b"hello"
        );

        west.told(&["unexport", "echo.lab"]);
        let withdrawn = |intake: &'static str| {
            move |record: &corinth_lab::Record| {
                record.text("intake") == intake && record.code() == "CRN033"
            }
        };
        east.await_record(withdrawn("flow"));
        west.await_record(withdrawn("peer_flow"));
    }
}
