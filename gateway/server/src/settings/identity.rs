//! Who we are, and where that comes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{At, Field, Optional, missing};
use super::mistake::{Findings, MistakeCode, Position};
use super::show::NamedFile;
use super::units::{self, Span};
use super::value::Choice;

/// Life of a gateway's leaf certificate unless told otherwise.
const LEAF_LIFETIME: Duration = Duration::from_hours(24);
/// A leaf is renewed at half its life; below this, a slow clock would already make it invalid.
const LEAF_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// Beyond this, a stolen key is of use for too long.
const LEAF_LIFETIME_MAX: Duration = Duration::from_hours(24 * 30);

/// Who issues this gateway's certificate.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "issuer")]
pub enum Identity {
    /// A CA of our own, made on first start and kept in the state directory.
    BuiltIn {
        /// How long a leaf is valid.
        #[serde(rename = "leafLifetime", serialize_with = "units::serialize_duration")]
        leaf_lifetime: Duration,
    },
    /// A CA whose certificate and key somebody else gave us.
    Authority {
        /// The CA's certificate, PEM.
        #[serde(rename = "caCert")]
        certificate: NamedFile,
        /// The CA's private key, PEM.
        #[serde(rename = "caKey")]
        key: NamedFile,
        /// How long a leaf is valid.
        #[serde(rename = "leafLifetime", serialize_with = "units::serialize_duration")]
        leaf_lifetime: Duration,
    },
    /// The control plane beside us, which has the CA.
    Control,
    /// A leaf that somebody else issues, renews and writes into these files.
    Leaf {
        /// The leaf and its chain, PEM.
        #[serde(rename = "leafCert")]
        certificate: NamedFile,
        /// The leaf's private key, PEM.
        #[serde(rename = "leafKey")]
        key: NamedFile,
        /// The roots of our own trust domain, PEM.
        bundle: NamedFile,
    },
}

/// Who issues, where no file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issuer {
    /// The control plane.
    Control,
}

impl Choice for Issuer {
    const WORDS: &'static [(&'static str, Self)] = &[("control", Self::Control)];
    const WHAT: &'static str = "who issues";
}

/// Who issues this gateway's certificate. Default: a CA of our own in the state directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawIdentity {
    /// `control`: the control plane issues, and no CA is here; needs the section `control`.
    issuer: Option<Field<Issuer>>,
    /// File with the certificate of a CA to issue from; needs `caKey`.
    ca_cert: Option<Field<PathBuf>>,
    /// File with the key of that CA.
    ca_key: Option<Field<PathBuf>>,
    /// File with a leaf that somebody else issues; needs `leafKey` and `bundle`.
    leaf_cert: Option<Field<PathBuf>>,
    /// File with the key of that leaf.
    leaf_key: Option<Field<PathBuf>>,
    /// File with the roots of our own trust domain.
    bundle: Option<Field<PathBuf>>,
    /// How long a leaf is valid; it is renewed at half its life. Default `24h`.
    leaf_lifetime: Option<Field<Span>>,
}

impl Identity {
    pub(super) fn read(
        raw: At<RawIdentity>,
        follows_control: bool,
        origin: &Path,
        found: &mut Findings,
    ) -> Option<Self> {
        let At { at, value: raw } = raw;
        let lifetime_at = raw.leaf_lifetime.as_ref().map(|field| field.at);
        let leaf_lifetime = lifetime(raw.leaf_lifetime, found);
        let has_authority = raw.ca_cert.is_some() || raw.ca_key.is_some();
        let has_leaf = raw.leaf_cert.is_some() || raw.leaf_key.is_some() || raw.bundle.is_some();
        let mut file = |key: &str, field: Option<Field<PathBuf>>, needed: bool| {
            if needed && field.is_none() {
                missing(key, "the path of a PEM file", at, found);
            }
            field?
                .placed(found)
                .map(|written| NamedFile::new(written, origin))
        };
        let ca_cert = file("caCert", raw.ca_cert, has_authority);
        let ca_key = file("caKey", raw.ca_key, has_authority);
        let leaf_cert = file("leafCert", raw.leaf_cert, has_leaf);
        let leaf_key = file("leafKey", raw.leaf_key, has_leaf);
        let bundle = file("bundle", raw.bundle, has_leaf);
        let issuer_at = raw.issuer.as_ref().map(|field| field.at);
        if let (Some(Issuer::Control), Some(at)) = (raw.issuer.optional(found), issuer_at) {
            let has_other = has_authority || has_leaf || lifetime_at.is_some();
            return by_control(at, has_other, follows_control, found);
        }
        if has_authority && has_leaf {
            found.add(
                at,
                MistakeCode::ConflictingKeys,
                "an identity is issued here or by somebody else, not both",
                "keep `caCert` and `caKey`, or `leafCert`, `leafKey` and `bundle`",
            );
            return None;
        }
        if let (true, Some(at)) = (has_leaf, lifetime_at) {
            found.add(
                at,
                MistakeCode::ConflictingKeys,
                "`leafLifetime` has no effect on a leaf that somebody else issues",
                "remove it and set the lifetime where the leaf is issued",
            );
        }
        if has_leaf {
            return Some(Self::Leaf {
                certificate: leaf_cert?,
                key: leaf_key?,
                bundle: bundle?,
            });
        }
        if has_authority {
            return Some(Self::Authority {
                certificate: ca_cert?,
                key: ca_key?,
                leaf_lifetime,
            });
        }
        Some(Self::BuiltIn { leaf_lifetime })
    }
}

/// The control plane issues: there must be one, and nothing else may be said of the certificate.
fn by_control(
    at: Position,
    has_other: bool,
    follows_control: bool,
    found: &mut Findings,
) -> Option<Identity> {
    if has_other {
        found.add(
            at,
            MistakeCode::ConflictingKeys,
            "the control plane issues the certificate, so that nothing else here has an effect",
            "leave `issuer: control` alone under `identity`; `leafLifetime` is set at the control plane",
        );
    }
    if !follows_control {
        found.add(
            at,
            MistakeCode::ConflictingKeys,
            "no control plane is named that could issue the certificate",
            "add the section `control`, or remove `issuer`",
        );
    }
    (!has_other && follows_control).then_some(Identity::Control)
}

fn lifetime(field: Option<Field<Span>>, found: &mut Findings) -> Duration {
    units::within(
        field,
        LEAF_LIFETIME,
        LEAF_LIFETIME_MIN..=LEAF_LIFETIME_MAX,
        found,
    )
}
