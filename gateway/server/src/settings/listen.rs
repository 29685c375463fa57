//! Where the gateway listens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use corinth_model::{PortNumber, PortRange, Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{At, Field, Optional, items};
use super::mistake::{Findings, MistakeCode, Position};
use super::value::distinct;

/// TCP port of the tunnel, and of nothing else.
const TUNNEL_PORT: u16 = 15443;
/// TCP port of the admin pages.
const ADMIN_PORT: u16 = 15000;
/// Import ports that are handed out by default: outside NodePorts and ephemeral ports.
const IMPORT_PORTS: (u16, u16) = (20_000, 27_999);

/// Where the gateway listens. Port 0 lets the kernel choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// Peers and direct clients come in here.
    pub tunnel: SocketAddr,
    /// Local clients that speak TLS themselves come in here, if anywhere.
    pub sni: Option<SocketAddr>,
    /// Addresses on which every import port is accepted; may be empty.
    pub imports: Vec<IpAddr>,
    /// The ports that import ports are taken from.
    pub import_ports: PortRange,
    /// SOCKS5, on a loopback address.
    pub socks: Option<SocketAddr>,
    /// HTTP CONNECT, on a loopback address.
    pub connect: Option<SocketAddr>,
    /// Health, metrics and state, on a loopback address.
    pub admin: SocketAddr,
}

/// Where the gateway listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawListen {
    /// Where peers come in. Default `[::]:15443`.
    tunnel: Option<Field<SocketAddr>>,
    /// Where local clients that speak TLS come in, by the name they ask for. Default: nowhere.
    sni: Option<Field<SocketAddr>>,
    /// Addresses on which import ports are accepted. Default `127.0.0.1` and `::1`.
    imports: Option<Vec<Field<IpAddr>>>,
    /// Range that import ports lie in. Default `20000-27999`.
    import_ports: Option<Field<PortRange>>,
    /// SOCKS5 on a loopback address. Default: nowhere.
    socks: Option<Field<SocketAddr>>,
    /// HTTP CONNECT on a loopback address. Default: nowhere.
    connect: Option<Field<SocketAddr>>,
    /// Health, metrics and state on a loopback address. Default `127.0.0.1:15000`.
    admin: Option<Field<SocketAddr>>,
}

/// Every listener found so far, to notice when two want the same place.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_port: BTreeMap<u16, Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    address: IpAddr,
    name: String,
    protocol: Protocol,
}

impl Listen {
    pub(super) fn read(raw: RawListen, listeners: &mut Listeners, found: &mut Findings) -> Self {
        // The defaults come first, so that a conflict with one of them is reported where something was written.
        let mut default = |name: &str, field: &Option<Field<SocketAddr>>, address: SocketAddr| {
            if field.is_none() {
                listeners.add(
                    &format!("`listen.{name}`"),
                    Protocol::Tcp,
                    address,
                    Position::default(),
                    found,
                );
            }
            address
        };
        let default_tunnel = default(
            "tunnel",
            &raw.tunnel,
            (Ipv6Addr::UNSPECIFIED, TUNNEL_PORT).into(),
        );
        let default_admin = default(
            "admin",
            &raw.admin,
            (Ipv4Addr::LOCALHOST, ADMIN_PORT).into(),
        );
        let mut place = |name: &str, field: Option<Field<SocketAddr>>, only_loopback: bool| {
            let At { at, value } = field?.placed(found)?;
            if only_loopback && !value.ip().to_canonical().is_loopback() {
                found.add(
                    at,
                    MistakeCode::NotLoopback,
                    format!("`listen.{name}` may not listen on {value}: whoever reaches it is not asked who they are"),
                    format!("write `127.0.0.1:{0}` or `\"[::1]:{0}\"`", value.port()),
                );
            }
            listeners.add(&format!("`listen.{name}`"), Protocol::Tcp, value, at, found);
            Some(value)
        };
        let tunnel_at = raw
            .tunnel
            .as_ref()
            .map(|field| field.at)
            .unwrap_or_default();
        let listen = Self {
            tunnel: place("tunnel", raw.tunnel, false).unwrap_or(default_tunnel),
            sni: place("sni", raw.sni, false),
            socks: place("socks", raw.socks, true),
            connect: place("connect", raw.connect, true),
            admin: place("admin", raw.admin, true).unwrap_or(default_admin),
            imports: raw.imports.map_or_else(
                || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                |fields| distinct(items(fields, found), found),
            ),
            import_ports: raw.import_ports.otherwise(default_import_ports(), found),
        };
        // Tunnels by QUIC come in beside those by TCP.
        listeners.add(
            "`listen.tunnel`",
            Protocol::Udp,
            listen.tunnel,
            tunnel_at,
            found,
        );
        listen
    }
}

impl Listen {
    /// Ports that no import may be given: other listeners', and those of services on the addresses of import ports.
    pub(super) fn taken_ports(
        &self,
        listeners: &Listeners,
        endpoints: &[At<SocketAddr>],
    ) -> BTreeSet<u16> {
        let is_here =
            |endpoint: &SocketAddr| self.imports.iter().any(|own| overlap(*own, endpoint.ip()));
        let beside = endpoints
            .iter()
            .map(|endpoint| endpoint.value)
            .filter(is_here);
        listeners
            .ports()
            .chain(beside.map(|endpoint| endpoint.port()))
            .collect()
    }
}

fn default_import_ports() -> PortRange {
    let port = |number| PortNumber::new(number).unwrap_or_else(|| unreachable!("not zero"));
    PortRange {
        first: port(IMPORT_PORTS.0),
        last: port(IMPORT_PORTS.1),
    }
}

impl Listeners {
    /// Adds a listener and says whether it fits; one that cannot be bound beside an earlier one is reported at `at`.
    pub(super) fn add(
        &mut self,
        name: &str,
        protocol: Protocol,
        address: SocketAddr,
        at: Position,
        found: &mut Findings,
    ) -> bool {
        if address.port() == 0 {
            return true;
        }
        let beside = self.by_port.entry(address.port()).or_default();
        if let Some(other) = beside
            .iter()
            .find(|other| other.protocol == protocol && overlap(other.address, address.ip()))
        {
            found.add(
                at,
                MistakeCode::ListenerConflict,
                format!("{name} and {} both want {address}", other.name),
                "give one of them another port",
            );
            return false;
        }
        beside.push(Listener {
            address: address.ip(),
            name: name.to_owned(),
            protocol,
        });
        true
    }

    /// The listener that a connection to `target` from this machine certainly reaches, if any.
    pub(super) fn reached_by(&self, target: SocketAddr) -> Option<&str> {
        let ip = target.ip().to_canonical();
        let listener = self.by_port.get(&target.port())?.iter().find(|listener| {
            let own = listener.address.to_canonical();
            own == ip || (ip.is_loopback() && accepts(own, ip))
        });
        listener.map(|listener| listener.name.as_str())
    }

    /// Ports that something listens on.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }
}

/// Whether two sockets on the same port stand in each other's way; `[::]` takes IPv4 as well.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || accepts(a, b) || accepts(b, a)
}

/// Whether a socket bound to `own` takes what is sent to `other` on this machine.
fn accepts(own: IpAddr, other: IpAddr) -> bool {
    own.is_unspecified() && (own.is_ipv6() || other.is_ipv4())
}
