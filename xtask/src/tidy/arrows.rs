//! Pure. Which crate may know which other, and which outside crates the inner ones must never know.

use super::Finding;
use super::source::{Role, words};
use crate::tree::Tree;

/// Crate and the crates of ours that it links. One that is not listed is a finding: its arrows are a decision.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("traffic", &["model"]),
    ("svid", &["model"]),
    ("host", &[]),
    ("registry", &["model"]),
    ("ca", &["model", "svid"]),
    ("discovery", &["model"]),
    ("meshd", &["model", "traffic", "svid", "host", "registry", "ca", "discovery"]),
    ("mesh-proxy", &["model", "traffic", "svid", "host"]),
    ("meshctl", &["model"]),
    ("terraform-provider-mesh", &["model"]),
    ("mesh-tests", &["model", "traffic", "svid", "registry", "ca"]),
    ("xtask", &[]),
    ("base2histogram", &[]),
];

/// What a crate must not link, whatever it would be good for: the inner crates stay free of the outside world.
const FOREIGN: &[(&str, &[&str])] = &[
    ("model", &["tokio", "hyper", "axum", "openraft", "sled", "rand", "socket2", "rustix"]),
    ("traffic", &["tokio", "hyper", "hyper-util", "axum", "reqwest", "rustls", "rand", "socket2", "rustix"]),
    ("ca", &["tokio", "hyper", "axum", "openraft"]),
    ("discovery", &["openraft", "axum", "hyper"]),
    ("registry", &["axum", "hyper", "reqwest", "rustls"]),
    ("xtask", &["tokio", "serde", "regex"]),
];

pub fn crates_point_inward(tree: &Tree) -> Vec<Finding> {
    let manifests =
        tree.texts.iter().filter(|(path, _)| path.matches('/').count() == 1 && path.ends_with("/Cargo.toml"));
    let manifests = manifests.filter(|(path, _)| !path.starts_with("fuzz/"));
    manifests.flat_map(|(path, text)| manifest(path, text)).collect()
}

fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let name =
        text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
    let Some((_, allowed)) = ARROWS.iter().find(|(own, _)| *own == name) else {
        return vec![Finding::new(
            path,
            1,
            format!("{name} has no arrows: decide them in xtask/src/tidy/arrows.rs"),
        )];
    };
    let foreign = FOREIGN.iter().find(|(own, _)| *own == name).map_or(&[][..], |(_, banned)| banned);
    let ours = |dependency: &str| ARROWS.iter().any(|(own, _)| *own == dependency);
    let linked = linked(text).into_iter().filter_map(|(line, dependency)| {
        let outward = ours(dependency) && !allowed.contains(&dependency);
        let unfit = foreign.contains(&dependency);
        (outward || unfit).then(|| Finding::new(path, line, format!("{name} must not link {dependency}")))
    });
    linked.collect()
}

/// What ends up in the crate: dependencies and build dependencies of all targets, those for tests not,
/// and not the optional ones, which stand behind a feature. A renamed package goes by its real name.
fn linked(text: &str) -> Vec<(usize, &str)> {
    let mut section = "";
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            let single = section.rsplit_once("dependencies.").filter(|(kind, _)| !kind.ends_with("dev-"));
            found.extend(single.map(|(_, name)| (number, name)));
            continue;
        }
        let links = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        if !links || line.starts_with('#') || line.contains("optional = true") {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let own = key.split('.').next().unwrap_or(key).trim().trim_matches('"');
        let renamed = value.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
        found.push((number, renamed.unwrap_or(own)));
    }
    found
}

/// openraft's types change with every release: they end at `registry/src/raft*`.
pub fn openraft_stays_in_its_files(tree: &Tree) -> Vec<Finding> {
    let outside = tree.sources.iter().filter(|source| !source.path.starts_with("registry/src/raft"));
    let outside = outside.filter(|source| source.role != Role::Test);
    let places = outside.flat_map(|source| {
        let places = words(&source.code, "openraft").map(|at| source.line_at(at));
        let lines = places.filter(|line| !source.is_test_line(*line));
        lines.map(|line| Finding::new(&source.path, line, "openraft is named outside registry/src/raft*"))
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn an_arrow_outward_is_found_in_every_notation() {
        let proxy = "[package]\nname = \"mesh-proxy\"\n[dependencies]\nmodel.workspace = true\nregistry.workspace = true\n\
            x = { package = \"ca\", path = \"../ca\" }\n[target.'cfg(unix)'.dependencies]\nmeshd = { path = \"../meshd\" }\n\
            [dependencies.meshctl]\npath = \"../meshctl\"\n[dev-dependencies]\nca.workspace = true\n";
        check(
            crates_point_inward,
            &[("mesh-proxy/Cargo.toml", proxy)],
            &[
                "mesh-proxy/Cargo.toml:5: mesh-proxy must not link registry",
                "mesh-proxy/Cargo.toml:6: mesh-proxy must not link ca",
                "mesh-proxy/Cargo.toml:8: mesh-proxy must not link meshd",
                "mesh-proxy/Cargo.toml:9: mesh-proxy must not link meshctl",
            ],
        );
    }

    #[test]
    fn an_inner_crate_that_links_a_runtime_is_found() {
        let traffic =
            "[package]\nname = \"traffic\"\n[dependencies]\nmodel.workspace = true\ntokio.workspace = true\n";
        check(
            crates_point_inward,
            &[("traffic/Cargo.toml", traffic)],
            &["traffic/Cargo.toml:5: traffic must not link tokio"],
        );
    }

    #[test]
    fn a_crate_without_arrows_is_found() {
        let text = "[package]\nname = \"novelty\"\n";
        check(
            crates_point_inward,
            &[("novelty/Cargo.toml", text)],
            &["novelty/Cargo.toml:1: novelty has no arrows"],
        );
    }

    #[test]
    fn openraft_beside_its_files_is_found_and_in_them_not() {
        let files = [
            ("registry/src/raft/log.rs", "use openraft::Vote;\n"),
            ("registry/src/state.rs", "// openraft\nuse openraft::Vote;\n"),
        ];
        check(openraft_stays_in_its_files, &files, &["registry/src/state.rs:2: openraft"]);
    }
}
