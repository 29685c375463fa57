//! The configurations of the demo's gateways, as an operator would write them.

use std::net::SocketAddr;

use super::{cluster::Cluster, world::Ports};

/// The configuration of a gateway that is linked with nobody yet.
pub(super) fn alone(cluster: &Cluster) -> String {
    let Cluster { name, tunnel, .. } = cluster;
    format!(
        "# Written by `corinth demo`.
cluster: {name}
stateDir: {name}
workers: 1
listen:
  tunnel: {tunnel}
  imports: [127.0.0.1]
  socks: 127.0.0.1:0
  connect: 127.0.0.1:0
  admin: 127.0.0.1:0
accessLog:
  target: off
"
    )
}

/// East: dials the others, has `web` itself, and imports what they have.
pub(super) fn east(east: &Cluster, others: &[&Cluster], ports: &Ports) -> String {
    let mut text = alone(east) + "peers:\n";
    for other in others {
        text += &format!(
            "  - name: {0}\n    bundle: {0}.pem\n    addresses: [\"{1}\"]\n",
            other.name, other.tunnel
        );
    }
    let names: Vec<_> = others.iter().map(|other| other.name).collect();
    text += "exports:\n";
    text += &export(east, "web.shop", &names.join(", "));
    text += "imports:\n";
    text += &import("payments.shop", ports.payments, &["west"]);
    // What is exported as well goes to the own endpoints first.
    text += &import("web.shop", ports.web, &names);
    text += &import("ledger.shop", ports.ledger, &["west"]);
    text
}

/// The others wait to be dialled. `ledger` runs in west and is not exported.
pub(super) fn other(cluster: &Cluster) -> String {
    let mut text = alone(cluster);
    text += "peers:\n  - name: east\n    bundle: east.pem\n    acceptOnly: true\nexports:\n";
    for service in ["payments.shop", "web.shop"] {
        if !cluster.endpoints(service).is_empty() {
            text += &export(cluster, service, "east");
        }
    }
    text
}

fn export(cluster: &Cluster, service: &str, to: &str) -> String {
    let endpoints = cluster.endpoints(service).join("\", \"");
    format!(
        "  - service: {service}\n    port: 80\n    endpoints: [\"{endpoints}\"]\n    to: [{to}]\n"
    )
}

/// Among several clusters the first goes first.
fn import(service: &str, port: SocketAddr, from: &[&str]) -> String {
    let from: Vec<_> = (0..)
        .zip(from)
        .map(|(priority, cluster): (u8, _)| {
            format!("{{ cluster: {cluster}, priority: {priority} }}")
        })
        .collect();
    format!(
        "  - service: {service}\n    port: 80\n    importPort: {}\n    from: [{}]\n",
        port.port(),
        from.join(", ")
    )
}
