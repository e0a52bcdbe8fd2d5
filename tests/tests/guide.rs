//! The guide says what works: every YAML block of its pages is applied to a real control plane, and one of them is seen at
//! work between real hosts.

mod heavy {
    use std::{path::Path, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        dev::Dev,
        host::{Host, LocalService},
        plain::Plain,
        scratch::{Said, Scratch},
        wait::until,
    };

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Where the caller's host has its listener for orders.
    const ORDERS: u16 = 9_001;

    /// The YAML blocks of a page, each with its heading.
    fn blocks(page: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(page).expect("a page");
        let (mut blocks, mut heading, mut open) = (Vec::new(), String::new(), false);
        for line in text.lines() {
            match line {
                "```yaml" => {
                    open = true;
                    blocks.push((heading.clone(), String::new()));
                }
                "```" => open = false,
                _ if open => {
                    let (_, block) = blocks.last_mut().expect("one was opened");
                    block.push_str(line);
                    block.push('\n');
                }
                _ => {
                    if let Some(text) = line.strip_prefix("## ") {
                        text.clone_into(&mut heading);
                    }
                }
            }
        }
        blocks
    }

    fn pages() -> Vec<std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
        let pages = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
    }

    /// The first block below a heading of the page on routing.
    fn example(heading: &str) -> String {
        let page = pages().into_iter().find(|page| page.ends_with("routing.md")).expect("the page");
        let found = blocks(&page).into_iter().find(|(own, _)| own == heading);
        found.unwrap_or_else(|| panic!("no {heading:?} in the guide")).1
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_example_of_the_guide_is_taken() {
        let scratch = Scratch::new("guide");
        let dev = Dev::start(scratch.path()).await.expect("a server");
        let client = dev.client().expect("a client");
        let mut taken = 0;
        for page in pages() {
            for (heading, block) in blocks(&page) {
                let applied = client.apply(block.clone(), false).await;
                applied.unwrap_or_else(|error| panic!("{heading}: {error}\n{block}"));
                taken += 1;
            }
        }
        assert!(taken >= 8, "the guide has {taken} examples");
        typed_by_a_pipeline(&scratch, &dev);
        for kind in ["httproutes", "grpcroutes", "tcproutes", "trafficpolicies"] {
            let path = format!("/v1/namespaces/default/{kind}");
            let list: serde_json::Value =
                client.json(reqwest::Method::GET, &path, None).await.expect("a list");
            for item in list["items"].as_array().expect("a list") {
                let conditions = item["status"]["conditions"].as_array().expect("conditions");
                assert!(conditions.iter().all(|condition| condition["status"] == "True"), "{item}");
            }
        }
    }

    /// What a pipeline types that waits until a route holds; there is no proxy to wait for.
    fn typed_by_a_pipeline(scratch: &Scratch, dev: &Dev) {
        const MANUAL: &str = include_str!("../../docs/api.md");
        const ROUTING: &str = include_str!("../../docs/guide/routing.md");
        let of = |text: &'static str| text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
        let (api, _) = of(MANUAL).next().expect("it says what api is");
        let waits: String = of(ROUTING).map(|(block, _)| block).collect();
        let route = example("A canary by weight");
        let parsed = model::manifest::parse(&route).expect("a manifest");
        scratch.write("orders.json", serde_json::to_string(&parsed[0].object).expect("JSON"));
        scratch.write("route.yaml", route);
        let meshctl = binaries::path("meshctl");
        let own = meshctl.parent().expect("a folder").display();
        let path = format!("{own}:{}", std::env::var("PATH").unwrap_or_default());
        let mut bash = std::process::Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("{api}{waits}")]).current_dir(scratch.path());
        bash.env("PATH", path).env("MESH_ADDR", &dev.addr);
        bash.env("MESH_TOKEN", &dev.token).env("MESH_CACERT", &dev.cacert);
        let said = Said::from(bash.output().expect("bash starts")).fine();
        for wanted in
            ["HTTPRoute default/orders configured", "HTTPRoute default/orders unchanged", "\"rollout\""]
        {
            assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
        }
    }

    /// Who answers when the caller sends these fields, once it is who should.
    async fn answered(caller: &Plain, fields: &[(&str, &str)], want: &str) {
        until("the route holds", PATIENCE, || async {
            let answer = caller.with_fields("/", fields).await.map_err(|error| error.to_string())?;
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            if body.starts_with(want) { Ok(()) } else { Err(body) }
        })
        .await
        .expect("in time");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_preview_is_seen_by_employees_and_by_nobody_else() {
        let scratch = Scratch::new("guide");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let backends = [Backend::start("one").await.expect("one"), Backend::start("two").await.expect("two")];
        let mut hosts = Vec::new();
        for ((n, version), backend) in (12..).zip(["v1", "v2"]).zip(&backends) {
            let mut orders = LocalService::new("orders", backend.port, 80, "http");
            orders.version = Some(version.to_owned());
            let name = format!("back-{n}");
            hosts.push(
                Host::start(&cluster, scratch.path(), &name, n, &[orders], |_| {}).await.expect("a host"),
            );
        }
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let client = cluster.client(0).expect("a client");
        for heading in ["", "A preview for employees"] {
            client.apply(example(heading), false).await.expect("it is taken");
        }
        let caller = Plain::new((front.address, ORDERS).into(), "orders.default.mesh");
        answered(&caller, &[("x-employee", "true")], "two").await;
        answered(&caller, &[], "one").await;
        answered(&caller, &[("x-employee", "false")], "one").await;
    }
}
