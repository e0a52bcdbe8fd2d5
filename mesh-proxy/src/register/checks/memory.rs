//! How the local applications were, for the process that takes over: it need not wait for their next checks before it can
//! say that they are well. Kept where systemd keeps it from one start to the next, and not across a stop or a reboot.

use std::{collections::BTreeMap, env, path::PathBuf};

use model::{name::Name, resource::Health};
use tokio::sync::watch;

use crate::disk;

/// Its file in the runtime folder.
const FILE: &str = "health.json";

/// The file, where there is a folder for it.
#[derive(Debug, Clone)]
pub struct Memory(Option<PathBuf>);

impl Memory {
    /// In the folder that systemd made for the unit (`RuntimeDirectory=`); nowhere, if it made none.
    pub fn of_runtime_folder() -> Self {
        Self(env::var_os("RUNTIME_DIRECTORY").map(|folder| PathBuf::from(folder).join(FILE)))
    }

    /// How they were.
    pub fn recall(&self) -> BTreeMap<Name, Health> {
        let read = |path: &PathBuf| {
            let text = disk::read(path).map_err(|error| error.to_string())?;
            text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| error.to_string())
        };
        let recalled = self.0.as_ref().map(read).transpose().unwrap_or_else(|error: String| {
            tracing::warn!(error, "how the applications were is not known");
            None
        });
        recalled.flatten().unwrap_or_default()
    }

    /// Writes down how they are, for as long as it is polled.
    pub async fn keep(self, mut health: watch::Receiver<BTreeMap<Name, Health>>) {
        let Some(path) = self.0 else { return };
        loop {
            let now = serde_json::to_vec(&*health.borrow_and_update()).expect("names and states are texts");
            if let Err(error) = disk::write(&path, &now) {
                tracing::warn!(%error, "how the applications are is not written down");
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_is_known_to_who_comes_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = Memory(Some(folder.path().join(FILE)));
        assert!(memory.recall().is_empty());
        let name: Name = "orders-a-8080".parse().expect("a name");
        let health = watch::Sender::new(BTreeMap::from([(name.clone(), Health::Healthy)]));
        let told = health.subscribe();
        drop(health);
        memory.clone().keep(told).await;
        assert_eq!(memory.recall(), BTreeMap::from([(name, Health::Healthy)]));
        std::fs::write(folder.path().join(FILE), "{").expect("written");
        assert!(memory.recall().is_empty());
        assert!(Memory(None).recall().is_empty());
    }
}
