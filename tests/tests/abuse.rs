//! Hostile callers: what they do stays with them. Other callers are answered, and memory is bounded, whether the attack
//! comes from an application of the host or over mTLS from another proxy's place.

mod heavy {
    use std::time::Duration;

    use mesh_tests::{
        cluster::Cluster,
        foreign::{listening, python, said},
        host::{Host, LocalService},
        loopback::free_port,
        plain::Plain,
        process::Process,
        scratch::Scratch,
        steady::Steady,
        wait::until,
    };
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// What one attack may cost each proxy beyond what it held before, in MiB: a hundred connections' windows, and what
    /// the allocator keeps.
    const GROWTH_MIB_MAX: u64 = 64;
    const SERVICES: &str = "\
{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}
---
{kind: Service, metadata: {namespace: default, name: bulk}, spec: {ports: [{port: 80, protocol: http2}]}}
";

    /// Each attack, at the listener for which service, and whether it has to be cut off.
    const ATTACKS: [(&str, &str, bool); 6] = [
        ("rapid-reset", "orders", true),
        ("continuation", "orders", true),
        ("hpack-bomb", "orders", true),
        ("flood", "orders", true),
        ("slow-read", "bulk", false),
        ("slowloris", "orders", false),
    ];

    /// The most that a process held since it was last asked, in MiB.
    fn peak_mib(process: &Process) -> u64 {
        let id = process.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says so");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("root");
        kib / 1_024
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hostile_callers_cost_nobody_else_an_answer_and_little_memory() {
        let scratch = Scratch::new("abuse");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let (orders, bulk) = (free_port(), free_port());
        let (mut http, mut h2) = (python("http_server.py"), python("h2_server.py"));
        let started = [
            listening("orders", scratch.path(), http.arg(orders.to_string()), orders).await,
            listening("bulk", scratch.path(), h2.arg(bulk.to_string()), bulk).await,
        ];
        let _apps = started.map(|app| app.expect("an application"));
        let own =
            [LocalService::new("orders", orders, 80, "http"), LocalService::new("bulk", bulk, 80, "http2")];
        let back = Host::start(&cluster, scratch.path(), "back", 12, &own, |_| {}).await.expect("a host");
        let web = [LocalService::new("web", 1, 80, "http").calling("orders", 9_001).calling("bulk", 9_002)];
        let front = Host::start(&cluster, scratch.path(), "front", 11, &web, |_| {}).await.expect("a host");
        let file = scratch.write("services.yaml", SERVICES).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
        let first = Plain::new((front.address, 9_001).into(), "orders.default.mesh");
        until("calls go through", PATIENCE, || async {
            let answer = first.get("/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await
        .expect("in time");
        for (attack, service, cut_off) in ATTACKS {
            let proxies = [&front, &back].map(|host| host.proxy.as_ref().expect("it runs"));
            let _since_now = proxies.map(peak_mib);
            let before = proxies.map(peak_mib);
            let client = Plain::new((front.address, 9_001).into(), "orders.default.mesh");
            let others = Steady::start(client, 50);
            let mut command = python("abuse.py");
            let port = if service == "bulk" { "9002" } else { "9001" };
            command.args([attack, &front.address.to_string(), port, &format!("{service}.default.mesh")]);
            let line = said(command).await.fine();
            let result: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let seen = others.stop().await;
            assert!(seen.failures.is_empty() && seen.answered() > 0, "{attack}: {:?}", seen.failures);
            if cut_off {
                assert_ne!(result["end"], "open", "{line}");
            }
            for (process, before) in proxies.into_iter().zip(before) {
                let after = peak_mib(process);
                assert!(after <= before + GROWTH_MIB_MAX, "{attack}: from {before} to {after} MiB\n{line}");
            }
        }
    }
}
