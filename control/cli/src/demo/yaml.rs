//! The configurations of the demo's nodes, as an operator would write them.

use super::cluster::Cluster;

/// A node that says where it is reached, and so can be linked. What it exports and imports is told by command.
pub(super) fn node(cluster: &Cluster) -> String {
    let Cluster {
        name,
        announced,
        tunnel,
        ..
    } = cluster;
    let (first, last) = (cluster.import_ports.start(), cluster.import_ports.end());
    format!(
        "# Written by `corinth demo`.
cluster: {name}
stateDir: {name}
workers: 1
gateways: [\"{announced}\"]
listen:
  tunnel: {tunnel}
  imports: [127.0.0.1]
  importPorts: {first}-{last}
  socks: 127.0.0.1:0
  connect: 127.0.0.1:0
  admin: 127.0.0.1:0
accessLog:
  target: off
"
    )
}
