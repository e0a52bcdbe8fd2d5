//! `meshctl token`: makes tokens. The secret is printed alone on stdout, so that a script can take it.

use anyhow::Context as _;
use model::{
    client::Client,
    kind::Kind,
    object::{Key, Object},
};
use serde_json::{Map, Value, json};

use crate::{
    cli::Token,
    output::{hint, line},
};

pub(super) async fn run(client: &Client, command: Token) -> anyhow::Result<()> {
    let (key, spec) = match command {
        Token::Join { name, server, uses, ttl, nodes, services, rejoin } => {
            let role = if server { "server" } else { "host" };
            let spec = json!({"role": role, "uses": uses, "ttl": ttl, "nodes": nodes, "services": services, "rejoin": rejoin});
            (Key::mesh_wide(Kind::JoinToken, name), spec)
        }
        Token::Access { name, roles, ttl } => {
            let spec = ttl.map_or_else(|| json!({"roles": roles}), |ttl| json!({"roles": roles, "ttl": ttl}));
            (Key::mesh_wide(Kind::AccessToken, name), spec)
        }
    };
    create(client, key, spec).await
}

async fn create(client: &Client, key: Key, spec: Value) -> anyhow::Result<()> {
    let spec: Map<String, Value> = serde_json::from_value(spec)?;
    let (object, created) = client.put(&Object::new(key.clone(), spec)).await?;
    if !created {
        anyhow::bail!("{key} exists, and its secret was shown once; delete it first, or choose another name");
    }
    let status = object.status.context("the answer has no status")?;
    let token = status["token"].as_str().context("the answer has no token")?;
    match status["expiresAt"].as_str() {
        Some(expires) => hint(&format!("{key}, valid until {expires}; it is shown only now:")),
        None => hint(&format!("{key}, valid until it is deleted; it is shown only now:")),
    }
    line(token)
}
