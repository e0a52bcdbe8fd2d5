//! Without a majority nobody new comes in, but what is there goes on: a server that is left renews the certificates that
//! hosts hold, from what it knows.

mod heavy {
    use mesh_tests::{
        cluster::Cluster,
        scratch::Scratch,
        stranger::{Papers, Stranger},
    };
    use reqwest::Method;
    use serde_json::{Value, json};
    use svid::KeyRequest;

    /// Asks for a certificate; the status, and the answer to the one request.
    async fn ask(host: &Stranger, service: &str, current: Option<&str>) -> (u16, Value, KeyRequest) {
        let key = KeyRequest::generate().expect("a key");
        let mut request = json!({"service": service, "csr": key.csr_pem});
        if let Some(current) = current {
            request["current"] = current.into();
        }
        let body = json!({"requests": [request]});
        let (status, answer) =
            host.call(Method::POST, "/v1/ca/certificates", Some(&body)).await.expect("an answer");
        (status, answer["certificates"][0].clone(), key)
    }

    #[tokio::test]
    async fn certificates_are_renewed_without_a_majority_and_new_ones_are_not() {
        let scratch = Scratch::new("renewal");
        let mut cluster = Cluster::start(scratch.path(), 3, |_| {}).await.expect("three servers");
        let host =
            Stranger::join(&cluster, "host-r", &["default/orders", "default/web"]).await.expect("let in");
        let (status, first, _) = ask(&host, "default/orders", None).await;
        let current = first["certificate"].as_str().unwrap_or_else(|| panic!("{status}: {first}"));
        cluster.members[1].kill();
        cluster.members[2].kill();

        let (status, renewed, key) = ask(&host, "default/orders", Some(current)).await;
        let chain = renewed["certificate"].as_str().unwrap_or_else(|| panic!("{status}: {renewed}"));
        assert_ne!(chain, current);
        Papers::from_pem(chain, &key.key_pem).expect("a certificate for the new key").certified();

        let (status, new, _) = ask(&host, "default/web", None).await;
        assert!(status == 503 || new["error"].is_string(), "{status}: {new}");
        assert!(new["certificate"].is_null(), "an identity was given out that no majority knows of: {new}");
        // What it holds for one service proves nothing about another.
        let (_, other, _) = ask(&host, "default/web", Some(current)).await;
        assert!(other["certificate"].is_null(), "{other}");
    }
}
