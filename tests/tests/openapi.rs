//! The description of the API, judged by programs that we did not write: a linter, and a client that makes calls of all that
//! the description allows and compares each answer with it. Both are shown a false description, and are red.

mod heavy {
    use std::{
        path::{Path, PathBuf},
        process::Command,
    };

    use mesh_tests::{
        dev::Dev,
        foreign::{python_package, spectral},
        scratch::{Said, Scratch},
    };
    use serde_json::{Value, json};

    /// Answers without an end, which no client of this kind waits for: `watches` holds them against the description.
    const ENDLESS: [&str; 2] = ["/v1/watch", "/v1/proxy/watch"];
    /// What each answer must be: no 5xx but 503 with its `Retry-After`, a status, a media type and a body as described; and 401
    /// without a token where one is asked for.
    const CHECKS: &str = "not_a_server_error,unavailable_says_when,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth";

    /// How long an answer may take: a long poll (`from`) that does not say how long it waits waits for 30 s.
    const ANSWER_SECONDS: &str = "40";

    async fn description(dev: &Dev) -> Value {
        let client = dev.client().expect("a client");
        client.json(reqwest::Method::GET, "/openapi.json", None).await.expect("a description")
    }

    /// Runs schemathesis over a description, without the words for what it does not foresee: each status that occurs is to be named.
    fn judged(dev: &Dev, scratch: &Scratch, description: &Value, more: &[&str]) -> Said {
        let mut description = description.clone();
        for item in description["paths"].as_object_mut().expect("paths").values_mut() {
            for operation in item.as_object_mut().expect("operations").values_mut() {
                let default = operation["responses"].as_object_mut().expect("responses").remove("default");
                assert!(default.is_some(), "{operation}");
            }
        }
        let file = scratch.write("openapi.json", description.to_string());
        let mut command = python_package("schemathesis.cli");
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        command.env("SCHEMATHESIS_HOOKS", own.join("programs/schemathesis_checks.py"));
        command.arg("--config-file").arg(own.join("schemathesis.toml"));
        command.arg("run").arg(file).current_dir(scratch.path());
        command.args([
            "--url",
            &dev.addr,
            "--checks",
            CHECKS,
            "--no-color",
            "--warnings",
            "off",
            "--seed",
            "1",
        ]);
        command.arg("--tls-verify").arg(&dev.cacert);
        command.args(["-H", &format!("Authorization: Bearer {}", dev.token)]);
        command.args(ENDLESS.iter().flat_map(|path| ["--exclude-path", path]));
        // An idle connection that the server closes at the moment in which it is used again is asked once more.
        command.args(["--workers", "2", "--request-timeout", ANSWER_SECONDS, "--request-retries", "2"]);
        command
            .args(["--generation-database", "none"])
            .args(more)
            .output()
            .expect("schemathesis starts")
            .into()
    }

    /// The number that stands before a word of its summary.
    fn counted(out: &str, word: &str) -> u64 {
        let before =
            out.lines().rev().find_map(|line| line.split_once(word)).map_or("", |(before, _)| before);
        let number = before.trim().rsplit([' ', ',']).next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("no number before {word:?}:\n{out}"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_answer_is_as_described() {
        let scratch = Scratch::new("openapi");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let description = description(&dev).await;
        let full = std::env::var_os("MESH_FULL").is_some();
        let (examples, seconds) = if full { ("30", "900") } else { ("1", "36") };
        let more = ["--phases", "examples,fuzzing", "--max-examples", examples, "--max-time", seconds];
        let said = judged(&dev, &scratch, &description, &more).fine();
        let items = description["paths"].as_object().expect("paths").values();
        let all: usize = items.map(|item| item.as_object().map_or(0, serde_json::Map::len)).sum();
        let ours = all - ENDLESS.len();
        for line in [format!("Selected: {ours}/{all}"), format!("Tested: {ours}")] {
            assert!(said.contains(&line), "not all operations:\n{said}");
        }
        let (generated, passed) = (counted(&said, " generated"), counted(&said, " passed,"));
        println!("schemathesis: {ours} operations, {generated} calls, {passed} answered as described");
        assert!(passed >= 500 && passed == generated, "{passed} of {generated}:\n{said}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_written_answers_as_described_until_it_is_gone() {
        let scratch = Scratch::new("openapi");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let description = description(&dev).await;
        let seconds = if std::env::var_os("MESH_FULL").is_some() { "300" } else { "8" };
        let more =
            ["--phases", "stateful", "--mode", "positive", "--max-examples", "10", "--max-time", seconds];
        let said = judged(&dev, &scratch, &description, &more).fine();
        let (calls, links) = (counted(&said, " generated"), counted(&said, " covered"));
        println!("schemathesis: {calls} calls in sequences, {links} links followed");
        assert!(calls >= 20 && links >= 1, "{said}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_false_description_is_seen() {
        let scratch = Scratch::new("openapi");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let mut description = description(&dev).await;
        let more = [
            "--max-examples",
            "1",
            "--include-path-regex",
            "^/v1/namespaces(/[^/]*)?$",
            "--exclude-method-regex",
            "PUT|PATCH|DELETE",
            "--phases",
            "examples,fuzzing",
        ];
        judged(&dev, &scratch, &description, &more).fine();
        let revision = "/components/schemas/NamespaceList/properties/metadata/properties/revision";
        *description.pointer_mut(revision).expect("it is described") = json!({"type": "string"});
        let one = &mut description["paths"]["/v1/namespaces/{name}"]["get"]["responses"];
        assert!(one.as_object_mut().expect("responses").remove("404").is_some());
        let said = judged(&dev, &scratch, &description, &more);
        assert_eq!(said.code, Some(1), "{}", said.out);
        for fault in ["Response violates schema", "Undocumented status code"] {
            assert!(said.out.contains(fault), "{}", said.out);
        }
    }

    fn linted(scratch: &Scratch, mut linter: Command, description: &Value) -> Said {
        let file: PathBuf = scratch.write("openapi.json", description.to_string());
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("spectral.yaml");
        linter.arg("lint").arg("--ruleset").arg(rules).args(["--fail-severity", "warn"]).arg(file);
        linter.output().expect("spectral starts").into()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_description_is_clean_and_a_spoiled_one_is_not() {
        let scratch = Scratch::new("openapi");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let mut description = description(&dev).await;
        linted(&scratch, spectral(), &description).fine();
        let paths = description["paths"].as_object_mut().expect("paths");
        paths.retain(|path, _| ["/healthz", "/readyz"].contains(&path.as_str()));
        paths["/readyz"]["get"]["operationId"] = "getHealthz".into();
        let said = linted(&scratch, spectral(), &description);
        assert_eq!(said.code, Some(1), "{}", said.out);
        assert!(said.out.contains("operation-operationId-unique"), "{}", said.out);
    }
}

/// What watches tell, line by line, what hosts and members are answered, and how wrong calls are refused.
mod machines {
    use std::time::Duration;

    use mesh_tests::{
        cluster::Cluster,
        foreign::python,
        scratch::{Said, Scratch},
        stranger::{Forger, Papers, Stranger, bundle, caller, trusting},
    };
    use model::token::JoinToken;
    use reqwest::{Client, RequestBuilder};
    use serde_json::{Value, json};
    use svid::KeyRequest;

    /// How long a line may take.
    const PATIENCE: Duration = Duration::from_secs(30);
    const SERVICE: &str =
        "{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80}]}}";
    const ROUTE: &str = "{kind: HTTPRoute, metadata: {namespace: default, name: orders}, spec: {parentRefs: [{name: orders}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}";

    /// An answer, as far as it was read.
    struct Heard {
        method: String,
        path: &'static str,
        answer: reqwest::Response,
        body: Vec<u8>,
    }

    impl Heard {
        /// Calls what the description has under `path`.
        async fn open(path: &'static str, request: RequestBuilder) -> Self {
            let (client, request) = request.timeout(PATIENCE).build_split();
            let request = request.expect("a request");
            let method = request.method().as_str().to_ascii_lowercase();
            let answer = client.execute(request).await.expect("an answer");
            Self { method, path, answer, body: Vec::new() }
        }

        /// Reads until all of these were told, and a line is at its end.
        async fn tells(&mut self, wanted: &[&str]) {
            while !self.body.ends_with(b"\n") || !wanted.iter().all(|words| self.text().contains(words)) {
                let more =
                    self.answer.chunk().await.expect("it does not break off").map(|more| more.to_vec());
                let more = more.unwrap_or_else(|| panic!("it ended without {wanted:?}:\n{}", self.text()));
                self.body.extend(more);
            }
        }

        /// Reads to its end, which is of this status.
        async fn ends(mut self, status: u16) -> Self {
            while let Some(more) = self.answer.chunk().await.expect("it does not break off") {
                self.body.extend(more);
            }
            assert_eq!(self.answer.status(), status, "{} {}: {}", self.method, self.path, self.text());
            self
        }

        fn text(&self) -> String {
            String::from_utf8_lossy(&self.body).into_owned()
        }

        fn json(&self) -> Value {
            serde_json::from_slice(&self.body).expect("JSON")
        }

        fn seen(&self) -> Value {
            let media = self.answer.headers()["content-type"].to_str().expect("text");
            let status = self.answer.status().as_u16();
            json!({"method": self.method, "path": self.path, "status": status, "media": media, "text": self.text()})
        }
    }

    /// What a judge that we did not write says of all that was heard.
    async fn judged(scratch: &Scratch, description: &Value, heard: &[Value]) -> Said {
        let mut judge = python("described.py");
        judge.arg(scratch.write("openapi.json", description.to_string()));
        judge.arg(scratch.write("heard.json", json!(heard).to_string()));
        mesh_tests::foreign::said(judge).await
    }

    /// Who calls, each in a way of its own.
    struct Callers<'a> {
        cluster: &'a Cluster,
        url: String,
        /// Nobody in particular.
        http: Client,
        host: Stranger,
        member: Client,
    }

    fn csr() -> String {
        KeyRequest::generate().expect("a key").csr_pem
    }

    impl<'a> Callers<'a> {
        async fn of(cluster: &'a Cluster) -> Self {
            let trust = bundle(cluster).await.expect("whom to trust");
            let host = Stranger::join(cluster, "host-a", &["default/*"]).await.expect("it is let in");
            let thief = Forger::thief(&cluster.members[0].data()).expect("the server's key");
            let papers: Papers = thief.leaf("spiffe://mesh.internal/meshd/1", |_| {}).expect("signed");
            let member = caller(&trust, &papers).expect("a client");
            let http = trusting(cluster).expect("roots").build().expect("a client");
            Self { cluster, url: cluster.members[0].url(), http, host, member }
        }

        fn post(&self, by: &Client, path: &str, body: &Value) -> RequestBuilder {
            by.post(format!("{}{path}", self.url)).json(body)
        }

        /// What hosts are answered while they live.
        async fn hosts(&self) -> Vec<Heard> {
            let host = self.host.http();
            let registration = "/v1/proxy/registration";
            let services = json!([{"service": "default/web", "ports": [{"port": 80}]}]);
            let endpoint = json!({
                "kind": "Endpoint", "metadata": {"namespace": "default", "name": "web-host-a-80"}, "status": {"health": "Healthy"},
                "spec": {"service": "web", "node": "host-a", "source": "registration", "address": "10.0.0.5", "ports": [{"port": 80, "targetPort": 8080}]},
            });
            let body = json!({"version": "0.0.0", "services": services, "endpoints": [endpoint]});
            let request = host.put(format!("{}{registration}", self.url)).json(&body);
            let registered = Heard::open(registration, request).await.ends(200).await;
            let alive = |generation: &Value| {
                self.post(host, "/v1/proxy/keepalive", &json!({"generation": generation, "revision": 1}))
            };
            let generation = registered.json()["generation"].clone();
            let requests = json!([
                {"service": "default/web", "csr": csr()}, {"node": "host-a", "csr": csr()}, {"service": "shop/web", "csr": csr()},
            ]);
            let requests = json!({"requests": requests});
            let mut heard = vec![registered];
            for (path, request, status) in [
                ("/v1/proxy/keepalive", alive(&generation), 200),
                ("/v1/proxy/keepalive", alive(&json!(99)), 410),
                ("/v1/ca/certificates", self.post(host, "/v1/ca/certificates", &requests), 200),
                ("/v1/ca/certificates", self.post(&self.http, "/v1/ca/certificates", &requests), 401),
                ("/v1/ca/certificates", self.post(&self.member, "/v1/ca/certificates", &requests), 403),
            ] {
                heard.push(Heard::open(path, request).await.ends(status).await);
            }
            heard
        }

        /// What members are answered, and what they save.
        async fn members(&self) -> Vec<Heard> {
            let (member, host, token) = (&self.member, self.host.http(), &self.cluster.token);
            let (asked, body) = ("/v1/cluster/rollout", json!({"revision": 1}));
            let sign = "/v1/ca/intermediate";
            let snapshot = |query: &str, bytes: &[u8]| {
                let request = self.http.post(format!("{}/v1/snapshot{query}", self.url)).bearer_auth(token);
                request.header("content-type", "application/octet-stream").body(bytes.to_vec())
            };
            let roots = self.http.get(format!("{}/v1/ca/bundle", self.url));
            let save = self.http.get(format!("{}/v1/snapshot", self.url)).bearer_auth(token);
            let saved = Heard::open("/v1/snapshot", save).await.ends(200).await;
            let mut heard = Vec::new();
            for (path, request, status) in [
                ("/v1/ca/bundle", roots.header("accept", "application/x-pem-file"), 200),
                ("/v1/snapshot", snapshot("?dryRun=true", &saved.body), 200),
                ("/v1/snapshot", snapshot("", b"something else"), 400),
                (asked, self.post(member, asked, &body), 200),
                (asked, self.post(host, asked, &body), 403),
                (asked, self.post(member, asked, &json!({"from": 1})), 422),
                (sign, self.post(member, sign, &json!({"csr": csr()})), 200),
            ] {
                heard.push(Heard::open(path, request).await.ends(status).await);
            }
            heard.push(saved);
            heard
        }

        /// What they are answered when they come and go.
        async fn ends(&self) -> Vec<Heard> {
            let (join, sums) = ("/v1/ca/join", "/v1/cluster/checkpoints");
            let token = async |arguments: &[&str]| {
                let printed = self.cluster.said(&[&["token", "join"], arguments].concat()).await.fine();
                printed.trim().parse::<JoinToken>().expect("a token").without_pin()
            };
            let place = json!({
                "api": "127.0.0.1:1", "raft": "127.0.0.1:2", "incarnation": "2b1e3e5e-58a3-4a53-9f5f-6f0a6f1c2d3e",
            });
            let host =
                json!({"token": token(&["b", "--node", "host-b"]).await, "node": "host-b", "csr": csr()});
            let server = json!({
                "token": token(&["s", "--server", "--node", "cp2"]).await, "node": "cp2", "csr": csr(), "server": place,
            });
            let delete = |path: &str| self.host.http().delete(format!("{}{path}", self.url));
            let mut heard = Vec::new();
            for (path, request, status) in [
                (join, self.post(&self.http, join, &host), 201),
                (
                    join,
                    self.post(&self.http, join, &json!({"token": "none", "node": "a", "csr": csr()})),
                    422,
                ),
                ("/v1/proxy/registration", delete("/v1/proxy/registration"), 200),
                ("/v1/proxy/node", delete("/v1/proxy/node"), 200),
                (join, self.post(&self.http, join, &server), 201),
                (sums, self.member.get(format!("{}{sums}", self.url)), 200),
            ] {
                heard.push(Heard::open(path, request).await.ends(status).await);
            }
            heard
        }
    }

    /// What watches tell, and how wrong ones are refused.
    async fn watched(callers: &Callers<'_>, scratch: &Scratch) -> Vec<Heard> {
        let Callers { cluster, url, http, host, .. } = callers;
        let watch = |query: &str| http.get(format!("{url}/v1/watch?{query}"));
        let token = cluster.said(&["token", "access", "ops", "--role", "operator"]).await.fine();
        let (path, own) = ("/v1/watch", "/v1/proxy/watch");
        let kinds = watch("kinds=Service,HTTPRoute").bearer_auth(token.trim());
        let mut lines = Heard::open(path, kinds).await;
        let events = watch("").bearer_auth(&cluster.token).header("accept", "text/event-stream");
        let mut events = Heard::open(path, events).await;
        let mut proxy = Heard::open(own, host.get(url, &format!("{own}?subscribe=default/orders"))).await;

        let file = scratch.write("shop.yaml", format!("{SERVICE}\n---\n{ROUTE}\n")).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
        proxy.tells(&["\"trust\"", "\"HTTPRoute\"", "\"sync\""]).await;
        for kind in ["httproute", "service"] {
            cluster.said(&["delete", kind, "orders"]).await.fine();
        }
        for heard in [&mut lines, &mut events] {
            heard.tells(&["\"put\"", "\"delete\"", "\"bookmark\""]).await;
        }
        proxy.tells(&["\"delete\""]).await;
        // Whoever may not watch any more is told so in the last line.
        cluster.said(&["delete", "accesstoken", "ops"]).await.fine();
        let lines = lines.ends(200).await;
        assert!(lines.text().contains("\"error\""), "{}", lines.text());

        let mut heard = vec![lines, events, proxy];
        for (path, request, status) in [
            (path, watch("kinds=Nothing").bearer_auth(&cluster.token), 422),
            (path, watch("from=one").bearer_auth(&cluster.token), 422),
            (path, watch("from=99999999").bearer_auth(&cluster.token), 410),
            (path, watch("colour=red").bearer_auth(&cluster.token), 422),
            (path, watch(""), 401),
            (own, http.get(format!("{url}{own}")), 401),
            (own, host.get(url, &format!("{own}?subscribe=no-service")), 422),
        ] {
            heard.push(Heard::open(path, request).await.ends(status).await);
        }
        heard
    }

    /// Calls a field that each answer must have by another name, wherever that is possible; which answers that is.
    fn renamed(description: &mut Value, heard: &[Heard]) -> Vec<String> {
        let mut names = Vec::new();
        for Heard { method, path, answer, .. } in
            heard.iter().filter(|heard| heard.answer.status().is_success())
        {
            let status = answer.status().as_str().to_owned();
            let content = &mut description["paths"][path][method]["responses"][&status]["content"];
            if answer.headers()["content-type"] != "application/json" {
                continue;
            }
            let schema = &mut content["application/json"]["schema"];
            let either: Vec<_> = match schema.get("oneOf") {
                Some(_) => schema["oneOf"].as_array_mut().expect("alternatives").iter_mut().collect(),
                None => vec![schema],
            };
            for first in either.into_iter().filter_map(|one| one.get_mut("required")?.get_mut(0)) {
                *first = "anotherName".into();
                names.push(format!("{method} {path} {status}: violates the schema"));
            }
        }
        names
    }

    #[tokio::test]
    async fn what_machines_are_told_is_as_described_and_a_false_description_is_seen() {
        let scratch = Scratch::new("machines");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let callers = Callers::of(&cluster).await;
        let mut heard = watched(&callers, &scratch).await;
        let watches = heard.len();
        heard.extend(callers.hosts().await);
        heard.extend(callers.members().await);
        heard.extend(callers.ends().await);
        for (path, word) in [("/v1/cluster/rollout", "host-a"), ("/v1/cluster/checkpoints", "\"hash\"")] {
            let told = heard.iter().any(|heard| heard.path == path && heard.text().contains(word));
            assert!(told, "nothing was heard of {word} at {path}");
        }
        let client = cluster.client(0).expect("a client");
        let described = client.json::<Value>(reqwest::Method::GET, "/openapi.json", None).await;
        let mut described = described.expect("a description");
        let seen: Vec<_> = heard.iter().map(Heard::seen).collect();
        let said = judged(&scratch, &described, &seen).await.fine();
        println!("held against the description: {said}");

        let mut wrong = renamed(&mut described, &heard[watches..]);
        assert!(wrong.len() >= 9, "{wrong:?}");
        for (schema, line, path) in [("WatchLine", 2, "/v1/watch"), ("ProxyWatchLine", 3, "/v1/proxy/watch")]
        {
            let field = format!("/components/schemas/{schema}/oneOf/{line}/properties/revision");
            *described.pointer_mut(&field).expect("it is described") = json!({"type": "string"});
            wrong.push(format!("get {path} 200: violates the schema"));
        }
        let red = judged(&scratch, &described, &seen).await.failed(1);
        let unseen: Vec<_> = wrong.iter().filter(|wrong| !red.contains(*wrong)).collect();
        assert!(unseen.is_empty(), "{unseen:?} were not seen:\n{red}");
    }
}
