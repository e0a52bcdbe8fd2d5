//! Coming in: a token lets in as many as it says, each under a name that is free, and its secret is told to nobody but
//! the control plane that made it. What a host may not be, it gets no certificate for.

mod heavy {
    use std::{
        net::Ipv4Addr,
        path::PathBuf,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use mesh_tests::{
        binaries,
        cluster::Cluster,
        scratch::{Said, Scratch},
        stranger::{Forger, Papers, Stranger, bundle, redeem},
    };
    use model::token::JoinToken;
    use reqwest::Method;
    use rustls::{ServerConfig, version::TLS13};
    use serde_json::{Value, json};
    use svid::KeyRequest;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// As many try one token at once.
    const TRIES: usize = 100;
    /// How long a host that joins may take to give up.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn csr() -> String {
        KeyRequest::generate().expect("a key").csr_pem
    }

    async fn nodes(cluster: &Cluster) -> Vec<String> {
        let said = cluster.said(&["get", "nodes", "-o", "json"]).await.fine();
        let list: Value = serde_json::from_str(&said).expect("JSON");
        let items = list["items"].as_array().expect("a list");
        items.iter().map(|node| node["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }

    #[tokio::test]
    async fn tokens_names_and_grants_hold() {
        let scratch = Scratch::new("joining");
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        names_are_not_taken_over(&cluster).await;
        grants(&cluster).await;
        the_secret_is_told_to_nobody_else(&cluster, &scratch).await;
        // Last: after so many bad tries further ones are held off for some seconds, told by 429.
        a_token_tried_a_hundred_times_at_once_is_used_once(&cluster).await;
    }

    async fn a_token_tried_a_hundred_times_at_once_is_used_once(cluster: &Cluster) {
        let token = cluster.said(&["token", "join", "once"]).await.fine();
        let tries = (0..TRIES).map(|n| {
            let (token, node) = (token.trim().to_owned(), format!("crowd-{n}"));
            async move { redeem(cluster, &token, &node, &csr()).await.expect("an answer") }
        });
        let answers = futures_util::future::join_all(tries).await;
        let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 201);
        assert_eq!((good.len(), bad.len()), (1, TRIES - 1));
        for (status, body) in bad {
            let used_up = *status == 409 || *status == 403 || *status == 401;
            // Who only guesses is slowed down; that is also a no.
            assert!(
                used_up && body["detail"].as_str().is_some_and(|text| text.contains("used up"))
                    || *status == 429,
                "{status}: {body}"
            );
        }
        let mut joined = nodes(cluster).await;
        joined.retain(|node| node.starts_with("crowd-"));
        assert_eq!(joined, [good[0].1["node"].as_str().expect("a name")]);
        let left = cluster.said(&["get", "jointoken", "once", "-o", "json"]).await.fine();
        let left: Value = serde_json::from_str(&left).expect("JSON");
        assert_eq!(left["status"]["usesLeft"], 0, "{left}");
    }

    async fn names_are_not_taken_over(cluster: &Cluster) {
        let first = Stranger::join(cluster, "host-x", &["default/a"]).await.expect("the name is free");
        let token = cluster.said(&["token", "join", "again", "--uses", "5"]).await.fine();
        let (status, body) = redeem(cluster, token.trim(), "host-x", &csr()).await.expect("an answer");
        assert!((400..500).contains(&status), "{status}: {body}");
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|text| text.contains("'host-x' exists") && text.contains("rejoin")),
            "{body}"
        );
        let token = cluster.said(&["token", "join", "back", "--rejoin", "--node", "host-x"]).await.fine();
        let (status, body) = redeem(cluster, token.trim(), "host-y", &csr()).await.expect("an answer");
        assert!((400..500).contains(&status), "a rejoin token is for one name: {status}: {body}");
        let (status, body) = redeem(cluster, token.trim(), "host-x", &csr()).await.expect("an answer");
        assert_eq!((status, &body["node"]), (201, &json!("host-x")), "{body}");
        let (status, body) = redeem(cluster, token.trim(), "host-x", &csr()).await.expect("an answer");
        assert!((400..500).contains(&status), "once: {status}: {body}");
        // A key that took a use may ask again: its answer may have been lost.
        let token = cluster.said(&["token", "join", "lossy", "--node", "host-z"]).await.fine();
        let key = KeyRequest::generate().expect("a key");
        for _ in 0..2 {
            let (status, body) =
                redeem(cluster, token.trim(), "host-z", &key.csr_pem).await.expect("an answer");
            assert_eq!(status, 201, "{body}");
        }
        drop(first);
    }

    async fn grants(cluster: &Cluster) {
        let host = Stranger::join(cluster, "host-g", &["default/orders", "shop/*"]).await.expect("it joins");
        host.certificate("default/orders").await.expect("granted by name");
        host.certificate("shop/anything").await.expect("granted by glob");
        let refused = host.certificate("default/payments").await.expect_err("not granted").to_string();
        assert!(refused.contains("default/payments") && refused.contains("host-g"), "{refused}");
        let log = cluster.members[0].log();
        let told = log.lines().any(|line| {
            line.contains("certificate refused") && line.contains("host-g") && line.contains("payments")
        });
        assert!(told, "the log names host and service:\n{log}");
        let other = json!({"requests": [{"node": "host-x", "csr": csr()}]});
        let (status, answer) =
            host.call(Method::POST, "/v1/ca/certificates", Some(&other)).await.expect("an answer");
        assert_eq!(status, 200, "each is judged by itself");
        assert!(answer["certificates"][0]["certificate"].is_null(), "another node's name: {answer}");
        assert!(
            answer["certificates"][0]["error"].as_str().is_some_and(|text| text.contains("host-x")),
            "{answer}"
        );
        let endpoint = json!({"kind": "Endpoint", "metadata": {"namespace": "default", "name": "p-1"},
            "spec": {"service": "payments", "node": "host-g", "address": "127.0.0.1", "ports": [{"port": 80, "targetPort": 80}]}, "status": {"health": "Healthy"}});
        let body = json!({"version": "0", "addresses": ["127.0.0.1"], "services": [{"service": "default/payments", "ports": [{"port": 80, "protocol": "http"}]}], "endpoints": [endpoint]});
        let (status, answer) =
            host.call(Method::PUT, "/v1/proxy/registration", Some(&body)).await.expect("an answer");
        assert!(
            (400..500).contains(&status) && answer.to_string().contains("payments"),
            "{status}: {answer}"
        );
        // Shut out: no certificates any more.
        cluster.said(&["delete", "node", "host-g"]).await.fine();
        let gone = host.certificate("default/orders").await.expect_err("its node is gone").to_string();
        assert!(!gone.is_empty());
    }

    /// What a false server got to read.
    type Heard = Arc<Mutex<Vec<u8>>>;

    /// A TLS server that shows `papers`, answers every request with `bundle`, and writes down all it is told.
    async fn false_server(papers: &Papers, bundle: Value) -> (u16, Heard) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let builder = ServerConfig::builder_with_provider(svid::provider().clone());
        let builder = builder.with_protocol_versions(&[&TLS13]).expect("TLS 1.3").with_no_client_auth();
        let mut config = builder.with_cert_resolver(papers.certified());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (acceptor, heard) = (tokio_rustls::TlsAcceptor::from(Arc::new(config)), Heard::default());
        let (body, log) = (bundle.to_string(), heard.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 4_096];
                let Ok(bytes) = tls.read(&mut buffer).await else { continue };
                log.lock().expect("nothing panics").extend_from_slice(&buffer[..bytes]);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
                let answer = format!("{head} {}\r\n\r\n{body}", body.len());
                // A client that hangs up is one of the outcomes.
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        (port, heard)
    }

    async fn join(scratch: &Scratch, name: &str, port: u16, token: &str) -> (Said, PathBuf) {
        let data = scratch.path().join(name);
        let mut command = tokio::process::Command::new(binaries::path("mesh-proxy"));
        let address = format!("https://127.0.0.1:{port}");
        command.args(["join", &address, "--token", token, "--node", name, "--data-dir"]).arg(&data);
        let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
        (output.expect("it gives up").expect("it starts").into(), data)
    }

    async fn the_secret_is_told_to_nobody_else(cluster: &Cluster, scratch: &Scratch) {
        let token = cluster.said(&["token", "join", "secret", "--uses", "9"]).await.fine();
        let token = token.trim();
        let secret = token.parse::<JoinToken>().expect("a token").secret;
        let liar = Forger::founder("mesh.internal").expect("an authority");
        let papers = liar.leaf("spiffe://mesh.internal/meshd/1", |params| {
            params.subject_alt_names.push(rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        });
        let papers = papers.expect("signed");
        let truth = serde_json::to_value(bundle(cluster).await.expect("the bundle")).expect("JSON");
        let mut lie = truth.clone();
        lie["roots"] = json!([liar.root_pem()]);
        // One shows its own root, which the pin does not fit; the other the true root, which did not sign its papers.
        for (name, shown, words) in [
            ("own-root", lie, "none of its roots has the fingerprint"),
            ("stolen-root", truth, "is not signed by a root"),
        ] {
            let (port, heard) = false_server(&papers, shown).await;
            let (said, data) = join(scratch, name, port, token).await;
            let error = said.failed(1);
            assert!(error.contains(words), "{name}: {error}");
            assert!(!error.contains(&secret), "{error}");
            let heard = String::from_utf8_lossy(&heard.lock().expect("nothing panics")).into_owned();
            assert!(heard.starts_with("GET /v1/ca/bundle"), "{name}: {heard}");
            assert!(!heard.contains(&secret) && !heard.contains("POST"), "{name}: {heard}");
            assert!(!data.join("node.pem").exists() && !data.join("node.json").exists(), "it joined nothing");
        }
    }
}
