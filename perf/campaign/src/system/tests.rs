use std::{collections::BTreeSet, net::IpAddr};

use super::*;

fn place() -> Place {
    Place {
        folder: "/f".into(),
        certificates: "/f/certificates".into(),
        cpus: 2,
        descriptors: 20_000,
    }
}

fn all() -> Vec<Recipe> {
    let (place, keys) = (place(), wireguard::Keys::shown());
    vec![
        direct(&place),
        corinth::recipe(&place, "gw", corinth::Tunnel::new(corinth::Way::Tls)),
        corinth::recipe(&place, "gw", corinth::Tunnel::new(corinth::Way::Quic)),
        corinth::recipe(&place, "gw", corinth::Tunnel::new(corinth::Way::Auto)),
        haproxy::plain(&place, "haproxy"),
        haproxy::mtls(&place, "haproxy"),
        nginx::recipe(&place, "nginx", Some("/m/stream.so")),
        stunnel::recipe(&place, "stunnel"),
        envoy::mtls(&place, "envoy"),
        envoy::http2(&place, "envoy"),
        wireguard::wireguard_go(&place, "wireguard-go", "wg", &keys),
        wireguard::boringtun(&place, "boringtun-cli", "wg", &keys),
    ]
}

fn text(recipe: &Recipe, name: &str) -> String {
    let file = recipe.files.iter().find(|file| file.name == name);
    file.expect("it has that file").text.clone()
}

#[test]
fn there_is_a_recipe_for_every_system_and_none_shares_a_target() {
    let recipes = all();
    let keys: Vec<_> = recipes.iter().map(|recipe| recipe.key).collect();
    assert_eq!(keys, SystemKey::ALL);
    let targets: BTreeSet<_> = recipes.iter().map(|recipe| recipe.target).collect();
    assert_eq!(targets.len(), recipes.len());
    for recipe in &recipes {
        assert!(matches!(recipe.target.ip(), IpAddr::V4(_)));
        assert_eq!(recipe.key.name().parse(), Ok(recipe.key));
    }
}

#[test]
fn every_gateway_but_the_kernel_runs_on_both_sides() {
    for recipe in all() {
        let sides: Vec<_> = recipe.gateways.iter().map(|launch| launch.side).collect();
        let expected: &[Side] = if recipe.key == SystemKey::Direct {
            &[]
        } else {
            &[Side::B, Side::A]
        };
        assert_eq!(sides, expected, "{}", recipe.key);
    }
}

#[test]
fn whoever_does_tls_does_1_3_and_verifies_both_sides() {
    let recipes = all();
    let find = |key| {
        recipes
            .iter()
            .find(|recipe| recipe.key == key)
            .expect("it is there")
    };
    let needs: [(SystemKey, &str, &[&str]); 10] = [
        (
            SystemKey::HaproxyMtls,
            "a.cfg",
            &[
                "ssl-min-ver TLSv1.3",
                "verify required",
                "verifyhost b.perf.internal",
                "crt /f/certificates/a.both.pem",
            ],
        ),
        (
            SystemKey::HaproxyMtls,
            "b.cfg",
            &[
                "ssl-min-ver TLSv1.3",
                "verify required",
                "TLS_AES_128_GCM_SHA256",
            ],
        ),
        (
            SystemKey::NginxMtls,
            "a.conf",
            &[
                "load_module /m/stream.so;",
                "proxy_ssl_verify on",
                "proxy_ssl_protocols TLSv1.3",
                "proxy_ssl_name b.perf.internal",
            ],
        ),
        (
            SystemKey::NginxMtls,
            "b.conf",
            &["ssl_verify_client on", "ssl_protocols TLSv1.3"],
        ),
        (
            SystemKey::Stunnel,
            "a.conf",
            &[
                "verifyChain = yes",
                "checkHost = b.perf.internal",
                "sslVersion = TLSv1.3",
                "client = yes",
            ],
        ),
        (
            SystemKey::Stunnel,
            "b.conf",
            &["verifyChain = yes", "sslVersion = TLSv1.3"],
        ),
        (
            SystemKey::EnvoyMtls,
            "a.yaml",
            &[
                "tls_minimum_protocol_version: TLSv1_3",
                "exact: b.perf.internal",
                "a.key",
            ],
        ),
        (
            SystemKey::EnvoyMtls,
            "b.yaml",
            &["require_client_certificate: true", "TLSv1_3", "trusted_ca"],
        ),
        (
            SystemKey::EnvoyHttp2,
            "a.yaml",
            &[
                "tunneling_config",
                "alpn_protocols: [h2]",
                "exact: b.perf.internal",
            ],
        ),
        (
            SystemKey::EnvoyHttp2,
            "b.yaml",
            &[
                "require_client_certificate: true",
                "connect_matcher",
                "allow_connect: true",
            ],
        ),
    ];
    for (key, file, parts) in needs {
        let text = text(find(key), file);
        for part in parts {
            assert!(text.contains(part), "{key} {file} lacks {part}:\n{text}");
        }
    }
    assert!(!text(find(SystemKey::Haproxy), "a.cfg").contains("ssl"));
}

#[test]
fn a_tunnel_carries_one_address_each_way() {
    let recipes = all();
    for (key, number) in [(SystemKey::WireguardGo, 13), (SystemKey::Boringtun, 14)] {
        let recipe = recipes
            .iter()
            .find(|recipe| recipe.key == key)
            .expect("it is there");
        assert_eq!(recipe.target.ip().to_string(), format!("10.71.3.{number}"));
        assert!(text(recipe, "a.conf").contains(&format!("AllowedIPs = 10.71.3.{number}/32")));
        assert!(text(recipe, "b.conf").contains(&format!("AllowedIPs = 10.71.1.{number}/32")));
        for launch in &recipe.gateways {
            let device = launch.argv.last().expect("it has arguments");
            assert!(device.len() <= 15, "{device} is too long for the kernel");
        }
    }
}

#[test]
fn a_gateway_of_ours_changes_nothing_but_addresses_and_logs() {
    let recipes = all();
    let ours = text(&recipes[1], "a.yaml");
    let keys: Vec<&str> = ours
        .lines()
        .filter(|line| !line.starts_with([' ', '#', '-']))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        keys,
        [
            "cluster",
            "stateDir",
            "listen",
            "drain",
            "accessLog",
            "log",
            "peers",
            "imports"
        ]
    );
}
