//! `meshctl status` and `meshctl proxies`: is the mesh well?

use model::{
    client::{Client, Selection},
    kind::Kind,
    proxy::ProxyState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::Format,
    output::{self, Rows, line, text},
};

/// The answer of `GET /v1/proxies`.
#[derive(Serialize, Deserialize)]
struct Proxies {
    items: Vec<ProxyState>,
}

pub(super) async fn run(client: &Client, format: Format) -> anyhow::Result<()> {
    let cluster: Value = client.json(reqwest::Method::GET, "/v1/cluster", None).await?;
    let proxies = fetch(client).await?;
    let services = client.list(Kind::Service, &Selection::default()).await?;
    let ready = |pointer| {
        services
            .items
            .iter()
            .filter_map(|service| service.status.as_ref()?.pointer(pointer)?.as_u64())
            .sum::<u64>()
    };
    let live = proxies.items.iter().filter(|proxy| proxy.session == "Live").count();
    let summary = json!({
        "leader": cluster["leader"], "revision": cluster["revision"],
        "members": cluster["members"].as_array().map_or(0, Vec::len),
        "reachable": cluster["members"].as_array().map_or(0, |members| members.iter().filter(|member| member["reachable"] == true).count()),
        "proxies": {"live": live, "total": proxies.items.len()},
        "services": services.items.len(),
        "endpoints": {"ready": ready("/endpoints/ready"), "total": ready("/endpoints/total")},
    });
    if format != Format::Table {
        return output::print(format, &summary, || Rows { header: Vec::new(), rows: Vec::new() });
    }
    line(&format!("leader     {}", text(&summary, "/leader")))?;
    line(&format!("revision   {}", text(&summary, "/revision")))?;
    line(&format!(
        "members    {} of {} reachable",
        text(&summary, "/reachable"),
        text(&summary, "/members")
    ))?;
    line(&format!(
        "proxies    {} of {} live",
        text(&summary, "/proxies/live"),
        text(&summary, "/proxies/total")
    ))?;
    line(&format!("services   {}", text(&summary, "/services")))?;
    line(&format!(
        "endpoints  {} of {} ready",
        text(&summary, "/endpoints/ready"),
        text(&summary, "/endpoints/total")
    ))
}

pub(super) async fn proxies(client: &Client, format: Format) -> anyhow::Result<()> {
    let proxies = fetch(client).await?;
    output::print(format, &proxies, || Rows {
        header: vec!["node", "session", "version", "revision", "services", "left alone", "refused"],
        rows: proxies.items.iter().map(row).collect(),
    })
}

async fn fetch(client: &Client) -> anyhow::Result<Proxies> {
    Ok(client.json(reqwest::Method::GET, "/v1/proxies", None).await?)
}

fn row(proxy: &ProxyState) -> Vec<String> {
    let services: Vec<_> = proxy.services.iter().map(ToString::to_string).collect();
    let nack =
        proxy.nack.as_ref().map_or("-".to_owned(), |nack| format!("{}: {}", nack.revision, nack.reason));
    let left_alone: Vec<_> = proxy
        .left_alone
        .iter()
        .map(|left| format!("{}/{} ({})", left.service.namespace, left.endpoint, left.reason))
        .collect();
    vec![
        proxy.node.to_string(),
        proxy.session.clone(),
        proxy.version.clone(),
        proxy.revision.to_string(),
        services.join(","),
        if left_alone.is_empty() { "-".to_owned() } else { left_alone.join("; ") },
        nack,
    ]
}
