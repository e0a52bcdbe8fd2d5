//! The README's tour in five minutes, typed as it stands: in one shell, in an empty folder, on a network of its own.

use std::{path::Path, process::Stdio, time::Duration};

use mesh_tests::{binaries, netns, scratch::Scratch, tour};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
};

const README: &str = include_str!("../../README.md");
/// How long a step may take, with what the mesh does by itself before it answers as it should.
const PATIENCE: Duration = Duration::from_secs(30);
/// What may be asked again until the mesh has come so far: it changes nothing.
const ASKS: [&str; 4] = ["cat dev.env", "curl ", "meshctl get ", "meshctl proxies"];
/// What stands behind all that a command says.
const END: &str = "the end of it: ";

/// A shell; all that was started in it ends with it.
struct Shell {
    group: Option<Pid>,
    types: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    async fn open(folder: &Path) -> Self {
        let programs = binaries::path("meshd").parent().expect("a folder").display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.current_dir(folder).env("PATH", path).env("HOME", folder).process_group(0);
        command.env_remove("MESH_ADDR").env_remove("MESH_TOKEN").env_remove("MESH_CACERT");
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = shell.expect("bash starts");
        let group = shell.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (types, says) = (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
        let mut shell = Self { group, types, says: BufReader::new(says).lines() };
        shell.run("exec 2>&1; set -o pipefail").await.expect("it goes well");
        shell
    }

    /// What a command says, if it goes well.
    async fn run(&mut self, command: &str) -> Result<String, String> {
        let line = format!("{command}\necho; echo \"{END}$?\"\n");
        self.types.write_all(line.as_bytes()).await.expect("it is taken");
        let mut said = String::new();
        while let Some(line) = self.says.next_line().await.expect("text") {
            match line.strip_prefix(END) {
                Some("0") => return Ok(said),
                Some(code) => return Err(format!("{said}exit code {code}")),
                None => said += &format!("{line}\n"),
            }
        }
        Err(format!("{said}the shell is gone"))
    }

    /// Types it, and waits until it is answered so.
    async fn answers(&mut self, command: &str, answer: &[String]) {
        let asks = ASKS.iter().any(|asks| command.starts_with(asks));
        let mut last = String::new();
        let answered = async {
            loop {
                match self.run(command).await {
                    Ok(said) if tour::answers(&said, answer) => return,
                    Ok(said) | Err(said) => last = said,
                }
                assert!(asks, "{command} answered\n{last}, not\n{}", answer.join("\n"));
                // Poll: the mesh does by itself what is asked for.
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, answered).await;
        assert!(in_time.is_ok(), "{command} answered at last\n{last}, not\n{}", answer.join("\n"));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // What has ended already need not be ended.
        self.group.iter().for_each(|group| _ = kill_process_group(*group, Signal::KILL));
    }
}

#[test]
fn the_tour_in_five_minutes_works_as_it_stands() {
    netns::inside(0, async |_| {
        let scratch = Scratch::new("readme");
        let mut shell = Shell::open(scratch.path()).await;
        let blocks = README.split("```console\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
        let steps: Vec<_> = blocks.filter(|block| block.starts_with("$ ")).flat_map(tour::typed).collect();
        assert!(steps.len() >= 20, "{steps:?}");
        for (command, answer) in &steps {
            shell.answers(command, answer).await;
        }
    });
}
