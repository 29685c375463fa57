//! nginx with the stream module. Its TLS client resumes sessions, which is its default.

use std::path::Path;

use crate::{
    Side,
    lab::{self, A_NEAR, B_NEAR, SERVER},
};

use super::{
    BACKLOG, CONNECTIONS_MAX, FAR_NAME, Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words,
};

const NEAR_PORT: u16 = 7300;
const FAR_PORT: u16 = 8300;
/// Where distributions put modules that are not built in.
const MODULE_FOLDERS: [&str; 2] = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"];

/// The stream module, where it is a file of its own.
pub fn stream_module() -> Option<String> {
    MODULE_FOLDERS
        .map(|folder| format!("{folder}/ngx_stream_module.so"))
        .into_iter()
        .find(|path| Path::new(path).exists())
}

/// Mutual TLS 1.3 between the two.
pub fn recipe(place: &Place, program: &str, module: Option<&str>) -> Recipe {
    let mut recipe = Recipe::empty(SystemKey::NginxMtls, lab::at(A_NEAR, NEAR_PORT), place);
    let (ca, a, a_key, b, b_key) = (
        place.certificate("ca.pem"),
        place.certificate("a.pem"),
        place.certificate("a.key"),
        place.certificate("b.pem"),
        place.certificate("b.key"),
    );
    let near = format!(
        "    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    proxy_ssl_certificate {a};
    proxy_ssl_certificate_key {a_key};
    proxy_ssl_trusted_certificate {ca};
    proxy_ssl_verify on;
    proxy_ssl_server_name on;
    proxy_ssl_name {FAR_NAME};
    server {{
        listen {A_NEAR}:{NEAR_PORT} reuseport backlog={BACKLOG};
        proxy_pass {B_NEAR}:{FAR_PORT};
    }}
"
    );
    let far = format!(
        "    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_certificate {b};
    ssl_certificate_key {b_key};
    ssl_client_certificate {ca};
    ssl_verify_client on;
    server {{
        listen {B_NEAR}:{FAR_PORT} ssl reuseport backlog={BACKLOG};
        proxy_pass {SERVER}:{SERVER_PORT};
    }}
"
    );
    let whole = |side: &str, stream: String| {
        let module = module.map_or_else(String::new, |path| format!("load_module {path};\n"));
        format!(
            "{module}worker_processes auto;
worker_rlimit_nofile {};
user root;
pid {};
error_log stderr error;
events {{ worker_connections {}; }}
stream {{
    proxy_timeout 1h;
    proxy_connect_timeout 5s;
{stream}}}
",
            place.descriptors,
            recipe.path(&format!("{side}.pid")),
            2 * CONNECTIONS_MAX,
        )
    };
    let (near, far) = (whole("a", near), whole("b", far));
    recipe.file("a.conf", near);
    recipe.file("b.conf", far);
    let launch = |side, file: &str, port| Launch {
        side,
        argv: words(&[
            program,
            "-e",
            "stderr",
            "-p",
            &recipe.path(""),
            "-c",
            &recipe.path(file),
            "-g",
            "daemon off;",
        ]),
        ready: Ready::Port(port),
    };
    recipe.gateways = vec![
        launch(Side::B, "b.conf", FAR_PORT),
        launch(Side::A, "a.conf", NEAR_PORT),
    ];
    recipe
}
