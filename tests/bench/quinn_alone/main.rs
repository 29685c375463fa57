//! What quinn carries by itself: one stream from one thread to another over loopback, and nothing around it.
//!
//! A yardstick for our tunnels over QUIC, which read and write the sockets of those they carry for as well.
//! `cargo bench -p corinth-tests --bench quinn_alone` prints it; to be read beside `corinth-perf compare --only bulk
//! --systems corinth,corinth-quic` on the same machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::print_stdout, reason = "figures are what a benchmark is for")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corinth_identity::tls::provider;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::TLS13,
};
use socket2::SockRef;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// UDP payload of packets of 1,500 bytes over IPv4.
const PACKET_BYTES: u16 = 1_472;
const SOCKET_BYTES: usize = 8 << 20;
const WINDOW_BYTES: u32 = 32 << 20;
const PIECE_BYTES: usize = 256 << 10;
const NAME: &str = "alone";

fn main() {
    let mut figures: Vec<f64> = (0..ROUNDS).map(|_| gigabits()).collect();
    figures.sort_by(f64::total_cmp);
    println!(
        "quinn alone, one stream, packets of {PACKET_BYTES} bytes: {:.2} Gb/s [{:.2} - {:.2}], median of {ROUNDS} rounds of {ROUND:?}",
        figures[ROUNDS / 2],
        figures[0],
        figures[ROUNDS - 1],
    );
}

/// One round, each end on a thread of its own as on a worker of a gateway. In Gb/s, as the receiver counts it.
fn gigabits() -> f64 {
    let issued = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let server = server(certificate.clone(), key);
    let (listens, listening) = mpsc::channel();
    let receiver = thread::spawn(move || {
        on_a_worker(async {
            let endpoint = endpoint(Some(server));
            listens.send(endpoint.local_addr().unwrap()).unwrap();
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let mut stream = connection.accept_uni().await.unwrap();
            let mut room = [const { Bytes::new() }; 256];
            let mut bytes = 0;
            let begun = Instant::now();
            while let Some(count) = stream.read_chunks(&mut room).await.unwrap() {
                for piece in &mut room[..count] {
                    bytes += std::mem::take(piece).len();
                }
            }
            let gigabits = bytes as f64 * 8e-9 / begun.elapsed().as_secs_f64();
            // The end has to be acknowledged before this goes away.
            connection.closed().await;
            gigabits
        })
    });
    on_a_worker(async {
        let endpoint = endpoint(None);
        let to = listening.recv().unwrap();
        let connecting = endpoint.connect_with(client(certificate), to, NAME);
        let connection = connecting.unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        let piece = Bytes::from(vec![1; PIECE_BYTES]);
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            stream.write_chunk(piece.clone()).await.unwrap();
        }
        stream.finish().unwrap();
        // Until everything has arrived.
        stream.stopped().await.unwrap();
        connection.close(VarInt::from_u32(0), b"");
        endpoint.wait_idle().await;
    });
    receiver.join().unwrap()
}

fn on_a_worker<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

fn endpoint(server: Option<ServerConfig>) -> Endpoint {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let plain = SockRef::from(&socket);
    plain.set_recv_buffer_size(SOCKET_BYTES).unwrap();
    plain.set_send_buffer_size(SOCKET_BYTES).unwrap();
    let config = EndpointConfig::default();
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).unwrap()
}

fn server(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> ServerConfig {
    let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    config
}

fn client(certificate: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    config
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.initial_mtu(PACKET_BYTES);
    config.mtu_discovery_config(None);
    config.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(WINDOW_BYTES));
    config.send_window(u64::from(WINDOW_BYTES));
    Arc::new(config)
}
