//! What a healthy control plane says: `east`, linked with `west`, which offers `payments.shop`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn json<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn healthy() -> Value {
    json!({
        "cluster": "east", "trustDomain": "east.corinth.internal", "instance": "00", "version": "1.7",
        "revision": 7, "exports": 1, "imports": 1, "routes": 1,
        "consumers": [
            {"role": "gateway", "slot": "0", "version": env!("CARGO_PKG_VERSION"), "told": 7, "applied": 7},
        ],
        "links": [{
            "cluster": "west", "trustDomain": "west.corinth.internal", "mode": "active", "tunnel": "up",
            "rttUs": 31_000, "peering": "told", "addresses": ["203.0.113.10:15443"], "accepted": ["shop/*"],
            "imports": 1, "stale": 0, "exports": 1, "relation": {"held": "1.4"}, "unheardOf": true,
        }],
        "conditions": [],
    })
}

pub(crate) fn routes() -> Value {
    json!([{
        "name": "80.payments.shop.svc.clusterset.local", "protocol": "tcp", "import_port": 20080,
        "sni_names": [], "tls": false, "replay": "never",
        "candidates": [{"target": {"cluster": "west"}, "weight": 100, "priority": 0, "locality": {}}],
        "why": ["links: west offers payments.shop, and `accept: shop/*` takes it"],
    }])
}

pub(crate) fn imports() -> Value {
    json!([{
        "service": "payments.shop", "from": "west", "ready": 2, "stale": false,
        "ports": [{"port": 80, "importPort": 20080}],
    }])
}

/// Of `west` to `east`, and of `east` to `west`: they are alike.
pub(crate) fn exports() -> Value {
    json!([{
        "service": "payments.shop", "ports": ["80/tcp"], "to": ["*"], "openTo": ["east", "west"],
        "endpoints": 2, "sinceMs": 1_700_000_000_000_u64,
    }])
}

/// As of 1970: everything holds for a long time from then on.
pub(crate) fn certificates() -> Value {
    json!([
        {"holder": "control", "spiffeId": "spiffe://east.corinth.internal/corinth/control/0", "notAfter": 86_400},
        {"holder": "gateway", "spiffeId": "spiffe://east.corinth.internal/corinth/gateway/0", "notAfter": 86_400},
        {"holder": "root", "notAfter": 315_360_000, "sequence": 1},
        {"holder": "peer root", "peer": "west", "notAfter": 315_360_000, "sequence": 1},
    ])
}
