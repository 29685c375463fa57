//! The bundles that peers told since they were declared, kept beside the declarations.
//!
//! A declared link has the roots it was made with. What its peer tells later and follows from them lies here and is used
//! in their place, but only as long as the link is declared with the same roots as when it was told: whoever declares
//! others begins anew.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use corinth_identity::{Bundle, BundleError, StateDir, StateError};
use corinth_model::TrustDomain;
use data_encoding::{BASE64, HEXLOWER};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Origin;
use crate::cluster::{Declared, DeclaredLink};

/// The file's name in the state directory.
pub const FILE: &str = "bundles.json";

/// Told bundles, by trust domain.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    kept: BTreeMap<TrustDomain, Told>,
}

/// One bundle that was told.
#[derive(Debug, Clone)]
struct Told {
    bundle: Bundle,
    /// What the link was declared with then.
    declared: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bundles: BTreeMap<TrustDomain, Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    roots: Vec<String>,
    declared: String,
}

impl Learned {
    /// What is in the state directory. A damaged file is told in the log and holds nothing: peers tell their roots again.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(state_dir: &StateDir) -> Result<Self, StateError> {
        let kept = match state_dir.read(FILE)? {
            Some(bytes) => read(&bytes).unwrap_or_else(|| {
                warn!(
                    file = FILE,
                    "the kept roots of peers are damaged; those declared are used"
                );
                BTreeMap::new()
            }),
            None => BTreeMap::new(),
        };
        Ok(Self { kept })
    }

    /// Writes it down where [`load`](Self::load) looks. Blocks until then.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn store(&self, state_dir: &StateDir) -> Result<(), StateError> {
        state_dir.write(FILE, &written(&self.kept))
    }

    /// The roots of a link: those told since it was declared, or else those it was declared with.
    ///
    /// # Errors
    /// If the declared roots are none.
    pub fn bundle_of(&self, link: &DeclaredLink) -> Result<(Bundle, Origin), BundleError> {
        let told = self.kept.get(&link.trust_domain);
        if let Some(told) = told.filter(|told| told.declared == fingerprint(link)) {
            return Ok((told.bundle.clone(), Origin::Told));
        }
        let roots = link.roots.clone();
        let declared = Bundle::new(link.trust_domain.clone(), roots, link.bundle_sequence)?;
        Ok((declared, Origin::Declared))
    }

    /// Takes a bundle that was judged to be the next one of the link.
    pub fn keep(&mut self, link: &DeclaredLink, bundle: Bundle) {
        let declared = fingerprint(link);
        self.kept
            .insert(link.trust_domain.clone(), Told { bundle, declared });
    }

    /// Forgets what is of no use for the links that are declared. Whether there was any.
    pub fn forget_others(&mut self, declared: &Declared) -> bool {
        let before = self.kept.len();
        self.kept.retain(|trust_domain, told| {
            declared.links.values().any(|link| {
                link.trust_domain == *trust_domain && fingerprint(link) == told.declared
            })
        });
        self.kept.len() < before
    }
}

/// Tells the declared roots of a link apart from any others.
fn fingerprint(link: &DeclaredLink) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&link.bundle_sequence.to_be_bytes());
    for root in &link.roots {
        context.update(&(root.len() as u64).to_be_bytes());
        context.update(root);
    }
    HEXLOWER.encode(context.finish().as_ref())
}

fn written(kept: &BTreeMap<TrustDomain, Told>) -> Vec<u8> {
    let line = |told: &Told| Line {
        sequence: told.bundle.sequence(),
        roots: told
            .bundle
            .roots()
            .iter()
            .map(|root| BASE64.encode(root))
            .collect(),
        declared: told.declared.clone(),
    };
    let lines = kept
        .iter()
        .map(|(domain, told)| (domain.clone(), line(told)));
    let bundles = lines.collect();
    serde_json::to_vec_pretty(&File { bundles }).expect("strings and numbers are JSON")
}

fn read(bytes: &[u8]) -> Option<BTreeMap<TrustDomain, Told>> {
    let file: File = serde_json::from_slice(bytes).ok()?;
    let told = file.bundles.into_iter().map(|(domain, line)| {
        let roots = line.roots.iter().map(|root| {
            let root = BASE64.decode(root.as_bytes()).ok()?;
            Some(CertificateDer::from(root))
        });
        let roots = roots.collect::<Option<Vec<_>>>()?;
        let bundle = Bundle::new(domain.clone(), roots, line.sequence).ok()?;
        let declared = line.declared;
        Some((domain, Told { bundle, declared }))
    });
    told.collect()
}
