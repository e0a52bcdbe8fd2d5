//! The root file system of hosts that tests boot: a small Debian with systemd, made once.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command::{command, run};
use crate::{install, tree};

/// What it holds beside Debian's essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,libnss-systemd,systemd-resolved,nftables,iproute2,iputils-ping,curl,ca-certificates,procps,gpgv,netcat-openbsd,python3";
const RELEASE: &str = "bookworm";

/// Where it is.
fn folder() -> PathBuf {
    tree::root().join("target/machine")
}

/// Makes it, if it is not there as it should be.
pub fn make() -> Result<()> {
    install::for_dist()?;
    let (root, stamp) = (folder().join("root"), folder().join("recipe"));
    let recipe = format!("{RELEASE} {PACKAGES}");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(folder())?;
    let (root, sources) = (text(&root)?, sources_here()?);
    let include = format!("--include={PACKAGES}");
    let settled = [
        "--mode=root",
        "--variant=minbase",
        "--quiet",
        &include,
        "--aptopt=Apt::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        RELEASE,
        &root,
    ];
    run(command("mmdebstrap", &settled).args(sources))?;
    Ok(fs::write(stamp, recipe)?)
}

/// The files from which this machine's apt knows where packages are.
fn sources_here() -> Result<Vec<String>> {
    let files =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.chain([PathBuf::from("/etc/apt/sources.list")]);
    let read = |path: &PathBuf| path.extension().is_some_and(|end| end == "list" || end == "sources");
    let files: Vec<String> =
        files.filter(|path| read(path) && path.is_file()).map(|path| text(&path)).collect::<Result<_>>()?;
    if files.is_empty() {
        bail!("this machine's apt has no sources");
    }
    Ok(files)
}

fn text(path: &std::path::Path) -> Result<String> {
    Ok(path.to_str().context("the checkout's path is not UTF-8")?.to_owned())
}
