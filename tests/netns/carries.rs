//! What is carried arrives whole, and ends as it ended.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use corinth_lab::{
    Ending, Ground, Iperf, Lab, Tally, WAIT, ending, is_soak, random_block, read_to_ending, reset,
};

use crate::fixture::{ECHO_PORT, WEB_PORT, echo, web};

over_both_transports![
    twenty_thousand_requests_on_kept_connections_are_answered,
    twenty_thousand_requests_on_fresh_connections_are_answered,
    iperf3_moves_data_in_either_direction_and_in_both,
    random_bytes_arrive_unchanged_in_both_directions,
    a_client_that_ends_first_still_gets_its_answer,
    a_server_that_ends_first_still_gets_the_rest,
    a_reset_of_the_server_reaches_the_client_as_a_reset,
    a_reset_of_the_client_reaches_the_server_as_a_reset,
    a_server_that_speaks_first_is_heard,
    an_endpoint_that_accepts_and_ends_at_once_looks_just_so,
    a_slow_reader_holds_its_own_stream_only,
];

/// How many requests make the point.
const REQUESTS: usize = 20_000;

fn twenty_thousand_requests_on_kept_connections_are_answered(ground: Ground) {
    let connects = ask_twenty_thousand_times(ground, &[]);
    assert!(
        connects.is_some_and(|connects| connects < 1_000),
        "connections are kept: {connects:?}"
    );
}

fn twenty_thousand_requests_on_fresh_connections_are_answered(ground: Ground) {
    let connects = ask_twenty_thousand_times(ground, &["-H", "connection: close"]);
    assert!(
        connects.is_none_or(|connects| connects == REQUESTS),
        "each has its own: {connects:?}"
    );
}

/// Asks nginx through both gateways with real curl; says how many connections it took.
fn ask_twenty_thousand_times(ground: Ground, further: &[&str]) -> Option<usize> {
    let lab = Lab::on(ground).alone().build()?;
    let web = web(&lab);
    let before = web.nginx.requests();
    let url = format!("http://{}/[1-{REQUESTS}]", web.east.at(WEB_PORT));
    let line = "%{http_code} %{exitcode} %{num_connects}\\n";
    let mut args = vec!["-sS", "--noproxy", "*", "-Z", "--parallel-max", "32"];
    args.extend(["-o", "/dev/null", "-w", line]);
    args.extend(further);
    args.push(&url);
    let began = Instant::now();
    let output = lab
        .client
        .start("curl", args)
        .wait(Duration::from_secs(120))
        .good();
    let took = began.elapsed();

    let good: Vec<_> = output
        .stdout
        .iter()
        .filter_map(|line| line.strip_prefix("200 0 "))
        .collect();
    assert_eq!(good.len(), REQUESTS, "{:?}", output.stderr);
    // Its own status page was asked once meanwhile.
    assert_eq!(
        web.nginx.requests() - before,
        REQUESTS as u64 + 1,
        "each was delivered once"
    );
    println!("{REQUESTS} requests in {took:?}");
    Some(
        good.iter()
            .filter_map(|connects| connects.parse::<usize>().ok())
            .sum(),
    )
}

fn iperf3_moves_data_in_either_direction_and_in_both(ground: Ground) {
    let Some(lab) = Lab::on(ground).alone().build() else {
        return;
    };
    let endpoint = lab.server_at(0, 5201);
    let _server = Iperf::start(&lab.server, endpoint);
    let _west = lab
        .gateway("west")
        .peer("east")
        .exports("bulk.lab:5201", &[endpoint], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports("bulk.lab:5201", 25_201, &["west"])
        .start();
    east.await_links(1);

    for streams in ["1", "8"] {
        for direction in [None, Some("-R"), Some("--bidir")] {
            // iperf3 knows its streams by the order in which the server accepts them, which is not always that in which
            // the client connected. Where it has swapped them both sides only send, and it measures nothing.
            let measured = (0..ATTEMPTS).find_map(|_| {
                let rates = measure(&lab, east.at(25_201), streams, direction);
                rates.iter().all(|rate| *rate > 1.0).then_some(rates)
            });
            let rates = measured.expect("data moves in every direction");
            println!("{streams} streams, {direction:?}: {rates:.0?} Mb/s");
        }
    }
}

/// Runs of iperf3 until one has its streams in order.
const ATTEMPTS: u32 = 6;

/// Runs iperf3 once; what it received, in megabits per second of each direction.
fn measure(lab: &Lab, to: SocketAddr, streams: &str, direction: Option<&str>) -> Vec<f64> {
    let seconds = if is_soak() { "10" } else { "1" };
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let mut args = vec!["-J", "-c", &address, "-p", &port];
    args.extend(["-t", seconds, "-P", streams]);
    args.extend(direction);
    let mut client = lab.client.start("iperf3", args);
    let report = client.wait(Duration::from_secs(60)).good().text();
    rates(&serde_json::from_str::<serde_json::Value>(&report).unwrap()["end"])
}

/// Received megabits per second of each direction that iperf3 reports.
fn rates(end: &serde_json::Value) -> Vec<f64> {
    let sums = ["sum_received", "sum_received_bidir_reverse"];
    let rate = |sum: &str| end[sum]["bits_per_second"].as_f64();
    sums.iter()
        .filter_map(|sum| rate(sum))
        .map(|bits| bits / 1e6)
        .collect()
}

fn random_bytes_arrive_unchanged_in_both_directions(ground: Ground) {
    let Some(lab) = Lab::on(ground)
        .alone()
        .deadline(Duration::from_secs(240))
        .build()
    else {
        return;
    };
    let bytes: u64 = if is_soak() { 4 << 30 } else { 256 << 20 };
    let endpoint = lab.server_at(0, 7000);
    let there = lab.server.serve(endpoint, move |stream, tally| {
        let digest = both_ways(&stream, 2, bytes);
        tally.deliver(digest.as_ref());
    });
    let _west = lab
        .gateway("west")
        .peer("east")
        .exports("hash.lab:7000", &[endpoint], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports("hash.lab:7000", 27_000, &["west"])
        .start();
    east.await_links(1);

    let client = lab.client.connect(east.at(27_000));
    let began = Instant::now();
    let received = both_ways(&client, 1, bytes);
    assert!(
        there.tally().await_deliveries(1, WAIT),
        "the server has not ended"
    );
    let took = began.elapsed().as_secs_f64();
    println!(
        "{bytes} bytes each way in {took:.1} s: {:.0} MB/s",
        bytes as f64 / 5e5 / took
    );
    assert_eq!(
        received.as_ref(),
        Blocks::new(2, bytes).digest().as_ref(),
        "what the server sent"
    );
    let sent = Blocks::new(1, bytes).digest();
    assert_eq!(
        there.tally().deliveries(),
        [sent.as_ref()],
        "what the client sent"
    );
}

/// Sends what `seed` gives and hashes what comes, both to the end.
fn both_ways(stream: &TcpStream, seed: u64, bytes: u64) -> Digest {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = stream;
            for block in Blocks::new(seed, bytes) {
                to.write_all(&block).expect("the path carries it");
            }
            stream.shutdown(Shutdown::Write).expect("it is open");
        });
        let mut context = Context::new(&SHA256);
        let mut chunk = vec![0; 256 << 10];
        let mut from = stream;
        loop {
            match from.read(&mut chunk).expect("the path carries it") {
                0 => return context.finish(),
                read => context.update(&chunk[..read]),
            }
        }
    })
}

/// Random blocks of a total length.
struct Blocks {
    random: fastrand::Rng,
    left: u64,
}

impl Blocks {
    fn new(seed: u64, bytes: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            left: bytes,
        }
    }

    fn digest(self) -> Digest {
        let mut context = Context::new(&SHA256);
        self.for_each(|block| context.update(&block));
        context.finish()
    }
}

impl Iterator for Blocks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.left.min(128 << 10);
        self.left -= bytes;
        (bytes > 0).then(|| {
            let mut block = vec![0; bytes as usize];
            self.random.fill(&mut block);
            block
        })
    }
}

fn a_client_that_ends_first_still_gets_its_answer(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    // It answers only after the client's end has arrived.
    let (_west, east, _service) = echo(&lab, |mut stream: TcpStream, tally: &Tally| {
        let (asked, ended) = read_to_ending(&mut stream);
        assert_eq!(ended, Ending::End);
        tally.deliver(&asked);
        let answer = format!("{} bytes\n", asked.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let to = east.at(ECHO_PORT);
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let question = random_block(3, 300_000);
    let answer = lab.client.feed("nc", &["-N", &address, &port], &question);
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "300000 bytes\n",
        "{answer:?}"
    );
    let record = east.await_record(|record| record.text("intake") == "import");
    assert_eq!(
        (
            record.code(),
            record.number("bytes_sent"),
            record.number("bytes_received")
        ),
        ("CRN000", 300_000, 13)
    );
}

fn a_server_that_ends_first_still_gets_the_rest(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (_west, east, service) = echo(&lab, |mut stream: TcpStream, tally: &Tally| {
        stream.write_all(b"no more from here").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        tally.deliver(&read_to_ending(&mut stream).0);
    });
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(
        read_to_ending(&mut client),
        (b"no more from here".to_vec(), Ending::End)
    );
    let rest = random_block(4, 200_000);
    client.write_all(&rest).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(service.tally().await_deliveries(1, WAIT));
    assert_eq!(service.tally().deliveries(), [rest]);
}

fn a_reset_of_the_server_reaches_the_client_as_a_reset(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (west, east, _service) = echo(&lab, |mut stream: TcpStream, _: &Tally| {
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"half an ans").unwrap();
        // The client has it before the reset overtakes it.
        stream.read_exact(&mut [0; 2]).unwrap();
        reset(stream);
    });
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 11]).unwrap();
    client.write_all(b"go").unwrap();
    assert_eq!(ending(&mut client), Ending::Reset);
    let source = client.local_addr().unwrap();
    assert_eq!(
        east.record_from(source).code(),
        "CRN030",
        "the endpoint did it"
    );
    assert_eq!(
        west.await_record(|record| record.text("intake") == "peer")
            .code(),
        "CRN030"
    );
}

fn a_reset_of_the_client_reaches_the_server_as_a_reset(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (west, east, service) = echo(&lab, |mut stream: TcpStream, tally: &Tally| {
        stream.write_all(b"talk").unwrap();
        let (_, ended) = read_to_ending(&mut stream);
        tally.deliver(format!("{ended:?}").as_bytes());
    });
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    client.read_exact(&mut [0; 4]).unwrap();
    let source = client.local_addr().unwrap();
    reset(client);
    assert!(service.tally().await_deliveries(1, WAIT));
    assert_eq!(service.tally().deliveries(), [b"Reset"]);
    assert_eq!(
        east.record_from(source).code(),
        "CRN028",
        "the client did it"
    );
    assert_eq!(
        west.await_record(|record| record.text("intake") == "peer")
            .code(),
        "CRN028"
    );
}

fn a_server_that_speaks_first_is_heard(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (_west, east, _service) = echo(&lab, |mut stream: TcpStream, _: &Tally| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let _ = ending(&mut stream);
    });
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

fn an_endpoint_that_accepts_and_ends_at_once_looks_just_so(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (_west, east, _service) = echo(&lab, |stream: TcpStream, _: &Tally| drop(stream));
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::End));
    let source = client.local_addr().unwrap();
    drop(client);
    assert_eq!(east.record_from(source).code(), "CRN000");
}

fn a_slow_reader_holds_its_own_stream_only(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    /// Far more than all buffers on the way hold.
    const BYTES: usize = 64 << 20;
    let (_west, east, service) = echo(&lab, |mut stream: TcpStream, tally: &Tally| {
        let block = random_block(5, BYTES);
        tally.deliver(b"begun");
        // It comes to its end only once the client has read on.
        let _ = stream.write_all(&block);
    });
    let mut slow = lab.client.connect(east.at(ECHO_PORT));
    assert!(service.tally().await_deliveries(1, WAIT));
    slow.read_exact(&mut [0; 1]).unwrap();

    let quick = lab.client.connect(east.at(ECHO_PORT));
    let (received, ended) = read_to_ending(&mut &quick);
    assert_eq!((received.len(), ended), (BYTES, Ending::End));
    let (received, ended) = read_to_ending(&mut slow);
    assert_eq!((received.len(), ended), (BYTES - 1, Ending::End));
}
