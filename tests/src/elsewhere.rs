//! A mesh that follows directories which are not ours, and a host whose proxy calls what they list: what the tests of
//! discovery have in common.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    cluster::Cluster,
    fake::held,
    host::{Host, LocalService},
    plain::Plain,
    scratch::{Said, Scratch},
    wait::until,
};

/// How long the mesh may take to do what it does by itself.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until a proxy calls where a source says.
pub const SOON: Duration = Duration::from_secs(2);

/// Servers that follow directories.
#[derive(Debug)]
pub struct Elsewhere {
    /// They end before their folder does.
    pub cluster: Cluster,
    /// Where all files are.
    pub scratch: Scratch,
}

/// A host whose service `web` calls services from elsewhere.
#[derive(Debug)]
pub struct Caller {
    /// Its proxy.
    pub host: Host,
    /// By service, where its listener is, and who calls there.
    clients: BTreeMap<&'static str, Arc<Plain>>,
}

/// Calls that are made without a pause.
#[derive(Debug)]
pub struct Calls {
    over: Arc<AtomicBool>,
    /// Who is not to answer any more.
    gone: Arc<Mutex<Option<String>>>,
    task: JoinHandle<(u32, Vec<String>)>,
}

impl Elsewhere {
    /// So many servers, with their files in a folder of that name.
    ///
    /// # Panics
    /// If they do not come up.
    pub async fn open(name: &str, members: u8) -> Self {
        let scratch = Scratch::new(name);
        let cluster = Cluster::start(scratch.path(), members, |_| {}).await.expect("servers");
        Self { cluster, scratch }
    }

    /// A host that calls these services, each by a port of its own.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn caller(&self, services: &[(&'static str, u16)]) -> Caller {
        let web = LocalService::new("web", 1, 80, "http");
        let web = services.iter().fold(web, |web, (service, port)| web.calling(service, *port));
        let host = Host::start(&self.cluster, self.scratch.path(), "front", 11, &[web], |_| {}).await;
        let host = host.expect("a host");
        let client = |(service, port): &(&'static str, u16)| {
            let at = (host.address, *port).into();
            (*service, Arc::new(Plain::new(at, &format!("{service}.default.mesh"))))
        };
        let clients = services.iter().map(client).collect();
        Caller { host, clients }
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) -> Said {
        let file = self.scratch.write("manifest.yaml", manifest).display().to_string();
        self.cluster.said(&["apply", "-f", &file]).await
    }

    /// Writes a source of that name.
    ///
    /// # Panics
    /// If it is not taken.
    pub async fn follow(&self, name: &str, spec: &str) {
        let manifest = format!("{{kind: DiscoverySource, metadata: {{name: {name}}}, spec: {spec}}}");
        self.apply(&manifest).await.fine();
    }

    /// What `meshctl get` says, in JSON.
    ///
    /// # Panics
    /// If it fails.
    pub async fn get(&self, what: &[&str]) -> Value {
        let running = self.cluster.members.iter().position(|member| member.process.is_some());
        let arguments = [&["get"][..], what, &["-o", "json"]].concat();
        let said = self.cluster.said_at(running.expect("a server runs"), &arguments).await.fine();
        serde_json::from_str(&said).expect("JSON")
    }

    /// Waits until the endpoints that a source brought are these: `service address port health`.
    ///
    /// # Panics
    /// If they are not in time.
    pub async fn has(&self, source: &str, want: &[&str]) {
        until(&format!("{source} brought {want:?}"), PATIENCE, || async {
            let all = self.get(&["endpoints"]).await;
            let mut has: Vec<_> = all["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| {
                    let spec = &one["spec"];
                    let own = spec["source"] == format!("discovery/{source}");
                    let (service, address) = (spec["service"].as_str()?, spec["address"].as_str()?);
                    let (port, health) = (&spec["ports"][0]["targetPort"], one["status"]["health"].as_str()?);
                    own.then(|| format!("{service} {address} {port} {health}"))
                })
                .collect();
            has.sort();
            if has == want { Ok(()) } else { Err(format!("{has:?}")) }
        })
        .await
        .expect("in time");
    }

    /// Waits until the status of a source is so.
    ///
    /// # Panics
    /// If it is not in time.
    pub async fn status(&self, source: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{source}: {what}"), PATIENCE, || async {
            let status = self.get(&["discoverysource", source]).await["status"].clone();
            if holds(&status) { Ok(status) } else { Err(status.to_string()) }
        })
        .await
        .expect("in time")
    }

    /// Waits until a source is in a state, with such an error.
    ///
    /// # Panics
    /// If it is not in time.
    pub async fn stands(&self, source: &str, state: &str, error: &str) {
        let says = |status: &Value| {
            let says = status["error"].as_str().unwrap_or("?");
            says.contains(error) && says.is_empty() == error.is_empty()
        };
        self.status(source, &format!("{state}: {error}"), |status| status["state"] == state && says(status))
            .await;
    }

    /// Kills the leader, and waits until another leads.
    ///
    /// # Panics
    /// If none does in time.
    pub async fn lose_leader(&mut self) {
        let leader = self.cluster.leader().await.expect("a leader");
        self.cluster.members[leader].kill();
        until("another leads", PATIENCE, || async {
            match self.cluster.leader().await {
                Ok(next) if next != leader => Ok(()),
                Ok(_) => Err("the killed one".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .expect("in time");
    }
}

impl Caller {
    /// What a service answers, where it answers well.
    ///
    /// # Errors
    /// What it answers else.
    ///
    /// # Panics
    /// If there is no listener for the service.
    pub async fn call(&self, service: &str) -> Result<String, String> {
        let answer = self.clients[service].get("/").await.map_err(|error| format!("{error:#}"))?;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        if answer.status().is_success() { Ok(body) } else { Err(format!("{} {body}", answer.status())) }
    }

    /// Waits until a service answers with what begins so.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn answers(&self, service: &str, want: &str, within: Duration) {
        until(&format!("{want} answers"), within, || async {
            let said = self.call(service).await?;
            if said.starts_with(want) { Ok(()) } else { Err(said) }
        })
        .await
        .expect("in time");
    }

    /// Calls a service again and again, until the calls are ended.
    pub fn calls(&self, service: &str) -> Calls {
        let (over, gone) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, client) = (over.clone(), self.clients[service].clone());
        let nobody: Arc<Mutex<Option<String>>> = Arc::clone(&gone);
        let task = tokio::spawn(async move {
            let (mut count, mut failed) = (0_u32, Vec::new());
            while !ends.load(Ordering::Relaxed) {
                // Who was gone when the call began.
                let gone = held(&nobody).clone();
                match client.get("/").await {
                    Ok(answer) if gone.is_some_and(|gone| *answer.body() == gone) => {
                        failed.push(format!(
                            "{} is gone, and answered",
                            String::from_utf8_lossy(answer.body())
                        ));
                    }
                    Ok(answer) if answer.status().is_success() => count += 1,
                    Ok(answer) => failed.push(answer.status().to_string()),
                    Err(error) => failed.push(format!("{error:#}")),
                }
                // Pace: some hundred calls a second.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (count, failed)
        });
        Calls { over, gone, task }
    }
}

impl Calls {
    /// From now on one that this one answers has failed.
    pub fn without(&self, gone: &str) {
        *held(&self.gone) = Some(gone.to_owned());
    }

    /// Ends them.
    ///
    /// # Panics
    /// If one failed, or none was made.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let (count, failed) = self.task.await.expect("it ends");
        assert!(count > 0 && failed.is_empty(), "{count} calls, of which failed: {failed:?}");
    }
}
