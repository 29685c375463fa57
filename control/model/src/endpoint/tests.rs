//! What can and cannot be delivered to.

use crate::{AddressSource, Endpoint, EndpointError, Locality, ReservedAddresses};

fn endpoint(address: &str, source: AddressSource) -> Result<Endpoint, EndpointError> {
    Endpoint::new(address.parse().unwrap(), Locality::default(), source)
}

/// The name of the rule, without what it says.
fn rule(error: EndpointError) -> &'static str {
    match error {
        EndpointError::PortZero { .. } => "port zero",
        EndpointError::Unspecified { .. } => "unspecified",
        EndpointError::Multicast { .. } => "multicast",
        EndpointError::Broadcast { .. } => "broadcast",
        EndpointError::LinkLocal { .. } => "link-local",
        EndpointError::Metadata { .. } => "metadata",
        EndpointError::Loopback { .. } => "loopback",
        EndpointError::Reserved { .. } => "reserved",
    }
}

#[test]
fn ordinary_addresses_are_endpoints() {
    for address in [
        "10.0.0.1:80",
        "192.168.1.255:80",
        "100.64.0.1:80",
        "169.253.255.255:80",
        "169.255.0.0:80",
        "223.255.255.255:80",
        "1.0.0.0:80",
        "8.8.8.8:65535",
        "[2001:db8::1]:80",
        "[fd00::1]:80",
        "[fec0::1]:80",
        "[fe7f:ffff::1]:80",
        "[64:ff9b::a00:1]:80",
    ] {
        let endpoint = endpoint(address, AddressSource::Learned).unwrap();
        assert_eq!(endpoint.address().to_string(), address);
    }
}

#[test]
fn addresses_that_are_nobodys_endpoint_are_refused_from_every_source() {
    let cases = [
        ("10.0.0.1:0", "port zero"),
        ("[2001:db8::1]:0", "port zero"),
        ("0.0.0.0:80", "unspecified"),
        ("0.1.2.3:80", "unspecified"),
        ("[::]:80", "unspecified"),
        ("[::ffff:0.0.0.0]:80", "unspecified"),
        ("224.0.0.1:80", "multicast"),
        ("239.255.255.255:80", "multicast"),
        ("[ff02::1]:80", "multicast"),
        ("[::ffff:224.0.0.1]:80", "multicast"),
        ("240.0.0.1:80", "broadcast"),
        ("255.255.255.255:80", "broadcast"),
        ("[::ffff:255.255.255.255]:80", "broadcast"),
        ("169.254.0.0:80", "link-local"),
        ("169.254.169.254:80", "link-local"),
        ("169.254.170.2:80", "link-local"),
        ("169.254.255.255:80", "link-local"),
        ("[::ffff:169.254.169.254]:80", "link-local"),
        ("[::169.254.169.254]:80", "link-local"),
        ("[64:ff9b::169.254.169.254]:80", "link-local"),
        ("[2002:a9fe:a9fe::1]:80", "link-local"),
        ("[fe80::1]:80", "link-local"),
        ("[fe80::1%3]:80", "link-local"),
        ("[febf:ffff::1]:80", "link-local"),
        ("168.63.129.16:80", "metadata"),
        ("100.100.100.200:80", "metadata"),
        ("[fd00:ec2::254]:80", "metadata"),
        ("[fd20:ce::254]:80", "metadata"),
        ("[::ffff:168.63.129.16]:80", "metadata"),
    ];
    for (address, expected) in cases {
        for source in [AddressSource::OwnConfig, AddressSource::Learned] {
            let error = endpoint(address, source).unwrap_err();
            assert_eq!(rule(error), expected, "{address} {source:?}");
        }
    }
}

#[test]
fn loopback_is_for_our_own_configuration_alone() {
    for address in [
        "127.0.0.1:80",
        "127.255.255.254:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::127.0.0.1]:80",
        "[64:ff9b::127.0.0.1]:80",
    ] {
        assert!(
            endpoint(address, AddressSource::OwnConfig).is_ok(),
            "{address}"
        );
        let error = endpoint(address, AddressSource::Learned).unwrap_err();
        assert_eq!(rule(error), "loopback", "{address}");
    }
}

#[test]
fn an_address_has_one_spelling() {
    let mapped = endpoint("[::ffff:10.0.0.1]:80", AddressSource::Learned);
    assert_eq!(mapped, endpoint("10.0.0.1:80", AddressSource::Learned));
    let scoped = endpoint("[2001:db8::1%7]:80", AddressSource::Learned);
    assert_eq!(scoped, endpoint("[2001:db8::1]:80", AddressSource::Learned));
}

#[test]
fn gateways_and_service_addresses_are_refused_where_they_are_known() {
    let reserved = ReservedAddresses {
        addresses: ["10.0.0.7:15443".parse().unwrap()].into(),
        ranges: vec![
            "10.96.0.0/12".parse().unwrap(),
            "fd00:96::/112".parse().unwrap(),
        ],
    };
    for (address, is_reserved) in [
        ("10.0.0.7:15443", true),
        ("[::ffff:10.0.0.7]:15443", true),
        ("10.96.0.1:443", true),
        ("10.111.255.255:443", true),
        ("[fd00:96::1]:443", true),
        ("10.0.0.7:80", false),
        ("10.112.0.0:443", false),
        ("[fd00:97::1]:443", false),
    ] {
        let endpoint = endpoint(address, AddressSource::Learned).unwrap();
        let error = reserved.check(&endpoint).err().map(rule);
        assert_eq!(error, is_reserved.then_some("reserved"), "{address}");
    }
}
