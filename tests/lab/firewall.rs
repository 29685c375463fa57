//! Packets that do not arrive: nftables rules of one host.

use std::net::{IpAddr, SocketAddr};

use crate::{Family, Host};

/// The packet filter of one host.
#[derive(Debug, Clone, Copy)]
pub struct Firewall<'a> {
    pub(crate) host: &'a Host,
}

impl Firewall<'_> {
    /// Drops, in silence, what arrives here for `address`.
    pub fn drop_to(&self, address: IpAddr) {
        self.add(
            "in",
            &format!("{} daddr {address} drop", family(address).nft()),
        );
    }

    /// Drops, in silence, what leaves here from `address`.
    pub fn drop_from(&self, address: IpAddr) {
        self.add(
            "out",
            &format!("{} saddr {address} drop", family(address).nft()),
        );
    }

    /// Drops, in silence, what arrives by `protocol` (`tcp`, `udp`) for `port`, whatever its address.
    pub fn drop_protocol_to(&self, protocol: &str, port: u16) {
        self.add("in", &format!("{protocol} dport {port} drop"));
    }

    /// Drops, in silence, both directions of every connection to `address`. Connections from there live on.
    pub fn cut_connections_to(&self, address: SocketAddr) {
        let family = family(address.ip()).nft();
        let (ip, port) = (address.ip(), address.port());
        self.add("in", &format!("{family} daddr {ip} tcp dport {port} drop"));
        self.add("out", &format!("{family} saddr {ip} tcp sport {port} drop"));
    }

    /// Drops, in silence, whoever wants to connect to `address`.
    pub fn ignore_connects(&self, address: SocketAddr) {
        self.add("in", &format!("{} tcp flags syn drop", endpoint(address)));
    }

    /// Refuses whoever wants to connect to `address`, as if nobody listened.
    pub fn refuse_connects(&self, address: SocketAddr) {
        self.add(
            "in",
            &format!("{} tcp flags syn reject with tcp reset", endpoint(address)),
        );
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.load("flush chain inet lab in\nflush chain inet lab out\n");
    }

    /// Sends what is for `service` to one of `targets`, in turn; those who are connected stay where they are. Like the
    /// rules that kube-proxy writes.
    pub fn balance(&self, service: SocketAddr, targets: &[SocketAddr]) {
        let family = family(service.ip()).nft();
        let port = service.port();
        let mut rules = String::from("flush chain inet lab nat\n");
        if !targets.is_empty() {
            let map: Vec<String> = targets
                .iter()
                .enumerate()
                .map(|(number, target)| format!("{number} : {} . {}", target.ip(), target.port()))
                .collect();
            rules += &format!(
                "add rule inet lab nat {family} daddr {} tcp dport {port} dnat {family} to \
                 numgen inc mod {} map {{ {} }}\n",
                service.ip(),
                targets.len(),
                map.join(", ")
            );
        }
        self.load(&rules);
    }

    pub(crate) fn prepare(&self) {
        self.load(
            "table inet lab {\n\
             chain in { type filter hook input priority 0; }\n\
             chain out { type filter hook output priority 0; }\n\
             chain nat { type nat hook prerouting priority -100; }\n\
             }\n",
        );
    }

    fn add(&self, chain: &str, rule: &str) {
        self.load(&format!("add rule inet lab {chain} {rule}\n"));
    }

    /// Replaces rules in one transaction.
    fn load(&self, rules: &str) {
        let output = self.host.feed("nft", &["-f", "-"], rules.as_bytes());
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nft: {words}\n{rules}");
    }
}

fn endpoint(address: SocketAddr) -> String {
    let family = family(address.ip()).nft();
    format!(
        "{family} daddr {} tcp dport {}",
        address.ip(),
        address.port()
    )
}

fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}
