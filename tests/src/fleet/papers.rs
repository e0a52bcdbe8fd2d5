//! How a simulated proxy gets its certificate: by the join call, with a key made here.

use std::{net::SocketAddr, time::Duration};

use model::ca::JoinAnswer;
use serde_json::json;
use svid::KeyRequest;

use crate::steady::now;

/// How long a join may take while thousands are under way.
const PATIENCE: Duration = Duration::from_secs(60);
/// When who was told to come again comes again; as long as servers say.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a host has after it joined.
#[derive(Debug)]
pub(super) struct Papers {
    pub(super) node: String,
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
    pub(super) epoch: String,
}

pub(super) fn client(roots: &str) -> anyhow::Result<reqwest::Client> {
    let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes())?;
    Ok(reqwest::Client::builder().tls_certs_only(roots).timeout(PATIENCE).build()?)
}

pub(super) async fn join(
    http: reqwest::Client,
    server: SocketAddr,
    token: String,
    node: String,
) -> anyhow::Result<Papers> {
    let key = KeyRequest::generate()?;
    let body = json!({"token": token, "node": node, "csr": key.csr_pem, "version": "0.0.0"});
    let end = now() + PATIENCE;
    let (status, text) = loop {
        let answer = http.post(format!("https://{server}/v1/ca/join")).json(&body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status != 503 || now() >= end {
            break (status, text);
        }
        // Pace: a leader may be lost among thousands of joins. With the same key it is the same join, not another use.
        tokio::time::sleep(AGAIN_AFTER).await;
    };
    anyhow::ensure!(status == 201, "{node} was not let in: {status} {text}");
    let joined: JoinAnswer = serde_json::from_str(&text)?;
    Ok(Papers { node, chain_pem: joined.certificate, key_pem: key.key_pem, epoch: joined.epoch })
}
