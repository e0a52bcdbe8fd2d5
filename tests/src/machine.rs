//! Hosts that boot: systemd as process 1, in a network of [`crate::netns`], from one root file system that
//! `cargo xtask image` makes. Each has a layer of its own over it, which is gone with the test. Needs root,
//! systemd-nspawn and what `cargo xtask dist --profile dev` made.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{binaries, netns::Field, scratch::Said, wait::until};

/// How long a host may take to boot, or to go down.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Variables and folders of ours are not a host's.
const ENVIRONMENT: [&str; 4] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "TERM=dumb",
    "LANG=C.UTF-8",
];

/// A host.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: Ipv4Addr,
    wrapper: Child,
    folder: PathBuf,
}

impl Machine {
    /// Boots host `number` of the field under a name; `scratch` holds its layer and its console.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn boot(field: &Field, scratch: &Path, number: u8, name: &str) -> anyhow::Result<Self> {
        let image = binaries::target().join("machine/root");
        if !image.join("usr/lib/systemd/systemd").exists() {
            bail!("{} is no root file system: cargo xtask image", image.display());
        }
        let folder = scratch.join(name);
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::create_dir_all(folder.join("upper/etc"))?;
        fs::write(folder.join("upper/etc/hostname"), format!("{name}\n"))?;
        let script = script(&image, &folder, &field.space_of(number), name);
        fs::write(folder.join("boot.sh"), script)?;
        let console = fs::File::options().create(true).append(true).open(folder.join("console.log"))?;
        let wrapper = Command::new("unshare")
            .args(["-m", "--propagation", "private", "bash"])
            .arg(folder.join("boot.sh"))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("unshare")?;
        let (address, name) = (field.address(number), name.to_owned());
        let machine = Self { name, address, wrapper, folder };
        machine.until_up().await?;
        Ok(machine)
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of it, as seen from here. Only what is written before it boots, and read, is sound.
    pub fn layer(&self) -> PathBuf {
        self.folder.join("upper")
    }

    /// A shell's command in it.
    pub fn shell(&self, command: &str) -> Command {
        let mut inside = Command::new("nsenter");
        let leader = self.leader().map(|pid| pid.to_string()).unwrap_or_default();
        inside.args(["-t", &leader, "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i"]);
        inside.args(ENVIRONMENT).args(["sh", "-c", command]).stdin(Stdio::null());
        inside
    }

    /// Runs a shell's command in it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, command: &str) -> Said {
        self.shell(command).output().expect("nsenter starts").into()
    }

    /// Runs a shell's command in it, which has to go well; its stdout.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn fine(&self, command: &str) -> String {
        let said = self.run(command);
        let log = if said.code == Some(0) { String::new() } else { self.journal() };
        assert_eq!(said.code, Some(0), "{}: {command}\n{}{}\n{log}", self.name, said.out, said.err);
        said.out
    }

    /// Writes a file in it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        use std::io::Write as _;
        let mut command = self.shell(&format!("mkdir -p \"$(dirname {path})\" && cat > {path}"));
        let mut child = command.stdin(Stdio::piped()).spawn().expect("nsenter starts");
        child.stdin.take().expect("a pipe").write_all(text.as_ref()).expect("it listens");
        assert!(child.wait().expect("it ends").success(), "{}: {path} cannot be written", self.name);
    }

    /// The end of its journal.
    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager --lines 60 --output short-precise").out
    }

    /// Boots it again, in order.
    ///
    /// # Errors
    /// If it does not come up again.
    pub async fn reboot(&mut self) -> anyhow::Result<()> {
        let before = self.leader();
        self.run("systemctl reboot");
        let gone = || self.leader().is_none_or(|leader| Some(leader) != before);
        let what = format!("{} goes down", self.name);
        until(&what, BOOT_TIMEOUT, || async { gone().then_some(()).ok_or("it runs") }).await?;
        self.until_up().await
    }

    async fn until_up(&self) -> anyhow::Result<()> {
        let up = || async {
            self.leader().ok_or_else(|| "nothing runs".to_owned())?;
            let state = self.run("systemctl is-system-running").out.trim().to_owned();
            if ["running", "degraded"].contains(&state.as_str()) { Ok(()) } else { Err(state) }
        };
        until(&format!("{} comes up", self.name), BOOT_TIMEOUT, up).await
    }

    /// Its systemd, as this machine sees it.
    fn leader(&self) -> Option<u32> {
        let nspawn = children(self.wrapper.id()).into_iter().find(|pid| is_called(*pid, "systemd-nspawn"))?;
        children(nspawn).into_iter().find(|pid| is_called(*pid, "systemd"))
    }
}

/// Ends it at once.
impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader().is_some() {
            let journal = self.run("journalctl --no-pager --output short-precise").out;
            // What a failed test leaves for who looks into it.
            let _ = fs::write(self.folder.join("journal.log"), journal);
        }
        let nspawn = children(self.wrapper.id()).into_iter().find(|pid| is_called(*pid, "systemd-nspawn"));
        for pid in [Some(self.wrapper.id()), self.leader(), nspawn].into_iter().flatten() {
            let pid = Pid::from_raw(pid.cast_signed());
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.wrapper.wait();
    }
}

/// Boots it, again and again: nspawn leaves a reboot to who started it (exit code 133).
fn script(image: &Path, folder: &Path, space: &str, name: &str) -> String {
    let (image, folder) = (image.display(), folder.display());
    format!(
        "set -e
mount -t overlay overlay -o lowerdir={image},upperdir={folder}/upper,workdir={folder}/work {folder}/root
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
while :; do
  code=0
  systemd-nspawn -q -D {folder}/root --boot --register=no --keep-unit --machine={name} --hostname={name} \\
    --network-namespace-path=/run/netns/{space} --console=pipe --link-journal=no --resolv-conf=off \\
    --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN --system-call-filter=bpf \\
    --kill-signal=SIGRTMIN+3 || code=$?
  [ $code = 133 ] || exit $code
done
"
    )
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| name.starts_with(comm.trim()))
}
