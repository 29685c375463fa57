//! Ours.

use crate::{
    Side,
    lab::{self, A_FAR, A_NEAR, B_NEAR, SERVER},
};

use super::{Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words};

const NEAR_PORT: u16 = 7100;
const TUNNEL_PORT: u16 = 11443;

/// Two gateways that know each other, one import, one export. A gateway makes its roots when it first starts; only then
/// can they be given to the other, so both start once without a link before.
pub fn recipe(place: &Place, gateway: &str) -> Recipe {
    let mut recipe = Recipe::empty(SystemKey::Corinth, lab::at(A_NEAR, NEAR_PORT), place);
    recipe.file("a-first.yaml", near(""));
    recipe.file("b-first.yaml", far(""));
    recipe.file(
        "a.yaml",
        near(&format!(
            "peers:
  - name: west
    bundle: west/bundle.pem
    addresses: [\"{B_NEAR}:{TUNNEL_PORT}\"]
imports:
  - {{service: load.perf, port: {SERVER_PORT}, importPort: {NEAR_PORT}, from: [west]}}
"
        )),
    );
    recipe.file(
        "b.yaml",
        far(&format!(
            "peers:
  - {{name: east, bundle: east/bundle.pem, acceptOnly: true}}
exports:
  - {{service: load.perf, port: {SERVER_PORT}, endpoints: [\"{SERVER}:{SERVER_PORT}\"], to: [east]}}
"
        )),
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

fn near(links: &str) -> String {
    let imports = format!("  imports: [{A_NEAR}]\n  importPorts: {NEAR_PORT}-7199\n");
    config("east", &A_FAR.to_string(), &imports, links)
}

fn far(links: &str) -> String {
    config("west", &B_NEAR.to_string(), "", links)
}

fn config(cluster: &str, tunnel: &str, imports: &str, links: &str) -> String {
    format!(
        "cluster: {cluster}
stateDir: {cluster}
listen:
  tunnel: {tunnel}:{TUNNEL_PORT}
  admin: 127.0.0.1:11500
{imports}# Nobody else is here who would have to notice.
drain: {{delay: 1ms, limit: 1s}}
# The others do not write one either.
accessLog: {{target: off}}
log: {{level: warn}}
{links}"
    )
}
