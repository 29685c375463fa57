//! Ours.

use serde::{Deserialize, Serialize};

use crate::{
    Side,
    lab::{self, A_FAR, A_NEAR, B_NEAR, SERVER},
};

use super::{Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words};

/// The first of those of a pair of gateways: several pairs run at the same time.
const NEAR_PORT: u16 = 7100;
const NEAR_PORTS: u16 = 10;
const TUNNEL_PORT: u16 = 11443;
const ADMIN_PORT: u16 = 11500;

/// What the two gateways are joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// TLS over TCP.
    Tls,
    /// QUIC.
    Quic,
    /// Both, and the gateways choose.
    Auto,
}

impl Way {
    /// In configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Auto => "auto",
        }
    }

    /// The system that two gateways joined by it are.
    pub const fn key(self) -> SystemKey {
        match self {
            Self::Tls => SystemKey::Corinth,
            Self::Quic => SystemKey::CorinthQuic,
            Self::Auto => SystemKey::CorinthAuto,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::Tls => 0,
            Self::Quic => 1,
            Self::Auto => 2,
        }
    }
}

/// How the two gateways are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// By what.
    pub way: Way,
    /// The congestion control of it; none is what a gateway does that was not told.
    pub congestion: Option<Congestion>,
}

/// What decides how fast the sender of a tunnel, or of a direct connection, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// CUBIC: RFC 9438.
    Cubic,
    /// BBR.
    Bbr,
}

impl Congestion {
    /// In configurations and for the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl Tunnel {
    /// As it is where nothing more is said.
    pub const fn new(way: Way) -> Self {
        Self {
            way,
            congestion: None,
        }
    }

    const fn near_port(self) -> u16 {
        NEAR_PORT + self.way.number() * NEAR_PORTS
    }

    const fn tunnel_port(self) -> u16 {
        TUNNEL_PORT + self.way.number()
    }

    const fn admin_port(self) -> u16 {
        ADMIN_PORT + self.way.number()
    }

    /// What both sides say of the other beside who it is.
    fn terms(self) -> String {
        let way = self.way.name();
        self.congestion.map_or_else(
            || format!("transport: {way}"),
            |congestion| format!("transport: {way}, congestion: {}", congestion.name()),
        )
    }
}

/// Two gateways that know each other, one import, one export. A gateway makes its roots when it first starts; only then
/// can they be given to the other, so both start once without a link before.
pub fn recipe(place: &Place, gateway: &str, tunnel: Tunnel) -> Recipe {
    recipe_of(place, gateway, tunnel, &["tcp"])
}

/// The same with a service over UDP on the same port.
pub fn recipe_with_datagrams(place: &Place, gateway: &str, tunnel: Tunnel) -> Recipe {
    recipe_of(place, gateway, tunnel, &["tcp", "udp"])
}

fn recipe_of(place: &Place, gateway: &str, tunnel: Tunnel, protocols: &[&str]) -> Recipe {
    let of_each = |line: &dyn Fn(&str) -> String| -> String {
        protocols.iter().map(|protocol| line(protocol)).collect()
    };
    let near_port = tunnel.near_port();
    let mut recipe = Recipe::empty(tunnel.way.key(), lab::at(A_NEAR, near_port), place);
    recipe.file("a-first.yaml", near(tunnel, ""));
    recipe.file("b-first.yaml", far(tunnel, ""));
    let terms = tunnel.terms();
    recipe.file(
        "a.yaml",
        near(
            tunnel,
            &format!(
                "peers:
  - {{name: west, bundle: west/bundle.pem, addresses: [\"{B_NEAR}:{}\"], {terms}}}
imports:
{}",
                tunnel.tunnel_port(),
                of_each(&|protocol| format!(
                    "  - {{service: load.perf, port: {SERVER_PORT}, protocol: {protocol}, importPort: {near_port}, from: [west]}}\n"
                ))
            ),
        ),
    );
    recipe.file(
        "b.yaml",
        far(
            tunnel,
            &format!(
                "peers:
  - {{name: east, bundle: east/bundle.pem, acceptOnly: true, {terms}}}
exports:
{}",
                of_each(&|protocol| format!(
                    "  - {{service: load.perf, port: {SERVER_PORT}, protocol: {protocol}, endpoints: [\"{SERVER}:{SERVER_PORT}\"], to: [east]}}\n"
                ))
            ),
        ),
    );
    let launch = |side, file: &str| Launch {
        side,
        argv: words(&[gateway, "--config", &recipe.path(file)]),
        ready: Ready::Line("READY=1"),
    };
    let first = vec![
        launch(Side::A, "a-first.yaml"),
        launch(Side::B, "b-first.yaml"),
    ];
    let gateways = vec![launch(Side::B, "b.yaml"), launch(Side::A, "a.yaml")];
    recipe.first = first;
    recipe.gateways = gateways;
    recipe
}

fn near(tunnel: Tunnel, links: &str) -> String {
    let first = tunnel.near_port();
    let last = first + NEAR_PORTS - 1;
    let imports = format!("  imports: [{A_NEAR}]\n  importPorts: {first}-{last}\n");
    config("east", &A_FAR.to_string(), tunnel, &imports, links)
}

fn far(tunnel: Tunnel, links: &str) -> String {
    config("west", &B_NEAR.to_string(), tunnel, "", links)
}

fn config(cluster: &str, address: &str, tunnel: Tunnel, imports: &str, links: &str) -> String {
    let (tunnel, admin) = (tunnel.tunnel_port(), tunnel.admin_port());
    format!(
        "cluster: {cluster}
stateDir: {cluster}
listen:
  tunnel: {address}:{tunnel}
  admin: 127.0.0.1:{admin}
{imports}# Nobody else is here who would have to notice.
drain: {{delay: 1ms, limit: 1s}}
# The others do not write one either.
accessLog: {{target: off}}
log: {{level: warn}}
{links}"
    )
}
