//! Which `Host` a request may name.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;

/// Whether every host the request names is loopback, and it names at least one.
pub(super) fn is_loopback<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    // A request target in absolute form overrides the header (RFC 9112 section 3.2.2); both must be fine.
    let target = request.uri().authority();
    names_loopback(host) && target.is_none_or(|target| names_loopback(target.as_str()))
}

/// Whether `authority`, a host with or without a port, is `localhost` or a loopback address. The port may be any: a
/// port-forward shows the client another one than ours.
fn names_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        // The colon of `[::1]` is not one before a port.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return matches!(address.parse(), Ok(IpAddr::V6(address)) if address.is_loopback());
    }
    let is_address = matches!(host.parse(), Ok(IpAddr::V4(address)) if address.is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass() {
        for host in [
            "localhost",
            "LocalHost:15021",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:15021",
        ] {
            assert!(names_loopback(host), "{host}");
        }
        for host in [
            "",
            ":15021",
            "attacker.example",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example:15021",
            "localhost:15021.attacker.example",
            "localhost@attacker.example",
            "10.0.0.1",
            "0.0.0.0:15021",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::]",
            "[::1",
            "[fe80::1]:1",
            "[127.0.0.1]",
            "local host",
        ] {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
