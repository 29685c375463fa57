//! The configuration of one gateway, as a test wants it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{Family, Gateway, Ground, Host, Net, Pki, Transport, pki};

/// Where peers come in.
const TUNNEL_PORT: u16 = 15_443;
/// Where local TLS clients come in.
const SNI_PORT: u16 = 15_444;
/// Admin pages of slot 0 of the first cluster on a host.
const ADMIN_PORT: u16 = 15_000;

/// A cluster: the host its gateways run on, and how many there are.
#[derive(Debug, Clone)]
pub struct Site {
    pub(crate) cluster: &'static str,
    pub(crate) host: Host,
    /// The number of slot 0's addresses.
    pub(crate) first: u8,
    pub(crate) slots: u8,
    /// The network on which it is among its own.
    pub(crate) own_net: Net,
}

/// A configuration that is being written. Each method changes it; [`start`](Self::start) starts the gateway.
#[must_use]
pub struct GatewayConfig<'a> {
    pub(crate) site: &'a Site,
    pub(crate) sites: &'a [Site],
    pub(crate) pki: &'a Pki,
    pub(crate) family: Family,
    pub(crate) transport: Transport,
    pub(crate) slot: u8,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Map<String, Value>,
}

impl Site {
    /// Where its gateways run.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where the tunnel port of a slot is.
    pub fn tunnel(&self, family: Family, slot: u8) -> SocketAddr {
        family.socket(Net::Between, self.first + slot, TUNNEL_PORT)
    }
}

impl<'a> GatewayConfig<'a> {
    pub(crate) fn new(
        site: &'a Site,
        sites: &'a [Site],
        pki: &'a Pki,
        ground: Ground,
        slot: u8,
        folder: &Path,
    ) -> Self {
        let Ground { family, transport } = ground;
        let number = site.first + slot;
        let folder = folder.join(format!("{}-{slot}", site.cluster));
        let own = family.address(site.own_net, number);
        let settings = json!({
            "cluster": site.cluster,
            "slot": slot.to_string(),
            "slots": site.slots,
            "stateDir": folder.join("state"),
            "listen": {
                "tunnel": site.tunnel(family, slot),
                "sni": SocketAddr::new(own, SNI_PORT),
                "imports": [own],
                "admin": format!("127.0.0.1:{}", ADMIN_PORT + u16::from(number)),
            },
            "identity": {},
            "peers": [],
            "exports": [],
            "imports": [],
            "timeouts": {},
            "limits": {},
            "drain": { "delay": "1s", "limit": "10s" },
            "log": { "level": "info,corinth_gateway=debug,corinth_transport=debug" },
        });
        let Value::Object(settings) = settings else {
            unreachable!("an object was written");
        };
        let config = Self {
            site,
            sites,
            pki,
            family,
            transport,
            slot,
            folder,
            settings,
        };
        pki.authority(site.cluster);
        let identity = json!({
            "caCert": pki.certificate(site.cluster),
            "caKey": pki.key(site.cluster),
        });
        config.with("identity", identity)
    }

    /// Links with `cluster`, dialling every slot it has.
    pub fn peer(self, cluster: &str) -> Self {
        let site = self.site_of(cluster);
        let addresses: Vec<_> = (0..site.slots)
            .map(|slot| site.tunnel(self.family, slot))
            .collect();
        self.peer_with(cluster, json!({ "addresses": addresses }))
    }

    /// Links with `cluster`, waiting for it to dial.
    pub fn awaits(self, cluster: &str) -> Self {
        self.peer_with(cluster, json!({ "acceptOnly": true }))
    }

    /// Links with `cluster` in the way that `keys` say.
    pub fn peer_with(self, cluster: &str, keys: Value) -> Self {
        self.pki.authority(cluster);
        let peer = json!({
            "name": cluster,
            "bundle": self.pki.certificate(cluster),
            "transport": self.transport.as_str(),
        });
        self.push("peers", merged(peer, keys))
    }

    /// Offers `service` (`web.shop:80`) at `endpoints` to `to`.
    pub fn exports(self, service: &str, endpoints: &[SocketAddr], to: &[&str]) -> Self {
        self.exports_with(service, endpoints, to, json!({}))
    }

    /// The same, with further keys.
    pub fn exports_with(
        self,
        service: &str,
        endpoints: &[SocketAddr],
        to: &[&str],
        keys: Value,
    ) -> Self {
        let export = merged(named(service), json!({ "endpoints": endpoints, "to": to }));
        self.push("exports", merged(export, keys))
    }

    /// Makes `service` usable at `import_port`, from the first of `from` that can serve it.
    pub fn imports(self, service: &str, import_port: u16, from: &[&str]) -> Self {
        self.imports_with(service, import_port, from, json!({}))
    }

    /// The same, with further keys.
    pub fn imports_with(self, service: &str, import_port: u16, from: &[&str], keys: Value) -> Self {
        let from: Vec<_> = (0..)
            .zip(from)
            .map(|(priority, cluster): (u8, _)| json!({ "cluster": cluster, "priority": priority }))
            .collect();
        let import = merged(
            named(service),
            json!({ "importPort": import_port, "from": from }),
        );
        self.push("imports", merged(import, keys))
    }

    /// Merges `value` into a section, or replaces a value.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        let old = self.settings.remove(key).unwrap_or(Value::Null);
        self.settings.insert(key.to_owned(), merged(old, value));
        self
    }

    /// Replaces a section.
    pub fn without(mut self, key: &str) -> Self {
        self.settings.remove(key);
        self
    }

    /// Starts a gateway with it, and waits until it is ready.
    pub fn start(self) -> Gateway {
        let gateway = self.launch();
        gateway.await_ready();
        gateway
    }

    /// Starts a gateway with it, and waits for nothing.
    pub fn launch(self) -> Gateway {
        let text = self.text();
        self.launch_text(&text)
    }

    /// Starts a gateway with another text in the file, and waits for nothing.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn launch_text(self, text: &str) -> Gateway {
        self.write(text);
        Gateway::launch(&self)
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::create_dir_all(&self.folder).expect("there is room");
        pki::write(&self.path(), text);
    }

    /// The file it is written to.
    pub fn path(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    /// The file's text: one line for each key.
    pub fn text(&self) -> String {
        let line = |(key, value): (&String, &Value)| format!("{key}: {value}\n");
        self.settings.iter().map(line).collect()
    }

    fn push(mut self, key: &str, value: Value) -> Self {
        if let Some(Value::Array(list)) = self.settings.get_mut(key) {
            list.push(value);
        }
        self
    }

    fn site_of(&self, cluster: &str) -> &'a Site {
        let found = self.sites.iter().find(|site| site.cluster == cluster);
        found.unwrap_or_else(|| panic!("there is no cluster {cluster}"))
    }
}

/// `payments.shop:8080` as the configuration spells it.
fn named(service: &str) -> Value {
    let (service, port) = service.split_once(':').unwrap_or((service, "80"));
    json!({ "service": service, "port": port.parse::<u16>().unwrap_or_default() })
}

/// `over` laid over `under`, mapping by mapping.
fn merged(under: Value, over: Value) -> Value {
    match (under, over) {
        (Value::Object(mut under), Value::Object(over)) => {
            for (key, value) in over {
                let old = under.remove(&key).unwrap_or(Value::Null);
                under.insert(key, merged(old, value));
            }
            Value::Object(under)
        }
        (_, over) => over,
    }
}
