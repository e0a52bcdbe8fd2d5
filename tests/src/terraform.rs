//! The real Terraform with our provider, found as users have it found: in a mirror of the file system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{binaries, scratch::Said};

/// Where the provider stands in a mirror.
const PLACE: &str = "mesh.internal/mesh/mesh";
/// What tells people how to begin: what every configuration begins with, and where Terraform finds the provider.
const PAGE: &str = include_str!("../../docs/terraform/README.md");

/// A Terraform that reaches a control plane.
#[derive(Debug, Clone)]
pub struct Terraform {
    folder: PathBuf,
    /// What every configuration begins with.
    head: String,
    environment: Vec<(&'static str, String)>,
}

/// A `terraform` that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

/// A configuration with its state.
#[derive(Debug)]
pub struct Workspace {
    terraform: Terraform,
    folder: PathBuf,
}

impl Terraform {
    /// One that finds the provider in a mirror in `folder`, and the control plane at `addresses`.
    ///
    /// # Panics
    /// If there is no `terraform`, or the folder takes no files.
    pub fn new(folder: &Path, addresses: &str, token: &str, cacert: &Path) -> Self {
        let terraform = Self::from_mirror(folder, &folder.join("mirror"), addresses, token, cacert);
        let (version, target) = (env!("CARGO_PKG_VERSION"), target());
        let place = folder.join("mirror").join(PLACE).join(version).join(target);
        fs::create_dir_all(&place).expect("the folder takes folders");
        let program = place.join(format!("terraform-provider-mesh_v{version}"));
        fs::hard_link(binaries::path("terraform-provider-mesh"), &program)
            .or_else(|_| fs::copy(binaries::path("terraform-provider-mesh"), &program).map(drop))
            .expect("the folder takes the provider");
        terraform
    }

    /// One that finds the provider in a mirror that is there.
    ///
    /// # Panics
    /// If there is no `terraform`, or the folder takes no files.
    pub fn from_mirror(folder: &Path, mirror: &Path, addresses: &str, token: &str, cacert: &Path) -> Self {
        let found =
            Command::new("terraform").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(
            found.is_ok_and(|status| status.success()),
            "the real terraform (1.5 or newer) is needed in PATH"
        );
        let config = folder.join("terraform.rc");
        let installation = shown("hcl", "/srv/terraform", &mirror.display().to_string());
        fs::write(&config, installation).expect("the folder takes files");
        let environment = vec![
            ("TF_CLI_CONFIG_FILE", config.display().to_string()),
            ("CHECKPOINT_DISABLE", "1".to_owned()),
            ("TF_IN_AUTOMATION", "1".to_owned()),
            ("MESH_ADDR", addresses.to_owned()),
            ("MESH_TOKEN", token.to_owned()),
            ("MESH_CACERT", cacert.display().to_string()),
        ];
        let head = shown("terraform", "https://cp1:8443,https://cp2:8443,https://cp3:8443", addresses);
        Self { folder: folder.to_owned(), head, environment }
    }

    /// A configuration of its own, initialised.
    ///
    /// # Panics
    /// If Terraform does not find the provider.
    pub fn workspace(&self, name: &str, configuration: &str) -> Workspace {
        let workspace = Workspace { terraform: self.clone(), folder: self.folder.join(name) };
        fs::create_dir_all(&workspace.folder).expect("the folder takes folders");
        workspace.write("head.tf", &self.head);
        workspace.write("main.tf", configuration);
        workspace.run(&["init"]).fine();
        workspace
    }
}

impl Workspace {
    /// Writes a file of the configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("the folder takes files");
    }

    /// `terraform` in this folder, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("terraform");
        let (verb, rest) = arguments.split_first().expect("a command");
        command.current_dir(&self.folder).arg(verb);
        if matches!(*verb, "init" | "plan" | "apply" | "destroy" | "import") {
            command.args(["-no-color", "-input=false"]);
        }
        command.args(rest);
        command.envs(self.terraform.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("terraform starts").into()
    }

    /// Starts it, with what it says in a file: a pipe that nobody reads would hold it up.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let path = self.folder.join("terraform.log");
        let log = fs::File::create(&path).expect("the folder takes files");
        let mut command = self.command(arguments);
        command.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        Running { child: command.spawn().expect("terraform starts"), log: path }
    }

    /// Makes it so.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn apply(&self) -> String {
        self.run(&["apply", "-auto-approve"]).fine()
    }

    /// What a plan would change: `Some` with its text, `None` if nothing.
    ///
    /// # Panics
    /// If planning fails.
    #[track_caller]
    pub fn changes(&self) -> Option<String> {
        let said = self.run(&["plan", "-detailed-exitcode"]);
        match said.code {
            Some(0) => None,
            Some(2) => Some(said.out),
            _ => panic!("{}\n{}", said.out, said.err),
        }
    }

    /// What a command that is to fail says, in one line.
    ///
    /// # Panics
    /// If it does not fail.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        words(&self.run(arguments).failed(1))
    }

    /// The answer of a command in JSON: `show`, `providers schema`, `output`, `validate`.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-json"]].concat();
        let said = self.run(&arguments);
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err))
    }
}

impl Running {
    /// Waits for its end, which is a good one.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn fine(mut self) {
        let ended = self.child.wait().expect("it can be waited for");
        assert!(ended.success(), "{}", fs::read_to_string(&self.log).unwrap_or_default());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where the test passed.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Terraform breaks lines where its terminal would end.
pub fn words(text: &str) -> String {
    text.split_whitespace()
        .filter(|word| !word.chars().all(|c| "│╷╵".contains(c)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The page's block of a language, with what is of here in place of what is of its readers.
fn shown(language: &str, theirs: &str, ours: &str) -> String {
    let fence = format!("```{language}\n");
    let block = PAGE.split_once(fence.as_str()).and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.unwrap_or_else(|| panic!("docs/terraform/README.md has no block of {language}"));
    assert!(block.contains(theirs), "docs/terraform/README.md says no {theirs} in:\n{block}");
    block.replace(theirs, ours)
}

fn target() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" }
}
