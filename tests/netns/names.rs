//! Names that local TLS clients ask for, and that no application should be reached by.

use std::{io::Write, net::TcpStream};

use corinth_lab::{Ending, Family, Gateway, Hello, Lab, Tally, WAIT, read_to_ending};
use serde_json::json;

use crate::strangers::{Case, case, try_all};

on_both_families![
    names_that_break_a_rule_are_refused,
    names_of_nothing_here_are_refused,
    names_that_mean_the_same_reach_the_same,
    a_name_that_two_ports_could_mean_is_refused,
];

/// Imported with these names.
const NAMES: [&str; 2] = ["pay.example.com", "pay.shop.svc.clusterset.local"];

/// Routes by server name, to an application that notes the bytes it gets.
fn routing(lab: &Lab) -> (Gateway, Gateway, corinth_lab::Service) {
    let endpoint = lab.server_at(0, 8443);
    let service = lab
        .server
        .serve(endpoint, |mut stream: TcpStream, tally: &Tally| {
            tally.deliver(&read_to_ending(&mut stream).0);
            let _ = stream.write_all(b"done");
        });
    let tls = json!({ "tls": true });
    let west = lab.gateway("west").peer("east");
    let west = west
        .exports_with("pay.shop:443", &[endpoint], &["east"], tls)
        .start();
    let east = lab.gateway("east").peer("west");
    let east = east.imports_with(
        "pay.shop:443",
        20_443,
        &["west"],
        json!({ "names": [NAMES[0]] }),
    );
    let east = east.start();
    east.await_links(1);
    (west, east, service)
}

fn named(name: impl AsRef<[u8]>, code: &'static str) -> Case {
    let shown = String::from_utf8_lossy(name.as_ref()).into_owned();
    case(format!("{shown:?}"), Hello::new().sni(name).bytes(), code)
}

/// A name of so many bytes, in labels of 63.
fn long_name(bytes: usize) -> String {
    let mut name = String::new();
    while name.len() < bytes {
        let label = (bytes - name.len()).min(64);
        // The last label takes all that is left; a dot ends the others.
        name += &"a".repeat(if name.len() + label == bytes {
            label
        } else {
            label - 1
        });
        if name.len() < bytes {
            name.push('.');
        }
    }
    name
}

fn names_that_break_a_rule_are_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let (_west, east, service) = routing(&lab);
    let mut cases = vec![case("no name", Hello::new().bytes(), "CRN038")];
    // rustls takes the literals of an address for no name at all.
    for literal in ["10.3.0.100", "169.254.169.254", "fd00:3::64", "::1"] {
        cases.push(named(literal, "CRN038"));
    }
    // What it cannot take for a host name it refuses itself, with an alert.
    for name in [
        &b"[fd00:3::64]"[..],
        b"fe80::1%eth0",
        b"pay.example.com\0.evil.example",
        b"pay example.com",
        b"pay/example.com",
        b"user@pay.example.com",
        b"pay.example.com:443",
        b"pay.example.com..",
        b"..",
        b".",
        b"",
        b".pay.example.com",
        b"pay..example.com",
        b"\xff\xff.example.com",
        b"p\xc3\xa4y.example.com",
        b"-pay.example.com",
        b"*.example.com",
    ] {
        cases.push(named(name, "CRN037"));
    }
    for name in ["xn--pay-6na.example.com", "pay.xn--55qx5d"] {
        cases.push(named(name, "CRN008"));
    }
    cases.push(named(long_name(254), "CRN037"));
    cases.push(named(format!("{}.example.com", "a".repeat(64)), "CRN037"));
    let unknown_type = Hello::new().sni_entries(&[(1, b"pay.example.com")]);
    let two_names = Hello::new().sni_entries(&[(0, b"pay.example.com"), (0, b"pay.example.com")]);
    let none = Hello::new().sni_entries(&[]);
    let twice = Hello::new().sni(NAMES[0]).sni(NAMES[0]);
    cases.push(case(
        "a name of an unknown type",
        unknown_type.bytes(),
        "CRN037",
    ));
    cases.push(case("two names", two_names.bytes(), "CRN037"));
    cases.push(case("an empty list", none.bytes(), "CRN037"));
    cases.push(case("the extension twice", twice.bytes(), "CRN037"));

    let from = lab.family.address(corinth_lab::Net::Near, 100);
    let faults = try_all(&lab.client, from, east.sni(), &east, "sni", &cases);
    assert_eq!(faults, [""; 0]);
    assert_eq!(
        service.tally().accepted(),
        0,
        "nothing reached the application"
    );
    let log = east.log().join("\n");
    assert!(
        !log.contains('\0') && !log.contains("\u{fffd}"),
        "escaped in the log: {log}"
    );
}

fn names_of_nothing_here_are_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let (_west, east, service) = routing(&lab);
    let mut cases: Vec<_> = [
        // Another port, another service, another cluster, a pod.
        "444.pay.shop.svc.clusterset.local",
        "80.pay.shop.svc.clusterset.local",
        "443.other.shop.svc.clusterset.local",
        "443.pay.other.svc.clusterset.local",
        "443.south.pay.shop.svc.clusterset.local",
        "443.pod-0.west.pay.shop.svc.clusterset.local",
        // A word where the number belongs is the name of a cluster.
        "https.pay.shop.svc.clusterset.local",
        "svc.clusterset.local",
        "pay.example.org",
        "sub.pay.example.com",
        // Somebody else's.
        "kubernetes.default.svc.cluster.local",
        "kubernetes.default.svc",
        "metadata.google.internal",
        "west.corinth.internal",
        "localhost.localdomain",
    ]
    .map(|name| named(name, "CRN001"))
    .into();
    cases.push(named(long_name(253), "CRN001"));
    cases.push(named(format!("{}.example.com", "a".repeat(63)), "CRN001"));
    // Not ports, and no other form of a name either.
    for name in [
        "0.pay.shop.svc.clusterset.local",
        "65536.pay.shop.svc.clusterset.local",
        "0443.pay.shop.svc.clusterset.local",
        "shop.svc.clusterset.local",
        "a.b.c.d.e.f.svc.clusterset.local",
    ] {
        cases.push(named(name, "CRN008"));
    }
    let from = lab.family.address(corinth_lab::Net::Near, 100);
    let faults = try_all(&lab.client, from, east.sni(), &east, "sni", &cases);
    assert_eq!(faults, [""; 0]);
    assert_eq!(
        service.tally().accepted(),
        0,
        "nothing reached the application"
    );
}

fn names_that_mean_the_same_reach_the_same(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let (_west, east, service) = routing(&lab);
    let hellos: Vec<Vec<u8>> = [
        NAMES[0],
        "PAY.example.COM",
        "pay.example.com.",
        NAMES[1],
        "443.pay.shop.svc.clusterset.local",
        "443.west.pay.shop.svc.clusterset.local",
        "443.PAY.shop.SVC.clusterset.local.",
    ]
    .map(|name| {
        Hello::new()
            .sni(name)
            .extension(0x0a0a, &[])
            .alpn(&[b"anything"])
            .bytes()
    })
    .into();
    for (number, hello) in (1..).zip(&hellos) {
        let mut client = lab.client.connect(east.sni());
        client.write_all(hello).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            read_to_ending(&mut client),
            (b"done".to_vec(), Ending::End),
            "{number}"
        );
        assert!(service.tally().await_deliveries(number, WAIT));
    }
    assert_eq!(
        service.tally().deliveries(),
        hellos,
        "not a byte is changed"
    );
}

fn a_name_that_two_ports_could_mean_is_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let tls = json!({ "tls": true });
    let east = lab.gateway("east").awaits("west");
    let east = east.imports_with("pay.shop:443", 20_443, &["west"], tls.clone());
    let east = east.imports_with("pay.shop:8443", 27_443, &["west"], tls);
    let east = east.imports("plain.shop:80", 20_080, &["west"]).start();
    let cases = [
        named("pay.shop.svc.clusterset.local", "CRN007"),
        named("plain.shop.svc.clusterset.local", "CRN007"),
    ];
    let from = lab.family.address(corinth_lab::Net::Near, 100);
    let faults = try_all(&lab.client, from, east.sni(), &east, "sni", &cases);
    assert_eq!(faults, [""; 0]);
}
