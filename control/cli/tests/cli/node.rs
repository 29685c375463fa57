//! `corinth run`, and what is asked of a node that runs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use rustix::process::Signal;

use super::support::{Folder, Ran, Running, command, corinth, free_address};

/// What a state directory holds beside what a backup takes: what guards it while it is read, and what is made anew.
const NOT_BACKED_UP: &[&str] = &["lock", "quic-reset-key", "quic-token-key-0"];

/// The configuration of a node that takes no fixed port but its admin address, and stops at once.
fn yaml(admin: SocketAddr, more: &str) -> String {
    format!(
        "cluster: east\nstateDir: state\nlisten:\n  tunnel: 127.0.0.1:0\n  admin: {admin}\n  \
         imports: [127.0.0.1]\n  importPorts: 28000-31999\n\
         drain:\n  delay: 1ms\naccessLog:\n  target: off\n{more}"
    )
}

/// A peer that is never there, and a service of it.
fn peer(folder: &Folder) -> String {
    let west = folder.put("west.yaml", "cluster: west\nstateDir: west\n");
    let bundle = corinth(&["bundle", "--config", &west]).stdout;
    folder.put("west.pem", &bundle);
    let (gateway, import) = (free_address(), free_address().port());
    format!(
        "peers:\n  - name: west\n    bundle: west.pem\n    addresses: [\"{gateway}\"]\n\
         imports:\n  - service: payments.shop\n    port: 80\n    from: [west]\n    importPort: {import}\n"
    )
}

fn run(config: &str) -> Running {
    let mut node = Running::start(&mut command(&["run", "--config", config]));
    node.wait_for("READY=1");
    node
}

#[test]
fn a_node_runs_is_asked_and_stops() {
    let folder = Folder::new();
    let admin = free_address();
    let config = folder.put("east.yaml", &yaml(admin, &peer(&folder)));
    let node = run(&config);
    let admin = admin.to_string();

    let routes = corinth(&["routes", "--admin", &admin]).result();
    assert!(routes.starts_with("ROUTE "), "{routes}");
    assert!(
        routes.contains("80.payments.shop.svc.clusterset.local"),
        "{routes}"
    );
    assert!(routes.contains("✗ link down"), "{routes}");
    let asked = command(&["routes", "-o", "name"])
        .env("CORINTH_ADMIN", &admin)
        .output();
    assert_eq!(
        Ran::of(asked.unwrap()).result(),
        "route/80.payments.shop.svc.clusterset.local\n"
    );
    let envelope = corinth(&["routes", "--admin", &admin, "-o", "json"]).envelope("Routes");
    assert_eq!(envelope["items"][0]["candidates"][0]["target"], "west");

    let links = corinth(&["links", "--admin", &admin, "--no-headers"]).result();
    assert!(links.starts_with("west  ✗ unlinked"), "{links}");
    let envelope = corinth(&["links", "--admin", &admin, "-o", "json"]).envelope("Links");
    assert_eq!(envelope["items"][0]["state"], "unlinked");
    corinth(&["links", "--admin", &admin, "--wait", "--timeout", "500ms"]).trouble(
        4,
        "not every peer is linked after 500ms",
        "west is unlinked",
        "look into the gateway's log: it says why it cannot link, and dials on",
    );

    // All it keeps is in a backup of it.
    let archive = folder.named("east.backup");
    assert_eq!(
        corinth(&["backup", "--config", &config, "--output", &archive]).code,
        0
    );
    let archive: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(archive).unwrap()).unwrap();
    let mut kept = folder.list("state");
    kept.retain(|name| !NOT_BACKED_UP.contains(&name.as_str()));
    let backed_up: Vec<_> = archive["files"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(backed_up, kept);

    node.signal(Signal::TERM);
    assert_eq!(node.end(), 0);
    assert_eq!(corinth(&["routes", "--admin", &admin]).code, 3);
}

#[test]
fn a_node_without_peers_has_nothing_to_wait_for() {
    let folder = Folder::new();
    let admin = free_address();
    let config = folder.put("east.yaml", &yaml(admin, ""));
    let node = run(&config);
    let admin = admin.to_string();
    let ran = corinth(&["links", "--admin", &admin, "--wait"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, "no links: this gateway has no peers\n")
    );
    let ran = corinth(&["routes", "--admin", &admin, "-o", "json"]);
    assert_eq!(ran.stderr, "no routes: this gateway imports nothing\n");
    assert_eq!(ran.envelope("Routes")["items"], serde_json::json!([]));
    node.signal(Signal::INT);
    assert_eq!(node.end(), 0);
}

#[test]
fn a_node_that_cannot_run_says_why() {
    let folder = Folder::new();
    let missing = folder.named("missing.yaml");
    corinth(&["run", "--config", &missing]).trouble(
        3,
        &format!("the gateway of {missing} did not run"),
        &format!("reading {missing}: No such file or directory (os error 2)"),
        "check the path and who may read the file; `corinth config example` prints a beginning",
    );
    let directory = folder.path().to_str().unwrap();
    assert_eq!(corinth(&["run", "--config", directory]).code, 3);
    let wrong = folder.put("wrong.yaml", "cluster: [east\n");
    let ran = corinth(&["run", "--config", &wrong]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.contains("CRN901"), "{}", ran.stderr);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = folder.put("taken.yaml", &yaml(taken.local_addr().unwrap(), ""));
    let ran = corinth(&["run", "--config", &config]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is another instance running?"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_admin_address_where_nobody_is_cannot_be_reached() {
    let nobody = free_address().to_string();
    for what in ["routes", "links"] {
        corinth(&[what, "--admin", &nobody]).trouble(
            3,
            &format!("no answer from the gateway at {nobody}"),
            "Connection refused (os error 111)",
            "is a gateway running here, and is this its `listen.admin`? Name another address with --admin",
        );
    }
    assert_eq!(corinth(&["routes", "--admin", "nonsense"]).code, 3);
    assert_eq!(
        corinth(&["routes", "--admin", "no.such.host.invalid:1"]).code,
        3
    );
    let waited = ["links", "--admin", &nobody, "--wait", "--timeout", "300ms"];
    assert_eq!(corinth(&waited).code, 4);
}

#[test]
fn whatever_else_answers_there_is_not_believed() {
    let remedy = "something else answers there, or another version: name the `listen.admin` of a gateway with --admin";
    for (answer, why) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "it answered 404 Not Found",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "its answer is not what a gateway shows: expected value at line 1 column 1",
        ),
        (
            "SSH-2.0-OpenSSH\r\n",
            "it does not speak HTTP as it should: invalid HTTP version parsed",
        ),
    ] {
        let address = answering(answer);
        corinth(&["routes", "--admin", &address]).trouble(
            3,
            &format!("no answer from the gateway at {address}"),
            why,
            remedy,
        );
    }
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    corinth(&["links", "--admin", &address, "--timeout", "200ms"]).trouble(
        3,
        &format!("no answer from the gateway at {address}"),
        "nothing came within 200ms",
        "is a gateway running here, and is this its `listen.admin`? Name another address with --admin",
    );
}

/// Somebody who answers one request with `words`.
fn answering(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = [0; 1024];
        let _ = client.read(&mut asked).unwrap();
        client.write_all(words.as_bytes()).unwrap();
    });
    address
}
