//! [`Declared`] written in the form that [`super::form`] reads.

use std::fmt::Display;

use corinth_model::{
    CongestionChoice, Denied, Direct, Endpoint, Replay, Selector, TransportChoice,
};
use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde_saphyr::LitString;

use crate::cluster::{Audience, Declared, DeclaredPort, LinkMode};

/// Begins every file that is written here.
const HEAD: &str = "# Links, services, exports and imports of this cluster. It may be edited while the control plane runs; what \
                    `corinth` changes is\n# written here too, and comments are then lost.\n";

/// The whole file.
///
/// # Errors
/// If the text cannot be made, which does not happen.
pub(super) fn render(declared: &Declared) -> Result<String, serde_saphyr::SerializeError> {
    let yaml = serde_saphyr::to_string(&file(declared))?;
    Ok(format!("{HEAD}{yaml}"))
}

/// Certificates as PEM text (RFC 7468).
fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    /// Letters on a line.
    const LINE: usize = 64;

    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[derive(Serialize)]
struct File {
    links: Vec<Link>,
    services: Vec<Service>,
    exports: Vec<Export>,
    imports: Vec<Import>,
    denied: Vec<Denied>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    cluster: String,
    trust_domain: String,
    bundle_sequence: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    accept_only: bool,
    accept: Vec<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_streams: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<u32>,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    congestion: Option<&'static str>,
    bundle_pem: LitString,
}

#[derive(Serialize)]
struct Service {
    service: String,
    ports: Vec<Port>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: u16,
    protocol: &'static str,
    endpoints: Vec<Address>,
    #[serde(skip_serializing_if = "is_false")]
    tls: bool,
    #[serde(skip_serializing_if = "is_default")]
    replay: Replay,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<DirectWay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_streams: Option<u32>,
}

#[derive(Serialize)]
struct Address {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DirectWay {
    Terminate {
        terminate: Vec<String>,
    },
    Passthrough {
        passthrough: &'static str,
        sources: Vec<String>,
    },
}

#[derive(Serialize)]
struct Export {
    service: String,
    to: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    since: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Import {
    service: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    import_port: Option<u16>,
    from: Vec<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<Replay>,
}

#[derive(Serialize)]
struct Source {
    cluster: String,
    weight: u32,
    priority: u8,
}

fn file(declared: &Declared) -> File {
    File {
        links: links(declared),
        services: services(declared),
        exports: exports(declared),
        imports: imports(declared),
        denied: declared.denied.iter().cloned().collect(),
    }
}

fn links(declared: &Declared) -> Vec<Link> {
    let links = declared.links.iter().map(|(cluster, link)| Link {
        cluster: cluster.to_string(),
        trust_domain: link.trust_domain.to_string(),
        bundle_sequence: link.bundle_sequence,
        addresses: link.addresses.clone(),
        accept_only: link.addresses.is_empty(),
        accept: link.accepted.0.clone(),
        max_streams: link.max_streams,
        quota: link.quota,
        mode: match link.mode {
            LinkMode::Active => "active",
            LinkMode::Draining => "draining",
            LinkMode::Paused => "paused",
        },
        transport: Some(link.carriage.transport)
            .filter(|transport| !is_default(transport))
            .map(TransportChoice::as_str),
        congestion: link.carriage.congestion.map(CongestionChoice::as_str),
        bundle_pem: LitString(pem(&link.roots)),
    });
    links.collect()
}

fn services(declared: &Declared) -> Vec<Service> {
    let port = |((number, protocol), declared): (&(_, _), _)| port(*number, *protocol, declared);
    let services = declared.services.iter().map(|(service, declared)| Service {
        service: service.to_string(),
        ports: declared.ports.iter().map(port).collect(),
    });
    services.collect()
}

fn port(
    number: corinth_model::PortNumber,
    protocol: corinth_model::Protocol,
    declared: &DeclaredPort,
) -> Port {
    Port {
        port: number.get(),
        protocol: protocol.as_str(),
        endpoints: declared.endpoints.iter().map(address).collect(),
        tls: declared.tls,
        replay: declared.replay,
        names: texts(&declared.sni_names),
        direct: declared.direct.as_ref().map(|direct| match direct {
            Direct::Terminate { callers } => DirectWay::Terminate {
                terminate: texts(callers),
            },
            Direct::Passthrough { sources } => DirectWay::Passthrough {
                passthrough: "anonymous",
                sources: texts(sources),
            },
        }),
        max_streams: declared.max_streams,
    }
}

fn address(endpoint: &Endpoint) -> Address {
    let place = |part: &Option<Box<str>>| part.as_deref().map(str::to_owned);
    let locality = endpoint.locality();
    Address {
        address: endpoint.address().to_string(),
        zone: place(&locality.zone),
        region: place(&locality.region),
        node: place(&locality.node),
    }
}

fn exports(declared: &Declared) -> Vec<Export> {
    let exports = declared.exports.iter().map(|(service, export)| Export {
        service: service.to_string(),
        to: match &export.to {
            Audience::All => vec!["*".to_owned()],
            Audience::Only(clusters) => texts(clusters),
        },
        since: export.since_ms,
    });
    exports.collect()
}

fn imports(declared: &Declared) -> Vec<Import> {
    let imports = declared.imports.iter().map(|((service, port), import)| {
        let source = |(cluster, share): (&_, &crate::cluster::SourceShare)| Source {
            cluster: corinth_model::ClusterName::to_string(cluster),
            weight: share.weight,
            priority: share.priority,
        };
        Import {
            service: service.to_string(),
            port: port.get(),
            import_port: import.import_ports.values().next().map(|port| port.get()),
            from: import.sources.iter().map(source).collect(),
            names: texts(&import.sni_names),
            tls: import.tls,
            replay: import.replay,
        }
    });
    imports.collect()
}

fn texts<'a, T: Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    items.into_iter().map(T::to_string).collect()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}
