//! The folder that holds this member's keys: each file whole or not at all, for its owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A folder of small secret files.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder, made if missing.
    ///
    /// # Errors
    /// If it cannot be made; the error names it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| named(path, &error))?;
        Ok(Self(path.to_owned()))
    }

    /// Where a file stands.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file's text; `None` if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read; the error names it.
    pub fn read(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&self.path(name), &error)),
        }
    }

    /// Replaces a file as a whole: after a power cut it is the old one or the new one.
    ///
    /// # Errors
    /// If it cannot be written; the error names it.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.path(name);
        self.replace(name, &path, text).map_err(|error| named(&path, &error))
    }

    fn replace(&self, name: &str, path: &Path, text: &str) -> io::Result<()> {
        let draft = self.path(&format!(".{name}.tmp"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(&self.0)?.sync_all()
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_replaced_whole_and_are_their_owner_s_alone() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(&place.path().join("ca")).expect("it is made");
        assert_eq!(folder.read("leaf.pem").expect("readable"), None);
        folder.write("leaf.pem", "one").expect("writable");
        folder.write("leaf.pem", "two").expect("writable");
        assert_eq!(folder.read("leaf.pem").expect("readable").as_deref(), Some("two"));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder.path("leaf.pem")), mode(&folder.0)), (0o600, 0o700));
        let left: Vec<_> = fs::read_dir(&folder.0).expect("readable").collect();
        assert_eq!(left.len(), 1, "no draft is left");
    }

    #[test]
    fn errors_name_the_file() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(place.path()).expect("it is there");
        fs::create_dir(folder.path("leaf.pem")).expect("a folder in its place");
        assert!(folder.read("leaf.pem").expect_err("a folder").to_string().contains("leaf.pem: "));
        assert!(folder.write("leaf.pem", "x").expect_err("a folder").to_string().contains("leaf.pem: "));
    }
}
