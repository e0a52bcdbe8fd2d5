//! An identity is needed: whoever comes to a door with the wrong papers is refused there, and the log says by name who
//! it was and why. The papers are the mesh's own where it gives them out, and forged with a server's stolen
//! intermediate, so with the true root above them, where it would never sign such a thing.

mod heavy {
    use std::{net::SocketAddr, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        host::{Host, LocalService},
        plain::Plain,
        scratch::Scratch,
        stranger::{Answer, Forger, Papers, Stranger, bundle, from_now, knock, mesh_id, shake, uri},
        wait::until,
    };
    use model::trust::TrustBundle;
    use rcgen::{BasicConstraints, IsCa};
    use reqwest::Method;
    use serde_json::{Value, json};
    use svid::{Accept, Expect, Trust, TrustStore};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use traffic::preamble::Preamble;

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// Within which time distrust is seen everywhere.
    const DISTRUSTED_WITHIN: Duration = Duration::from_secs(5);
    /// Where the callers' host has its listener for orders.
    const ORDERS: u16 = 9_001;

    /// A listener, and the log of whoever owns it.
    struct Door<'a> {
        address: SocketAddr,
        expect: Expect,
        alpn: &'static [u8],
        log: &'a dyn Fn() -> String,
    }

    impl Door<'_> {
        async fn knock(&self, trust: &TrustBundle, papers: Option<&Papers>) -> Answer {
            knock(self.address, trust, self.expect.clone(), self.alpn, papers).await
        }

        /// Knocks, must be refused, and the log must say why.
        async fn refuses(&self, trust: &TrustBundle, papers: Option<&Papers>, reason: &str) {
            let before = (self.log)().len();
            let answer = self.knock(trust, papers).await;
            match answer {
                Answer::Refused(seen) => assert_ne!(seen, "silence", "for {reason:?}"),
                Answer::Opened(_) => panic!("{} opened; it should say: {reason}", self.address),
            }
            until(&format!("{reason:?} in the log"), PATIENCE, || async {
                let log = (self.log)()[before..].to_owned();
                let told = log.lines().any(|line| line.contains("refused") && line.contains(reason));
                if told { Ok(()) } else { Err(log) }
            })
            .await
            .expect("the log says why");
        }
    }

    /// A mesh with one server, a host with orders and one that calls them.
    struct Shop {
        cluster: Cluster,
        front: Host,
        back: Host,
        backend: Backend,
    }

    async fn open(scratch: &Scratch) -> Shop {
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let backend = Backend::start("true").await.expect("an application");
        let orders = LocalService::new("orders", backend.port, 80, "http").checked();
        let back =
            Host::start(&cluster, scratch.path(), "back", 12, &[orders], |_| {}).await.expect("a host");
        let web = LocalService::new("web", 1, 80, "http").calling("orders", ORDERS);
        let front = Host::start(&cluster, scratch.path(), "front", 11, &[web], |_| {}).await.expect("a host");
        let shop = Shop { cluster, front, back, backend };
        let client = shop.client();
        let called = until("a call goes through", PATIENCE, || async {
            let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
        });
        let answer = called.await.expect("the mesh carries calls");
        assert_eq!(answer.body(), "true for URI=spiffe://mesh.internal/ns/default/svc/web");
        shop
    }

    impl Shop {
        fn client(&self) -> Plain {
            Plain::new((self.front.address, ORDERS).into(), "orders.default.mesh")
        }

        fn door<'a>(&self, log: &'a dyn Fn() -> String) -> Door<'a> {
            let expect = Expect::Id(mesh_id("/ns/default/svc/orders"));
            Door { address: (self.back.address, 15_008).into(), expect, alpn: b"h2", log }
        }
    }

    #[tokio::test]
    async fn wrong_papers_are_refused_at_every_door_by_name() {
        let scratch = Scratch::new("identity");
        let shop = open(&scratch).await;
        let trust = bundle(&shop.cluster).await.expect("the bundle");
        let granted = ["default/intruder", "default/orders"];
        let stranger = Stranger::join(&shop.cluster, "stranger", &granted).await.expect("it joins");
        let intruder = stranger.certificate("default/intruder").await.expect("it is granted");
        let thief = Forger::thief(&shop.cluster.members[0].data()).expect("the server's key");
        let back_log = || shop.back.log();
        let door = shop.door(&back_log);
        drop(door.knock(&trust, Some(&intruder)).await.opened());
        a_proxy_takes_services_only(&door, &trust, &stranger, &thief).await;
        flawed_leaves(&door, &trust, &thief).await;
        no_raw_streams(&shop, &trust, &intruder).await;
        servers_take_no_services(&shop.cluster, &trust, &stranger, &intruder, &thief).await;
        another_service_answers(&shop, &trust, &stranger, &intruder).await;
        distrusted(&shop, &door, &trust, &intruder).await;
        assert!(shop.backend.calls() >= 2, "true calls went through all the while");
    }

    async fn a_proxy_takes_services_only(
        door: &Door<'_>,
        trust: &TrustBundle,
        node: &Stranger,
        thief: &Forger,
    ) {
        door.refuses(trust, None, "no certificate was presented").await;
        let only = "is not accepted here: only services";
        door.refuses(trust, Some(&node.papers), &format!("spiffe://mesh.internal/node/stranger {only}"))
            .await;
        let server = thief.leaf("spiffe://mesh.internal/meshd/1", |_| {}).expect("forged");
        door.refuses(trust, Some(&server), &format!("spiffe://mesh.internal/meshd/1 {only}")).await;
        let foreign = Forger::founder("other.example").expect("an authority");
        let papers = foreign.leaf("spiffe://other.example/ns/default/svc/web", |_| {}).expect("signed");
        door.refuses(
            trust,
            Some(&papers),
            "spiffe://other.example/ns/default/svc/web is of another trust domain than mesh.internal",
        )
        .await;
        let papers = foreign.leaf("spiffe://mesh.internal/ns/default/svc/web", |_| {}).expect("signed");
        door.refuses(trust, Some(&papers), "signing certificate").await;
        let pretender = Forger::founder("mesh.internal").expect("an authority");
        let papers = pretender.leaf("spiffe://mesh.internal/ns/default/svc/web", |_| {}).expect("signed");
        door.refuses(
            trust,
            Some(&papers),
            "spiffe://mesh.internal/ns/default/svc/web is not signed by a root of mesh.internal",
        )
        .await;
    }

    /// Signed by a true intermediate, so that nothing but the flaw can be the reason.
    async fn flawed_leaves(door: &Door<'_>, trust: &TrustBundle, thief: &Forger) {
        let web = "spiffe://mesh.internal/ns/default/svc/web";
        let good = thief.leaf(web, |_| {}).expect("forged");
        drop(door.knock(trust, Some(&good)).await.opened());
        let twice = thief.leaf(web, |params| {
            params.subject_alt_names.push(uri("spiffe://mesh.internal/ns/default/svc/b").expect("ASCII"))
        });
        door.refuses(trust, Some(&twice.expect("forged")), "certificate has 2 URI SANs").await;
        let authority = thief.leaf(web, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        door.refuses(
            trust,
            Some(&authority.expect("forged")),
            &format!("{web}: the CA flag is set on a leaf"),
        )
        .await;
        let expired = thief
            .leaf(web, |params| (params.not_before, params.not_after) = (from_now(-7_200), from_now(-5)));
        door.refuses(trust, Some(&expired.expect("forged")), &format!("{web}: the certificate expired at 2"))
            .await;
        let early = thief
            .leaf(web, |params| (params.not_before, params.not_after) = (from_now(600), from_now(7_200)));
        door.refuses(
            trust,
            Some(&early.expect("forged")),
            &format!("{web}: the certificate is not valid before 2"),
        )
        .await;
    }

    /// A caller that is who it says, and wants to write to the application what no proxy has read: it would be whom it
    /// likes there.
    async fn no_raw_streams(shop: &Shop, trust: &TrustBundle, intruder: &Papers) {
        let address = (shop.back.address, 15_008).into();
        let mut raw = shake(
            address,
            trust,
            Expect::Id(mesh_id("/ns/default/svc/orders")),
            b"mesh-tcp/1",
            Some(intruder),
        )
        .await
        .expect("its papers are good");
        raw.write_all(&Preamble { port: 80 }.encode()).await.expect("it is taken");
        let mut answer = Vec::new();
        raw.read_to_end(&mut answer).await.expect("it is refused, not cut off");
        assert_eq!(answer.first(), Some(&1), "{}", String::from_utf8_lossy(&answer));
        assert!(
            answer[1..].starts_with(b"default/orders speaks HTTP at port 80"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }

    async fn servers_take_no_services(
        cluster: &Cluster,
        trust: &TrustBundle,
        node: &Stranger,
        service: &Papers,
        thief: &Forger,
    ) {
        let member = &cluster.members[0];
        let log = || member.log();
        let door = |port, alpn| Door {
            address: (member.address, port).into(),
            expect: Expect::Meshd,
            alpn,
            log: &log,
        };
        let (api, raft) = (door(8_443, b"http/1.1" as &[u8]), door(8_444, b"mesh-raft/1" as &[u8]));
        let intruder = "spiffe://mesh.internal/ns/default/svc/intruder is not accepted here";
        // People come to 8443 with a token and without a certificate: the door opens, and nothing is behind it.
        drop(api.knock(trust, None).await.opened());
        drop(api.knock(trust, Some(&node.papers)).await.opened());
        api.refuses(
            trust,
            Some(service),
            &format!("{intruder}: only nodes and members of the control plane"),
        )
        .await;
        raft.refuses(trust, Some(service), &format!("{intruder}: only members of the control plane")).await;
        raft.refuses(
            trust,
            Some(&node.papers),
            "spiffe://mesh.internal/node/stranger is not accepted here: only members",
        )
        .await;
        raft.refuses(trust, None, "no certificate was presented").await;
        let pretender = Forger::founder("mesh.internal").expect("an authority");
        let papers = pretender.leaf("spiffe://mesh.internal/meshd/1", |_| {}).expect("signed");
        raft.refuses(trust, Some(&papers), "spiffe://mesh.internal/meshd/1 is not signed by a root").await;
        // A true chain, and a number that is no member's and will not be given again.
        let ghost = thief.leaf("spiffe://mesh.internal/meshd/0", |_| {}).expect("forged");
        raft.refuses(trust, Some(&ghost), "spiffe://mesh.internal/meshd/0").await;
        let (status, answer) = node.call(Method::GET, "/v1/services", None).await.expect("an answer");
        assert_eq!(status, 403, "a node steers nothing: {answer}");
        let (status, answer) = node
            .call(Method::PUT, "/v1/namespaces/default/services/x", Some(&json!({})))
            .await
            .expect("an answer");
        assert_eq!(status, 403, "{answer}");
    }

    /// A host that may run orders registers an endpoint, and another service answers there: the caller's proxy refuses
    /// to talk to it, and calls go to the true one.
    async fn another_service_answers(
        shop: &Shop,
        trust: &TrustBundle,
        stranger: &Stranger,
        intruder: &Papers,
    ) {
        let address = shop.cluster.network.address(20);
        let (listener, heard) = (
            TcpListener::bind((address, 15_008)).await.expect("its own address"),
            tokio::sync::mpsc::channel(64),
        );
        let (heard, mut told) = heard;
        let store = TrustStore::new(Trust::from_bundle(trust).expect("trust"));
        let clock = std::sync::Arc::new(rustls::time_provider::DefaultTimeProvider);
        let alpn: [&[u8]; 3] = [b"h2", b"mesh-tcp/1", b"http/1.1"];
        let config = svid::server_config(intruder.certified(), store, Accept::Services, &alpn, clock);
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let impostor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let said = match acceptor.accept(stream).await {
                    Ok(mut tls) => tls.read(&mut [0; 1]).await.unwrap_or(0),
                    Err(_) => 0,
                };
                // Full is as good as told: one is enough.
                let _ = heard.try_send(said);
            }
        });
        register(stranger, "orders", &address.to_string()).await;
        let client = shop.client();
        let wanted = "spiffe://mesh.internal/ns/default/svc/intruder answered where spiffe://mesh.internal/ns/default/svc/orders was expected";
        until("the impostor is dialled and refused by name", PATIENCE, || async {
            let answer = client.get("/").await.map_err(|error| format!("{error:#}"))?;
            assert_eq!(
                (answer.status().as_u16(), answer.body().starts_with(b"true for")),
                (200, true),
                "{answer:?}"
            );
            let log = shop.front.log();
            if log.contains(wanted) { Ok(()) } else { Err(log) }
        })
        .await
        .expect("the caller's log says who answered");
        assert_eq!(told.recv().await, Some(0), "not one byte of a request went there");
        impostor.abort();
        let left = stranger.call(Method::DELETE, "/v1/proxy/registration", None).await.expect("an answer");
        assert!(left.0 < 300, "{left:?}");
    }

    async fn register(stranger: &Stranger, service: &str, address: &str) {
        let name = format!("{service}-{}", stranger.node);
        let endpoint = json!({"kind": "Endpoint", "metadata": {"namespace": "default", "name": name},
            "spec": {"service": service, "node": stranger.node, "address": address, "ports": [{"port": 80, "targetPort": 80}]},
            "status": {"health": "Healthy"}});
        let services =
            json!([{"service": format!("default/{service}"), "ports": [{"port": 80, "protocol": "http"}]}]);
        let body = json!({"version": "0.0.0", "addresses": [address], "services": services, "endpoints": [endpoint]});
        let (status, answer) =
            stranger.call(Method::PUT, "/v1/proxy/registration", Some(&body)).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }

    async fn distrusted(shop: &Shop, door: &Door<'_>, trust: &TrustBundle, intruder: &Papers) {
        let mut live = door.knock(trust, Some(intruder)).await.opened();
        let id = "spiffe://mesh.internal/ns/default/svc/intruder";
        shop.cluster.said(&["ca", "distrust", "--id", id]).await.fine();
        let closed = tokio::time::timeout(DISTRUSTED_WITHIN, async {
            let mut buffer = [0; 1_024];
            while matches!(live.read(&mut buffer).await, Ok(bytes) if bytes > 0) {}
        });
        closed.await.expect("the live connection is closed within seconds");
        door.refuses(trust, Some(intruder), &format!("{id} is distrusted")).await;
        let answer = shop.client().get("/").await.expect("others are not touched");
        assert_eq!(answer.status(), 200);
        let ca: Value =
            serde_json::from_str(&shop.cluster.said(&["ca", "status", "-o", "json"]).await.fine())
                .expect("JSON");
        assert!(ca["distrusted"].to_string().contains(id), "{ca}");
    }
}
