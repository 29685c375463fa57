//! Envoy, in the two ways it is used between clusters: a TLS connection for each TCP connection, and streams of HTTP/2
//! CONNECT inside of one.

use crate::{
    Side,
    lab::{self, A_NEAR, B_NEAR, SERVER},
};

use super::{
    BACKLOG, CONNECTIONS_MAX, FAR_NAME, Launch, Place, Ready, Recipe, SERVER_PORT, SystemKey, words,
};

const MTLS_PORT: u16 = 7500;
const HTTP2_PORT: u16 = 7510;
/// Gateway B listens this much higher than gateway A.
const FAR_OFFSET: u16 = 1_000;
/// Of a stream and of a connection; wide enough for bulk over a long way.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// `tcp_proxy` at both ends, mutual TLS 1.3 between.
pub fn mtls(place: &Place, program: &str) -> Recipe {
    let far_port = MTLS_PORT + FAR_OFFSET;
    let near = Half {
        address: format!("{A_NEAR}"),
        port: MTLS_PORT,
        accept_tls: String::new(),
        filter: tcp_proxy("next", ""),
        next: (B_NEAR.to_string(), far_port),
        connect: upstream_tls(place, ""),
    };
    let far = Half {
        address: format!("{B_NEAR}"),
        port: far_port,
        accept_tls: downstream_tls(place, ""),
        filter: tcp_proxy("next", ""),
        next: (SERVER.to_string(), SERVER_PORT),
        connect: String::new(),
    };
    recipe(SystemKey::EnvoyMtls, MTLS_PORT, place, program, &near, &far)
}

/// `tcp_proxy` with a tunnel of HTTP/2 CONNECT in mutual TLS 1.3, ended by the far Envoy.
pub fn http2(place: &Place, program: &str) -> Recipe {
    let far_port = HTTP2_PORT + FAR_OFFSET;
    let tunnel = format!(
        "
          tunneling_config: {{ hostname: \"{FAR_NAME}:{SERVER_PORT}\" }}"
    );
    let alpn = "\n        alpn_protocols: [h2]";
    let near = Half {
        address: format!("{A_NEAR}"),
        port: HTTP2_PORT,
        accept_tls: String::new(),
        filter: tcp_proxy("next", &tunnel),
        next: (B_NEAR.to_string(), far_port),
        connect: format!("{}{}", http2_options(), upstream_tls(place, alpn)),
    };
    let far = Half {
        address: format!("{B_NEAR}"),
        port: far_port,
        accept_tls: downstream_tls(place, &alpn.replace("\n        ", "\n            ")),
        filter: connect_termination(),
        next: (SERVER.to_string(), SERVER_PORT),
        connect: String::new(),
    };
    recipe(
        SystemKey::EnvoyHttp2,
        HTTP2_PORT,
        place,
        program,
        &near,
        &far,
    )
}

/// One of the two Envoys.
struct Half {
    address: String,
    port: u16,
    /// The transport socket of the listener.
    accept_tls: String,
    filter: String,
    next: (String, u16),
    /// What is special about connections to the next.
    connect: String,
}

impl Half {
    fn config(&self) -> String {
        let Self {
            address,
            port,
            accept_tls,
            filter,
            next: (next_address, next_port),
            connect,
        } = self;
        format!(
            "static_resources:
  listeners:
  - name: load
    address: {{ socket_address: {{ address: {address}, port_value: {port} }} }}
    tcp_backlog_size: {BACKLOG}
    filter_chains:
    - filters:
{filter}{accept_tls}
  clusters:
  - name: next
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{ max_connections: {CONNECTIONS_MAX}, max_pending_requests: {CONNECTIONS_MAX}, max_requests: {CONNECTIONS_MAX} }}
    load_assignment:
      cluster_name: next
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: {next_address}, port_value: {next_port} }} }}{connect}
"
        )
    }
}

fn tcp_proxy(cluster: &str, tunnel: &str) -> String {
    format!(
        "      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: load
          cluster: {cluster}
          idle_timeout: 3600s{tunnel}"
    )
}

fn connect_termination() -> String {
    format!(
        "      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: load
          codec_type: HTTP2
          stream_idle_timeout: 0s
          http2_protocol_options:
            allow_connect: true
            max_concurrent_streams: {CONNECTIONS_MAX}
            initial_stream_window_size: {STREAM_WINDOW_BYTES}
            initial_connection_window_size: {CONNECTION_WINDOW_BYTES}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: load
              domains: [\"*\"]
              routes:
              - match: {{ connect_matcher: {{}} }}
                route:
                  cluster: next
                  timeout: 0s
                  upgrade_configs:
                  - {{ upgrade_type: CONNECT, connect_config: {{}} }}"
    )
}

fn http2_options() -> String {
    format!(
        "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            max_concurrent_streams: {CONNECTIONS_MAX}
            initial_stream_window_size: {STREAM_WINDOW_BYTES}
            initial_connection_window_size: {CONNECTION_WINDOW_BYTES}"
    )
}

fn upstream_tls(place: &Place, alpn: &str) -> String {
    format!(
        "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {FAR_NAME}
        common_tls_context:
          tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
          tls_certificates:
          - {{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }}
          validation_context:
            trusted_ca: {{ filename: {} }}
            match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ exact: {FAR_NAME} }} }}]{}",
        place.certificate("a.pem"),
        place.certificate("a.key"),
        place.certificate("ca.pem"),
        alpn.replace("\n        ", "\n          "),
    )
}

fn downstream_tls(place: &Place, alpn: &str) -> String {
    format!(
        "
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - {{ certificate_chain: {{ filename: {} }}, private_key: {{ filename: {} }} }}
            validation_context: {{ trusted_ca: {{ filename: {} }} }}{alpn}",
        place.certificate("b.pem"),
        place.certificate("b.key"),
        place.certificate("ca.pem"),
    )
}

fn recipe(
    key: SystemKey,
    near_port: u16,
    place: &Place,
    program: &str,
    near: &Half,
    far: &Half,
) -> Recipe {
    let mut recipe = Recipe::empty(key, lab::at(A_NEAR, near_port), place);
    recipe.file("a.yaml", near.config());
    recipe.file("b.yaml", far.config());
    let cpus = place.cpus.to_string();
    let launch = |side, file: &str, port| Launch {
        side,
        argv: words(&[
            program,
            "-c",
            &recipe.path(file),
            "--concurrency",
            &cpus,
            "--disable-hot-restart",
            "-l",
            "error",
        ]),
        ready: Ready::Port(port),
    };
    recipe.gateways = vec![
        launch(Side::B, "b.yaml", near_port + FAR_OFFSET),
        launch(Side::A, "a.yaml", near_port),
    ];
    recipe
}
