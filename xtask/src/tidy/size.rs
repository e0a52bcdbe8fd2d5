//! Pure. How long a file and a function may be.

use super::Finding;
use super::ratchet::{FILE_EXCESS, FUNCTION_EXCESS, allowed};
use super::source::Role;
use crate::tree::Tree;

/// Lines of a file outside its tests, empty ones not counted.
const FILE_LINES: usize = 400;
/// Lines of code of a function, from `fn` to its brace: a screen.
const FUNCTION_LINES: usize = 70;

pub fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let files = tree.sources.iter().filter(|source| source.role != Role::Test);
    let judged = files.filter_map(|source| {
        let verdict = judge(source.production_length(), FILE_LINES, allowed(FILE_EXCESS, &source.path))?;
        Some(Finding::new(&source.path, 1, format!("the file {verdict}")))
    });
    judged.collect()
}

pub fn functions_are_short(tree: &Tree) -> Vec<Finding> {
    let functions =
        tree.sources.iter().flat_map(|source| source.functions().into_iter().map(move |f| (source, f)));
    let judged = functions.filter_map(|(source, function)| {
        let name = format!("{}::{}", source.path, function.name);
        let verdict = judge(function.length, FUNCTION_LINES, allowed(FUNCTION_EXCESS, &name))?;
        Some(Finding::new(&source.path, function.line, format!("`{}` {verdict}", function.name)))
    });
    judged.collect()
}

/// A ratchet: over what is allowed is wrong, and so is an allowance that is no longer needed.
fn judge(length: usize, limit: usize, excess: usize) -> Option<String> {
    match length.saturating_sub(limit) {
        over if over > excess => Some(format!("has {length} lines; {} is the limit", limit + excess)),
        over if over < excess => Some(format!("is shorter than its ratchet says: lower that to {over}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_file_one_line_too_long_is_found_and_its_tests_do_not_count() {
        let fits = format!(
            "{}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "fn a() {}\n".repeat(400),
            "// x\n".repeat(400)
        );
        let long = "fn a() {}\n".repeat(401);
        check(files_are_short, &[("a/src/b.rs", &fits)], &[]);
        check(files_are_short, &[("a/src/b.rs", &long)], &["a/src/b.rs:1: the file has 401 lines"]);
    }

    #[test]
    fn a_function_one_line_too_long_is_found_and_comments_do_not_count() {
        let body = |lines| format!("\nfn a() {{\n{}\n// why\n\n}}\n", "    x();\n".repeat(lines));
        check(functions_are_short, &[("a/src/b.rs", &body(68))], &[]);
        check(functions_are_short, &[("a/src/b.rs", &body(69))], &["a/src/b.rs:2: `a` has 71 lines"]);
    }

    #[test]
    fn a_ratchet_may_only_go_down() {
        assert_eq!(judge(410, 400, 10), None);
        assert!(judge(411, 400, 10).expect("grew").contains("410 is the limit"));
        assert!(judge(405, 400, 10).expect("shrank").contains("lower that to 5"));
        assert!(judge(300, 400, 10).expect("gone").contains("lower that to 0"));
    }
}
