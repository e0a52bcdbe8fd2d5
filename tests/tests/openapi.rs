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

    /// Answers without an end, which no client of this kind waits for: `tests/tests/watch.rs` reads them.
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
