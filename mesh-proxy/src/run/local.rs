//! What the files of `services.d` say, read and put in force.

use std::{path::Path, sync::Arc};

use super::RunError;
use crate::{
    caller::{self, Bindings},
    services::Services,
    settings::Settings,
    shared::Shared,
};

/// Reads the files; what is wrong with them is told unless it was before.
pub(super) fn read(folder: &Path, before: &Services) -> Result<Services, RunError> {
    let read = Services::read(folder, before, caller::uid);
    let read = read.map_err(|source| RunError::Io { what: folder.display().to_string(), source })?;
    for problem in read.problems().iter().filter(|problem| !before.problems().contains(problem)) {
        tracing::error!("{problem}");
    }
    Ok(read)
}

/// The same, beside everything else: the users of this host may be known to another one only.
pub(super) async fn read_again(settings: &Settings, before: &Arc<Services>) -> Result<Services, RunError> {
    let (folder, before) = (settings.services_dir.clone(), before.clone());
    let reading = tokio::task::spawn_blocking(move || read(&folder, &before));
    reading.await.expect("reading files does not panic")
}

/// Who speaks for whom from now on; to be said before a listener is opened for somebody.
pub(super) fn bind(shared: &Shared, settings: &Settings, services: &Services) {
    let table = services.table(settings.default_identity.as_ref());
    if table.asks_for_cgroups() && caller::cgroup_root().is_none() {
        tracing::error!(
            "this system has no cgroups of version 2: unit and cgroup in services.d fit no process"
        );
    }
    for service in services.silent(&table) {
        tracing::warn!(
            %service,
            "nothing binds it to processes, as others here are: its listeners refuse every call. Set unit, user or cgroup in its file, or shared = true"
        );
    }
    shared.bind(Bindings::new(table));
}
