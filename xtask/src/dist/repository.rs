//! Signed repositories, as folders that any web server can serve: `apt/` by reprepro, `yum/` by createrepo_c. Beside each
//! lies the public key, `mesh.asc`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{PROGRAMS, absent_is_fine, folder};
use crate::command::{command, run};

/// Whose the key for tests is.
const FOR_TESTS: &str = "mesh for tests <tests@mesh.internal>";

/// Lays both.
pub fn lay(sign: Option<&str>, time: &str) -> Result<()> {
    let key = Key::named(sign)?;
    let (apt, yum) = (folder().join("apt"), folder().join("yum"));
    for folder in [&apt, &yum] {
        fs::remove_dir_all(folder).or_else(absent_is_fine)?;
        fs::create_dir_all(folder)?;
        fs::write(folder.join("mesh.asc"), key.public()?)?;
    }
    lay_apt(&apt, &key)?;
    lay_yum(&yum, &key, time)
}

fn lay_apt(apt: &Path, key: &Key) -> Result<()> {
    fs::create_dir_all(apt.join("conf"))?;
    let distribution = format!(
        "Origin: mesh\nLabel: mesh\nCodename: stable\nArchitectures: amd64 arm64\nComponents: main\nDescription: the mesh's packages\nSignWith: {}\n",
        key.id
    );
    fs::write(apt.join("conf/distributions"), distribution)?;
    for file in files_of("deb")? {
        let arguments = ["--silent", "--basedir", utf8(apt)?, "includedeb", "stable", utf8(&file)?];
        run(key.at(&mut command("reprepro", &arguments)))?;
    }
    // What reprepro keeps for itself is not for those who install.
    for own in ["conf", "db"] {
        fs::remove_dir_all(apt.join(own))?;
    }
    Ok(())
}

fn lay_yum(yum: &Path, key: &Key, time: &str) -> Result<()> {
    for file in files_of("rpm")? {
        let name = file.file_name().context("it has a name")?;
        fs::copy(&file, yum.join(name))?;
    }
    let arguments =
        ["--quiet", "--no-database", "--set-timestamp-to-revision", "--revision", time, utf8(yum)?];
    run(&mut command("createrepo_c", &arguments))?;
    let index = yum.join("repodata/repomd.xml");
    run(key.at(&mut command(
        "gpg",
        &["--batch", "--yes", "--local-user", &key.id, "--detach-sign", "--armor", utf8(&index)?],
    )))
}

/// The packages of one form, by name.
fn files_of(form: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder().join(form))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    if files.len() != PROGRAMS.len() {
        bail!("{} packages of form {form}, not {}", files.len(), PROGRAMS.len());
    }
    Ok(files)
}

/// What signs.
struct Key {
    id: String,
    /// Where gpg finds it; gpg's own place for the operator's.
    home: Option<PathBuf>,
}

impl Key {
    fn named(id: Option<&str>) -> Result<Self> {
        if let Some(id) = id {
            return Ok(Self { id: id.to_owned(), home: None });
        }
        println!("no --sign KEY: the repositories are signed with a key for tests");
        let home = folder().join("gnupg");
        let key = Self { id: "tests@mesh.internal".to_owned(), home: Some(home.clone()) };
        if !home.exists() {
            fs::create_dir_all(&home)?;
            fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
            let make = [
                "--batch",
                "--passphrase",
                "",
                "--quick-generate-key",
                FOR_TESTS,
                "ed25519",
                "sign",
                "never",
            ];
            run(key.at(&mut command("gpg", &make)))?;
        }
        Ok(key)
    }

    fn at<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(home) = &self.home {
            command.env("GNUPGHOME", home);
        }
        command
    }

    fn public(&self) -> Result<Vec<u8>> {
        let output = self.at(&mut command("gpg", &["--batch", "--armor", "--export", &self.id])).output()?;
        if output.stdout.is_empty() {
            bail!("gpg has no key {}: {}", self.id, String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the checkout's path is not UTF-8")
}
