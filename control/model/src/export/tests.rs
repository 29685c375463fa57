//! Views hold what was exported to a peer, and nothing else.

use crate::testing::{cluster, dns, export, name, port, sni};
use crate::{Direct, Export, ExportConflict, ExportTable, Protocol, SpiffeId, ZONE};

fn table(exports: Vec<Export>) -> ExportTable {
    ExportTable::build(&cluster("east"), exports).unwrap()
}

fn conflicts(exports: Vec<Export>) -> Vec<ExportConflict> {
    ExportTable::build(&cluster("east"), exports).unwrap_err()
}

fn passthrough() -> Option<Direct> {
    Some(Direct::Passthrough {
        sources: vec!["198.51.100.0/24".parse().unwrap()],
    })
}

fn terminate() -> Option<Direct> {
    let caller = SpiffeId::parse("spiffe://partner.example/ns/shop/sa/web").unwrap();
    Some(Direct::Terminate {
        callers: vec![caller],
    })
}

/// Service and port of what a TLS client without a tunnel gets.
fn direct(table: &ExportTable, text: &str) -> Option<String> {
    table
        .direct(&sni(text))
        .map(|found| found.export.key().to_string())
}

#[test]
fn an_export_is_seen_by_its_audience_only() {
    let table = table(vec![
        export("443.payments.shop", &["west", "north"]),
        export("80.web.shop", &["north"]),
        export("5432.ledger.shop", &[]),
    ]);
    let sees = |peer: &str, front: &str| {
        let view = table.view(&cluster(peer));
        view.is_some_and(|view| view.lookup(&name(front), Protocol::Tcp).is_some())
    };
    for (peer, front, expected) in [
        ("west", "443.payments.shop", true),
        ("north", "443.payments.shop", true),
        ("north", "80.web.shop", true),
        ("west", "80.web.shop", false),
        ("south", "443.payments.shop", false),
        ("south", "80.web.shop", false),
        ("east", "443.payments.shop", false),
        ("west", "5432.ledger.shop", false),
        ("north", "5432.ledger.shop", false),
    ] {
        assert_eq!(sees(peer, front), expected, "{peer} {front}");
    }
    assert_eq!(table.view(&cluster("west")).unwrap().iter().len(), 1);
    assert!(table.view(&cluster("south")).is_none());
    assert_eq!(table.len(), 3);
}

#[test]
fn only_the_exported_port_and_protocol_are_reachable() {
    let table = table(vec![export("443.payments.shop", &["west"])]);
    let view = table.view(&cluster("west")).unwrap();
    let found = view
        .lookup(&name("443.payments.shop"), Protocol::Tcp)
        .unwrap();
    assert_eq!(found.route_name(), name("443.payments.shop"));
    assert!(
        view.lookup(&name("443.payments.shop"), Protocol::Udp)
            .is_none()
    );
    for front in [
        "80.payments.shop",
        "444.payments.shop",
        "443.payments.bank",
        "443.web.shop",
    ] {
        assert!(
            view.lookup(&name(front), Protocol::Tcp).is_none(),
            "{front}"
        );
    }
}

#[test]
fn a_name_pinned_elsewhere_means_nothing_here() {
    let table = table(vec![export("443.payments.shop", &["west"])]);
    let view = table.view(&cluster("west")).unwrap();
    for (front, expected) in [
        ("443.payments.shop", true),
        ("443.east.payments.shop", true),
        ("443.west.payments.shop", false),
        ("443.north.payments.shop", false),
        ("443.web-0.east.payments.shop", false),
    ] {
        assert_eq!(
            view.lookup(&name(front), Protocol::Tcp).is_some(),
            expected,
            "{front}"
        );
    }
}

#[test]
fn names_of_the_machinery_lead_nowhere() {
    let mut payments = export("443.payments.shop", &["west"]);
    payments.direct = passthrough();
    payments.tls = true;
    let table = table(vec![payments]);
    let view = table.view(&cluster("west")).unwrap();
    for service in [
        "kubernetes.default",
        "corinth-gateway.corinth",
        "corinth-control.corinth",
        "metadata.google",
        "kube-dns.kube-system",
    ] {
        for port in ["443", "6443", "15443", "80"] {
            let front = format!("{port}.{service}");
            assert!(
                view.lookup(&name(&front), Protocol::Tcp).is_none(),
                "{front}"
            );
            assert_eq!(direct(&table, &format!("{front}.{ZONE}")), None, "{front}");
        }
        assert_eq!(
            direct(&table, &format!("{service}.{ZONE}")),
            None,
            "{service}"
        );
    }
    for text in [
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "metadata.google.internal",
        "instance-data.ec2.internal",
        "payments.shop.svc.cluster.local",
        ZONE,
    ] {
        assert_eq!(direct(&table, text), None, "{text}");
    }
}

#[test]
fn direct_clients_find_what_is_open_to_them_by_each_of_its_names() {
    let mut payments = export("8443.payments.shop", &[]);
    payments.tls = true;
    payments.direct = passthrough();
    payments.sni_names = vec![dns("pay.example.com"), dns("www.pay.example.com")];
    let mut admin = export("9000.payments.shop", &[]);
    admin.direct = terminate();
    let mut closed = export("443.ledger.shop", &["west"]);
    closed.sni_names = vec![dns("ledger.example.com")];
    let table = table(vec![payments, admin, closed]);

    let payments = Some("payments.shop port 8443/tcp".to_owned());
    let admin = Some("payments.shop port 9000/tcp".to_owned());
    for (text, expected) in [
        ("8443.payments.shop.svc.clusterset.local", &payments),
        ("8443.east.payments.shop.svc.clusterset.local", &payments),
        ("8443.west.payments.shop.svc.clusterset.local", &None),
        ("8443.web-0.east.payments.shop.svc.clusterset.local", &None),
        ("payments.shop.svc.clusterset.local", &payments),
        ("east.payments.shop.svc.clusterset.local", &payments),
        ("west.payments.shop.svc.clusterset.local", &None),
        ("pay.example.com", &payments),
        ("PAY.example.com.", &payments),
        ("www.pay.example.com", &payments),
        ("other.pay.example.com", &None),
        ("9000.payments.shop.svc.clusterset.local", &admin),
        ("443.ledger.shop.svc.clusterset.local", &None),
        ("ledger.shop.svc.clusterset.local", &None),
        ("ledger.example.com", &None),
    ] {
        assert_eq!(direct(&table, text), *expected, "{text}");
    }
    let found = table
        .direct(&sni("9000.payments.shop.svc.clusterset.local"))
        .unwrap();
    assert_eq!(Some(found.direct), terminate().as_ref());
}

#[test]
fn a_direct_name_without_port_needs_exactly_one_tls_port() {
    let text = "payments.shop.svc.clusterset.local";
    let open = |front: &str, tls: bool| {
        let mut export = export(front, &[]);
        export.tls = tls;
        export.direct = passthrough();
        export
    };
    assert!(direct(&table(vec![open("443.payments.shop", false)]), text).is_some());
    assert!(direct(&table(vec![open("8443.payments.shop", true)]), text).is_some());
    assert!(direct(&table(vec![open("8080.payments.shop", false)]), text).is_none());
    let two = vec![
        open("443.payments.shop", false),
        open("8443.payments.shop", true),
    ];
    assert!(direct(&table(two), text).is_none());
}

#[test]
fn conflicting_exports_are_all_named() {
    let mut first = export("443.payments.shop", &["west"]);
    first.sni_names = vec![
        dns("pay.example.com"),
        dns("443.web.shop.svc.clusterset.local"),
    ];
    let mut second = export("443.web.shop", &[]);
    second.sni_names = vec![dns("pay.example.com")];
    let mut datagrams = export("53.dns.shop", &[]);
    datagrams.protocol = Protocol::Udp;
    datagrams.direct = passthrough();
    let again = export("443.payments.shop", &["north"]);

    let keys = (first.key(), second.key(), datagrams.key());
    assert_eq!(
        conflicts(vec![datagrams, second, first, again]),
        [
            ExportConflict::Duplicate {
                export: keys.0.clone()
            },
            ExportConflict::NotTcp { export: keys.2 },
            ExportConflict::ReservedSniName {
                sni: dns("443.web.shop.svc.clusterset.local"),
                export: keys.0.clone(),
            },
            ExportConflict::DuplicateSniName {
                sni: dns("pay.example.com"),
                first: keys.0,
                second: keys.1,
            },
        ]
    );
}

#[test]
fn one_port_may_carry_both_protocols() {
    let mut datagrams = export("443.payments.shop", &["west"]);
    datagrams.protocol = Protocol::Udp;
    let table = table(vec![export("443.payments.shop", &["west"]), datagrams]);
    let view = table.view(&cluster("west")).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let found = view.lookup(&name("443.payments.shop"), protocol).unwrap();
        assert_eq!((found.port, found.protocol), (port(443), protocol));
    }
}
