//! A certificate authority and a certificate for each gateway, P-256, as files that every system reads.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::Fault;

/// Writes `ca.pem`, and for `a` and `b` a `.pem`, a `.key`, and a `.both.pem` with one after the other.
///
/// # Errors
/// When they cannot be made or written.
pub fn write(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder).map_err(Fault::file(folder))?;
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "perf CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    put(folder, "ca.pem", &ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    for side in ["a", "b"] {
        let name = format!("{side}.perf.internal");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut leaf = CertificateParams::new(vec![name.clone()])?;
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (leaf, key) = (leaf.signed_by(&key, &issuer)?.pem(), key.serialize_pem());
        put(folder, &format!("{side}.pem"), &leaf)?;
        put(folder, &format!("{side}.key"), &key)?;
        put(folder, &format!("{side}.both.pem"), &format!("{leaf}{key}"))?;
    }
    Ok(())
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), Fault> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(Fault::file(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_a_system_names_is_written() {
        let folder = tempfile::tempdir().expect("there is room");
        write(folder.path()).expect("nothing is in the way");
        for name in [
            "ca.pem",
            "a.pem",
            "a.key",
            "a.both.pem",
            "b.pem",
            "b.key",
            "b.both.pem",
        ] {
            let text = fs::read_to_string(folder.path().join(name)).expect("it was written");
            assert!(text.starts_with("-----BEGIN "), "{name}");
        }
    }
}
