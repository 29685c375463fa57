use super::*;

#[test]
fn hosts_are_names_or_addresses() {
    for (text, shown) in [
        ("a:1", "a:1"),
        ("GW.West.example:15443", "gw.west.example:15443"),
        ("192.0.2.7:1", "192.0.2.7:1"),
        ("[2001:DB8::7]:65535", "[2001:db8::7]:65535"),
        ("[::ffff:1.2.3.4]:5", "[::ffff:1.2.3.4]:5"),
    ] {
        let read = HostPort::parse(text).expect(text);
        assert_eq!(read.to_string(), shown);
        assert_eq!(HostPort::parse(shown), Ok(read));
    }
}

#[test]
fn everything_else_is_refused() {
    for text in ["", "a", "a:", "a:0", "a:65536", "a:01", "a:+1", "a:http"] {
        assert_eq!(HostPort::parse(text), Err(HostPortError::Port), "{text}");
    }
    for text in [
        ":1",
        "::1:1",
        "[::1:1",
        "[1.2.3.4]:1",
        "1.2.3:1",
        "127.1:1",
        "a..b:1",
        "-a:1",
        "a b:1",
        "https://a:1",
        "user@a:1",
        "xn--a:1",
        "[fe80::1%eth0]:1",
        "a.:1",
    ] {
        assert_eq!(HostPort::parse(text), Err(HostPortError::Host), "{text}");
    }
    let long = format!("{}:1", vec!["a".repeat(63); 4].join("."));
    assert_eq!(HostPort::parse(&long), Err(HostPortError::Host));
}
