//! A member's disk: an ext4 file system of its own in an image on a loop device, whose power can be cut.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_tests::{process::run, wait::until};
use tokio::process::Command;

/// Room for the log's segments, snapshots, audit and index of one member, in bytes; the image is sparse.
const IMAGE_BYTES: u64 = 192 << 20;

/// How long the files of a process that was killed may stay in use.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// `_IOR('X', 125, u32)`.
const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
/// Neither the page cache nor the journal reaches the disk any more.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// One disk. It is unmounted with the mount namespace that this process has for itself.
#[derive(Debug)]
pub(crate) struct Disk {
    images: PathBuf,
    name: String,
    generation: u32,
    mount: PathBuf,
}

impl Disk {
    /// A new one, mounted at `mount`.
    pub(crate) async fn new(images: &Path, name: &str, mount: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(mount)?;
        let disk =
            Self { images: images.to_owned(), name: name.to_owned(), generation: 0, mount: mount.to_owned() };
        File::create(disk.image())?.set_len(IMAGE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image())).await?;
        disk.attach().await?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    /// The power goes: what is not on the disk by now never will be.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        let folder = File::open(&self.mount)?;
        // The call reads its argument, though its number says that it writes one.
        #[expect(unsafe_code, reason = "the system has no other way to cut a file system off")]
        let done = unsafe {
            rustix::ioctl::ioctl(
                folder.as_fd(),
                rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH),
            )
        };
        Ok(done?)
    }

    /// A copy of the image is mounted: nothing that is still cached speaks for the disk.
    pub(crate) async fn power_on(&mut self) -> anyhow::Result<()> {
        // Whoever looks into /proc at a process that has just ended may still hold its files for a moment.
        let unmounted = until("the disk is let go", LET_GO_WITHIN, || async {
            run(Command::new("umount").arg(&self.mount)).await
        });
        unmounted.await?;
        let old = self.image();
        self.generation += 1;
        run(Command::new("cp").arg("--sparse=always").arg(&old).arg(self.image())).await?;
        std::fs::remove_file(old)?;
        self.attach().await
    }

    async fn attach(&self) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(&self.mount)).await?;
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.images.join(format!("{}.{}", self.name, self.generation))
    }
}
