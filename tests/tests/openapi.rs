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

    async fn description(dev: &Dev) -> Value {
        let client = dev.client().expect("a client");
        client.json(reqwest::Method::GET, "/openapi.json", None).await.expect("a description")
    }

    /// Runs schemathesis over a description.
    fn judged(dev: &Dev, scratch: &Scratch, description: &Value, more: &[&str]) -> Said {
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
        command.args(["--workers", "2", "--request-timeout", "10", "--request-retries", "2"]);
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
        let more =
            ["--max-examples", "1", "--include-path", "/v1/namespaces", "--phases", "examples,fuzzing"];
        judged(&dev, &scratch, &description, &more).fine();
        let revision = "/components/schemas/NamespaceList/properties/metadata/properties/revision";
        *description.pointer_mut(revision).expect("it is described") = json!({"type": "string"});
        let said = judged(&dev, &scratch, &description, &more);
        assert_eq!(said.code, Some(1), "{}", said.out);
        assert!(said.out.contains("Response violates schema"), "{}", said.out);
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

/// What watches tell, line by line, and what they answer to wrong calls.
mod watches {
    use std::time::Duration;

    use mesh_tests::{
        cluster::Cluster,
        foreign::python,
        scratch::{Said, Scratch},
        stranger::{Stranger, trusting},
    };
    use reqwest::RequestBuilder;
    use serde_json::{Value, json};

    /// How long a line may take.
    const PATIENCE: Duration = Duration::from_secs(30);
    const SERVICE: &str =
        "{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80}]}}";
    const ROUTE: &str = "{kind: HTTPRoute, metadata: {namespace: default, name: orders}, spec: {parentRefs: [{name: orders}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}";

    /// An answer, as far as it was read.
    struct Heard {
        path: &'static str,
        answer: reqwest::Response,
        text: String,
    }

    impl Heard {
        async fn open(path: &'static str, request: RequestBuilder) -> Self {
            let answer = request.timeout(PATIENCE).send().await.expect("an answer");
            Self { path, answer, text: String::new() }
        }

        /// Reads until all of these were told, and a line is at its end.
        async fn tells(&mut self, wanted: &[&str]) {
            while !self.text.ends_with('\n') || !wanted.iter().all(|words| self.text.contains(words)) {
                let more =
                    self.answer.chunk().await.expect("it does not break off").map(|more| more.to_vec());
                let more = more.unwrap_or_else(|| panic!("it ended without {wanted:?}:\n{}", self.text));
                self.text += &String::from_utf8(more).expect("text");
            }
        }

        /// Reads to its end.
        async fn ends(mut self) -> Self {
            while let Some(more) = self.answer.chunk().await.expect("it does not break off") {
                self.text += std::str::from_utf8(&more).expect("text");
            }
            self
        }

        fn seen(&self) -> Value {
            let media = self.answer.headers()["content-type"].to_str().expect("text");
            json!({"path": self.path, "status": self.answer.status().as_u16(), "media": media, "text": self.text})
        }
    }

    /// What a judge that we did not write says of all that was heard.
    async fn judged(scratch: &Scratch, description: &Value, heard: &[Value]) -> Said {
        let mut judge = python("described.py");
        judge.arg(scratch.write("openapi.json", description.to_string()));
        judge.arg(scratch.write("heard.json", json!(heard).to_string()));
        mesh_tests::foreign::said(judge).await
    }

    #[tokio::test]
    async fn what_watches_tell_is_as_described_and_a_false_description_is_seen() {
        let scratch = Scratch::new("watches");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let host = Stranger::join(&cluster, "host-a", &["default/*"]).await.expect("it is let in");
        let url = cluster.members[0].url();
        let http = trusting(&cluster).expect("roots").build().expect("a client");
        let watch = |query: &str| http.get(format!("{url}/v1/watch?{query}"));
        let token = cluster.said(&["token", "access", "ops", "--role", "operator"]).await.fine();
        let (path, own) = ("/v1/watch", "/v1/proxy/watch");
        let kinds = watch("kinds=Service,HTTPRoute").bearer_auth(token.trim());
        let mut lines = Heard::open(path, kinds).await;
        let events = watch("").bearer_auth(&cluster.token).header("accept", "text/event-stream");
        let mut events = Heard::open(path, events).await;
        let mut proxy = Heard::open(own, host.get(&url, &format!("{own}?subscribe=default/orders"))).await;

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
        let lines = lines.ends().await;
        assert!(lines.text.contains("\"error\""), "{}", lines.text);

        let mut heard = vec![lines.seen(), events.seen(), proxy.seen()];
        for (path, request, status) in [
            (path, watch("kinds=Nothing").bearer_auth(&cluster.token), 422),
            (path, watch("from=one").bearer_auth(&cluster.token), 422),
            (path, watch("from=99999999").bearer_auth(&cluster.token), 410),
            (path, watch("colour=red").bearer_auth(&cluster.token), 422),
            (path, watch(""), 401),
            (own, http.get(format!("{url}{own}")), 401),
            (own, host.get(&url, &format!("{own}?subscribe=no-service")), 422),
        ] {
            let refused = Heard::open(path, request).await.ends().await;
            assert_eq!(refused.answer.status(), status, "{path}: {}", refused.text);
            heard.push(refused.seen());
        }
        let client = cluster.client(0).expect("a client");
        let described = client.json::<Value>(reqwest::Method::GET, "/openapi.json", None).await;
        let mut described = described.expect("a description");
        let said = judged(&scratch, &described, &heard).await.fine();
        println!("held against the description: {said}");

        for (schema, line) in [("WatchLine", 2), ("ProxyWatchLine", 3)] {
            let field = format!("/components/schemas/{schema}/oneOf/{line}/properties/revision");
            let right = described
                .pointer_mut(&field)
                .map(|field| std::mem::replace(field, json!({"type": "string"})));
            let red = judged(&scratch, &described, &heard).await.failed(1);
            assert!(red.contains("violates the schema"), "{red}");
            *described.pointer_mut(&field).expect("it is there") = right.expect("it is described");
        }
    }
}
