//! stunnel. It has a thread for each connection.

use crate::{
    Side,
    lab::{self, A_NEAR, B_NEAR, SERVER},
};

use super::{FAR_NAME, Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words};

const NEAR_PORT: u16 = 7400;
const FAR_PORT: u16 = 8400;

/// Mutual TLS 1.3 between the two.
pub fn recipe(place: &Place, program: &str) -> Recipe {
    let mut recipe = Recipe::empty(SystemKey::Stunnel, lab::at(A_NEAR, NEAR_PORT), place);
    let common = |side: &str| {
        format!(
            "foreground = yes
debug = err
pid =
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
CAfile = {}
cert = {}
key = {}
verifyChain = yes
TIMEOUTidle = 3600
",
            place.certificate("ca.pem"),
            place.certificate(&format!("{side}.pem")),
            place.certificate(&format!("{side}.key")),
        )
    };
    recipe.file(
        "a.conf",
        format!(
            "{}[load]
client = yes
accept = {A_NEAR}:{NEAR_PORT}
connect = {B_NEAR}:{FAR_PORT}
sni = {FAR_NAME}
checkHost = {FAR_NAME}
",
            common("a")
        ),
    );
    recipe.file(
        "b.conf",
        format!(
            "{}[load]
accept = {B_NEAR}:{FAR_PORT}
connect = {SERVER}:{SERVER_PORT}
",
            common("b")
        ),
    );
    let launch = |side, file: &str, port| Launch {
        side,
        argv: words(&[program, &recipe.path(file)]),
        ready: Ready::Port(port),
    };
    recipe.gateways = vec![
        launch(Side::B, "b.conf", FAR_PORT),
        launch(Side::A, "a.conf", NEAR_PORT),
    ];
    recipe
}
