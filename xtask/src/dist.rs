//! `cargo xtask dist`: what is installed with apt and dnf, and the Terraform provider. Packages by cargo-deb and cargo-generate-rpm, whose settings
//! stand in each program's Cargo.toml; around them the manual, completions and changelog, and signed repositories. The
//! same sources and binaries give the same packages, to the byte.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, run};
use crate::{install, tree};

mod provider;
mod repository;

/// What is packaged.
pub const PROGRAMS: [&str; 3] = ["meshd", "mesh-proxy", "meshctl"];

/// How packages are made.
pub struct Dist {
    /// Of which profile the binaries are: `release`, or `dev` for tests.
    pub profile: String,
    /// The id of the key that signs the repositories; a key for tests is made where none is named.
    pub sign: Option<String>,
}

/// Where everything goes.
pub fn folder() -> PathBuf {
    tree::root().join("target/dist")
}

impl Dist {
    /// Builds the binaries, the packages and the repositories.
    pub fn run(&self) -> Result<()> {
        install::for_dist()?;
        self.build()?;
        let time = time_of_sources()?;
        for program in PROGRAMS {
            self.assets(program, &time)?;
        }
        self.packages(&folder(), &time)?;
        repository::lay(self.sign.as_deref(), &time)?;
        provider::pack(&provider::mirror(), &self.profile, &time)?;
        println!("\n{} has the packages, apt/, yum/ and terraform/", folder().display());
        Ok(())
    }

    fn build(&self) -> Result<()> {
        match self.profile.as_str() {
            // As the tests are built, so that nothing is compiled twice.
            "dev" => run(&mut cargo(&["build", "--workspace", "--all-targets", "--locked"])),
            profile => {
                let packages =
                    PROGRAMS.iter().chain([&provider::PROGRAM]).flat_map(|program| ["-p", program]);
                let all: Vec<&str> =
                    ["build", "--locked", "--profile", profile].into_iter().chain(packages).collect();
                run(&mut cargo(&all))
            }
        }
    }

    /// What a program says about itself.
    fn assets(&self, program: &str, time: &str) -> Result<()> {
        let built = if self.profile == "dev" { "debug" } else { &self.profile };
        let binary = tree::root().join("target").join(built).join(program);
        let binary = binary.to_str().context("the checkout's path is not UTF-8")?;
        let assets = folder().join("assets").join(program);
        fs::remove_dir_all(&assets).or_else(absent_is_fine)?;
        fs::create_dir_all(assets.join("man"))?;
        let man = assets.join("man");
        run(&mut command(binary, &["man", man.to_str().context("the checkout's path is not UTF-8")?]))?;
        for (shell, file) in [
            ("bash", format!("{program}.bash")),
            ("zsh", format!("_{program}")),
            ("fish", format!("{program}.fish")),
        ] {
            let output = command(binary, &["completion", shell]).output()?;
            if !output.status.success() {
                bail!("{program} completion {shell}: {}", String::from_utf8_lossy(&output.stderr));
            }
            fs::write(assets.join(file), output.stdout)?;
        }
        Ok(fs::write(assets.join("changelog"), changelog(program, time)?)?)
    }

    /// Makes the packages once more, and compares them with those that are there, byte by byte.
    pub fn compare(&self) -> Result<()> {
        let again = folder().join("again");
        self.packages(&again, &time_of_sources()?)?;
        for form in ["deb", "rpm"] {
            for entry in fs::read_dir(again.join(form))? {
                let made = entry?.path();
                let before = folder().join(form).join(made.file_name().context("it has a name")?);
                if fs::read(&made)? != fs::read(&before)? {
                    bail!("{} and {} differ", made.display(), before.display());
                }
            }
        }
        provider::pack(&again.join("terraform"), &self.profile, &time_of_sources()?)?;
        if provider::archive(&again.join("terraform"))? != provider::archive(&provider::mirror())? {
            bail!("two archives of {} differ", provider::PROGRAM);
        }
        Ok(fs::remove_dir_all(again)?)
    }

    fn packages(&self, into: &Path, time: &str) -> Result<()> {
        let (deb, rpm) = (into.join("deb"), into.join("rpm"));
        for folder in [&deb, &rpm] {
            fs::remove_dir_all(folder).or_else(absent_is_fine)?;
            fs::create_dir_all(folder)?;
        }
        for program in PROGRAMS {
            let to = format!("--output={}", deb.display());
            let profile = format!("--profile={}", self.profile);
            let make = ["deb", "--package", program, "--no-build", &profile, "--strip", "--quiet", &to];
            // What only tests install is not worth minutes of packing.
            let dev = self.profile == "dev";
            let fast: &[&str] = if dev { &["--fast"] } else { &[] };
            run(cargo(&make).args(fast).env("SOURCE_DATE_EPOCH", time))?;
            let to = format!("--output={}", rpm.display());
            let make = ["generate-rpm", "--package", program, &profile, "--source-date", time, &to];
            let fast: &[&str] = if dev { &["--payload-compress=none"] } else { &[] };
            run(cargo(&make).args(fast))?;
        }
        Ok(())
    }
}

/// When the sources were last changed, in seconds since 1970: what packages carry as their time.
fn time_of_sources() -> Result<String> {
    let output = command("git", &["log", "-1", "--format=%ct"]).output()?;
    let time = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || time.is_empty() {
        bail!("git log: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(time)
}

/// Debian's form of it, which points to the whole (Debian Policy, 4.4).
fn changelog(program: &str, time: &str) -> Result<String> {
    let date = command("date", &["-u", "-R", "-d", &format!("@{time}")]).output()?;
    let (version, date) =
        (env!("CARGO_PKG_VERSION"), String::from_utf8_lossy(&date.stdout).trim().to_owned());
    Ok(format!(
        "{program} ({version}-1) stable; urgency=medium\n\n  * Version {version}: see CHANGELOG.md of the sources.\n\n -- The mesh authors <mesh@example.org>  {date}\n"
    ))
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
