//! What a control plane shows, as far as commands read it. Fields that are not known here are skipped.

use std::net::SocketAddr;

use corinth_model::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One screen: a cluster and its peers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) cluster: String,
    pub(crate) trust_domain: String,
    pub(crate) instance: String,
    pub(crate) version: String,
    pub(crate) revision: u64,
    pub(crate) exports: usize,
    pub(crate) imports: usize,
    pub(crate) routes: usize,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) links: Vec<Link>,
    pub(crate) conditions: Vec<Condition>,
}

/// One gateway or redirector that follows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Consumer {
    pub(crate) role: String,
    pub(crate) slot: String,
    pub(crate) version: String,
    pub(crate) told: u64,
    pub(crate) applied: u64,
    /// The revision it could not use, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<(u64, String)>,
}

/// One peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Link {
    pub(crate) cluster: String,
    pub(crate) trust_domain: String,
    pub(crate) mode: String,
    pub(crate) tunnel: String,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) peering: String,
    pub(crate) addresses: Vec<String>,
    /// What is asked to carry streams to it; a control plane of before does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) congestion: Option<String>,
    pub(crate) accepted: Vec<String>,
    pub(crate) imports: usize,
    pub(crate) stale: usize,
    pub(crate) exports: usize,
    /// The conversation as it stands, handed on as it is.
    #[serde(default)]
    pub(crate) relation: Value,
}

/// Something an operator should know.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) since_ms: u64,
    pub(crate) summary: String,
    pub(crate) hint: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) words: String,
    /// What it is about: names by what they name.
    #[serde(flatten)]
    pub(crate) about: Map<String, Value>,
}

/// One exported service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Export {
    pub(crate) service: String,
    pub(crate) ports: Vec<String>,
    pub(crate) to: Vec<String>,
    pub(crate) open_to: Vec<String>,
    pub(crate) endpoints: usize,
    pub(crate) since_ms: u64,
}

/// One service of a peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Import {
    pub(crate) service: String,
    pub(crate) from: String,
    pub(crate) ports: Vec<ImportPort>,
    pub(crate) ready: u32,
    pub(crate) stale: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportPort {
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    pub(crate) import_port: Option<u16>,
}

/// One route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) protocol: String,
    #[serde(alias = "import_port")]
    pub(crate) import_port: Option<u16>,
    pub(crate) candidates: Vec<Candidate>,
    /// What each candidate follows from, in the order of the candidates.
    #[serde(default)]
    pub(crate) why: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Candidate {
    pub(crate) target: Target,
    pub(crate) weight: u32,
    pub(crate) priority: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    Endpoint(SocketAddr),
    Cluster(String),
}

/// One certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// Whose: `control`, `gateway`, `root`, `peer root`.
    pub(crate) holder: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spiffe_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Unix seconds.
    pub(crate) not_after: i64,
    /// Unix seconds; from then on it should have been renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renew_by: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<u64>,
}

impl Certificate {
    /// It holds, but should have been renewed.
    pub(crate) fn is_expiring(&self, now: i64) -> bool {
        self.not_after > now && self.renew_by.is_some_and(|by| now > by)
    }
}

impl Consumer {
    /// It has the tables of this revision in use.
    pub(crate) fn is_synced(&self, revision: u64) -> bool {
        self.applied >= revision && self.refused.is_none()
    }
}

impl Link {
    /// Streams can be opened, and the other control plane is heard.
    pub(crate) fn is_linked(&self) -> bool {
        self.tunnel == "up" && self.peering == "told"
    }

    /// Whether new connections may go to this peer at all.
    pub(crate) fn is_usable(&self) -> bool {
        self.mode != "paused" && matches!(self.tunnel.as_str(), "up" | "draining")
    }

    /// What is asked to carry streams to it, in words.
    pub(crate) fn carriage(&self) -> Option<String> {
        let transport = self.transport.as_ref()?;
        Some(match &self.congestion {
            Some(congestion) => format!("{transport} ({congestion})"),
            None => transport.clone(),
        })
    }

    pub(crate) fn rtt(&self) -> Option<String> {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        self.rtt_us.map(|rtt| format!("{:.1} ms", rtt as f64 / 1e3))
    }
}

impl Condition {
    /// What it is about, in words; empty for the cluster as a whole.
    pub(crate) fn subject(&self) -> String {
        let names = self.about.values().filter_map(|value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        names.collect::<Vec<_>>().join(" ")
    }

    /// Whether it is about the cluster or service of this name.
    pub(crate) fn is_about(&self, name: &str) -> bool {
        self.about
            .values()
            .any(|value| value.as_str() == Some(name))
    }
}

impl Route {
    /// Without the port and the zone: `payments.shop`.
    pub(crate) fn service(&self) -> &str {
        let rest = self.name.split_once('.').map_or("", |(_, rest)| rest);
        rest.strip_suffix(".svc.clusterset.local").unwrap_or(rest)
    }

    pub(crate) fn port(&self) -> &str {
        self.name.split_once('.').map_or("", |(port, _)| port)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint(address) => address.fmt(f),
            Self::Cluster(cluster) => f.write_str(cluster),
        }
    }
}
