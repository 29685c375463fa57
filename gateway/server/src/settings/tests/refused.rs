//! What is refused, each with its code and place.

use super::*;

/// One mistake each: the text, the code, line and column.
const ROWS: &[(&str, &str, u32, u32)] = &[
    // The file as a whole.
    ("", "CRN906", 1, 1),
    ("# nothing but a comment\n", "CRN906", 1, 1),
    ("[]\n", "CRN907", 1, 1),
    ("just text\n", "CRN907", 1, 1),
    ("cluster: [east\n", "CRN901", 1, 10),
    ("cluster: east\n\tslot: 1\n", "CRN901", 1, 10),
    ("cluster: east\n---\ncluster: west\n", "CRN901", 3, 1),
    ("cluster: east\nslot: *nowhere\n", "CRN901", 2, 7),
    ("cluster: east\nslot: !secret x\n", "CRN901", 2, 15),
    ("cluster: east\ncluster: west\n", "CRN905", 2, 1),
    (
        "cluster: east\nslot: [[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]\n",
        "CRN903",
        2,
        22,
    ),
    // Keys and shapes.
    ("cluster: east\nclutser: west\n", "CRN904", 2, 1),
    ("cluster: east\nCluster: west\n", "CRN904", 2, 1),
    (
        "cluster: east\nlisten:\n  tunel: '[::]:1'\n",
        "CRN904",
        3,
        3,
    ),
    ("cluster: east\nlisten: [a]\n", "CRN907", 2, 9),
    ("cluster: east\nlisten: yes\n", "CRN907", 2, 9),
    ("cluster: east\npeers: {name: west}\n", "CRN907", 2, 8),
    ("cluster: east\npeers: [west]\n", "CRN907", 2, 9),
    ("cluster: east\nimports:\n-\n", "CRN907", 3, 2),
    ("cluster: {name: east}\n", "CRN907", 1, 10),
    ("cluster: east\nlog: {level: [info]}\n", "CRN907", 2, 14),
    ("cluster: ~\n", "CRN906", 1, 1),
    // The node.
    ("cluster: east_1\n", "CRN908", 1, 10),
    ("cluster: ''\n", "CRN908", 1, 10),
    ("cluster: ост\n", "CRN908", 1, 10),
    ("cluster: east\ntrustDomain: East\n", "CRN916", 2, 14),
    (
        "cluster: east\ntrustDomain: spiffe://east\n",
        "CRN916",
        2,
        14,
    ),
    ("cluster: east\nslot: a.b\n", "CRN908", 2, 7),
    ("cluster: east\nslot: 1\n", "CRN930", 2, 7),
    ("cluster: east\nslots: 0\n", "CRN910", 2, 8),
    ("cluster: east\nworkers: two\n", "CRN909", 2, 10),
    ("cluster: east\nworkers: 1.5\n", "CRN909", 2, 10),
    ("cluster: east\nworkers: 0\n", "CRN910", 2, 10),
    (
        "cluster: east\nworkers: 99999999999999999999\n",
        "CRN910",
        2,
        10,
    ),
    ("cluster: east\nlocality: {zone: a/b}\n", "CRN908", 2, 18),
    ("cluster: east\nstateDir: ''\n", "CRN918", 2, 11),
    ("cluster: east\nstateDir: ~/state\n", "CRN918", 2, 11),
    // Listeners.
    ("cluster: east\nlisten: {tunnel: 15443}\n", "CRN914", 2, 18),
    (
        "cluster: east\nlisten: {tunnel: localhost:1}\n",
        "CRN914",
        2,
        18,
    ),
    (
        "cluster: east\nlisten: {tunnel: '::1:15443'}\n",
        "CRN914",
        2,
        18,
    ),
    (
        "cluster: east\nlisten: {socks: 0.0.0.0:1080}\n",
        "CRN929",
        2,
        17,
    ),
    (
        "cluster: east\nlisten: {connect: '[::]:8118'}\n",
        "CRN929",
        2,
        19,
    ),
    (
        "cluster: east\nlisten: {admin: 10.0.0.1:15000}\n",
        "CRN929",
        2,
        17,
    ),
    (
        "cluster: east\nlisten: {socks: 127.0.0.1:15443}\n",
        "CRN926",
        2,
        17,
    ),
    (
        "cluster: east\nlisten: {sni: 127.0.0.1:15000}\n",
        "CRN926",
        2,
        15,
    ),
    (
        "cluster: east\nlisten: {imports: [eth0]}\n",
        "CRN914",
        2,
        20,
    ),
    (
        "cluster: east\nlisten: {imports: [127.0.0.1, 127.0.0.1]}\n",
        "CRN934",
        2,
        31,
    ),
    (
        "cluster: east\nlisten: {importPorts: 20000}\n",
        "CRN909",
        2,
        23,
    ),
    (
        "cluster: east\nlisten: {importPorts: 3-2}\n",
        "CRN910",
        2,
        23,
    ),
    // Who we are.
    ("cluster: east\nidentity: {caCert: a}\n", "CRN906", 2, 11),
    (
        "cluster: east\nidentity: {leafCert: a, leafKey: b}\n",
        "CRN906",
        2,
        11,
    ),
    (
        "cluster: east\nidentity: {caCert: a, caKey: b, leafCert: a, leafKey: b, bundle: c}\n",
        "CRN919",
        2,
        11,
    ),
    (
        "cluster: east\nidentity: {leafCert: a, leafKey: b, bundle: c, leafLifetime: 1h}\n",
        "CRN919",
        2,
        62,
    ),
    (
        "cluster: east\nidentity: {leafLifetime: 3600}\n",
        "CRN911",
        2,
        26,
    ),
    (
        "cluster: east\nidentity: {leafLifetime: 1s}\n",
        "CRN910",
        2,
        26,
    ),
    (
        "cluster: east\nidentity: {leafLifetime: 1y}\n",
        "CRN912",
        2,
        26,
    ),
    // Limits, times and logs.
    (
        "cluster: east\nlimits: {unauthenticatedBytes: 33554432}\n",
        "CRN911",
        2,
        32,
    ),
    (
        "cluster: east\nlimits: {unauthenticatedBytes: 32MB}\n",
        "CRN913",
        2,
        32,
    ),
    (
        "cluster: east\nlimits: {unauthenticatedBytes: 4KiB}\n",
        "CRN910",
        2,
        32,
    ),
    (
        "cluster: east\nlimits: {perPrefixConnections: 2000}\n",
        "CRN910",
        2,
        32,
    ),
    (
        "cluster: east\nlimits: {streamsPerPeer: -1}\n",
        "CRN909",
        2,
        26,
    ),
    ("cluster: east\ntimeouts: {idle: 0s}\n", "CRN910", 2, 18),
    ("cluster: east\ntimeouts: {connect: off}\n", "CRN912", 2, 21),
    ("cluster: east\ntimeouts: {open: 500ms}\n", "CRN910", 2, 18),
    ("cluster: east\ndrain: {limit: 60}\n", "CRN911", 2, 16),
    ("cluster: east\ndrain: {delay: 25h}\n", "CRN910", 2, 16),
    (
        "cluster: east\naccessLog: {target: stdour}\n",
        "CRN915",
        2,
        21,
    ),
    (
        "cluster: east\naccessLog: {what: everything}\n",
        "CRN915",
        2,
        19,
    ),
    ("cluster: east\nlog: {level: verbose}\n", "CRN915", 2, 14),
    (
        "cluster: east\nlog: {level: 'corinth=loud'}\n",
        "CRN915",
        2,
        14,
    ),
];

/// The same, after [`LINKED`], whose six lines come first.
const LINKED_ROWS: &[(&str, &str, u32, u32)] = &[
    // Peers; these continue the list.
    (
        "- {name: west, trustDomain: x, bundle: b, acceptOnly: true}\n",
        "CRN920",
        7,
        10,
    ),
    (
        "- {name: east, trustDomain: x, bundle: b, acceptOnly: true}\n",
        "CRN921",
        7,
        10,
    ),
    (
        "- {name: n, trustDomain: east.corinth.internal, bundle: b, acceptOnly: true}\n",
        "CRN921",
        7,
        26,
    ),
    (
        "- {name: n, trustDomain: west.corinth.internal, bundle: b, acceptOnly: true}\n",
        "CRN922",
        7,
        26,
    ),
    ("- {bundle: b, acceptOnly: true}\n", "CRN906", 7, 3),
    ("- {name: n, bundle: b}\n", "CRN906", 7, 3),
    ("- {name: n, bundle: b, addresses: []}\n", "CRN906", 7, 3),
    ("- {name: n, acceptOnly: true}\n", "CRN906", 7, 3),
    (
        "- {name: n, bundle: b, bundlePem: c, acceptOnly: true}\n",
        "CRN919",
        7,
        35,
    ),
    (
        "- {name: n, bundlePem: hello, acceptOnly: true}\n",
        "CRN942",
        7,
        24,
    ),
    (
        "- {name: n, bundlePem: '-----BEGIN PRIVATE KEY-----', acceptOnly: true}\n",
        "CRN943",
        7,
        24,
    ),
    (
        "- {name: n, bundle: '-----BEGIN CERTIFICATE-----', acceptOnly: true}\n",
        "CRN918",
        7,
        21,
    ),
    (
        "- {name: n, bundle: b, addresses: [gateway]}\n",
        "CRN914",
        7,
        36,
    ),
    (
        "- {name: n, bundle: b, addresses: ['https://gateway:15443']}\n",
        "CRN914",
        7,
        36,
    ),
    (
        "- {name: n, bundle: b, addresses: ['a:1', 'a:1']}\n",
        "CRN934",
        7,
        43,
    ),
    ("- {name: n, bundle: b, acceptOnly: yes}\n", "CRN915", 7, 36),
    (
        "- {name: n, bundle: b, acceptOnly: true, maxStreams: 0}\n",
        "CRN910",
        7,
        54,
    ),
    (
        "- {name: n, bundle: b, acceptOnly: true, transport: quic}\n",
        "CRN915",
        7,
        53,
    ),
    // Exports.
    (
        "exports:\n- {port: 1, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN906",
        8,
        3,
    ),
    (
        "exports:\n- {service: a.b, port: 1, to: [west]}\n",
        "CRN906",
        8,
        3,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: [], to: [west]}\n",
        "CRN906",
        8,
        3,
    ),
    (
        "exports:\n- {service: a, port: 1, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN908",
        8,
        13,
    ),
    (
        "exports:\n- {service: a.b, port: 0, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN910",
        8,
        24,
    ),
    (
        "exports:\n- {service: a.b, port: 65536, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN910",
        8,
        24,
    ),
    (
        "exports:\n- {service: a.b, port: http, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN909",
        8,
        24,
    ),
    (
        "exports:\n- {service: a.b, port: 1, protocol: udp, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN938",
        8,
        37,
    ),
    (
        "exports:\n- {service: a.b, port: 1, protocol: sctp, endpoints: ['10.0.0.1:1'], to: [west]}\n",
        "CRN915",
        8,
        37,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [wets]}\n",
        "CRN923",
        8,
        59,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west, west]}\n",
        "CRN934",
        8,
        65,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1']}\n",
        "CRN935",
        8,
        3,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1'], to: [west]}\n",
        "CRN914",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1', '10.0.0.1:1'], to: [west]}\n",
        "CRN934",
        8,
        53,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['169.254.169.254:80'], to: [west]}\n",
        "CRN927",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['[fe80::1]:80'], to: [west]}\n",
        "CRN927",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['0.0.0.0:80'], to: [west]}\n",
        "CRN927",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['224.0.0.1:80'], to: [west]}\n",
        "CRN927",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:0'], to: [west]}\n",
        "CRN927",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['127.0.0.1:15443'], to: [west]}\n",
        "CRN928",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['[::1]:15443'], to: [west]}\n",
        "CRN928",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: [{address: '127.0.0.1:15000'}], to: [west]}\n",
        "CRN928",
        8,
        49,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: [{zone: z}], to: [west]}\n",
        "CRN906",
        8,
        39,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: [{address: '10.0.0.1:1', zone: a b}], to: [west]}\n",
        "CRN908",
        8,
        69,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west], maxStreams: 0}\n",
        "CRN910",
        8,
        78,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west], names: [x]}\n",
        "CRN908",
        8,
        74,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west], names: [a.b.svc.clusterset.local]}\n",
        "CRN908",
        8,
        3,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {}}\n",
        "CRN919",
        8,
        62,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {terminate: []}}\n",
        "CRN906",
        8,
        62,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {terminate: ['spiffe://x']}}\n",
        "CRN916",
        8,
        75,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {passthrough: anonymous}}\n",
        "CRN906",
        8,
        62,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {passthrough: yes, sources: ['::/0']}}\n",
        "CRN915",
        8,
        76,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], direct: {passthrough: anonymous, sources: [10.0.0.1/8]}}\n",
        "CRN917",
        8,
        97,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], tls: false, direct: {passthrough: anonymous, sources: ['::/0']}}\n",
        "CRN919",
        8,
        59,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west]}\n- {service: a.b, port: 1, endpoints: ['10.0.0.2:1'], to: [west]}\n",
        "CRN931",
        9,
        3,
    ),
    (
        "exports:\n- {service: a.b, port: 1, endpoints: ['10.0.0.1:1'], to: [west], names: [x.y]}\n- {service: c.d, port: 1, endpoints: ['10.0.0.2:1'], to: [west], names: [x.y]}\n",
        "CRN933",
        9,
        3,
    ),
    // Imports.
    ("imports:\n- {service: a.b, from: [west]}\n", "CRN906", 8, 3),
    ("imports:\n- {service: a.b, port: 1}\n", "CRN936", 8, 3),
    (
        "imports:\n- {service: a.b, port: 1, from: [north]}\n",
        "CRN924",
        8,
        34,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [east]}\n",
        "CRN924",
        8,
        34,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west, {cluster: west}]}\n",
        "CRN934",
        8,
        50,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [{weight: 2}]}\n",
        "CRN906",
        8,
        34,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [{cluster: west, weight: 0}]}\n",
        "CRN910",
        8,
        58,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [{cluster: west, priority: 256}]}\n",
        "CRN910",
        8,
        60,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [{cluster: west, prio: 1}]}\n",
        "CRN904",
        8,
        50,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], improtPort: 20001}\n",
        "CRN904",
        8,
        41,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], importPort: 80}\n",
        "CRN910",
        8,
        53,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], replay: always}\n",
        "CRN915",
        8,
        49,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], names: [xn--a.b]}\n",
        "CRN908",
        8,
        49,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], names: [x.y], tls: false}\n",
        "CRN919",
        8,
        60,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], importPort: 20001}\n- {service: c.d, port: 1, from: [west], importPort: 20001}\n",
        "CRN925",
        9,
        53,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west]}\n- {service: a.b, port: 1, from: [west]}\n",
        "CRN932",
        9,
        3,
    ),
    (
        "imports:\n- {service: a.b, port: 1, from: [west], names: [x.y]}\n- {service: c.d, port: 1, from: [west], names: [x.y]}\n",
        "CRN933",
        9,
        3,
    ),
    (
        "listen: {admin: '127.0.0.1:20001'}\nimports:\n- {service: a.b, port: 1, from: [west], importPort: 20001}\n",
        "CRN926",
        9,
        53,
    ),
    (
        "exports:\n- {service: c.d, port: 1, to: [west], endpoints: ['127.0.0.1:20001']}\nimports:\n- {service: a.b, port: 1, from: [west], importPort: 20001}\n",
        "CRN928",
        8,
        51,
    ),
];

const LINKED: &str = "cluster: east\nslot: 0\npeers:\n- name: west\n  bundle: west.pem\n  addresses: [gateway.west.example:15443]\n";

#[test]
fn each_mistake_has_its_code_and_place() {
    let linked = LINKED_ROWS
        .iter()
        .map(|(text, code, line, column)| (format!("{LINKED}{text}"), *code, *line, *column));
    let plain = ROWS
        .iter()
        .map(|(text, code, line, column)| ((*text).to_owned(), *code, *line, *column));
    let mut wrong = Vec::new();
    for (text, code, line, column) in plain.chain(linked) {
        let Err(refused) = parse(&text) else {
            wrong.push(format!("accepted:\n{text}"));
            continue;
        };
        let found: Vec<_> = refused
            .iter()
            .map(|m| (m.code.code(), m.at.line, m.at.column))
            .collect();
        if found != [(code, line, column)] {
            wrong.push(format!(
                "expected {code} at {line}:{column}:\n{text}\nfound {refused}"
            ));
        }
        let shown = refused.to_string();
        assert_eq!(
            shown.lines().count(),
            2 * refused.len(),
            "two lines for each mistake: {shown}"
        );
        assert!(
            shown.starts_with(ORIGIN) && shown.contains("\n  hint: "),
            "{shown}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(parse(LINKED).is_ok());
}

#[test]
fn every_code_of_a_text_has_a_row() {
    // These come from files, sizes and ports, which have tests of their own.
    let elsewhere = ["CRN902", "CRN937", "CRN940", "CRN941", "CRN944"];
    for code in MistakeCode::all().map(MistakeCode::code) {
        let rows = ROWS.iter().chain(LINKED_ROWS).any(|row| row.1 == code);
        assert!(rows || elsewhere.contains(&code), "{code}");
    }
}

#[test]
fn six_mistakes_come_together() {
    let text = "cluster: east\n\
                clutser: x\n\
                listen:\n\
                \x20 admin: 0.0.0.0:15000\n\
                peers:\n\
                \x20 - name: west\n\
                \x20   bundle: west.pem\n\
                exports:\n\
                \x20 - service: payments.shop\n\
                \x20   port: 8080\n\
                \x20   endpoints: [10.0.0.1:8080, 169.254.169.254:80]\n\
                \x20   to: [wset]\n\
                timeouts:\n\
                \x20 idle: 3600\n";
    let refused = parse(text).expect_err("six mistakes");
    let expected = "\
/etc/corinth/config.yaml:2:1 CRN904 unknown key `clutser`
  hint: did you mean cluster?
/etc/corinth/config.yaml:4:10 CRN929 `listen.admin` may not listen on 0.0.0.0:15000: whoever reaches it is not asked who they are
  hint: write `127.0.0.1:15000` or `\"[::1]:15000\"`
/etc/corinth/config.yaml:6:5 CRN906 `addresses` is missing or empty here
  hint: add `addresses:` with at least one `host:port` of its gateways, or `acceptOnly: true`
/etc/corinth/config.yaml:11:32 CRN927 not an endpoint: 169.254.169.254:80 is a link-local address, where machines keep their metadata and credentials
  hint: write the address and port on which one instance of the service listens
/etc/corinth/config.yaml:12:10 CRN923 `wset` is not a peer
  hint: did you mean west?
/etc/corinth/config.yaml:14:9 CRN911 `3600` is a bare number where a duration needs its unit
  hint: write `3600s` for seconds or `3600ms` for milliseconds";
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn a_duplicate_key_does_not_hide_the_rest() {
    let found = mistakes(parse("cluster: east\nslot: 0\nslot: 1\nwrokers: 2\n"));
    assert_eq!(found, [("CRN905", 3, 1), ("CRN904", 4, 1)]);
}

#[test]
fn a_wrong_part_does_not_hide_what_stands_beside_it() {
    let found = mistakes(parse(
        "cluster: EAST_\npeers:\n- {name: west, bundle: 1, acceptOnly: maybe}\n\
         exports:\n- {service: a, port: x, endpoints: ['1'], to: [north], direct: 5}\n",
    ));
    let codes: Vec<_> = found.iter().map(|found| found.0).collect();
    assert_eq!(
        codes,
        [
            "CRN908", "CRN915", "CRN908", "CRN909", "CRN914", "CRN923", "CRN907"
        ]
    );
}

#[test]
fn no_key_is_ever_repeated() {
    let key = "-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----\\n";
    for place in [
        "cluster: KEY",
        "cluster: e\nslot: KEY",
        "cluster: e\nidentity: {caKey: KEY, caCert: a}",
        "cluster: e\nKEY: 1",
        "cluster: e\ntimeouts: {idle: KEY}",
        "cluster: e\nlog: {level: KEY}",
        "cluster: e\nlisten: {tunnel: KEY}",
        "cluster: e\npeers: [{name: w, acceptOnly: true, bundlePem: KEY}]",
        "cluster: e\npeers: [{name: w, bundle: b, addresses: [KEY]}]",
        "cluster: e\nlimits: {unauthenticatedBytes: KEY}",
        "cluster: e\nKEY: 1\nKEY: 2",
        "cluster: e\nstateDir: KEY",
        "cluster: e\nlocality: {zone: KEY}",
    ] {
        let text = place.replace("KEY", &format!("\"{key}\""));
        let refused = parse(&text).expect_err(place);
        assert!(!refused.to_string().contains("c2VjcmV0"), "{refused}");
    }
}

#[test]
fn hostile_text_never_reaches_the_terminal() {
    for text in [
        "cluster: \"\\e[2Jx\"\n",
        "\"\\e[2J\": 1\n",
        "cluster: \"a\\nb CRN999 fake\"\n",
        "cluster: \"\\u202e\"\n",
    ] {
        let refused = parse(text).expect_err(text);
        let shown = refused.to_string();
        assert!(
            shown
                .chars()
                .all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')),
            "{shown:?}"
        );
        assert_eq!(shown.lines().count(), 2 * refused.len(), "{shown}");
    }
}
