//! What is written for another mesh, what it becomes here, and what is told of it: each case a text, the objects a line
//! each, and the remarks by their line and place.

use std::collections::BTreeMap;

use model::{manifest, resource::Port};

use super::*;

mod access;
mod consul;
mod kuma;

pub(super) fn setting(usual: Verdict) -> Setting {
    let namespace = "default".parse().expect("a label");
    Setting { ports: Ports { usual: Port::clamped(80), own: BTreeMap::new() }, usual, namespace }
}

/// A line for each object: kind, name, spec.
pub(super) fn lines(imported: &Imported) -> Vec<String> {
    let line = |item: &Value| {
        let place =
            item["metadata"]["namespace"].as_str().map_or(String::new(), |namespace| format!("{namespace}/"));
        let name = item["metadata"]["name"].as_str().expect("a name");
        format!("{} {place}{name} {}", item["kind"].as_str().expect("a kind"), item["spec"])
    };
    imported.items.iter().map(line).collect()
}

pub(super) fn remarks(imported: &Imported) -> Vec<String> {
    let one = |remark: &Remark| {
        assert!(!remark.why.is_empty() && !remark.instead.is_empty(), "{remark}");
        let degree = if remark.degree == Degree::Lost { "lost" } else { "differs" };
        format!("{} {} {degree}", remark.line, remark.what)
    };
    imported.remarks.iter().map(one).collect()
}

/// What comes out is a manifest, with not a field wrong.
#[track_caller]
pub(super) fn sound(imported: &Imported) {
    let text = serde_json::to_string(&serde_json::json!({"items": imported.items})).expect("JSON");
    manifest::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}

#[track_caller]
pub(super) fn same(imported: &Imported, want: &[&str], told: &[&str]) {
    sound(imported);
    let (lines, remarks) = (lines(imported), remarks(imported));
    assert!(lines == want && remarks == told, "{}\n\n{}\n", lines.join("\n"), remarks.join("\n"));
}
