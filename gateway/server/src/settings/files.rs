//! Reads the files that a configuration names, in a step of its own, so that reading the configuration does no IO.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use corinth_model::ClusterName;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Settings;
use super::identity::Identity;
use super::mistake::{Findings, MistakeCode, Mistakes, Wrong};
use super::peer::Roots;
use super::show::{NamedFile, Secret};

/// Largest file that is read, in bytes: a configuration, or some hundred certificates.
pub const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What stood in the files that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Who we are.
    pub identity: IdentityFiles,
    /// The roots of each peer, also of those whose roots stand in the configuration itself.
    pub peers: BTreeMap<ClusterName, Certificates>,
}

/// What stood in the files of our own identity; the cases are those of [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFiles {
    /// Nothing: the CA lies in the state directory.
    BuiltIn,
    /// Nothing: the CA lies with the control plane.
    Control,
    /// A CA to issue from.
    Authority {
        /// Its certificate.
        certificate: Certificates,
        /// Its private key, PEM.
        key: Secret,
    },
    /// A leaf to use as it is.
    Leaf {
        /// The leaf, followed by its chain.
        certificate: Certificates,
        /// Its private key, PEM.
        key: Secret,
        /// The roots of our own trust domain.
        bundle: Certificates,
    },
}

/// PEM text that holds certificates, at least one, and no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificates {
    pem: String,
    ders: Vec<CertificateDer<'static>>,
}

impl Certificates {
    /// The text as it was written.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificates in the order of the text, at least one.
    pub fn ders(&self) -> &[CertificateDer<'static>] {
        &self.ders
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.ders.len())
    }
}

/// Reads a regular file of at most [`FILE_MAX_BYTES`]; what [`Settings::load`] is usually given.
///
/// # Errors
/// Those of opening and reading; `InvalidData` for a directory, a device or a pipe; `FileTooLarge` for more bytes.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(path, FILE_MAX_BYTES)
}

pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Asked before opening: opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("the file has more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

impl Settings {
    /// Reads every file that the configuration names, through `read`.
    ///
    /// # Errors
    /// Each file that cannot be read, is empty, or holds something else than it should; at the line that names it.
    pub fn load(&self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Files, Mistakes> {
        let mut found = Findings::default();
        let identity = self.load_identity(&read, &mut found);
        let mut peers = BTreeMap::new();
        for peer in &self.peers {
            let roots = match &peer.roots {
                Roots::File(file) => load_certificates(file, &read, &mut found),
                Roots::Inline(certificates) => Some(certificates.clone()),
            };
            peers.extend(roots.map(|roots| (peer.name.clone(), roots)));
        }
        found.finish(
            identity.map(|identity| Files { identity, peers }),
            &self.origin,
        )
    }

    fn load_identity(
        &self,
        read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
        found: &mut Findings,
    ) -> Option<IdentityFiles> {
        match &self.identity {
            Identity::BuiltIn { .. } => Some(IdentityFiles::BuiltIn),
            Identity::Control => Some(IdentityFiles::Control),
            Identity::Authority {
                certificate, key, ..
            } => {
                let certificate = load_certificates(certificate, read, found);
                let key = load_key(key, read, found);
                Some(IdentityFiles::Authority {
                    certificate: certificate?,
                    key: key?,
                })
            }
            Identity::Leaf {
                certificate,
                key,
                bundle,
            } => {
                let certificate = load_certificates(certificate, read, found);
                let key = load_key(key, read, found);
                let bundle = load_certificates(bundle, read, found);
                Some(IdentityFiles::Leaf {
                    certificate: certificate?,
                    key: key?,
                    bundle: bundle?,
                })
            }
        }
    }

    /// Every file that the configuration names, in its order. A change of any of them is a change of the node.
    pub fn files(&self) -> Vec<&Path> {
        let own = match &self.identity {
            Identity::BuiltIn { .. } | Identity::Control => Vec::new(),
            Identity::Authority {
                certificate, key, ..
            } => vec![certificate, key],
            Identity::Leaf {
                certificate,
                key,
                bundle,
            } => vec![certificate, key, bundle],
        };
        let peers = self.peers.iter().filter_map(|peer| match &peer.roots {
            Roots::File(file) => Some(file),
            Roots::Inline(_) => None,
        });
        own.into_iter().chain(peers).map(NamedFile::path).collect()
    }
}

fn load_certificates(
    file: &NamedFile,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
    found: &mut Findings,
) -> Option<Certificates> {
    let shown = format!("`{}`", file.path().display());
    let text = load_text(file, &shown, read, found)?;
    certificates(&shown, text)
        .map_err(|wrong| found.wrong(file.at, wrong))
        .ok()
}

fn load_key(
    file: &NamedFile,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
    found: &mut Findings,
) -> Option<Secret> {
    let shown = format!("`{}`", file.path().display());
    let text = load_text(file, &shown, read, found)?;
    if PrivateKeyDer::from_pem_slice(text.as_bytes()).is_err() {
        found.add(
            file.at,
            MistakeCode::InvalidKey,
            format!("{shown} holds no private key in PEM form"),
            "name a file with a section BEGIN PRIVATE KEY, not encrypted",
        );
        return None;
    }
    Some(Secret::new(text))
}

fn load_text(
    file: &NamedFile,
    shown: &str,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
    found: &mut Findings,
) -> Option<String> {
    let bytes = match read(file.path()) {
        Ok(bytes) => bytes,
        Err(error) => {
            found.add(
                file.at,
                MistakeCode::UnreadableFile,
                format!("{shown} cannot be read: {error}"),
                "check the path, which is relative to this configuration, and who may read the file",
            );
            return None;
        }
    };
    if bytes.trim_ascii().is_empty() {
        found.add(
            file.at,
            MistakeCode::EmptyFile,
            format!("{shown} is empty"),
            "write it in full under another name, then rename it: it may have been read half-written",
        );
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(_) => {
            found.add(
                file.at,
                MistakeCode::InvalidCertificates,
                format!("{shown} is not text"),
                "convert it to PEM: `openssl x509 -inform der -in FILE` or `openssl pkey -inform der -in FILE`",
            );
            None
        }
    }
}

/// The certificates in `text`, which is called `shown` in messages.
pub(super) fn certificates(shown: &str, text: String) -> Result<Certificates, Wrong> {
    let invalid = |why: String| {
        let hint =
            "give the CA certificates in PEM form: sections BEGIN CERTIFICATE to END CERTIFICATE";
        Wrong::new(MistakeCode::InvalidCertificates, why, hint)
    };
    if text.contains("PRIVATE KEY-----") {
        return Err(Wrong::new(
            MistakeCode::MisplacedKey,
            format!("{shown} holds a private key where only certificates belong"),
            "remove the key, and replace it if anybody else has seen this text",
        ));
    }
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match ders {
        Ok(ders) if ders.is_empty() => Err(invalid(format!("{shown} holds no certificate"))),
        Ok(ders) if ders.iter().any(|der| !der.starts_with(&[0x30])) => Err(invalid(format!(
            "a section of {shown} is not a certificate"
        ))),
        Ok(ders) => Ok(Certificates { pem: text, ders }),
        Err(_) => Err(invalid(format!(
            "{shown} is broken: a section does not decode"
        ))),
    }
}
