//! Pure. Style that is executable: each rule that a machine can hold is a check over the tree, and none has exceptions
//! beyond the lists of `ratchet`, which only shrink. `cargo xtask tidy` prints the findings; a test holds them at none.

use std::fmt;

use crate::tree::Tree;

mod arrows;
mod evidence;
mod examples;
pub mod limits;
mod links;
mod places;
mod pure;
mod ratchet;
mod size;
mod sleeps;
pub mod source;
mod suites;
mod words;

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    /// 1-based.
    pub line: usize,
    pub what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

type Check = fn(&Tree) -> Vec<Finding>;

const CHECKS: &[Check] = &[
    arrows::crates_point_inward,
    arrows::openraft_stays_in_its_files,
    pure::pure_files_name_no_outside_world,
    pure::whole_crates_are_pure,
    size::files_are_short,
    size::functions_are_short,
    words::banned_words,
    words::module_names,
    words::function_names,
    limits::limits_are_written_down,
    places::no_machine_paths,
    places::crates_come_from_one_registry,
    sleeps::tests_do_not_sleep,
    suites::suites_are_whole,
    links::links_resolve,
    evidence::standards_name_their_tests,
    evidence::architecture_names_its_tests,
    examples::examples_are_run,
];

/// All findings of all checks, by place.
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let mut found: Vec<Finding> = CHECKS.iter().flat_map(|check| check(tree)).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each check is shown a tree with a planted fault; `want` is what it must say, `path:line: words` each.
    #[track_caller]
    pub(crate) fn check(check: Check, files: &[(&str, &str)], want: &[&str]) {
        let tree = Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        let found: Vec<String> = check(&tree).iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), want.len(), "{found:#?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.starts_with(want), "{found:?} does not begin with {want:?}");
        }
    }

    #[test]
    fn this_tree_is_tidy() {
        let tree = Tree::read(&crate::tree::root()).expect("the checkout is readable");
        let found = findings(&tree);
        let lines: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "cargo xtask tidy says:\n{}", lines.join("\n"));
    }
}
