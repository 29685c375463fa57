//! Certificates: the authority of each cluster, and those of applications.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use corinth_identity::{Authority, Leaf};
use corinth_model::{ClusterName, SpiffeId, TrustDomain};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::UnixTime;

/// The authorities of the clusters, made when they are first asked for.
pub struct Pki {
    folder: PathBuf,
    authorities: Mutex<BTreeMap<String, std::sync::Arc<Authority>>>,
}

/// The certificate of an application, under an authority of its own, as files.
#[derive(Debug, Clone)]
pub struct Site {
    /// The root that its clients trust.
    pub ca: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pki {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            authorities: Mutex::default(),
        }
    }

    /// The trust domain of a cluster.
    ///
    /// # Panics
    /// When `cluster` is no cluster name.
    pub fn trust_domain(cluster: &str) -> TrustDomain {
        TrustDomain::of_cluster(&ClusterName::parse(cluster).expect("a cluster name"))
    }

    /// The authority of a cluster; its certificate and key are in files as well.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn authority(&self, cluster: &str) -> std::sync::Arc<Authority> {
        let mut authorities = self.authorities.lock();
        if let Some(authority) = authorities.get(cluster) {
            return std::sync::Arc::clone(authority);
        }
        let made = Authority::create(Self::trust_domain(cluster), UnixTime::now());
        let made = std::sync::Arc::new(made.expect("an authority can be made"));
        write(&self.certificate(cluster), made.certificate_pem());
        write(&self.key(cluster), &made.key_pem());
        authorities.insert(cluster.to_owned(), std::sync::Arc::clone(&made));
        made
    }

    /// The file with the authority's certificate, which is also its bundle.
    pub fn certificate(&self, cluster: &str) -> PathBuf {
        self.folder.join(format!("{cluster}-ca.pem"))
    }

    /// The file with the authority's key.
    pub fn key(&self, cluster: &str) -> PathBuf {
        self.folder.join(format!("{cluster}-ca.key"))
    }

    /// A leaf of `cluster` with the SPIFFE path `path`, issued when the issuer's clock said `now`.
    ///
    /// # Panics
    /// When it cannot be issued.
    pub fn leaf(&self, cluster: &str, path: &str, now: UnixTime, lifetime: Duration) -> Leaf {
        let id = format!("spiffe://{}/{path}", Self::trust_domain(cluster));
        let id = SpiffeId::parse(&id).expect("a SPIFFE ID");
        let leaf = self.authority(cluster).issue(&id, &[], now, lifetime);
        leaf.expect("a leaf can be issued")
    }

    /// Writes a leaf into two files: the chain, and the key.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write_leaf(&self, name: &str, leaf: &Leaf) -> (PathBuf, PathBuf) {
        let chain: String = leaf
            .chain()
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        let (certificate, key) = (self.path(name, "pem"), self.path(name, "key"));
        write(&key, &pem("PRIVATE KEY", leaf.key().secret_der()));
        write(&certificate, &chain);
        (certificate, key)
    }

    /// An application's certificate for `names` and `address`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn site(&self, names: &[&str], address: IpAddr) -> Site {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name
            .push(rcgen::DnType::CommonName, "application root");
        let root_key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(root, root_key).expect("a root");
        let names = names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>();
        let mut leaf = CertificateParams::new(names).expect("names of hosts");
        leaf.subject_alt_names.push(SanType::IpAddress(address));
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &root).expect("a certificate");
        let site = Site {
            ca: self.path("application-ca", "pem"),
            certificate: self.path("application", "pem"),
            key: self.path("application", "key"),
        };
        write(&site.ca, &root.pem());
        write(&site.certificate, &certificate.pem());
        write(&site.key, &key.serialize_pem());
        site
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }
}

/// Writes beside and renames: whoever watches the file sees it whole.
pub(crate) fn write(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, path));
    written.unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

/// PEM by hand: 64 characters of base64 a line (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (number, three) in der.chunks(3).enumerate() {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            text.push(if place > three.len() {
                '='
            } else {
                ALPHABET[six as usize].into()
            });
        }
        if number % 16 == 15 {
            text.push('\n');
        }
    }
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        text.trim_end()
    )
}
