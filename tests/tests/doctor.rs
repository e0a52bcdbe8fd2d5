//! `mesh-proxy doctor` on hosts of a real mesh: nothing is wrong where nothing is, and what is, is told with its remedy.

mod heavy {
    use std::{net::TcpListener, time::Duration};

    use mesh_tests::{
        backend::Backend,
        binaries,
        cluster::Cluster,
        foreign::{program, said},
        host::{Host, LocalService},
        scratch::{Said, Scratch},
        wait::until,
    };
    use serde_json::Value;

    const PATIENCE: Duration = Duration::from_secs(30);
    const ORDERS: u16 = 9_001;

    /// What it found on a host, and its exit code.
    async fn examined(host: &Host) -> (Vec<Value>, Option<i32>) {
        let mut command = std::process::Command::new(binaries::path("mesh-proxy"));
        command.args(["doctor", "-o", "json", "--config"]).arg(host.config());
        read(said(command).await)
    }

    fn read(said: Said) -> (Vec<Value>, Option<i32>) {
        let findings = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        (findings, said.code)
    }

    fn wrong(findings: &[Value]) -> Vec<&Value> {
        findings.iter().filter(|finding| finding["state"] == "wrong").collect()
    }

    /// The one thing that is wrong, by what was looked at: its text, and that it has a remedy.
    #[track_caller]
    fn only_wrong(findings: &[Value], check: &str) -> String {
        let wrong = wrong(findings);
        assert!(wrong.len() == 1 && wrong[0]["check"] == check, "{wrong:#?}");
        assert!(wrong[0]["remedy"].is_string(), "{wrong:#?}");
        wrong[0]["said"].as_str().expect("text").to_owned()
    }

    #[tokio::test]
    async fn what_is_wrong_on_a_host_is_told_with_its_remedy() {
        let scratch = Scratch::new("doctor");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let mut back =
            Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await.expect("a host");
        let web = [LocalService::new("web", 1, 80, "http").calling("orders", ORDERS)];
        let mut front =
            Host::start(&cluster, scratch.path(), "front", 11, &web, |_| {}).await.expect("a host");
        until("the peer is on disk", PATIENCE, || async {
            let (findings, code) = examined(&front).await;
            let met =
                findings.iter().any(|one| one["check"] == "peer" && one["said"] == "1 of 1 can be dialled");
            if met && code == Some(0) { Ok(()) } else { Err(format!("{findings:#?}")) }
        })
        .await
        .expect("nothing is wrong");
        let (findings, _) = examined(&front).await;
        for check in ["services", "certificate", "server", "clock", "port", "kernel", "cgroups"] {
            assert!(
                findings.iter().any(|one| one["check"] == check && one["state"] == "fine"),
                "{check}: {findings:#?}"
            );
        }
        a_clock_is_wrong(&front).await;

        let broken = front.config().with_file_name("services.d").join("broken.toml");
        std::fs::write(&broken, "[service]\nname = \"x\"\nuser = \"nobody-of-that-name\"\n")
            .expect("written");
        let (findings, code) = examined(&front).await;
        assert_eq!(code, Some(1));
        assert!(
            only_wrong(&findings, "services").contains("broken.toml:3: service.user: must be a user"),
            "{findings:?}"
        );
        std::fs::remove_file(broken).expect("removed");

        // Another program where the proxy would listen, while that does not run.
        front.proxy = None;
        let taken = TcpListener::bind((front.address, 15_080)).expect("free by now");
        let (findings, _) = examined(&front).await;
        assert!(
            only_wrong(&findings, "port").contains(":15080 is in use, and no proxy runs"),
            "{findings:?}"
        );
        drop(taken);

        back.proxy = None;
        let (findings, _) = examined(&front).await;
        assert!(only_wrong(&findings, "peer").starts_with("back at 127."), "{findings:?}");
        drop(cluster);
        let (findings, _) = examined(&front).await;
        assert!(wrong(&findings).iter().any(|one| one["check"] == "server"), "{findings:#?}");
    }

    async fn a_clock_is_wrong(front: &Host) {
        let mut command = program("faketime");
        command
            .args(["-f", "+600s"])
            .arg(binaries::path("mesh-proxy"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.args(["doctor", "-o", "json", "--config"]).arg(front.config());
        let (findings, code) = read(said(command).await);
        assert_eq!(code, Some(1));
        assert!(only_wrong(&findings, "clock").contains(" s ahead of https://"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_host_that_has_not_joined_is_told_how() {
        let scratch = Scratch::new("doctor-alone");
        let config = scratch.path().join("proxy.toml");
        let folder = scratch.path().join("none");
        let text = format!(
            "data_dir = {folder:?}\nservices_dir = {folder:?}\n[listen]\ninbound = \"\"\nhost_router = \"\"\nadmin = \"\"\n"
        );
        std::fs::write(&config, text).expect("written");
        let mut command = std::process::Command::new(binaries::path("mesh-proxy"));
        command.args(["doctor", "--config"]).arg(config);
        let said = said(command).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.out.contains("wrong     identity: ") && said.out.contains("mesh-proxy join https://"),
            "{said:?}"
        );
        assert!(!folder.exists(), "it changes nothing");
    }
}
