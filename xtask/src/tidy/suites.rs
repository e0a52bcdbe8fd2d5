//! Pure. Where the tests of a crate are one program, each file of them is part of it: one that is not is never run.

use super::Finding;
use crate::tree::Tree;

const SUITE: &str = "/tests/suite.rs";

pub fn suites_are_whole(tree: &Tree) -> Vec<Finding> {
    let suites = tree.sources.iter().filter_map(|source| Some((source.path.strip_suffix(SUITE)?, source)));
    let missing = suites.flat_map(|(package, suite)| {
        let folder = format!("{package}/tests/");
        let files = tree.sources.iter().filter_map(move |source| {
            let name = source.path.strip_prefix(&folder)?.strip_suffix(".rs")?;
            Some(name).filter(|name| !name.contains('/') && *name != "suite")
        });
        files.filter(|name| !suite.text.lines().any(|line| line == format!("mod {name};"))).map(|name| {
            Finding::new(&suite.path, 1, format!("{name}.rs is never run: `mod {name};` is missing"))
        })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_file_that_is_never_run_is_found() {
        let files = [
            ("a/tests/suite.rs", "mod world;\n\nmod one;\n"),
            ("a/tests/one.rs", ""),
            ("a/tests/two.rs", ""),
            ("a/tests/one/part.rs", ""),
            ("b/tests/by_itself.rs", ""),
        ];
        check(suites_are_whole, &files, &["a/tests/suite.rs:1: two.rs is never run"]);
    }
}
