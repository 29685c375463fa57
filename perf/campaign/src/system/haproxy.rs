//! HAProxy in TCP mode, with and without TLS. Its TLS client resumes sessions, which is its default, as is a thread for
//! each core.

use crate::{
    Side,
    lab::{self, A_NEAR, B_NEAR, SERVER},
};

use super::{
    BACKLOG, CONNECTIONS_MAX, FAR_NAME, Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words,
};

const PLAIN_PORT: u16 = 7200;
const MTLS_PORT: u16 = 7210;
/// Gateway B listens this much higher than gateway A.
const FAR_OFFSET: u16 = 1_000;

/// Nobody encrypts.
pub fn plain(place: &Place, program: &str) -> Recipe {
    let far_port = PLAIN_PORT + FAR_OFFSET;
    let near = format!(
        "{}listen load\n    bind {A_NEAR}:{PLAIN_PORT}\n    server b {B_NEAR}:{far_port}\n",
        common("")
    );
    let far = format!(
        "{}listen load\n    bind {B_NEAR}:{far_port}\n    server app {SERVER}:{SERVER_PORT}\n",
        common("")
    );
    recipe(SystemKey::Haproxy, PLAIN_PORT, place, program, near, far)
}

/// Mutual TLS 1.3 between the two.
pub fn mtls(place: &Place, program: &str) -> Recipe {
    let tls = "    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
";
    let far_port = MTLS_PORT + FAR_OFFSET;
    let (ca, a, b) = (
        place.certificate("ca.pem"),
        place.certificate("a.both.pem"),
        place.certificate("b.both.pem"),
    );
    let near = format!(
        "{}listen load
    bind {A_NEAR}:{MTLS_PORT}
    server b {B_NEAR}:{far_port} ssl verify required ca-file {ca} crt {a} sni str({FAR_NAME}) verifyhost {FAR_NAME}
",
        common(tls)
    );
    let far = format!(
        "{}listen load
    bind {B_NEAR}:{far_port} ssl crt {b} ca-file {ca} verify required
    server app {SERVER}:{SERVER_PORT}
",
        common(tls)
    );
    recipe(SystemKey::HaproxyMtls, MTLS_PORT, place, program, near, far)
}

fn common(tls: &str) -> String {
    format!(
        "global
    maxconn {CONNECTIONS_MAX}
{tls}defaults
    mode tcp
    maxconn {CONNECTIONS_MAX}
    backlog {BACKLOG}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"
    )
}

fn recipe(
    key: SystemKey,
    near_port: u16,
    place: &Place,
    program: &str,
    near: String,
    far: String,
) -> Recipe {
    let mut recipe = Recipe::empty(key, lab::at(A_NEAR, near_port), place);
    recipe.file("a.cfg", near);
    recipe.file("b.cfg", far);
    let launch = |side, file: &str, port| Launch {
        side,
        argv: words(&[program, "-db", "-f", &recipe.path(file)]),
        ready: Ready::Port(port),
    };
    recipe.gateways = vec![
        launch(Side::B, "b.cfg", near_port + FAR_OFFSET),
        launch(Side::A, "a.cfg", near_port),
    ];
    recipe
}
