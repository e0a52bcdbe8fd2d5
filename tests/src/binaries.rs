//! Where the programs under test are: beside the program that runs.

use std::path::{Path, PathBuf};

/// The path of a program of the release before this one.
///
/// # Panics
/// If it was not built: `cargo xtask previous` does.
pub fn previous(name: &str) -> PathBuf {
    let own = path("meshd");
    let target = own.parent().and_then(Path::parent).expect("programs stand in target/<profile>");
    let path = target.join("previous/bin").join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask previous`, then `cargo build`", path.display());
    path
}

/// The folder of all that is built.
///
/// # Panics
/// Never, for a program that cargo built.
pub fn target() -> PathBuf {
    let own = path("meshd");
    own.parent().and_then(Path::parent).expect("programs stand in target/<profile>").to_owned()
}

/// The path of one of the workspace's programs, built with the same profile as the caller.
///
/// # Panics
/// If it was not built: `cargo build` makes all of them.
pub fn path(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let mut folder = own.parent().expect("a file stands in a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("deps stands in the profile's folder");
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}
