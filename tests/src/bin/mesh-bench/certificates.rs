//! Certificates for the peers: one root, one leaf for each name, ECDSA P-256 as ours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Where they stand.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes a root and a leaf for each of `names`; every leaf is also good for `hosts`.
    pub(crate) fn make(folder: &Path, names: &[&str], hosts: &[String]) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        root.distinguished_name.push(rcgen::DnType::CommonName, "bench root");
        fs::write(folder.join("ca.crt"), root.self_signed(&root_key)?.pem())?;
        let issuer = Issuer::new(root, root_key);
        for name in names {
            let key = KeyPair::generate()?;
            let mut leaf = CertificateParams::new(hosts.to_vec())?;
            leaf.subject_alt_names.push(SanType::URI(format!("spiffe://mesh.test/{name}").try_into()?));
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            leaf.distinguished_name.push(rcgen::DnType::CommonName, *name);
            leaf.use_authority_key_identifier_extension = true;
            let certificate = leaf.signed_by(&key, &issuer)?.pem();
            fs::write(folder.join(format!("{name}.crt")), &certificate)?;
            fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
            fs::write(folder.join(format!("{name}.pem")), certificate + &key.serialize_pem())?;
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The path of one of the files: `ca.crt`, `<name>.crt`, `<name>.key`, `<name>.pem` (both).
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}
