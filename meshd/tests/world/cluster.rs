//! Several servers on loopback, made as an operator makes them: init, join, run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Meshd, Operator, eventually, free_port, meshd};

/// A server's place: configuration and data.
pub(crate) struct Place {
    pub(crate) config: PathBuf,
    pub(crate) api: u16,
    pub(crate) raft: u16,
    pub(crate) metrics: u16,
    pub(crate) data_dir: PathBuf,
}

/// Servers with ids from 1.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Option<Meshd>>,
    pub(crate) places: Vec<Place>,
    pub(crate) operator: Operator,
    pub(crate) root: String,
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new(folder: &Path, n: usize, seal: &str) -> Self {
        let data_dir = folder.join(format!("cp{n}"));
        let [api, raft, metrics] = [free_port(), free_port(), free_port()];
        let config = folder.join(format!("cp{n}.toml"));
        let text = format!(
            "node = \"cp{n}\"\ndata_dir = \"{}\"\n[listen]\napi = \"127.0.0.1:{api}\"\nraft = \"127.0.0.1:{raft}\"\n\
             metrics = \"127.0.0.1:{metrics}\"\n[advertise]\napi = \"127.0.0.1:{api}\"\nraft = \"127.0.0.1:{raft}\"\n{seal}",
            data_dir.display()
        );
        fs::write(&config, text).expect("written");
        Self { config, api, raft, metrics, data_dir }
    }

    pub(crate) fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.api)
    }

    /// Runs a verb to its end; what it printed.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = meshd().args(arguments).arg("--config").arg(&self.config).output().expect("it runs");
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{error}");
        out.into_owned()
    }

    pub(crate) fn run(&self, folder: &Path) -> Meshd {
        let mut command = meshd();
        command.arg("run").arg("--config").arg(&self.config);
        Meshd::spawn(&mut command, folder, self.address())
    }
}

impl Cluster {
    /// One server that was initialised, and runs.
    pub(crate) async fn found() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let seal = folder.path().join("seal.key");
        fs::write(&seal, "a secret that seals the root of this test\n").expect("written");
        let place = Place::new(folder.path(), 1, &sealed_by(&seal));
        let told = place.command(&["init"]);
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {told}")).to_owned()
        };
        assert_eq!(value("Recovery passphrase: ").len(), 39, "{told}");
        assert_eq!(value("export MESH_ADDR="), place.address());
        let root = fs::read_to_string(value("export MESH_CACERT=")).expect("the root's certificate");
        let operator = Operator::new(&place.address(), &value("export MESH_TOKEN="), &root);
        let server = place.run(folder.path());
        let cluster = Self { servers: vec![Some(server)], places: vec![place], operator, root, folder };
        cluster.voters(1).await;
        cluster
    }

    /// Three servers that vote.
    pub(crate) async fn of_three() -> Self {
        let mut cluster = Self::found().await;
        let seal = sealed_by(&cluster.folder.path().join("seal.key"));
        cluster.join(&seal).await;
        cluster.join(&seal).await;
        cluster.voters(3).await;
        cluster
    }

    /// One more server joins through the first, and runs.
    pub(crate) async fn join(&mut self, seal: &str) {
        let n = self.places.len() + 1;
        let token = self.operator.join_token(&format!("server-{n}"), json!({"role": "server"})).await;
        let place = Place::new(self.folder.path(), n, seal);
        let told = place.command(&["join", &self.places[0].address(), "--token", &token]);
        assert!(told.contains(&format!("member {n}")), "{told}");
        self.servers.push(Some(place.run(self.folder.path())));
        self.places.push(place);
    }

    /// Waits until so many members vote and all of them answer.
    pub(crate) async fn voters(&self, count: usize) -> Value {
        eventually(&format!("{count} voters"), async || {
            let status = self.status().await?;
            let members = status["members"].as_array()?.clone();
            let good = |member: &&Value| member["role"] == "voter" && member["reachable"] == true;
            (members.iter().filter(good).count() == count && members.len() == count).then_some(status)
        })
        .await
    }

    /// What some server that lives says of the cluster.
    pub(crate) async fn status(&self) -> Option<Value> {
        for id in self.alive() {
            let answer = self.at(id).try_ask(Method::GET, "/v1/cluster", None).await;
            if let Some(answer) =
                answer.filter(|answer| answer.status == 200 && answer.body["leader"].is_u64())
            {
                return Some(answer.body);
            }
        }
        None
    }

    /// Who leads, once somebody other than `not` does.
    pub(crate) async fn leader(&self, not: Option<usize>) -> usize {
        eventually("a leader", async || {
            let leader = usize::try_from(self.status().await?["leader"].as_u64()?).ok()?;
            (Some(leader) != not).then_some(leader)
        })
        .await
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (1..=self.servers.len()).filter(|id| self.servers[id - 1].is_some()).collect()
    }

    /// The operator, at one member.
    pub(crate) fn at(&self, id: usize) -> Operator {
        self.operator.at(&self.places[id - 1].address())
    }

    pub(crate) fn server(&mut self, id: usize) -> &mut Meshd {
        self.servers[id - 1].as_mut().expect("it runs")
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self, id: usize) {
        self.servers[id - 1].take().expect("it runs").kill();
    }

    pub(crate) fn start(&mut self, id: usize) {
        self.servers[id - 1] = Some(self.places[id - 1].run(self.folder.path()));
    }
}

pub(crate) fn sealed_by(file: &Path) -> String {
    format!("[seal]\nkind = \"keyfile\"\npath = \"{}\"\n", file.display())
}
