//! Whether a data folder holds a server, and where in it the keys are.

use std::{io, path::Path};

use registry::{OpenError, folder::Folder as Member};

use crate::authority::Folder;

/// The folder of keys and certificates in the data folder.
pub const AUTHORITY_FOLDER: &str = "ca";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It cannot be read or written.
    #[error(transparent)]
    Folder(#[from] io::Error),
    /// What is in it cannot be understood.
    #[error(transparent)]
    Member(#[from] OpenError),
    /// It holds no server.
    #[error(
        "{0} holds no server yet: run `meshd init` for a new cluster, or `meshd join` for one that exists"
    )]
    Empty(String),
    /// It holds one.
    #[error(
        "{0} holds a server already; use another data_dir, or remove it if that server is not needed any more"
    )]
    Taken(String),
}

/// Which server a data folder holds.
///
/// # Errors
/// If it holds none.
pub fn occupant(data_dir: &Path) -> Result<Member, HomeError> {
    Member::read(data_dir)?.ok_or_else(|| HomeError::Empty(data_dir.display().to_string()))
}

/// Makes sure that a data folder is free.
///
/// # Errors
/// If a server has it.
pub fn vacant(data_dir: &Path) -> Result<(), HomeError> {
    match Member::read(data_dir)? {
        None => Ok(()),
        Some(_) => Err(HomeError::Taken(data_dir.display().to_string())),
    }
}

/// The folder of keys and certificates.
///
/// # Errors
/// If it cannot be made.
pub fn authority_folder(data_dir: &Path) -> io::Result<Folder> {
    Folder::open(&data_dir.join(AUTHORITY_FOLDER))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_folder_is_vacant_then_taken() {
        let place = tempfile::tempdir().expect("a temporary folder");
        assert!(occupant(place.path()).expect_err("empty").to_string().contains("`meshd init`"));
        vacant(place.path()).expect("vacant");
        let cluster = Uuid::new_v4();
        Member::prepare(place.path(), 3, cluster, Uuid::new_v4()).expect("written");
        let member = occupant(place.path()).expect("taken");
        assert_eq!((member.id, member.cluster), (3, cluster));
        assert!(vacant(place.path()).expect_err("taken").to_string().contains("holds a server already"));
    }
}
