use super::*;

#[test]
fn classes_of_addresses() {
    use AddressClass::{Global, Loopback, Private};
    for (text, class) in [
        ("192.0.2.7", Some(Global)),
        ("8.8.8.8", Some(Global)),
        ("2001:db8::7", Some(Global)),
        ("10.1.2.3", Some(Private)),
        ("172.31.0.1", Some(Private)),
        ("172.32.0.1", Some(Global)),
        ("192.168.0.1", Some(Private)),
        ("100.64.0.1", Some(Private)),
        ("100.128.0.1", Some(Global)),
        ("fd00::1", Some(Private)),
        ("127.0.0.1", Some(Loopback)),
        ("127.9.9.9", Some(Loopback)),
        ("::1", Some(Loopback)),
        ("::ffff:127.0.0.1", Some(Loopback)),
        ("::ffff:10.0.0.1", Some(Private)),
        ("64:ff9b::7f00:1", Some(Loopback)),
        ("64:ff9b::a00:1", Some(Private)),
        ("2002:a00:1::", Some(Private)),
        ("::7f00:1", Some(Loopback)),
        ("0.0.0.0", None),
        ("0.1.2.3", None),
        ("169.254.169.254", None),
        ("64:ff9b::a9fe:a9fe", None),
        ("224.0.0.1", None),
        ("255.255.255.255", None),
        ("::", None),
        ("fe80::1", None),
        ("ff02::1", None),
    ] {
        let address = text.parse().unwrap();
        assert_eq!(AddressClass::of(address), class, "{text}");
    }
}

#[test]
fn only_addresses_of_the_class_the_operator_linked_with_are_used() {
    let announced = [
        "203.0.113.9:1",
        "10.0.0.9:2",
        "127.0.0.1:3",
        "169.254.1.1:4",
        "gw.west:5",
    ];
    for (linked_with, used) in [
        (&["203.0.113.1:1"][..], &["203.0.113.9:1"][..]),
        (&["10.0.0.1:1"], &["10.0.0.9:2"]),
        (&["[::1]:1"], &["127.0.0.1:3"]),
        (
            &["203.0.113.1:1", "10.0.0.1:1"],
            &["203.0.113.9:1", "10.0.0.9:2"],
        ),
        (&["169.254.1.1:1"], &[]),
        (&[], &[]),
    ] {
        let judged = judge(&addresses(linked_with), &addresses(&announced));
        assert_eq!(judged.used, addresses(used), "{linked_with:?}");
        assert_eq!(judged.used.len() + judged.refused.len(), announced.len());
    }
}

#[test]
fn names_are_used_if_the_operator_named_them_and_bring_global_addresses() {
    let linked_with = addresses(&["gw.west:15443"]);
    let announced = addresses(&[
        "gw.west:443",
        "other.west:443",
        "203.0.113.9:1",
        "10.0.0.9:2",
    ]);
    let judged = judge(&linked_with, &announced);
    assert_eq!(judged.used, addresses(&["gw.west:443", "203.0.113.9:1"]));
    assert_eq!(judged.refused, addresses(&["other.west:443", "10.0.0.9:2"]));
}

fn addresses(texts: &[&str]) -> Vec<HostPort> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
