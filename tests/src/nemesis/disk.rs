//! A member's disk that can be full: a small file system in memory, mounted where the member keeps everything.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

/// How large it is: a member needs about half of it.
const SIZE: &str = "size=96m";
/// What takes the room.
const FILLER: &str = "filler";

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one for the member of that name, whose folder is below `folder`.
    ///
    /// # Errors
    /// If this is not root.
    pub fn mount(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let at = folder.join(name);
        fs::create_dir_all(&at)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&at).status()?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Self(at))
    }

    /// Whether it is that member's.
    pub fn is_of(&self, name: &str) -> bool {
        self.0.ends_with(name)
    }

    /// Leaves no room.
    ///
    /// # Errors
    /// If writing fails for another reason than that.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut filler = File::create(self.0.join(FILLER))?;
        for piece in [1 << 20, 4096] {
            let piece = vec![0; piece];
            loop {
                match filler.write(&piece) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// If it was not full.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.join(FILLER))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Logs are for whoever looks into a failure: they outlive the disk.
        let log = self.0.file_name().map(|name| self.0.join(name).with_extension("log"));
        let kept = log.and_then(|log| Some((fs::read(&log).ok()?, log)));
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        if let Some((text, path)) = kept {
            let _ = fs::write(path, text);
        }
    }
}
