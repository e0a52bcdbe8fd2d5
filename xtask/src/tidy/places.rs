//! Pure. Nothing in the tree may know on which machine it was written or from which mirror it was built.
//! The patterns stand in pieces, so that this file passes its own check.

use super::Finding;
use crate::tree::Tree;

/// Folders that exist on one machine only.
const MACHINE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/opt/", "wheels"), concat!("/home/", "runner")];
/// Hosts of registries and settings that point at one: which mirror is used is the machine's business.
const REGISTRY: &[&str] = &[
    concat!("deb.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("pypi", ".org"),
    concat!("files.", "pythonhosted"),
    concat!("registry.", "npmjs"),
    concat!("replace-", "with"),
    concat!("--index-", "url"),
    concat!("--find-", "links"),
];
const CRATES_IO: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";

pub fn no_machine_paths(tree: &Tree) -> Vec<Finding> {
    let texts = tree.texts.iter().filter(|(path, _)| !path.ends_with("Cargo.lock"));
    let places = texts.flat_map(|(path, text)| {
        let lines = text.lines().enumerate().filter_map(|(index, line)| {
            let machine = MACHINE
                .iter()
                .find(|word| line.contains(*word))
                .map(|word| format!("`{word}`: one machine's path"));
            let registry = || {
                REGISTRY
                    .iter()
                    .find(|word| line.contains(*word))
                    .map(|word| format!("`{word}`: a registry's host"))
            };
            Some(Finding::new(path, index + 1, machine.or_else(registry)?))
        });
        lines.collect::<Vec<_>>()
    });
    places.collect()
}

pub fn crates_come_from_one_registry(tree: &Tree) -> Vec<Finding> {
    let locks = tree.texts.iter().filter(|(path, _)| path.ends_with("Cargo.lock"));
    let foreign = locks.flat_map(|(path, text)| {
        let sources = text
            .lines()
            .enumerate()
            .filter_map(|(index, line)| Some((index + 1, line.strip_prefix("source = ")?)));
        let foreign = sources.filter(|(_, source)| *source != CRATES_IO);
        foreign
            .map(|(line, source)| Finding::new(path, line, format!("a crate from {source}")))
            .collect::<Vec<_>>()
    });
    foreign.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_machine_path_and_a_mirror_are_found() {
        let text = format!("fine\ncd {}main\npip install {} x\n", MACHINE[0], REGISTRY[8]);
        check(no_machine_paths, &[("docs/a.md", &text)], &["docs/a.md:2: ", "docs/a.md:3: "]);
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let text = format!("source = {CRATES_IO}\nsource = \"git+https://example.com/x\"\n");
        check(crates_come_from_one_registry, &[("Cargo.lock", &text)], &["Cargo.lock:2: a crate from"]);
    }
}
