//! A host's proxy while it runs: its files change, its applications fail and come back, it is asked to go. Callers see
//! none of it.

mod heavy {
    use std::time::Duration;

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        steady::Steady,
        wait::until,
    };
    use rustix::process::Signal;
    use serde_json::Value;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long a proxy may take to drain and end.
    const DRAINED_WITHIN: Duration = Duration::from_secs(15);
    /// Calls per second.
    const RATE: u32 = 50;
    /// As many calls show that traffic flows.
    const SOME: u64 = 30;
    /// Where the caller's host has its listeners.
    const ORDERS: u16 = 9_001;
    const PAYMENTS: u16 = 9_002;

    struct Mesh {
        front: Host,
        back: [Host; 2],
        backends: [Backend; 2],
        _cluster: Cluster,
    }

    async fn open(scratch: &Scratch) -> Mesh {
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let backends = [Backend::start("one").await.expect("one"), Backend::start("two").await.expect("two")];
        let mut back = Vec::new();
        for (n, backend) in (12..).zip(&backends) {
            let mut orders = LocalService::new("orders", backend.port, 80, "http");
            orders.check = Some("/healthz".to_owned());
            let payments = LocalService::new("payments", backend.port, 80, "http");
            let (name, services) = (format!("back-{n}"), [orders, payments]);
            let host = Host::start(&cluster, scratch.path(), &name, n, &services, |_| {}).await;
            back.push(host.expect("a host"));
        }
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let back = back.try_into().expect("two hosts");
        Mesh { front, back, backends, _cluster: cluster }
    }

    impl Mesh {
        fn client(&self, port: u16) -> Plain {
            Plain::new((self.front.address, port).into(), "shop.example")
        }

        /// Waits until the caller's proxy sees so many healthy endpoints of a service.
        async fn healthy(&self, service: &str, want: usize) {
            until(&format!("{want} of {service} are healthy"), PATIENCE, || async {
                let config = self.front.admin("/config").await.map_err(|error| format!("{error:#}"))?;
                let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
                let destinations = config["destinations"].as_array().ok_or("no list")?;
                let own = destinations.iter().find(|destination| destination["service"] == service);
                let endpoints =
                    own.and_then(|own| own["ports"][0]["endpoints"].as_array()).ok_or("unknown")?;
                let healthy = endpoints.iter().filter(|endpoint| endpoint["health"] == "Healthy").count();
                if healthy == want { Ok(()) } else { Err(config.to_string()) }
            })
            .await
            .expect("health is told");
        }
    }

    async fn flows(load: &Steady) {
        let start = load.seen().answered();
        until("calls are answered", PATIENCE, || async {
            let seen = load.seen();
            if seen.answered() >= start + SOME { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .expect("traffic flows");
    }

    #[tokio::test]
    async fn files_change_applications_fail_and_proxies_leave_without_a_failed_call() {
        let scratch = Scratch::new("hosts");
        let mut mesh = open(&scratch).await;
        mesh.healthy("default/orders", 2).await;
        let load = Steady::start(mesh.client(ORDERS), RATE);
        flows(&load).await;
        an_application_fails_and_comes_back(&mut mesh, &load).await;
        files_change(&mut mesh, &load).await;
        a_proxy_leaves(&mut mesh, &load).await;
        let seen = load.stop().await;
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
    }

    async fn an_application_fails_and_comes_back(mesh: &mut Mesh, load: &Steady) {
        let dead = std::mem::replace(&mut mesh.backends[1], Backend::start("back").await.expect("it starts"));
        drop(dead);
        mesh.healthy("default/orders", 1).await;
        flows(load).await;
        let mut orders = LocalService::new("orders", mesh.backends[1].port, 80, "http");
        orders.check = Some("/healthz".to_owned());
        mesh.back[1].write_service(&orders).expect("written");
        mesh.back[1].proxy.as_ref().expect("it runs").signal(Signal::HUP);
        mesh.healthy("default/orders", 2).await;
        until("the new one answers", PATIENCE, || async {
            if mesh.backends[1].calls() > 0 { Ok(()) } else { Err("none so far") }
        })
        .await
        .expect("it gets calls");
    }

    /// Files come, change and go, and nobody tells the proxy. A new listener works beside a file that cannot be read, which
    /// spoils nothing and is named.
    async fn files_change(mesh: &mut Mesh, load: &Steady) {
        let web =
            LocalService::new("web", 1, 80, "http").calling("orders", ORDERS).calling("payments", PAYMENTS);
        mesh.front.write_service(&web).expect("written");
        let broken = mesh.front.config().with_file_name("services.d").join("broken.toml");
        std::fs::write(&broken, "[service]\nname = \"x\"\nprot = 1\n").expect("written");
        let client = mesh.client(PAYMENTS);
        until("the new listener carries calls", PATIENCE, || async {
            let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await
        .expect("payments are reached");
        assert!(
            mesh.front.log().contains("broken.toml:3: service.prot: unknown field"),
            "{}",
            mesh.front.log()
        );
        let refused = async |count: u8| {
            let (metric, problem) =
                (format!("mesh_service_files_refused {count}"), "broken.toml:3: service.prot");
            until(&metric, PATIENCE, || async {
                let seen = async |path| mesh.front.admin(path).await.map_err(|error| format!("{error:#}"));
                let (metrics, config) = (seen("/metrics").await?, seen("/config").await?);
                let named = config.contains(problem) == (count > 0);
                if metrics.contains(&metric) && named { Ok(()) } else { Err(config) }
            })
            .await
            .expect("it is seen");
        };
        refused(1).await;
        std::fs::remove_file(broken).expect("removed");
        refused(0).await;
        a_file_is_put_in_place(mesh).await;
        flows(load).await;
    }

    /// As installers do it: beside, then renamed. What it does not say any more is over.
    async fn a_file_is_put_in_place(mesh: &Mesh) {
        let file = mesh.front.config().with_file_name("services.d").join("web.toml");
        let text = std::fs::read_to_string(&file).expect("it is there");
        let (orders, _) = text.rsplit_once("[[upstream]]").expect("two upstreams");
        let beside = file.with_extension("new");
        std::fs::write(&beside, orders).expect("written");
        std::fs::rename(beside, file).expect("renamed");
        until("the listener is closed", PATIENCE, || async {
            match tokio::net::TcpStream::connect((mesh.front.address, PAYMENTS)).await {
                Ok(_) => Err("it listens"),
                Err(_) => Ok(()),
            }
        })
        .await
        .expect("it is closed");
    }

    /// SIGTERM: the others hear of it, and what runs is finished.
    async fn a_proxy_leaves(mesh: &mut Mesh, load: &Steady) {
        let status = mesh.back[0].proxy.as_mut().expect("it runs").terminate(DRAINED_WITHIN).await;
        let status = status.expect("it drains and ends");
        assert!(status.success(), "{status}: {}", mesh.back[0].log());
        mesh.healthy("default/orders", 1).await;
        flows(load).await;
        let calls = mesh.backends[0].calls();
        flows(load).await;
        assert_eq!(mesh.backends[0].calls(), calls, "who has left gets nothing");
    }
}
