//! Whose a folder is. A command that root types makes files for a daemon that runs as a user of its own.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

/// Gives all that is in a folder to the folder's owner. Does nothing for who is not root. Links are not followed.
///
/// # Errors
/// If a file cannot be given away.
pub fn give_to_owner(folder: &Path) -> io::Result<()> {
    let owner = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    match rustix::process::geteuid().is_root() && owner.uid() != 0 {
        true => give(folder, (owner.uid(), owner.gid())),
        false => Ok(()),
    }
}

fn give(folder: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        lchown(entry.path(), Some(user), Some(group))?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), (user, group))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Needs root, as the tests of hosts do.
    #[test]
    fn what_root_made_belongs_to_the_folder_s_owner_and_links_lead_nowhere() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, other) = (place.path().join("mine"), place.path().join("other"));
        fs::create_dir_all(folder.join("deep/er")).expect("made");
        fs::write(&other, "").expect("written");
        fs::write(folder.join("deep/er/key"), "").expect("written");
        symlink(&other, folder.join("link")).expect("made");
        lchown(&folder, Some(4_321), Some(4_322)).expect("root");
        give_to_owner(&folder).expect("root");
        for path in ["deep", "deep/er", "deep/er/key", "link"] {
            let found = fs::symlink_metadata(folder.join(path)).expect("there");
            assert_eq!((found.uid(), found.gid()), (4_321, 4_322), "{path}");
        }
        assert_eq!(fs::metadata(&other).expect("there").uid(), 0);
        give_to_owner(&place.path().join("none")).expect("nothing to give");
    }
}
