//! `meshctl ca requests`, `approve` and `deny`: hosts that ask to come back without a token.

use anyhow::bail;
use model::{
    client::{Client, ClientError},
    duration::{Millis, Timespan},
    rejoin::{Approval, Denial, RejoinRequests, RejoinStatus, Standing, grouped},
};
use reqwest::Method;
use serde::Serialize;

use crate::{
    cli::Format,
    output::{self, Rows, confirm, hint, line},
};

const REQUESTS: &str = "/v1/ca/requests";

pub(super) async fn list(client: &Client, format: Format) -> anyhow::Result<()> {
    let requests: RejoinRequests = client.json(Method::GET, REQUESTS, None).await?;
    if requests.items.is_empty() && format == Format::Table {
        hint("no host asks to come back");
        return Ok(());
    }
    let now = requests.at;
    output::print(format, &requests, || Rows {
        header: vec!["id", "node", "state", "from", "age", "expires", "fingerprint"],
        rows: requests.items.iter().map(|request| row(request, now)).collect(),
    })
}

/// Without a fingerprint to hold against the request, whoever types is asked.
pub(super) async fn approve(
    client: &Client,
    id: &str,
    fingerprint: Option<String>,
    yes: bool,
) -> anyhow::Result<()> {
    if fingerprint.is_none() && !yes {
        let asks = one(client, id).await?;
        confirm(&format!(
            "{} gets a new identity for whoever holds the key\n  {}\nIt has to be what the host's own terminal shows.",
            asks.node,
            grouped(&asks.fingerprint)
        ))?;
    }
    let approved = judge(client, id, "approve", &Approval { fingerprint }).await?;
    let (node, key) = (approved.node, grouped(&approved.fingerprint));
    line(&format!("node {node} may come back with the key {key}"))
}

pub(super) async fn deny(client: &Client, id: &str, reason: Option<String>) -> anyhow::Result<()> {
    // Who may deny need not be allowed to list.
    let before = one(client, id).await.ok();
    let denied = judge(client, id, "deny", &Denial { reason }).await?;
    if before.is_some_and(|before| before.state == Standing::Approved) {
        let node = &denied.node;
        hint(&format!(
            "it had been approved; if it has its certificate already: meshctl ca distrust --node {node}"
        ));
    }
    line(&format!("node {} may not come back with the key {}", denied.node, grouped(&denied.fingerprint)))
}

/// One request, as operators see it.
async fn one(client: &Client, id: &str) -> anyhow::Result<RejoinStatus> {
    let requests: RejoinRequests = client.json(Method::GET, REQUESTS, None).await?;
    match requests.items.into_iter().find(|request| request.id == id) {
        Some(request) => Ok(request),
        None => bail!("there is no request {id}: see `meshctl ca requests`"),
    }
}

async fn judge(
    client: &Client,
    id: &str,
    verb: &str,
    body: &impl Serialize,
) -> Result<RejoinStatus, ClientError> {
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    let body = serde_json::to_value(body).map_err(|error| ClientError::Answer(error.to_string()))?;
    client.json(Method::POST, &format!("{REQUESTS}/{id}/{verb}"), Some(&body)).await
}

fn row(request: &RejoinStatus, now: Millis) -> Vec<String> {
    let state = serde_json::to_value(request.state).ok();
    let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("-").to_owned();
    let from = request.from.clone().unwrap_or_else(|| "-".to_owned());
    let (age, left) = (span(request.filed_at, now), span(now, request.expires_at));
    let (id, node) = (request.id.clone(), request.node.to_string());
    vec![id, node, state, from, age, left, grouped(&request.fingerprint)]
}

/// In whole seconds; none where it would be less.
fn span(from: Millis, to: Millis) -> String {
    Timespan::from_secs(to.0.saturating_sub(from.0) / 1_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_what_is_compared_and_how_long_there_is() {
        let request = RejoinStatus {
            id: "r1".to_owned(),
            node: "host-a".parse().expect("a name"),
            fingerprint: "3f2a91c0".repeat(8),
            state: Standing::Pending,
            filed_at: Millis(60_000),
            expires_at: Millis(3_660_000),
            from: Some("10.0.0.9".to_owned()),
            version: None,
            by: None,
            reason: None,
            joined: None,
        };
        let shown = row(&request, Millis(120_500));
        assert_eq!(shown[..6], ["r1", "host-a", "pending", "10.0.0.9", "1m", "58m59s"]);
        assert!(shown[6].starts_with("3f2a 91c0 3f2a"), "{shown:?}");
        assert_eq!(row(&request, Millis(1))[4], "0s", "time does not go back");
    }
}
