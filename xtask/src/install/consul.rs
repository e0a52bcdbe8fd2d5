//! Consul, for tests: Debian's last release has it, this one does not. Its package is fetched by apt with lists of its own,
//! and unpacked into target/consul; nothing of the system becomes another.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, run};
use crate::tree;

/// The release that has it.
const RELEASE: &str = "bullseye main";
/// By whose keys it is known to be Debian's.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where it lies.
pub fn folder() -> PathBuf {
    tree::root().join("target/consul")
}

/// Fetches it where it is missing.
pub fn install() -> Result<()> {
    if folder().join("usr/bin/consul").exists() {
        return Ok(());
    }
    println!("missing: consul (a directory of services that we did not write); unpacking Debian's consul");
    let apt = folder().join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part))?;
    }
    fs::write(apt.join("list"), format!("deb [signed-by={KEYRING}] {} {RELEASE}\n", archive()?))?;
    let options = options(&apt);
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    let apt_get = |arguments: &[&str]| {
        let mut apt_get = command("apt-get", &[&options[..], arguments].concat());
        apt_get.current_dir(&apt);
        run(&mut apt_get)
    };
    apt_get(&["update", "-q"])?;
    apt_get(&["download", "-q", "consul"])?;
    let package = fs::read_dir(&apt)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("the checkout's path is not UTF-8");
    run(&mut command("dpkg-deb", &["-x", &text(&package)?, &text(&folder())?]))?;
    fs::remove_dir_all(apt)?;
    Ok(())
}

/// The archive from which this system has its packages: that of the last release is the same one.
fn archive() -> Result<String> {
    let targets =
        command("apt-get", &["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).output()?;
    let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
    let debian = targets.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    debian.map(str::to_owned).context("apt has no archive of Debian's here")
}

fn options(apt: &Path) -> [String; 5] {
    let at = |name: &str| apt.join(name).display().to_string();
    [
        format!("Dir::Etc::sourcelist={}", at("list")),
        format!("Dir::Etc::sourceparts={}", at("none")),
        format!("Dir::State::lists={}", at("lists")),
        format!("Dir::Cache={}", at("cache")),
        "APT::Sandbox::User=root".to_owned(),
    ]
}
