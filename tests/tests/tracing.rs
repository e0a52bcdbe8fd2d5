//! Spans of sampled calls at a real collector: both proxies' spans stand in the caller's trace, one below the other.

mod heavy {
    use std::{collections::BTreeMap, io::Write, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        foreign::{listening, python},
        host::{Host, LocalService},
        loopback::free_port,
        plain::Plain,
        scratch::Scratch,
        wait::until,
    };

    /// How long the mesh may take to do what it does by itself.
    const PATIENCE: Duration = Duration::from_secs(30);
    const ORDERS: &str = "{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CALLER_SPAN: &str = "b7ad6b7169203331";

    /// The spans that the collector says it got: each its fields and attributes, in the order of its text.
    fn spans(log: &str) -> Vec<BTreeMap<String, String>> {
        let mut spans: Vec<BTreeMap<String, String>> = Vec::new();
        let mut service = String::new();
        for line in log.lines() {
            if line.starts_with("Span #") {
                spans.push(BTreeMap::from([("service".to_owned(), service.clone())]));
            } else if let Some((name, value)) = line.split_once(": ") {
                let name = name.trim().trim_start_matches("-> ").trim().to_owned();
                if name == "service.name" {
                    service = value.to_owned();
                } else if let Some(span) = spans.last_mut() {
                    span.insert(name, value.trim().to_owned());
                }
            }
        }
        spans
    }

    /// Has a host's proxy send spans to the collector.
    async fn traced(host: &mut Host, port: u16) {
        host.proxy.take().expect("it runs").terminate(PATIENCE).await.expect("it ends");
        let mut config = std::fs::File::options().append(true).open(host.config()).expect("its file");
        let own = format!("\n[tracing]\ncollector = \"http://127.0.0.1:{port}\"\n");
        config.write_all(own.as_bytes()).expect("written");
        host.run().await.expect("it starts");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sampled_calls_are_seen_at_a_real_collector() {
        let scratch = Scratch::new("tracing");
        let (http, grpc) = (free_port(), free_port());
        let mut collector = python("otlp_receiver.py");
        collector.args([http.to_string(), grpc.to_string()]);
        let collector = listening("collector", scratch.path(), &mut collector, http).await;
        let collector = collector.expect("it listens");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let app = Backend::start("orders").await.expect("an application");
        let orders = [LocalService::new("orders", app.port, 80, "http")];
        let back = Host::start(&cluster, scratch.path(), "back", 12, &orders, |_| {}).await;
        let web = [LocalService::new("web", 1, 80, "http").calling("orders", 9_001)];
        let front = Host::start(&cluster, scratch.path(), "front", 11, &web, |_| {}).await;
        let (mut back, mut front) = (back.expect("a host"), front.expect("a host"));
        let file = scratch.write("orders.yaml", ORDERS).display().to_string();
        cluster.said(&["apply", "-f", &file]).await.fine();
        traced(&mut back, http).await;
        traced(&mut front, http).await;
        let client = Plain::new((front.address, 9_001).into(), "orders.default.mesh");
        let sampled = format!("00-{TRACE}-{CALLER_SPAN}-01");
        until("a sampled call goes through", PATIENCE, || async {
            let fields = [("traceparent", sampled.as_str())];
            let answer =
                client.with_fields("/a?secret=1", &fields).await.map_err(|error| format!("{error:#}"))?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await
        .expect("in time");
        // Nobody has sampled this one.
        assert_eq!(client.get("/unsampled").await.expect("an answer").status(), 200);
        let both = until("both proxies' spans come", PATIENCE, || async {
            let spans = spans(&collector.log());
            let of = |kind: &str| {
                let good = |span: &&BTreeMap<_, _>| {
                    span["Kind"] == kind
                        && span.get("http.response.status_code").is_some_and(|code| code == "Int(200)")
                };
                spans.iter().find(good).cloned()
            };
            of("SPAN_KIND_CLIENT").zip(of("SPAN_KIND_SERVER")).ok_or_else(|| format!("{spans:?}"))
        })
        .await
        .expect("in time");
        let (caller, callee) = both;
        assert_eq!((caller["service"].as_str(), callee["service"].as_str()), ("Str(web)", "Str(orders)"));
        for span in [&caller, &callee] {
            assert_eq!((span["Trace ID"].as_str(), span["Name"].as_str()), (TRACE, "GET"));
            assert_eq!((span["url.path"].as_str(), span["mesh.mtls"].as_str()), ("Str(/a)", "Bool(true)"));
            assert_eq!(span["mesh.destination"], "Str(default/orders)");
        }
        assert_eq!((caller["Parent ID"].as_str(), &callee["Parent ID"]), (CALLER_SPAN, &caller["ID"]));
        assert!(!collector.log().contains("unsampled"), "{}", collector.log());
        let metrics = front.admin("/metrics").await.expect("metrics");
        assert!(metrics.contains("mesh_spans_total{end=\"dropped\"} 0"), "{metrics}");

        // A collector that is gone costs spans, and nobody a call.
        drop(collector);
        let answer = client.with_fields("/", &[("traceparent", sampled.as_str())]).await;
        assert_eq!(answer.expect("an answer").status(), 200);
        until("the loss is counted", PATIENCE, || async {
            let metrics = front.admin("/metrics").await.map_err(|error| error.to_string())?;
            let line = metrics.lines().find(|line| line.starts_with("mesh_spans_total{end=\"dropped\"}"));
            let lost = line.is_some_and(|line| !line.ends_with(" 0"));
            if lost { Ok(()) } else { Err(metrics) }
        })
        .await
        .expect("in time");
    }
}
