//! The Terraform provider, packed as a mirror has it: Terraform's `filesystem_mirror` names `target/dist/terraform`, or
//! wherever it was copied.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{absent_is_fine, folder};
use crate::command::{command, run};
use crate::tree;

/// The program, and its package.
pub const PROGRAM: &str = "terraform-provider-mesh";
/// Host, namespace and type of the provider's address.
const PLACE: &str = "mesh.internal/mesh/mesh";

/// Packs the program of `profile` in a mirror at `into`; `time` is when the sources were last changed.
pub fn pack(into: &Path, profile: &str, time: &str) -> Result<()> {
    let (version, target) = (env!("CARGO_PKG_VERSION"), target()?);
    let (place, staged) = (into.join(PLACE), into.join(format!("{PROGRAM}_v{version}")));
    fs::remove_dir_all(into).or_else(absent_is_fine)?;
    fs::create_dir_all(&place)?;
    let built = if profile == "dev" { "debug" } else { profile };
    fs::copy(tree::root().join("target").join(built).join(PROGRAM), &staged)?;
    // An archive carries the time of what is in it: with the sources' own, the same sources give the same bytes.
    run(&mut command("touch", &["-d", &format!("@{time}"), utf8(&staged)?]))?;
    let archive = place.join(format!("{PROGRAM}_{version}_{target}.zip"));
    // What only tests unpack is not worth the time of packing.
    let effort = if profile == "dev" { "-1" } else { "-9" };
    run(command("zip", &["-q", "-X", "-j", effort, utf8(&archive)?, utf8(&staged)?]).env("TZ", "UTC"))?;
    Ok(fs::remove_file(staged)?)
}

/// Where it lies.
pub fn mirror() -> PathBuf {
    folder().join("terraform")
}

/// The archive in a mirror.
pub fn archive(mirror: &Path) -> Result<Vec<u8>> {
    let file = format!("{PROGRAM}_{}_{}.zip", env!("CARGO_PKG_VERSION"), target()?);
    Ok(fs::read(mirror.join(PLACE).join(file))?)
}

/// The machine in Terraform's words.
fn target() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("linux_amd64"),
        "aarch64" => Ok("linux_arm64"),
        other => anyhow::bail!("Terraform has no name for {other}"),
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the checkout's path is not UTF-8")
}
