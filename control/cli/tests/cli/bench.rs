//! What a way costs, measured against a server of our own in this process.

use std::net::TcpListener;

use corinth_load::server::{Server, Settings};

use super::support::corinth;

fn server() -> Server {
    let anywhere = "127.0.0.1:0".parse().unwrap();
    Server::start(Settings::new(anywhere)).unwrap()
}

#[test]
fn both_ways_to_a_service_are_measured_and_compared() {
    let server = server();
    let address = server.address().to_string();
    let arguments = [
        "bench",
        &address,
        "--direct",
        &address,
        "--rounds",
        "1",
        "--duration",
        "100ms",
    ];
    let table = corinth(&arguments).result();
    let mut lines = table.lines();
    let headers = lines.next().unwrap();
    let expected = ["MEASURE", "UNIT", "THROUGH", "DIRECT", "OVERHEAD"];
    assert_eq!(headers.split_whitespace().collect::<Vec<_>>(), expected);
    assert_eq!(lines.clone().count(), 5, "{table}");
    for line in lines {
        assert!(line.ends_with("%)"), "no overhead in {line}");
    }
}

#[test]
fn without_a_direct_way_there_is_no_overhead() {
    let server = server();
    let url = format!("http://{}/", server.address());
    let arguments = [
        "bench",
        &url,
        "--rounds",
        "1",
        "--duration",
        "100ms",
        "-o",
        "jsonl",
    ];
    let lines = corinth(&arguments).result();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    for line in lines.lines() {
        assert!(!line.contains(r#""through":null"#), "{line}");
        assert!(
            line.ends_with(r#""direct":null,"overhead":null}"#),
            "{line}"
        );
    }
}

#[test]
fn a_service_that_is_not_there_is_told_apart_from_wrong_usage() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let remedy = "start `corinth-perf server` as the service, or give the URL of an HTTP service";
    let why = format!(
        "{address} cannot be reached: Connection refused (os error 111); does `corinth-perf server` listen there?"
    );
    let what = "the service cannot be measured";
    corinth(&["bench", &address]).trouble(3, what, &why, remedy);
    assert_eq!(corinth(&["bench", "not an address"]).code, 2);
}
