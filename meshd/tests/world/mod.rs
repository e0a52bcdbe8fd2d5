//! Real `meshd` processes on loopback, and clients for them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod cluster;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use model::{
    ca::{CertificateAnswer, JoinAnswer},
    problem::Problem,
};
use reqwest::Method;
use serde_json::{Value, json};
use svid::{Expect, IdentitySlot, KeyRequest, Svid, Trust, TrustStore};
use tempfile::TempDir;

/// Nothing that these tests wait for takes as long on a machine that works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Ports for listeners start here and end below the ephemeral ones (32768 on Linux).
const PORTS_FROM: u32 = 12_000;
const PORTS: u32 = 20_000;
/// What one test may take: a cluster of five and its metrics fit, with room for restarts.
const PORTS_OF_A_TEST: u32 = 50;

/// A `meshd` process; killed when dropped.
pub(crate) struct Meshd {
    child: Child,
    log: PathBuf,
    pub(crate) address: String,
}

/// Asks the API with a token.
#[derive(Clone)]
pub(crate) struct Operator {
    http: reqwest::Client,
    pub(crate) address: String,
    token: String,
}

/// A host's identity, as its proxy would hold it.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) key: KeyRequest,
    pub(crate) chain: String,
    pub(crate) http: reqwest::Client,
    pub(crate) address: String,
    pub(crate) trust: Arc<TrustStore>,
}

/// An answer: status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

pub(crate) fn meshd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_meshd"))
}

/// A port that is free now, and that no connection is given for its own end meanwhile: below the ephemeral ones. Tests run
/// in processes of their own, each with a place of its own in the range.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % (PORTS / PORTS_OF_A_TEST) * PORTS_OF_A_TEST;
    loop {
        let nth = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(PORTS_FROM + nth % PORTS).expect("below the ephemeral ones");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Polls until `probe` has something.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = meshd::clock::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(meshd::clock::now() - start < DEADLINE, "waited in vain: {what}");
        // Poll: a process that says nothing of itself is looked at now and then.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Meshd {
    /// Starts one; its log goes into `place`.
    pub(crate) fn spawn(command: &mut Command, place: &Path, address: String) -> Self {
        let log = place.join(format!("log-{}", free_port()));
        let file = File::create(&log).expect("a log file");
        let child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("meshd starts");
        Self { child, log, address }
    }

    /// The lines that it prints, up to the one that starts with `last`.
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
        let stdout = self.child.stdout.take().expect("piped");
        let (sender, receiver) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with(last)) {
            let line = receiver.recv_timeout(DEADLINE);
            lines.push(line.unwrap_or_else(|_| panic!("no line {last}; the log: {}", self.log())));
        }
        lines
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ended");
    }

    /// SIGTERM, and its exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
        self.ended().await
    }

    /// Its exit code, once it has ended.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let status = eventually("meshd ends", async || self.child.try_wait().expect("ours")).await;
        status.code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("ours").is_none()
    }
}

impl Drop for Meshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.address, self.log());
        }
    }
}

/// A server with `--dev`, and an operator for it.
pub(crate) struct Dev {
    pub(crate) meshd: Meshd,
    pub(crate) operator: Operator,
    pub(crate) root_file: PathBuf,
    pub(crate) place: TempDir,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let place = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(place, &[])
    }

    pub(crate) fn start_in(place: TempDir, more: &[&str]) -> Self {
        let mut command = meshd();
        command.args(["--dev", "--listen", "127.0.0.1:0"]).args(more);
        let mut meshd = Meshd::spawn(&mut command, place.path(), String::new());
        let lines = meshd.lines_until("MESH_CACERT=");
        let value = |name: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {lines:?}")).to_owned()
        };
        meshd.address = value("MESH_ADDR");
        let root_file = PathBuf::from(value("MESH_CACERT"));
        let root = fs::read_to_string(&root_file).expect("the root's certificate");
        let operator = Operator::new(&meshd.address, &value("MESH_TOKEN"), &root);
        Self { meshd, operator, root_file, place }
    }
}

impl Operator {
    pub(crate) fn new(address: &str, token: &str, root: &str) -> Self {
        let root = reqwest::Certificate::from_pem(root.as_bytes()).expect("a certificate");
        let http = reqwest::Client::builder().tls_certs_only([root]).no_proxy();
        let http = http.timeout(Duration::from_secs(15)).build().expect("a client");
        Self { http, address: address.to_owned(), token: token.to_owned() }
    }

    /// The same, at another member.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// `None` if there was no answer at all.
    pub(crate) async fn try_ask(&self, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.address)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request.send().await.ok()?).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.try_ask(method, path, body).await.unwrap_or_else(|| panic!("{} does not answer", self.address))
    }

    /// The answer with its head, its body not read yet.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> reqwest::Response {
        let request = self.http.request(method, format!("{}{path}", self.address)).bearer_auth(&self.token);
        request.json(&body).send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn put(&self, path: &str, spec: Value) -> Answer {
        let name = path.rsplit('/').next().expect("a path");
        let mut metadata = json!({"name": name});
        if let Some(rest) = path.strip_prefix("/v1/namespaces/").filter(|rest| rest.contains('/')) {
            metadata["namespace"] = json!(rest.split('/').next());
        }
        self.ask(Method::PUT, path, Some(json!({"metadata": metadata, "spec": spec}))).await
    }

    /// A join token, as it is shown once.
    pub(crate) async fn join_token(&self, name: &str, spec: Value) -> String {
        let answer = self.put(&format!("/v1/jointokens/{name}"), spec).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Lets a host in that may run `services`.
    pub(crate) async fn host(&self, name: &str, services: &[&str]) -> Host {
        let token = self.join_token(&format!("for-{name}"), json!({"services": services})).await;
        Host::join(&self.address, name, &token).await.expect("it may join")
    }
}

impl Host {
    /// As `mesh-proxy join` does it.
    pub(crate) async fn join(address: &str, name: &str, token: &str) -> Result<Self, Answer> {
        let key = KeyRequest::generate().expect("randomness");
        let answer = post_join(address, name, token, &key).await;
        if answer.status != 201 {
            return Err(answer);
        }
        let answer: JoinAnswer = serde_json::from_value(answer.body).expect("a join answer");
        let trust = TrustStore::new(Trust::from_bundle(&answer.bundle).expect("a trust"));
        let http = client_as(&answer.certificate, &key.key_pem, &trust);
        let (name, address) = (name.to_owned(), address.to_owned());
        Ok(Self { name, key, chain: answer.certificate, http, address, trust })
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.address));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        answer(response).await.expect("a body")
    }

    /// Asks for one certificate; with `current` it is a renewal.
    pub(crate) async fn certificate(
        &self,
        subject: Value,
        key: &KeyRequest,
        current: Option<&str>,
    ) -> CertificateAnswer {
        let mut request = subject;
        request["csr"] = json!(key.csr_pem);
        if let Some(current) = current {
            request["current"] = json!(current);
        }
        let answer =
            self.ask(Method::POST, "/v1/ca/certificates", Some(json!({"requests": [request]}))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut certificates: Vec<CertificateAnswer> =
            serde_json::from_value(answer.body["certificates"].clone()).expect("certificates");
        certificates.remove(0)
    }
}

/// A client with a certificate.
pub(crate) fn client_as(chain: &str, key: &str, trust: &Arc<TrustStore>) -> reqwest::Client {
    let slot = IdentitySlot::new(Svid::from_pem(chain, key).expect("an identity"));
    let config =
        svid::client_config(Some(slot), trust.clone(), Expect::Meshd, &[b"http/1.1"], meshd::clock::tls());
    let client = reqwest::Client::builder().tls_backend_preconfigured(config).http1_only().no_proxy();
    client.timeout(Duration::from_secs(15)).build().expect("a client")
}

/// The join call over a connection that is not verified: for tests of what the server does with it.
pub(crate) async fn post_join(address: &str, name: &str, token: &str, key: &KeyRequest) -> Answer {
    let token: model::token::JoinToken = token.parse().expect("a token");
    let body = json!({"token": token.without_pin(), "node": name, "csr": key.csr_pem, "version": "0.1.0"});
    stranger(address, Method::POST, "/v1/ca/join", Some(body)).await
}

/// A call of somebody who shows nothing of himself, over a connection that is not verified.
pub(crate) async fn stranger(address: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let client = client.timeout(Duration::from_secs(30)).build().expect("a client");
    let mut request = client.request(method, format!("{address}{path}"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer(request.send().await.expect("an answer")).await.expect("a body")
}

async fn answer(response: reqwest::Response) -> Option<Answer> {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.ok()?;
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Some(Answer { status, body })
}

impl Answer {
    pub(crate) fn problem(&self) -> Problem {
        serde_json::from_value(self.body.clone()).unwrap_or_else(|_| panic!("no problem document: {self:?}"))
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
