//! What the file may say, and what is told about what it may not.

use corinth_model::{CongestionChoice, Direct, PortNumber, Protocol, Replay, TransportChoice};

use super::*;

#[test]
fn example_is_read_and_returns_whole_from_what_is_written() {
    let declared = parse(EXAMPLE, &own()).unwrap();
    let counts = (
        declared.links.len(),
        declared.services.len(),
        declared.exports.len(),
        declared.imports.len(),
        declared.denied.len(),
    );
    assert_eq!(counts, (1, 2, 2, 1, 2));
    let text = render::render(&declared).unwrap();
    assert_eq!(parse(&text, &own()), Ok(declared), "{text}");
}

#[test]
fn every_part_returns_whole() {
    let text = "
services:
  - service: a.b
    ports:
      - {port: 1, protocol: udp, endpoints: ['[fd00::1]:5', {address: '127.0.0.1:6', zone: z, region: r, node: n}]}
      - {port: 1, tls: true, replay: idempotent, names: [a.example], maxStreams: 7}
      - {port: 2, direct: {terminate: ['spiffe://x.test/a']}}
      - {port: 3, direct: {passthrough: anonymous, sources: [10.0.0.0/8, 'fd00::/8']}}
exports:
  - {service: a.b, to: ['*'], since: 18446744073709551615}
  - {service: c.d, to: []}
imports:
  - {service: a.b, port: 1}
  - {service: a.b, port: 2, importPort: 3, tls: true, replay: never, from: [{cluster: west, weight: 0, priority: 255}]}
denied: [spiffe://x.test/y, z.test]
";
    let declared = parse(text, &own()).unwrap();
    let ports = &declared.services[&service("a.b")].ports;
    let port = |number| PortNumber::new(number).unwrap();
    assert_eq!(ports[&(port(1), Protocol::Udp)].endpoints.len(), 2);
    assert_eq!(ports[&(port(1), Protocol::Tcp)].replay, Replay::Idempotent);
    assert!(
        ports[&(port(3), Protocol::Tcp)].tls,
        "passthrough implies it"
    );
    assert!(matches!(
        ports[&(port(2), Protocol::Tcp)].direct,
        Some(Direct::Terminate { .. })
    ));
    assert_eq!(declared.exports[&service("a.b")].to, Audience::All);
    let written = render::render(&declared).unwrap();
    assert_eq!(parse(&written, &own()), Ok(declared), "{written}");
}

#[test]
fn links_return_whole() {
    let mut declared = Declared::default();
    declared.links.insert(cluster("west"), link("west"));
    let other = DeclaredLink {
        roots: vec![root(), root()],
        addresses: Vec::new(),
        accepted: Accepted(
            ["*", "shop/*", "web.shop"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
        ),
        max_streams: Some(1),
        quota: Some(1_000_000),
        mode: LinkMode::Draining,
        carriage: Carriage {
            transport: TransportChoice::Auto,
            congestion: Some(CongestionChoice::Bbr),
        },
        ..link("south")
    };
    declared.links.insert(cluster("south"), other);
    let text = render::render(&declared).unwrap();
    assert_eq!(parse(&text, &own()), Ok(declared), "{text}");
}

#[test]
fn numbers_that_look_like_something_else_are_names() {
    let text = "exports: [{service: 1.2, to: [7, \"010\"]}]\n";
    let declared = parse(text, &own()).unwrap();
    let to = [cluster("7"), cluster("010")].into();
    assert_eq!(declared.exports[&service("1.2")].to, Audience::Only(to));
    let written = render::render(&declared).unwrap();
    assert_eq!(parse(&written, &own()), Ok(declared), "{written}");
}

#[test]
fn all_mistakes_are_told_together_with_their_lines() {
    let text = "
links:
  - cluster: east
    bundlePem: x
    mode: of
  - trustDomain: A
    acceptOnly: true
    addresses: [\"x:1\"]
    bundlePem: y
services:
  - service: web
    ports:
      - {port: 0, endpoints: [169.254.169.254:80, 10.0.0.1:1, 10.0.0.1:1, {zone: a}]}
      - {port: 1}
      - {port: 1, direct: {}}
exports:
  - {service: a.b, to: [\"*\", west], since: x}
  - {service: a.b}
  - nothing
imports: {}
denied: [a.test, a.test, UPPER]
more: 1
";
    let mistakes = parse(text, &own()).unwrap_err();
    let told: Vec<_> = mistakes
        .iter()
        .map(|mistake| (mistake.at.line, mistake.message.as_str()))
        .collect();
    let expected = [
        (3, "`addresses` is missing in `links[0]`"),
        (3, "`east` is the name of this cluster"),
        (4, "has no certificate in PEM form"),
        (5, "`of` cannot be used here"),
        (6, "`cluster` is missing in `links[1]`"),
        (6, "`A` cannot be used here"),
        (7, "`acceptOnly` says"),
        (11, "`web` cannot be used here"),
        (13, "`0` cannot be used here"),
        (13, "not an endpoint: 169.254.169.254:80"),
        (13, "`10.0.0.1:1` stands twice"),
        (
            13,
            "`address` is missing in `services[0].ports[0].endpoints[3]`",
        ),
        (15, "exactly one way"),
        (15, "the port 1/tcp stands here twice"),
        (17, "`*` means every linked cluster"),
        (17, "`x` cannot be used here"),
        (18, "the export of `a.b` stands here twice"),
        (18, "`to` is missing in `exports[1]`"),
        (
            19,
            "expected a mapping in `exports[2]`, found a single value",
        ),
        (20, "expected a list in `imports`, found a mapping"),
        (21, "stands twice"),
        (21, "`UPPER` cannot be used here"),
        (22, "unknown key `more`"),
    ];
    for (line, words) in expected {
        let is_told = told
            .iter()
            .any(|(at, message)| *at == line && message.contains(words));
        assert!(is_told, "line {line}: {words}\n{told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    assert!(mistakes.iter().all(|mistake| !mistake.hint.is_empty()));
}

#[test]
fn duplicates_are_refused() {
    let two = |text: &str| parse(text, &own()).unwrap_err()[0].message.clone();
    assert!(two("links: []\nlinks: []\n").contains("`links` stands twice"));
    assert!(two("imports: [{service: a.b, port: 1}, {service: a.b, port: 1}]").contains("twice"));
    assert!(
        two("imports: [{service: a.b, port: 1, importPort: 9}, {service: a.b, port: 2, importPort: 9}]")
            .contains("importPort")
    );
    let mut declared = Declared::default();
    declared.links.insert(cluster("west"), link("west"));
    declared.links.insert(cluster("south"), link("west"));
    let text = render::render(&declared).unwrap();
    assert!(two(&text).contains("has this trust domain"));
}

#[test]
fn bombs_and_broken_text_are_refused_with_a_line() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
        let items = vec![format!("*{from}"); 10].join(",");
        bomb.push_str(&format!("{to}: &{to} [{items}]\n"));
    }
    for text in [
        bomb,
        "[".repeat(100_000),
        "links: [1, 2\n".to_owned(),
        "links:\n\t- x\n".to_owned(),
        "links: []\n---\nlinks: []\n".to_owned(),
    ] {
        let mistakes = parse(&text, &own()).unwrap_err();
        assert!(
            mistakes.iter().all(|mistake| mistake.at.line >= 1),
            "{mistakes:?}"
        );
    }
    assert!(parse(&"a\n".repeat(3_000_000), &own()).is_err());
    let hostile = format!("\"{}\\u0007\": 1\n", "x".repeat(5_000));
    let message = &parse(&hostile, &own()).unwrap_err()[0].message;
    assert!(
        message.len() < 300 && !message.contains('\u{7}'),
        "{message}"
    );
}

#[test]
fn nothing_is_declared_by_nothing() {
    for text in ["", "# only a comment\n", "links:\nservices: ~\n", "{}"] {
        assert_eq!(parse(text, &own()), Ok(Declared::default()), "{text:?}");
    }
}

#[test]
fn certificates_are_not_repeated() {
    let text = "denied: [\"-----BEGIN CERTIFICATE-----\\nabc\"]\n";
    let mistakes = parse(text, &own()).unwrap_err();
    assert!(!mistakes[0].message.contains("abc"), "{mistakes:?}");
}
