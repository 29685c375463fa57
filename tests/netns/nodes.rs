//! What tests of linked nodes begin with: nodes, linked as operators link them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use corinth_lab::{Gateway, Host, Lab, WAIT, until};
use serde_json::Value;

/// What `--wait` waits for a link: less than a command may take.
const LINKED_WITHIN: &str = "15s";

/// A node of a cluster, linked with nobody.
pub(crate) fn node(lab: &Lab, cluster: &str) -> Gateway {
    lab.gateway(cluster).node().start_node()
}

/// A token of this node.
pub(crate) fn token(inviter: &Gateway) -> String {
    let made = inviter.told(&["link", "token", "create"]);
    assert_eq!(made.len(), 1, "a token is one line");
    made.concat()
}

/// Links two nodes as README says, and waits until the link stands.
pub(crate) fn link(inviter: &Gateway, joiner: &Gateway) {
    let token = token(inviter);
    let wait = ["--wait", "--timeout", LINKED_WITHIN];
    let join = [&["link", "join", &token], &wait[..]].concat();
    joiner.told(&join);
}

/// Offers a service with one endpoint to one peer.
pub(crate) fn export(node: &Gateway, service: &str, port: u16, endpoint: SocketAddr, to: &str) {
    let (port, endpoint) = (port.to_string(), endpoint.to_string());
    let what = ["export", service, "--port", &port, "--endpoint", &endpoint];
    node.told(&[&what[..], &["--to", to]].concat());
}

/// Accepts a service of a peer, and waits for the port at which it is called.
pub(crate) fn accept(node: &Gateway, peer: &str, service: &str) -> SocketAddr {
    node.told(&["link", "accept", peer, service]);
    imported(node, service)
}

/// Where a service of peers is called on this node, as soon as it is offered.
pub(crate) fn imported(node: &Gateway, service: &str) -> SocketAddr {
    until(&format!("{service} is offered"), WAIT, || {
        let imports = node.items(&["imports"]);
        let import = imports.iter().find(|import| import["service"] == service)?;
        let port = u16::try_from(import["ports"][0]["importPort"].as_u64()?).ok()?;
        Some(node.at(port))
    })
}

/// Whether nginx answers there.
pub(crate) fn answers(host: &Host, to: SocketAddr) -> bool {
    let url = format!("http://{to}/");
    let args = ["-gsS", "--noproxy", "*", "--max-time", "5", &url];
    host.run("curl", args).stdout == ["ok"]
}

/// How long it took until nginx answered there.
pub(crate) fn await_answer(host: &Host, to: SocketAddr) -> Duration {
    let began = Instant::now();
    until(&format!("an answer at {to}"), WAIT, || {
        answers(host, to).then_some(())
    });
    began.elapsed()
}

/// How long it took until nobody answered there any more.
pub(crate) fn await_silence(host: &Host, to: SocketAddr) -> Duration {
    let began = Instant::now();
    until(&format!("no answer at {to}"), WAIT, || {
        (!answers(host, to)).then_some(())
    });
    began.elapsed()
}

/// The link of `node` with `peer` as the control plane sees it.
pub(crate) fn link_status(node: &Gateway, peer: &str) -> Option<Value> {
    let links = node.items(&["link", "list"]);
    links.into_iter().find(|link| link["cluster"] == peer)
}
