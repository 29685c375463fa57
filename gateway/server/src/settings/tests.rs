use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use corinth_model::{PortBook, RouteName, Target};

use super::*;

mod refused;

const ORIGIN: &str = "/etc/corinth/config.yaml";

/// A certificate as far as its frame goes; whether it holds is asked by who verifies with it.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
/// A private key as far as its frame goes.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";

fn parse(text: &str) -> Result<Settings, Mistakes> {
    Settings::parse(text, Path::new(ORIGIN))
}

fn good(text: &str) -> Settings {
    parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Code, line and column of each mistake.
fn mistakes(result: Result<Settings, Mistakes>) -> Vec<(&'static str, u32, u32)> {
    let mistakes = result
        .map(|_| ())
        .expect_err("this configuration is refused");
    mistakes
        .iter()
        .map(|mistake| (mistake.code.code(), mistake.at.line, mistake.at.column))
        .collect()
}

fn json(settings: &Settings) -> serde_json::Value {
    serde_json::to_value(settings).expect("settings can be shown")
}

#[test]
fn one_key_is_enough() {
    let settings = good("cluster: East\n");
    let mut shown = json(&settings);
    shown["workers"] = 0.into();
    let expected = serde_json::json!({
        "cluster": "east",
        "trustDomain": "east.corinth.internal",
        "slot": "0",
        "slots": 1,
        "locality": shown["locality"].clone(),
        "stateDir": "/var/lib/corinth",
        "workers": 0,
        "listen": {
            "tunnel": "[::]:15443",
            "sni": null,
            "imports": ["127.0.0.1", "::1"],
            "importPorts": "20000-27999",
            "socks": null,
            "connect": null,
            "admin": "127.0.0.1:15000",
        },
        "identity": {"issuer": "builtIn", "leafLifetime": "24h"},
        "peers": [],
        "exports": [],
        "imports": [],
        "limits": {
            "unauthenticatedBytes": "32MiB",
            "unauthenticatedConnections": 1024,
            "perPrefixConnections": 64,
            "streamsPerPeer": 10000,
            "flows": 16384,
            "flowsPerPeer": 8192,
            "flowsPerClient": 4096,
        },
        "timeouts": {
            "tlsHandshake": "3s",
            "firstFrame": "5s",
            "connect": "1s",
            "open": "10s",
            "idle": "1h",
            "flowIdle": "3m",
            "flowUnanswered": "30s",
        },
        "drain": {"delay": "5s", "limit": "1m"},
        "accessLog": {"target": "stdout", "what": "all"},
        "log": {"level": "info", "format": "text"},
    });
    assert_eq!(shown, expected);
    assert!(settings.workers >= 1);
    assert_eq!(settings.locality, Locality::default());
}

#[test]
fn the_example_is_a_configuration_and_its_defaults_are_the_defaults() {
    let (example, bare) = (json(&good(example())), json(&good("cluster: east\n")));
    for key in [
        "trustDomain",
        "slot",
        "slots",
        "stateDir",
        "identity",
        "limits",
        "timeouts",
        "drain",
        "accessLog",
        "log",
    ] {
        assert_eq!(example[key], bare[key], "{key}");
    }
    for key in ["tunnel", "imports", "importPorts", "admin"] {
        assert_eq!(example["listen"][key], bare["listen"][key], "{key}");
    }
}

#[test]
fn the_example_shows_every_key() {
    let schema = schema();
    let mut keys = Vec::new();
    property_names(&schema, &mut keys);
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        assert!(
            example().contains(&format!("{key}:")) || example().contains(&format!("`{key}`")),
            "{key}"
        );
    }
}

fn property_names<'a>(schema: &'a serde_json::Value, names: &mut Vec<&'a str>) {
    let serde_json::Value::Object(entries) = schema else {
        return;
    };
    for (key, value) in entries {
        if let ("properties", serde_json::Value::Object(properties)) = (key.as_str(), value) {
            names.extend(properties.keys().map(String::as_str));
        }
        property_names(value, names);
    }
}

#[test]
fn the_schema_refuses_unknown_keys_and_asks_for_what_must_be_there() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["cluster"]));
    let peer = &schema["$defs"]["RawPeer"];
    assert_eq!(peer["additionalProperties"], false);
    assert_eq!(peer["required"], serde_json::json!(["name"]));
    assert!(
        peer["properties"]["trustDomain"]["description"]
            .as_str()
            .is_some()
    );
}

#[test]
fn paths_start_at_the_file() {
    let settings = good(
        "cluster: east\nstateDir: state\naccessLog: {target: ./access.log}\n\
         identity: {caCert: ca.pem, caKey: /run/ca.key}\n\
         peers: [{name: west, bundle: peers/west.pem, acceptOnly: true}]\n",
    );
    assert_eq!(settings.state_dir, Path::new("/etc/corinth/state"));
    assert_eq!(
        settings.access_log.target,
        AccessTarget::File("/etc/corinth/./access.log".into())
    );
    let files = [
        "/etc/corinth/ca.pem",
        "/run/ca.key",
        "/etc/corinth/peers/west.pem",
    ];
    assert_eq!(settings.files(), files.map(Path::new));
}

#[test]
fn short_and_long_forms_mean_the_same() {
    let start = "cluster: east\npeers: [{name: west, bundle: w, acceptOnly: true}]\n";
    let settings = good(&format!(
        "{start}exports: [{{service: a.b, port: 1, to: [west], endpoints: ['[::ffff:10.0.0.1]:80', {{address: '10.0.0.2:80', zone: z}}]}}]\n\
         imports: [{{service: c.d, port: 1, from: [west]}}, {{service: e.f, port: 1, from: [{{cluster: west}}]}}]\n"
    ));
    let addresses: Vec<_> = settings.exports[0]
        .endpoints
        .iter()
        .map(|e| e.address().to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(
        settings.exports[0].endpoints[1].locality().zone.as_deref(),
        Some("z")
    );
    assert_eq!(settings.imports[0].from, settings.imports[1].from);
}

#[test]
fn tls_follows_from_what_needs_it() {
    let settings = good(
        "cluster: east\npeers: [{name: west, bundle: w, acceptOnly: true}]\n\
         exports: [{service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {passthrough: anonymous, sources: ['::/0']}}]\n\
         imports: [{service: c.d, port: 1, from: [west], names: [c.example]}, {service: e.f, port: 1, from: [west]}]\n",
    );
    assert!(settings.exports[0].tls);
    assert_eq!(
        settings
            .imports
            .iter()
            .map(|import| import.tls)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn sockets_of_the_control_plane_start_at_the_file_and_lie_in_the_state_directory_by_default() {
    let settings = good("cluster: east\nstateDir: state\ncontrol: {handover: run/h.sock}\n");
    let directory = Path::new(ORIGIN).parent().expect("the file lies somewhere");
    let expected = Control {
        socket: directory.join("state/control.sock"),
        handover: directory.join("run/h.sock"),
    };
    assert_eq!(settings.control, Some(expected));
    assert_eq!(good("cluster: east\n").control, None);
}

#[test]
fn a_follower_keeps_nothing_that_the_control_plane_tells() {
    let control = Control::in_state_dir(Path::new("/run"));
    let settings = good(example()).follow(control.clone());
    assert!(
        settings.peers.is_empty() && settings.exports.is_empty() && settings.imports.is_empty()
    );
    assert_eq!(settings.control, Some(control));
    assert_eq!(settings.listen, good(example()).listen);
}

#[test]
fn off_switches_off() {
    let settings = good(
        "cluster: east\ntimeouts: {idle: off}\ndrain: {delay: off}\naccessLog: {target: off}\n",
    );
    assert_eq!(settings.timeouts.idle, None);
    assert_eq!(settings.drain.delay, Duration::ZERO);
    assert_eq!(settings.access_log.target, AccessTarget::Off);
}

#[test]
fn tables_hold_what_was_configured_and_own_endpoints_join_imports() {
    let mut settings = good(example());
    settings
        .assign_ports(&PortBook::default(), SystemTime::UNIX_EPOCH)
        .expect("room for two");
    let tables = settings.tables(7).expect("the example holds together");
    assert_eq!(tables.revision, 7);
    assert_eq!(tables.peers.len(), 2);
    let name = RouteName::parse("80.web.shop.svc.clusterset.local").expect("a route name");
    let route = tables
        .routes
        .by_name(&name, Protocol::Tcp)
        .expect("imported");
    assert_eq!(route.import_port.map(PortNumber::get), Some(20_000));
    let targets: Vec<_> = route
        .candidates
        .iter()
        .map(|candidate| candidate.target.to_string())
        .collect();
    assert_eq!(targets, ["10.0.1.10:8080", "10.0.2.10:8080", "west"]);
    let south = ClusterName::parse("south").expect("a name");
    let view = tables
        .exports
        .view(&south)
        .expect("something is exported to south");
    assert!(view.lookup(&name, Protocol::Tcp).is_some());
    let orders = RouteName::parse("5432.orders.shop.svc.clusterset.local").expect("a route name");
    let orders = tables
        .routes
        .by_name(&orders, Protocol::Tcp)
        .expect("imported");
    assert!(matches!(orders.candidates[1].target, Target::Cluster(_)));
    assert_eq!(orders.candidates[1].priority, 1);
}

#[test]
fn one_number_may_be_the_import_port_of_a_service_over_tcp_and_of_one_over_udp() {
    let text = "cluster: east\npeers: [{name: west, bundle: w, acceptOnly: true}]\nlisten: {admin: '127.0.0.1:20001'}\n\
         imports:\n  - {service: a.b, port: 53, from: [west], importPort: 20053}\n\
         \x20 - {service: a.b, port: 53, protocol: udp, from: [west], importPort: 20053}\n\
         \x20 - {service: c.d, port: 1, protocol: udp, from: [west], importPort: 20001}\n";
    let tables = good(text).tables(1).expect("they are two ports");
    let port = PortNumber::new(20_053).expect("not zero");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let route = tables.routes.by_import_port(port, protocol);
        assert_eq!(route.map(|route| route.protocol), Some(protocol));
    }
}

#[test]
fn chosen_ports_avoid_every_listener_and_stay_after_a_reload() {
    let text = "cluster: east\nlisten: {admin: '127.0.0.1:20000', tunnel: '[::]:20001', importPorts: 20000-20009}\n\
         peers: [{name: west, bundle: w, acceptOnly: true}]\n\
         exports: [{service: x.y, port: 1, to: [west], endpoints: ['127.0.0.1:20002', '10.0.0.1:20004']}]\n\
         imports:\n  - {service: a.b, port: 1, from: [west]}\n  - {service: c.d, port: 1, from: [west], importPort: 20003}\n";
    let ports = |settings: &Settings| {
        settings
            .imports
            .iter()
            .map(|i| i.import_port.map_or(0, PortNumber::get))
            .collect::<Vec<_>>()
    };
    let mut settings = good(text);
    let book = settings
        .assign_ports(&PortBook::default(), SystemTime::UNIX_EPOCH)
        .expect("room");
    assert_eq!(ports(&settings), [20004, 20003]);
    let again = settings
        .assign_ports(&book, SystemTime::UNIX_EPOCH)
        .expect("room");
    assert_eq!((ports(&settings), &again), (vec![20004, 20003], &book));
    let mut reloaded = good(&text.replace(
        "imports:\n",
        "imports:\n  - {service: e.f, port: 1, from: [west]}\n",
    ));
    reloaded
        .assign_ports(&book, SystemTime::UNIX_EPOCH)
        .expect("room");
    assert_eq!(ports(&reloaded), [20005, 20004, 20003]);
}

#[test]
fn too_few_import_ports_are_a_mistake_with_a_line() {
    let mut settings = good(
        "cluster: east\nlisten: {importPorts: 20000-20000}\npeers: [{name: w, bundle: w, acceptOnly: true}]\n\
         imports:\n- {service: a.b, port: 1, from: [w]}\n- {service: c.d, port: 1, from: [w]}\n",
    );
    let refused = settings
        .assign_ports(&PortBook::default(), SystemTime::UNIX_EPOCH)
        .expect_err("one port for two");
    let mistake = refused.iter().next().expect("one");
    assert_eq!(
        (mistake.code, mistake.at.line),
        (MistakeCode::NoImportPort, 6)
    );
}

#[test]
fn files_are_loaded_through_the_reader() {
    let settings = good(&format!(
        "cluster: east\nidentity: {{leafCert: l, leafKey: k, bundle: b}}\n\
         peers:\n- {{name: west, bundle: w, acceptOnly: true}}\n- {{name: south, acceptOnly: true, bundlePem: {PEM:?}}}\n"
    ));
    let files = settings
        .load(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            Ok(if name == Some("k") {
                KEY.into()
            } else {
                PEM.into()
            })
        })
        .expect("all files are there");
    assert_eq!(files.peers.len(), 2);
    assert_eq!(
        files
            .peers
            .values()
            .map(|roots| roots.ders().len())
            .sum::<usize>(),
        2
    );
    let IdentityFiles::Leaf {
        key, certificate, ..
    } = &files.identity
    else {
        panic!("{files:?}");
    };
    assert_eq!((key.expose(), certificate.pem()), (KEY, PEM));
    assert!(!format!("{files:?}").contains("BEGIN"), "{files:?}");
}

#[test]
fn every_bad_file_is_reported_where_it_is_named() {
    let settings = good(
        "cluster: east\nidentity:\n  caCert: key\n  caKey: cert\npeers:\n- {name: a, bundle: gone, acceptOnly: true}\n\
         - {name: b, bundle: empty, acceptOnly: true}\n- {name: c, bundle: text, acceptOnly: true}\n\
         - {name: d, bundle: binary, acceptOnly: true}\n- {name: e, bundle: broken, acceptOnly: true}\n\
         - {name: f, bundle: cert, acceptOnly: true}\n",
    );
    let content: BTreeMap<&str, &[u8]> = BTreeMap::from([
        ("key", KEY.as_bytes()),
        ("cert", PEM.as_bytes()),
        ("empty", b" \n"),
        ("text", b"hello"),
        ("binary", b"\x30\x82\xff"),
        (
            "broken",
            b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        ),
    ]);
    let refused = settings
        .load(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            content
                .get(name)
                .map(|bytes| bytes.to_vec())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
        .expect_err("most of them are bad");
    let found: Vec<_> = refused.iter().map(|m| (m.code.code(), m.at.line)).collect();
    let expected = [
        ("CRN943", 3),
        ("CRN944", 4),
        ("CRN940", 6),
        ("CRN941", 7),
        ("CRN942", 8),
        ("CRN942", 9),
        ("CRN942", 10),
    ];
    assert_eq!(found, expected, "{refused}");
    assert!(!refused.to_string().contains("MAA="), "{refused}");
}

#[test]
fn what_is_shown_holds_no_pem_and_no_position() {
    let settings = good(&format!(
        "cluster: east\npeers: [{{name: west, acceptOnly: true, bundlePem: {PEM:?}}}]\n"
    ));
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("BEGIN") && !shown.contains("line"),
        "{shown}"
    );
    assert!(shown.contains("(1 certificates)"), "{shown}");
}

#[test]
fn what_needs_a_restart_is_named() {
    let running = good("cluster: east\n");
    let next =
        good("cluster: east\nworkers: 200\nlog: {level: debug}\nlisten: {socks: 127.0.0.1:1080}\n");
    assert_eq!(next.needs_restart(&running), ["workers", "listen"]);
    assert!(running.needs_restart(&running).is_empty());
}

#[test]
fn reading_a_file_that_is_none_says_so() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for path in [
        directory.path().to_owned(),
        directory.path().join("gone"),
        "/dev/zero".into(),
    ] {
        let refused = Settings::read(&path).map(|_| ()).expect_err("not a file");
        assert!(refused.to_string().contains(" CRN940 "), "{refused}");
    }
    let binary = directory.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).expect("written");
    assert_eq!(mistakes(Settings::read(&binary)), [("CRN901", 0, 0)]);
    let large = directory.path().join("large");
    std::fs::write(&large, vec![b' '; 2 << 20]).expect("written");
    assert_eq!(mistakes(Settings::read(&large)), [("CRN940", 0, 0)]);
}

#[test]
fn eight_thousand_imports_are_read_in_time() {
    let mut text = String::from(
        "cluster: east\npeers: [{name: west, bundle: w, acceptOnly: true}]\nimports:\n",
    );
    for n in 0..8000 {
        text.push_str(&format!(
            "- {{service: s{n}.shop, port: 80, from: [west]}}\n"
        ));
    }
    let start = std::time::Instant::now();
    let mut settings = good(&text);
    settings
        .assign_ports(&PortBook::default(), SystemTime::UNIX_EPOCH)
        .expect("room for all");
    let tables = settings.tables(1).expect("no conflicts");
    assert_eq!(tables.routes.len(), 8000);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}
