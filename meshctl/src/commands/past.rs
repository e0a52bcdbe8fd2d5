//! `meshctl history`, `diff` and `rollback`: what changed, what would, and the way back.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, bail};
use model::{client::Client, kind::Kind, manifest, name::Name, object::Key};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cli::{Format, Place},
    commands::read_manifests,
    diff,
    output::{self, Rows, confirm, line, text},
};

/// Which revisions to show.
pub(super) struct Past {
    pub(super) kind: Option<Kind>,
    pub(super) name: Option<Name>,
    pub(super) place: Place,
    pub(super) from: Option<u64>,
    pub(super) limit: u64,
}

pub(super) async fn history(client: &Client, past: Past, format: Format) -> anyhow::Result<()> {
    let mut path = format!("/v1/history?limit={}", past.limit);
    if let Some(kind) = past.kind {
        path += &format!("&kind={kind}");
        let place = past.place.name();
        match (&past.name, past.place.namespace) {
            (Some(name), _) if kind.namespaced() => path += &format!("&namespace={place}&name={name}"),
            (Some(name), _) => path += &format!("&name={name}"),
            (None, Some(namespace)) => path += &format!("&namespace={namespace}"),
            (None, None) => {}
        }
    } else if let Some(namespace) = past.place.namespace {
        path += &format!("&namespace={namespace}");
    }
    path += &past.from.map_or_else(String::new, |from| format!("&from={from}"));
    if past.name.is_some() {
        path += "&objects=true";
    }
    let history: Value = client.json(Method::GET, &path, None).await?;
    output::print(format, &history, || Rows {
        header: vec!["revision", "at", "change", "object", "actor"],
        rows: list(&history, "items").flat_map(changes).collect(),
    })
}

fn changes(revision: &Value) -> Vec<Vec<String>> {
    let row = |change: &Value| {
        vec![
            text(revision, "/revision"),
            text(revision, "/at"),
            text(change, "/change"),
            object_name(change),
            text(change, "/actor"),
        ]
    };
    list(revision, "changes").map(row).collect()
}

/// What the manifests would change.
pub(super) async fn diff_files(client: &Client, files: &[PathBuf]) -> anyhow::Result<()> {
    let manifest = read_manifests(files)?;
    let wanted: Vec<_> = manifest::parse(&manifest)?.into_iter().map(|parsed| parsed.object.key()).collect();
    let mut before = Vec::new();
    for key in &wanted {
        before.push(match client.get(key).await {
            Ok(object) => Some(serde_json::to_value(object)?),
            Err(error) if error.status() == Some(404) => None,
            Err(error) => return Err(error.into()),
        });
    }
    let after = client.apply(manifest, true).await?;
    for ((key, before), after) in wanted.iter().zip(before).zip(after.items) {
        show(&key.to_string(), before.as_ref(), Some(&serde_json::to_value(after)?))?;
    }
    Ok(())
}

/// What changed between two revisions.
pub(super) async fn diff_revisions(client: &Client, from: u64, to: Option<u64>) -> anyhow::Result<()> {
    let mut objects: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    let mut next = to.map_or_else(String::new, |to| to.to_string());
    loop {
        let page = if next.is_empty() { String::new() } else { format!("&continue={next}") };
        let path = format!("/v1/history?from={from}&objects=true&limit=100{page}");
        let history: Value = client.json(Method::GET, &path, None).await?;
        // Newest first: the first `after` and the last `before` of each object.
        for change in list(&history, "items").flat_map(|revision| list(revision, "changes")) {
            let (before, after) = (&change["before"], &change["after"]);
            objects
                .entry(object_name(change))
                .and_modify(|kept| kept.0 = before.clone())
                .or_insert_with(|| (before.clone(), after.clone()));
        }
        next = text(&history, "/metadata/continue");
        if next.is_empty() || next == "-" {
            break;
        }
    }
    for (name, (before, after)) in objects {
        show(
            &name,
            Some(&before).filter(|value| !value.is_null()),
            Some(&after).filter(|value| !value.is_null()),
        )?;
    }
    Ok(())
}

fn show(name: &str, before: Option<&Value>, after: Option<&Value>) -> anyhow::Result<()> {
    let yaml = |object: Option<&Value>| object.map_or(Ok(String::new()), written);
    let (old, new) = (yaml(before)?, yaml(after)?);
    let found = diff::unified(&old, &new);
    if found.is_empty() {
        return Ok(());
    }
    let side = |object: Option<&Value>| if object.is_some() { name } else { "/dev/null" };
    line(&output::coloured(&format!("--- {}", side(before))))?;
    line(&output::coloured(&format!("+++ {}", side(after))))?;
    found.iter().try_for_each(|text| line(&output::coloured(text)))
}

/// The part that users write, as YAML.
fn written(object: &Value) -> anyhow::Result<String> {
    let mut metadata = object["metadata"].as_object().cloned().context("an object has metadata")?;
    metadata.retain(|field, _| ["namespace", "name", "labels", "annotations"].contains(&field.as_str()));
    output::yaml(&json!({"kind": object["kind"], "metadata": metadata, "spec": object["spec"]}))
}

pub(super) async fn rollback(client: &Client, revision: u64, dry_run: bool, yes: bool) -> anyhow::Result<()> {
    let body = json!({ "revision": revision });
    let planned: Value = client.json(Method::POST, "/v1/rollback?dryRun=true", Some(&body)).await?;
    for change in list(&planned, "changes") {
        let note = if dry_run { " (dry run)" } else { "" };
        line(&format!("{} {}{note}", object_name(change), text(change, "/change")))?;
    }
    if dry_run {
        return Ok(());
    }
    if list(&planned, "changes").next().is_none() {
        return line(&format!("everything stands as at revision {revision}"));
    }
    if !yes {
        confirm("These objects will be written.")?;
    }
    let done: Value = client.json(Method::POST, "/v1/rollback", Some(&body)).await?;
    if done["target"] != revision {
        bail!("the answer is about revision {}", done["target"]);
    }
    line(&format!("rolled back to revision {revision}, as revision {}", text(&done, "/revision")))
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// `Service default/web`.
fn object_name(change: &Value) -> String {
    let key: Option<Key> = serde_json::from_value(json!({
        "kind": change["kind"], "namespace": change["namespace"], "name": change["name"],
    }))
    .ok();
    key.map_or_else(|| text(change, "/name"), |key| key.to_string())
}
