//! `meshctl cluster` and `ca`: the control plane itself.

use anyhow::Context as _;
use model::client::Client;
use reqwest::Method;
use serde_json::{Value, json};

use super::requests;
use crate::{
    cli::{Ca, Cluster},
    output::{self, Rows, line, text},
};

pub(super) async fn run(client: &Client, command: Cluster) -> anyhow::Result<()> {
    match command {
        Cluster::Status { output } => {
            let cluster: Value = client.json(Method::GET, "/v1/cluster", None).await?;
            output::print(output.output, &cluster, || Rows {
                header: vec![
                    "id",
                    "name",
                    "role",
                    "leader",
                    "reachable",
                    "last contact",
                    "applied",
                    "lag",
                    "version",
                    "api",
                    "raft",
                ],
                rows: rows(
                    &cluster["members"],
                    &[
                        "/id",
                        "/name",
                        "/role",
                        "/leader",
                        "/reachable",
                        "/lastContact",
                        "/applied",
                        "/lag",
                        "/version",
                        "/api",
                        "/raft",
                    ],
                ),
            })
        }
        Cluster::Transfer { to } => {
            let _: Value =
                client.json(Method::POST, "/v1/cluster/transfer", Some(&json!({ "to": to }))).await?;
            line(&format!("member {to} leads"))
        }
        Cluster::Remove { id } => {
            let _: Value = client.json(Method::DELETE, &format!("/v1/cluster/members/{id}"), None).await?;
            line(&format!("member {id} removed"))
        }
    }
}

pub(super) async fn ca(client: &Client, command: Ca) -> anyhow::Result<()> {
    match command {
        Ca::Status { output } => {
            let ca: Value = client.json(Method::GET, "/v1/ca", None).await?;
            output::print(output.output, &ca, || Rows {
                header: vec!["certificate", "member", "state", "not after", "fingerprint"],
                rows: certificates(&ca),
            })
        }
        Ca::Bundle => {
            let bundle: Value = client.json(Method::GET, "/v1/ca/bundle", None).await?;
            let roots = bundle["roots"].as_array().context("the answer has no roots")?;
            let pems: Vec<_> = roots.iter().filter_map(Value::as_str).map(str::trim_end).collect();
            line(&pems.join("\n"))
        }
        Ca::Distrust { node, id, intermediate } => {
            let body = match (node, id, intermediate) {
                (Some(node), ..) => json!({ "node": node }),
                (_, Some(id), _) => json!({ "id": id }),
                (.., intermediate) => json!({ "intermediate": intermediate }),
            };
            let _: Value = client.json(Method::POST, "/v1/ca/distrust", Some(&body)).await?;
            line("distrusted; proxies refuse it as soon as they hear of it")
        }
        Ca::Requests { output } => requests::list(client, output.output).await,
        Ca::Approve { id, fingerprint, yes } => requests::approve(client, &id, fingerprint, yes).await,
        Ca::Deny { id, reason } => requests::deny(client, &id, reason).await,
    }
}

fn rows(list: &Value, pointers: &[&str]) -> Vec<Vec<String>> {
    let row = |item: &Value| pointers.iter().map(|pointer| text(item, pointer)).collect();
    list.as_array().into_iter().flatten().map(row).collect()
}

fn certificates(ca: &Value) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (kind, list) in [("root", &ca["roots"]), ("intermediate", &ca["intermediates"])] {
        for mut row in rows(list, &["/member", "/state", "/notAfter", "/fingerprint"]) {
            row.insert(0, kind.to_owned());
            all.push(row);
        }
    }
    all
}
