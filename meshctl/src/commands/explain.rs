//! `meshctl explain`: what would become of a call, and why.

use model::{
    client::Client,
    explain::{BackEnd, Explanation, Reached, Route, Verdict},
};
use reqwest::Method;
use serde_json::Value;

use crate::{
    cli::{Explain, Format},
    commands::read_manifests,
    output::{self, Rows, line},
};

pub(super) async fn run(client: &Client, explain: &Explain) -> anyhow::Result<()> {
    let change: Option<Value> = match explain.files.as_slice() {
        [] => None,
        files => Some(serde_json::from_str(&read_manifests(files)?)?),
    };
    let question = explain.question(change);
    let explanation: Explanation = client.json(Method::POST, "/v1/explain", Some(&question)).await?;
    match explain.output.output {
        Format::Table => words(&explanation).iter().try_for_each(|text| line(text))?,
        other => return output::print(other, &explanation, || Rows { header: Vec::new(), rows: Vec::new() }),
    }
    Ok(())
}

/// The explanation for people, line by line.
fn words(explanation: &Explanation) -> Vec<String> {
    let Explanation { from, to, port, .. } = explanation;
    let after = if explanation.changed { " after the change" } else { "" };
    let mut lines = vec![format!(
        "{} calls {to} at port {} ({}), at revision {}{after}",
        from.service, port.number, port.protocol, explanation.revision
    )];
    if let Some(request) = &explanation.request {
        lines.push(format!("request    {} {} (Host {})", request.method, request.path, request.authority));
    }
    lines.extend(explanation.route.iter().flat_map(route));
    lines.extend(explanation.answer.iter().map(|answer| {
        let to = answer.location.as_ref().map_or(String::new(), |location| format!(", to {location}"));
        format!("answer     {} by the rule itself{to}", answer.status)
    }));
    lines.extend(explanation.refused.iter().map(|why| format!("refused    {why}")));
    lines.extend(explanation.backends.iter().flat_map(back_end));
    lines.extend(explanation.notes.iter().map(|note| format!("note       {note}")));
    lines
}

fn route(route: &Route) -> Vec<String> {
    let mut lines = vec![format!("rule       {}", route.rule.as_deref().unwrap_or("none"))];
    lines.extend(route.because.iter().map(|because| format!("  because  {because}")));
    let passed =
        |passed: &model::explain::PassedOver| format!("  not      {}: {}", passed.rule, passed.lacks);
    lines.extend(route.passed_over.iter().map(passed));
    lines.extend(route.filters.iter().map(|filter| format!("  filter   {filter}")));
    lines.extend(route.path.iter().map(|path| format!("  path     {path}")));
    lines.extend(route.authority.iter().map(|host| format!("  host     {host}")));
    lines
}

fn back_end(back_end: &BackEnd) -> Vec<String> {
    let share = format!("weight {}, {}%", back_end.weight, back_end.percent);
    let mut lines = vec![format!("back end   {} ({share})", back_end.name)];
    lines.extend(back_end.refused.iter().map(|why| format!("  refused  {why}")));
    lines.extend(back_end.filters.iter().map(|filter| format!("  filter   {filter}")));
    lines.extend(back_end.path.iter().map(|path| format!("  path     {path}")));
    lines.extend(back_end.authority.iter().map(|host| format!("  host     {host}")));
    lines.extend(back_end.reached.iter().flat_map(reached));
    lines
}

fn reached(reached: &Reached) -> Vec<String> {
    let mut lines: Vec<_> = reached.endpoints.iter().map(endpoint).collect();
    let untold = reached.endpoints_total - reached.endpoints.len().min(reached.endpoints_total);
    if untold > 0 {
        lines.push(format!("  endpoint …and {untold} more"));
    }
    if reached.endpoints_total == 0 {
        lines.push("  endpoint none: calls fail".to_owned());
    }
    let policy = reached.traffic_policy.as_ref();
    lines.extend(policy.map(|policy| {
        format!("  policy   TrafficPolicy {}: {}", policy.name, Value::Object(policy.spec.clone()))
    }));
    let whole = reached.timeout.as_deref().unwrap_or("none");
    lines.push(format!("  times    request {whole}, retries {}", reached.retries));
    lines.extend(verdict(&reached.verdict));
    lines
}

fn endpoint(endpoint: &model::explain::Endpoint) -> String {
    let model::explain::Endpoint { name, address, health, weight, percent, .. } = endpoint;
    let place = endpoint.node.as_ref().map_or("without a proxy".to_owned(), |node| format!("on {node}"));
    let zone = endpoint.zone.as_ref().map_or(String::new(), |zone| format!(" in {zone}"));
    let stale = if endpoint.stale { ", stale" } else { "" };
    let because = endpoint.because.as_ref().map_or(String::new(), |because| format!(": {because}"));
    format!(
        "  endpoint {name} {place}{zone} ({address}), {health}{stale}, weight {weight}: {percent}%{because}"
    )
}

fn verdict(verdict: &Verdict) -> Vec<String> {
    let word = if verdict.allowed { "let in" } else { "denied" };
    let rule = verdict.rule.as_ref().map_or(String::new(), |rule| format!(" by rule {rule}"));
    let reason = verdict.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let mut lines = vec![
        format!("  verdict  {word}{rule}{reason}"),
        format!("  peers    {} by {}", verdict.mode, verdict.mode_rule),
    ];
    for (word, rules) in [
        ("audited", &verdict.audited),
        ("would deny", &verdict.would_deny),
        ("would allow", &verdict.would_allow),
    ] {
        lines.extend(rules.iter().map(|rule| format!("  {word} by {rule}")));
    }
    lines
}
