//! This host's identities on disk: for each a key and a chain, and beside them whom to trust. A key leaves this folder
//! never; a crash between the writes of a renewal loses neither the old identity nor the new one.

use std::path::{Path, PathBuf};

use model::{
    ca::Subject,
    identity::TrustDomain,
    name::{Name, ServiceName},
    trust::TrustBundle,
};
use serde::{Deserialize, Serialize};
use svid::{KeyRequest, Svid};

use super::IdentityError;
use crate::{disk, settings::Server};

/// The folder of this host's identities: `data_dir`.
#[derive(Debug, Clone)]
pub struct Keep {
    folder: PathBuf,
}

/// Who this host is: `node.json`, written when it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    /// Its name.
    pub node: Name,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster's history at the time of joining.
    pub epoch: String,
    /// The server that it joined by: used where `proxy.toml` names none.
    pub servers: Vec<String>,
}

impl Keep {
    /// The folder, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        disk::make_folder(&folder.join("services"))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Who this host is; `None` before it joined.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn node(&self) -> Result<Option<NodeFile>, IdentityError> {
        self.json("node.json")
    }

    /// Remembers who this host is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_node(&self, node: &NodeFile) -> Result<(), IdentityError> {
        self.put_json("node.json", node)
    }

    /// The servers of a [`NodeFile`], those that can be read.
    pub fn servers(node: &NodeFile) -> Vec<Server> {
        node.servers.iter().filter_map(|server| server.parse().ok()).collect()
    }

    /// Whom to trust, as of the last time that the control plane said so.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn bundle(&self) -> Result<Option<TrustBundle>, IdentityError> {
        self.json("bundle.json")
    }

    /// Remembers whom to trust.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_bundle(&self, bundle: &TrustBundle) -> Result<(), IdentityError> {
        self.put_json("bundle.json", bundle)
    }

    /// A new key for `subject`, kept before its request is sent: whoever asks again asks with the same key.
    ///
    /// # Errors
    /// If no key can be made or written.
    pub fn fresh_key(&self, subject: &Subject) -> Result<KeyRequest, IdentityError> {
        let request = KeyRequest::generate()?;
        disk::write(&self.stem(subject, "key.next"), request.key_pem.as_bytes())?;
        Ok(request)
    }

    /// The text of a key that was made and never certified.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn pending_key(&self, subject: &Subject) -> Result<Option<String>, IdentityError> {
        Ok(disk::read(&self.stem(subject, "key.next"))?)
    }

    /// The chain for the pending key came: both are the identity from now on.
    ///
    /// # Errors
    /// If it does not fit the key, or cannot be written.
    pub fn certified(&self, subject: &Subject, chain: &str) -> Result<Svid, IdentityError> {
        let key = self.pending_key(subject)?.ok_or_else(|| IdentityError::NoKey(subject.clone()))?;
        let svid = Svid::from_pem(chain, &key)?;
        disk::write(&self.stem(subject, "pem"), chain.as_bytes())?;
        disk::rename(&self.stem(subject, "key.next"), &self.stem(subject, "key"))?;
        Ok(svid)
    }

    /// The identity of `subject`, if there is one. Where a crash came between chain and key, it is set right.
    ///
    /// # Errors
    /// If the files are there and make no identity.
    pub fn load(&self, subject: &Subject) -> Result<Option<Svid>, IdentityError> {
        let Some(chain) = disk::read(&self.stem(subject, "pem"))? else { return Ok(None) };
        let key = disk::read(&self.stem(subject, "key"))?;
        let held = key.map(|key| Svid::from_pem(&chain, &key));
        if let Some(Ok(svid)) = held {
            return Ok(Some(svid));
        }
        match (self.pending_key(subject)?.map(|key| Svid::from_pem(&chain, &key)), held) {
            (Some(Ok(svid)), _) => {
                disk::rename(&self.stem(subject, "key.next"), &self.stem(subject, "key"))?;
                Ok(Some(svid))
            }
            (_, Some(Err(error))) => Err(error.into()),
            _ => Err(IdentityError::NoKey(subject.clone())),
        }
    }

    /// The chain of `subject` as text: what a renewal is asked with.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn chain(&self, subject: &Subject) -> Result<Option<String>, IdentityError> {
        Ok(disk::read(&self.stem(subject, "pem"))?)
    }

    fn stem(&self, subject: &Subject, end: &str) -> PathBuf {
        match subject {
            Subject::Node(_) => self.path(&format!("node.{end}")),
            Subject::Service(ServiceName { namespace, name }) => {
                self.path(&format!("services/{namespace}.{name}.{end}"))
            }
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, IdentityError> {
        let path = self.path(name);
        let text = disk::read(&path)?;
        let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
        parsed.map_err(|error| IdentityError::Unreadable { path, problem: error.to_string() })
    }

    fn put_json(&self, name: &str, value: &impl Serialize) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(value).expect("texts, numbers and lists");
        Ok(disk::write(&self.path(name), &text)?)
    }
}
