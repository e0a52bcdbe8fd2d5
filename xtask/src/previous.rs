//! The programs of the release before this one, for tests of both versions together. Their source is an archive in
//! tests/previous, since a clone may be shallow; they are built into the same target folder, so that what others wrote is
//! compiled once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{cargo, command, run};
use crate::tree;

/// The archive, from the root.
const ARCHIVE: &str = "tests/previous/0.1.0.tar.xz";
/// What is built of it.
const PROGRAMS: &[&str] = &["meshd", "mesh-proxy", "meshctl"];

/// Builds them, unless they are there and the archive is the one that they came from. Before the programs of this
/// release: both pass through the same place in the target folder.
pub fn build() -> Result<()> {
    let target = tree::root().join("target");
    let place = target.join("previous");
    let hash = hash(&tree::root().join(ARCHIVE))?;
    if is_built(&place, &hash) {
        return Ok(());
    }
    let source = place.join("src");
    if source.exists() {
        fs::remove_dir_all(&source).with_context(|| source.display().to_string())?;
    }
    fs::create_dir_all(&source).with_context(|| source.display().to_string())?;
    let source = source.to_str().context("the checkout's path is not UTF-8")?;
    run(command("tar", &["-xJf", ARCHIVE, "-C", source]).current_dir(tree::root()))?;
    let manifest = format!("{source}/Cargo.toml");
    let mut build = cargo(&["build", "--locked", "--manifest-path", &manifest]);
    build.args(PROGRAMS.iter().flat_map(|program| ["-p", program])).env("CARGO_TARGET_DIR", &target);
    run(&mut build)?;
    keep(&target.join("debug"), &place, &hash)
}

fn hash(archive: &Path) -> Result<String> {
    let output = command("sha256sum", &[]).arg(archive).output().context("sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ')
        .next()
        .filter(|hash| !hash.is_empty())
        .map(str::to_owned)
        .context("sha256sum said nothing")
}

fn stamp(place: &Path) -> PathBuf {
    place.join("bin/archive.sha256")
}

fn is_built(place: &Path, hash: &str) -> bool {
    let there = |program: &&str| place.join("bin").join(program).is_file();
    fs::read_to_string(stamp(place)).is_ok_and(|built| built == hash) && PROGRAMS.iter().all(there)
}

/// Takes the programs away from where this release's come next; the stamp last.
fn keep(built: &Path, place: &Path, hash: &str) -> Result<()> {
    let bin = place.join("bin");
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        // A copy: cargo links its own, and would write this release's into the same file.
        fs::copy(built.join(program), bin.join(program))
            .with_context(|| format!("{program} was not built"))?;
        fs::remove_file(built.join(program))?;
    }
    Ok(fs::write(stamp(place), hash)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_kept_until_the_archive_changes() {
        let folder = std::env::temp_dir().join(format!("mesh-previous-{}", std::process::id()));
        let (built, place) = (folder.join("debug"), folder.join("previous"));
        fs::create_dir_all(&built).expect("a folder");
        PROGRAMS.iter().for_each(|program| fs::write(built.join(program), program).expect("a file"));
        assert!(!is_built(&place, "a"));
        keep(&built, &place, "a").expect("they were built");
        assert!(is_built(&place, "a") && !is_built(&place, "b"));
        assert!(!built.join("meshd").exists(), "this release's comes there");
        fs::remove_file(place.join("bin/meshctl")).expect("it is there");
        assert!(!is_built(&place, "a"), "one is missing");
        fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn the_archive_is_there() {
        assert_eq!(hash(&tree::root().join(ARCHIVE)).expect("a hash").len(), 64);
    }
}
