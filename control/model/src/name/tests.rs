//! Every rule of a name, with the neighbours on both sides of it.

use crate::testing::{name, sni};
use crate::{
    ClusterName, DnsName, Label, NameError, PortNumber, Protocol, RouteName, Scope, ScopedService,
    ServiceId, SniName, ZONE,
};

/// A name of the zone of exactly `bytes` bytes, in the form of a pod's.
fn route_text(bytes: usize) -> String {
    let (cluster, service, namespace) = ("c".repeat(63), "s".repeat(63), "n".repeat(63));
    let rest = format!("{cluster}.{service}.{namespace}.{ZONE}");
    let hostname = "h".repeat(bytes - rest.len() - "443..".len());
    format!("443.{hostname}.{rest}")
}

/// A host name of exactly `bytes` bytes.
fn host_text(bytes: usize) -> String {
    let labels = vec!["a".repeat(63); 3].join(".");
    format!("{labels}.{}", "b".repeat(bytes - labels.len() - 1))
}

#[test]
fn labels_are_accepted_up_to_their_limits() {
    for text in [
        "a",
        "0",
        "a-b",
        "a--b",
        "9lives",
        "my--svc",
        &"a".repeat(63),
    ] {
        assert_eq!(Label::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn labels_beyond_a_rule_are_refused_by_its_name() {
    let long = "a".repeat(64);
    let cases = [
        ("", NameError::LabelEmpty),
        (long.as_str(), NameError::LabelTooLong { bytes: 64 }),
        ("-a", NameError::Hyphen),
        ("a-", NameError::Hyphen),
        ("-", NameError::Hyphen),
        ("a.b", NameError::Character { found: '.' }),
        ("a_b", NameError::Character { found: '_' }),
        ("a b", NameError::Character { found: ' ' }),
        ("a\0", NameError::Character { found: '\0' }),
        ("ä", NameError::Character { found: 'ä' }),
        ("xn--a", NameError::Masked),
        ("XN--a", NameError::Masked),
        ("*", NameError::Character { found: '*' }),
    ];
    for (text, error) in cases {
        assert_eq!(Label::parse(text), Err(error), "{text:?}");
        assert_eq!(ClusterName::parse(text).unwrap_err(), error, "{text:?}");
    }
}

#[test]
fn a_mixed_case_name_is_the_lower_case_name() {
    let lower = "443.payments.shop.svc.clusterset.local";
    for text in [
        "443.PAYMENTS.SHOP.SVC.CLUSTERSET.LOCAL",
        "443.Payments.Shop.svc.ClusterSet.local",
        "443.payments.shop.svc.clusterset.LOCAL.",
    ] {
        assert_eq!(SniName::parse(text).unwrap(), sni(lower), "{text:?}");
        assert_eq!(
            RouteName::parse(text).unwrap().to_string(),
            lower,
            "{text:?}"
        );
    }
    assert_eq!(
        DnsName::parse("Shop.Example.COM").unwrap().as_str(),
        "shop.example.com"
    );
    assert_eq!(Label::parse("West").unwrap(), Label::parse("west").unwrap());
}

#[test]
fn one_trailing_dot_is_none_and_two_are_refused() {
    for text in [
        "443.payments.shop.svc.clusterset.local",
        "payments.shop.svc.clusterset.local",
    ] {
        assert_eq!(SniName::parse(&format!("{text}.")).unwrap(), sni(text));
        assert_eq!(
            SniName::parse(&format!("{text}..")),
            Err(NameError::TrailingDots)
        );
    }
    assert_eq!(DnsName::parse("a.example.").unwrap().as_str(), "a.example");
    assert_eq!(DnsName::parse("a.example.."), Err(NameError::TrailingDots));
    assert_eq!(DnsName::parse("."), Err(NameError::LabelEmpty));
    assert_eq!(DnsName::parse(".."), Err(NameError::TrailingDots));
    assert_eq!(
        SniName::parse(".payments.shop.svc.clusterset.local"),
        Err(NameError::LabelEmpty)
    );
    assert_eq!(
        SniName::parse("443..shop.svc.clusterset.local"),
        Err(NameError::LabelEmpty)
    );
}

#[test]
fn an_absent_name_is_refused() {
    assert_eq!(SniName::parse(""), Err(NameError::Empty));
    assert_eq!(RouteName::parse(""), Err(NameError::Empty));
    assert_eq!(DnsName::parse(""), Err(NameError::Empty));
    assert_eq!(ServiceId::parse(""), Err(NameError::Empty));
}

#[test]
fn addresses_are_no_names() {
    for text in [
        "127.0.0.1",
        "127.0.0.1.",
        "169.254.169.254",
        "::1",
        "[::1]",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "[fe80::1%eth0]",
        "127.1",
        "10.0.0.01",
        "0x7f.0x0.0x0.0x1",
        "999.999.999.999",
    ] {
        assert_eq!(SniName::parse(text), Err(NameError::IpLiteral), "{text:?}");
        assert_eq!(DnsName::parse(text), Err(NameError::IpLiteral), "{text:?}");
    }
    for text in ["127.0.0.1", "[::1]", "fe80::1%eth0"] {
        assert_eq!(
            RouteName::parse(text),
            Err(NameError::IpLiteral),
            "{text:?}"
        );
    }
    assert_eq!(
        DnsName::parse("10.0.0.1.example").unwrap().as_str(),
        "10.0.0.1.example"
    );
}

#[test]
fn foreign_bytes_are_refused_and_shown_escaped() {
    let cases = [
        ("443.pay\0ments.shop.svc.clusterset.local", r"'\u{0}'"),
        ("443.pay ments.shop.svc.clusterset.local", "' '"),
        ("443.pay/ments.shop.svc.clusterset.local", "'/'"),
        ("443.pay@ments.shop.svc.clusterset.local", "'@'"),
        ("443.pay:ments.shop.svc.clusterset.local", "':'"),
        (
            "443.pay\u{fffd}ments.shop.svc.clusterset.local",
            r"'\u{fffd}'",
        ),
        ("443.päyments.shop.svc.clusterset.local", r"'\u{e4}'"),
        ("443.pay\nments.shop.svc.clusterset.local", r"'\n'"),
        ("443.pay\u{1b}[31m.shop.svc.clusterset.local", r"'\u{1b}'"),
        ("443.pay*.shop.svc.clusterset.local", "'*'"),
        ("443.pay_ments.shop.svc.clusterset.local", "'_'"),
        ("evil\r\n.example.com", r"'\r'"),
    ];
    for (text, shown) in cases {
        let error = SniName::parse(text).unwrap_err();
        assert!(
            matches!(error, NameError::Character { .. }),
            "{text:?}: {error:?}"
        );
        assert!(error.to_string().starts_with(shown), "{text:?}: {error}");
        assert!(error.to_string().is_ascii(), "{error}");
    }
}

#[test]
fn masked_labels_are_refused_wherever_they_stand() {
    for text in [
        "443.xn--pyments-9wa.shop.svc.clusterset.local",
        "443.payments.XN--shop.svc.clusterset.local",
        "xn--80ak6aa92e.com",
        "www.example.xn--p1ai",
    ] {
        assert_eq!(SniName::parse(text), Err(NameError::Masked), "{text:?}");
    }
}

#[test]
fn names_end_exactly_at_253_bytes() {
    assert_eq!(
        RouteName::parse(&route_text(253)).unwrap().to_string(),
        route_text(253)
    );
    assert!(SniName::parse(&route_text(253)).is_ok());
    assert!(SniName::parse(&format!("{}.", route_text(253))).is_ok());
    assert!(DnsName::parse(&host_text(253)).is_ok());
    let error = NameError::TooLong { bytes: 254 };
    assert_eq!(RouteName::parse(&route_text(254)), Err(error));
    assert_eq!(SniName::parse(&route_text(254)), Err(error));
    assert_eq!(DnsName::parse(&host_text(254)), Err(error));
    let huge = "a.".repeat(1 << 20);
    assert!(matches!(
        SniName::parse(&huge),
        Err(NameError::TooLong { .. })
    ));
}

#[test]
fn labels_of_a_name_end_exactly_at_63_bytes() {
    let with = |label: &str| format!("443.{label}.shop.{ZONE}");
    assert!(RouteName::parse(&with(&"p".repeat(63))).is_ok());
    let error = NameError::LabelTooLong { bytes: 64 };
    assert_eq!(RouteName::parse(&with(&"p".repeat(64))), Err(error));
    assert_eq!(
        DnsName::parse(&format!("{}.example", "p".repeat(64))),
        Err(error)
    );
}

#[test]
fn a_port_is_a_plain_decimal_number() {
    for (text, port) in [("1", 1), ("443", 443), ("65535", 65535)] {
        assert_eq!(PortNumber::parse(text).unwrap().get(), port);
    }
    let cases = [
        ("0", NameError::PortOutOfRange),
        ("65536", NameError::PortOutOfRange),
        ("99999999999999999999", NameError::PortOutOfRange),
        ("", NameError::PortNotDecimal),
        ("00", NameError::PortNotDecimal),
        ("0443", NameError::PortNotDecimal),
        ("+443", NameError::PortNotDecimal),
        ("-1", NameError::PortNotDecimal),
        (" 443", NameError::PortNotDecimal),
        ("443 ", NameError::PortNotDecimal),
        ("0x1bb", NameError::PortNotDecimal),
        ("http", NameError::PortNotDecimal),
        ("４４３", NameError::PortNotDecimal),
    ];
    for (text, error) in cases {
        assert_eq!(PortNumber::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn a_route_name_needs_a_port_that_exists() {
    let cases = [
        ("0.payments.shop", NameError::PortOutOfRange),
        ("65536.payments.shop", NameError::PortOutOfRange),
        ("0443.payments.shop", NameError::PortNotDecimal),
        ("http.payments.shop", NameError::PortNotDecimal),
        ("https.west.payments.shop", NameError::PortNotDecimal),
        ("payments.shop", NameError::Shape { labels: 2 }),
        ("shop", NameError::Shape { labels: 1 }),
        (
            "443.web-0.west.payments.shop.more",
            NameError::Shape { labels: 6 },
        ),
    ];
    for (front, error) in cases {
        assert_eq!(
            RouteName::parse(&format!("{front}.{ZONE}")),
            Err(error),
            "{front}"
        );
    }
    for (front, error) in [
        ("0.payments.shop", NameError::PortOutOfRange),
        ("65536.payments.shop", NameError::PortOutOfRange),
        ("0443.payments.shop", NameError::PortNotDecimal),
        ("http.web-0.west.payments.shop", NameError::PortNotDecimal),
        ("shop", NameError::Shape { labels: 1 }),
        ("443.shop", NameError::Shape { labels: 2 }),
        (
            "443.web-0.west.payments.shop.more",
            NameError::Shape { labels: 6 },
        ),
        ("a.b.c.d.e.f", NameError::Shape { labels: 6 }),
    ] {
        assert_eq!(
            SniName::parse(&format!("{front}.{ZONE}")),
            Err(error),
            "{front}"
        );
    }
}

#[test]
fn route_names_of_other_zones_are_refused() {
    for text in [
        "443.payments.shop.svc.cluster.local",
        "443.payments.shop.svc.clusterset.local.example.com",
        "443.payments.shop.xsvc.clusterset.local",
        "443.payments.shopsvc.clusterset.local",
        "svc.clusterset.local",
        "clusterset.local",
        "localhost",
        "443",
    ] {
        assert_eq!(
            RouteName::parse(text),
            Err(NameError::OutsideZone),
            "{text:?}"
        );
    }
}

#[test]
fn each_form_of_a_route_name_reads_and_writes_alike() {
    let service = ServiceId::parse("payments.shop").unwrap();
    let west = ClusterName::parse("west").unwrap();
    let web = Label::parse("web-0").unwrap();
    let cases = [
        ("443.payments.shop", Scope::Any),
        ("443.west.payments.shop", Scope::Cluster(west.clone())),
        (
            "443.web-0.west.payments.shop",
            Scope::Pod {
                hostname: web,
                cluster: west,
            },
        ),
    ];
    for (front, scope) in cases {
        let expected = RouteName {
            port: PortNumber::HTTPS,
            scope,
            service: service.clone(),
        };
        assert_eq!(name(front), expected);
        assert_eq!(name(front).to_string(), format!("{front}.{ZONE}"));
        assert_eq!(sni(&format!("{front}.{ZONE}")), SniName::Route(expected));
    }
}

#[test]
fn a_server_name_without_port_is_a_service() {
    let service = ServiceId::parse("payments.shop").unwrap();
    let west = ClusterName::parse("west").unwrap();
    let web = Label::parse("web-0").unwrap();
    let cases = [
        ("payments.shop", Scope::Any),
        ("west.payments.shop", Scope::Cluster(west.clone())),
        (
            "web-0.west.payments.shop",
            Scope::Pod {
                hostname: web,
                cluster: west,
            },
        ),
    ];
    for (front, scope) in cases {
        let text = format!("{front}.{ZONE}");
        let expected = ScopedService {
            scope,
            service: service.clone(),
        };
        assert_eq!(sni(&text), SniName::Service(expected));
        assert_eq!(sni(&text).to_string(), text);
    }
}

#[test]
fn server_names_outside_the_zone_are_other_hosts() {
    for text in [
        "payments.example.com",
        "payments.shop.svc.cluster.local",
        "svc.clusterset.local",
    ] {
        assert_eq!(sni(text), SniName::Other(DnsName::parse(text).unwrap()));
    }
    for text in ["localhost", "payments", "kubernetes"] {
        assert_eq!(
            SniName::parse(text),
            Err(NameError::SingleLabel),
            "{text:?}"
        );
    }
}

#[test]
fn a_service_is_two_labels() {
    assert_eq!(
        ServiceId::parse("Payments.shop").unwrap().to_string(),
        "payments.shop"
    );
    for text in ["payments", "payments.shop.svc", "payments.shop."] {
        assert_eq!(
            ServiceId::parse(text),
            Err(NameError::NotAService),
            "{text:?}"
        );
    }
    for text in ["payments.", ".shop"] {
        assert_eq!(
            ServiceId::parse(text),
            Err(NameError::LabelEmpty),
            "{text:?}"
        );
    }
}

#[test]
fn names_in_the_zone_are_told_from_others() {
    for (text, is_in_zone) in [
        ("443.payments.shop.svc.clusterset.local", true),
        ("svc.clusterset.local", true),
        ("xsvc.clusterset.local", false),
        ("payments.example.com", false),
    ] {
        assert_eq!(
            DnsName::parse(text).unwrap().is_in_zone(),
            is_in_zone,
            "{text}"
        );
    }
}

#[test]
fn names_are_strings_in_json() {
    let text = format!("\"443.west.payments.shop.{ZONE}\"");
    let route: RouteName = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&route).unwrap(), text);
    assert_eq!(serde_json::to_string(&Protocol::Udp).unwrap(), "\"udp\"");
    assert_eq!(
        serde_json::from_str::<PortNumber>("443").unwrap(),
        PortNumber::HTTPS
    );
    assert!(serde_json::from_str::<PortNumber>("0").is_err());
    assert!(serde_json::from_str::<PortNumber>("65536").is_err());
    let error = serde_json::from_str::<Label>("\"a b\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("' ' is not allowed"), "{error}");
}
