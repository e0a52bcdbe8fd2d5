//! Pure. What the docs claim is held by a test that exists: each MUST of the SPIFFE standards, each invariant, each
//! row of the failure table. Tests are named in backticks, with or without the path to their module.

use std::collections::BTreeSet;

use super::Finding;
use crate::tree::Tree;

const STANDARDS: &str = "docs/spiffe.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// What stands before the names of the tests in an item of a list.
const TESTS: &str = "tests:";

/// Every row of every table of `docs/spiffe.md`: its last cell names the tests.
pub fn standards_name_their_tests(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.texts.get(STANDARDS) else { return vec![missing(STANDARDS)] };
    let known = tree.test_names();
    let rows = rows(&numbered(text));
    if rows.is_empty() {
        return vec![Finding::new(STANDARDS, 1, "has no row: it lists each MUST with its tests")];
    }
    rows.into_iter().flat_map(|(number, tests)| judge(STANDARDS, number, tests, &known)).collect()
}

/// In ARCHITECTURE.md: each item under a heading with "nvariant" has its `tests:`, each row under one with "ailure"
/// names them in its last cell.
pub fn architecture_names_its_tests(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.texts.get(ARCHITECTURE) else { return vec![missing(ARCHITECTURE)] };
    let known = tree.test_names();
    let sections = sections(text);
    let under = |word: &'static str| {
        sections.iter().filter(move |(heading, _)| heading.contains(word)).map(|(_, lines)| lines)
    };
    let items = under("nvariant").flat_map(|lines| items(lines));
    let claimed = items.map(|(number, item)| {
        (number, item.split_once(TESTS).map_or(String::new(), |(_, tests)| tests.to_owned()))
    });
    let rows =
        under("ailure").flat_map(|lines| rows(lines)).map(|(number, tests)| (number, tests.to_owned()));
    let found: Vec<(usize, String)> = claimed.chain(rows).collect();
    if found.is_empty() {
        return vec![Finding::new(ARCHITECTURE, 1, "lists no invariants and no failures with their tests")];
    }
    found.iter().flat_map(|(number, tests)| judge(ARCHITECTURE, *number, tests, &known)).collect()
}

fn missing(path: &str) -> Finding {
    Finding::new(path, 1, "is missing")
}

fn judge(path: &str, line: usize, tests: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return vec![Finding::new(path, line, "names no test")];
    }
    let own = |name: &str| name.rsplit("::").next().unwrap_or(name).trim_end_matches("()").to_owned();
    let unknown = names.into_iter().filter(|name| !known.contains(&own(name)));
    unknown.map(|name| Finding::new(path, line, format!("there is no test `{name}`"))).collect()
}

fn numbered(text: &str) -> Vec<(usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).collect()
}

/// The last cells of the rows of all tables; a table's rows begin below its ruler.
fn rows<'a>(lines: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    let ruler =
        |line: &str| line.starts_with('|') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let mut body = false;
    let mut found = Vec::new();
    for (number, line) in lines {
        let inner = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
        body = inner.is_some() && (body || ruler(line));
        let cell = inner.filter(|_| body && !ruler(line)).and_then(|inner| inner.rsplit('|').next());
        found.extend(cell.map(|cell| (*number, cell)));
    }
    found
}

/// Headings with the numbered lines below each.
fn sections(text: &str) -> Vec<(&str, Vec<(usize, &str)>)> {
    let mut found: Vec<(&str, Vec<(usize, &str)>)> = Vec::new();
    for (number, line) in numbered(text) {
        match found.last_mut() {
            _ if line.starts_with('#') => found.push((line, Vec::new())),
            Some((_, lines)) => lines.push((number, line)),
            None => {}
        }
    }
    found
}

/// The items of a list, their continuation lines joined to them.
fn items(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in lines {
        let starts = line.starts_with("- ") || line.starts_with("* ");
        let goes_on = open && line.starts_with(' ');
        match found.last_mut() {
            _ if starts => found.push((*number, (*line).to_owned())),
            Some((_, item)) if goes_on => item.push_str(line),
            _ => {}
        }
        open = starts || goes_on;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    const SOURCE: (&str, &str) = ("svid/src/a.rs", "#[test]\nfn two_uri_sans() {}\nfn not_a_test() {}\n");

    #[test]
    fn a_row_whose_test_is_not_there_is_found() {
        let page = "| § | MUST | side | tests |\n|---|---|---|---|\n| 2 | one SAN | both | `a::tests::two_uri_sans` |\n\
            | 3 | x | both | `not_a_test` |\n| 4 | y | client | later |\n";
        let want = ["docs/spiffe.md:4: there is no test `not_a_test`", "docs/spiffe.md:5: names no test"];
        check(standards_name_their_tests, &[SOURCE, (STANDARDS, page)], &want);
        check(standards_name_their_tests, &[SOURCE], &["docs/spiffe.md:1: is missing"]);
        check(
            standards_name_their_tests,
            &[SOURCE, (STANDARDS, "# SPIFFE\n")],
            &["docs/spiffe.md:1: has no row"],
        );
    }

    #[test]
    fn an_invariant_without_its_test_is_found() {
        let page = "# A\n- free\n## Invariants\n- one thing\n  goes on; tests: `two_uri_sans`\n- another; tests: `gone`\n- bare\n";
        let want = ["ARCHITECTURE.md:6: there is no test `gone`", "ARCHITECTURE.md:7: names no test"];
        check(architecture_names_its_tests, &[SOURCE, (ARCHITECTURE, page)], &want);
        check(architecture_names_its_tests, &[SOURCE], &["ARCHITECTURE.md:1: is missing"]);
        check(
            architecture_names_its_tests,
            &[SOURCE, (ARCHITECTURE, "# A\n")],
            &["ARCHITECTURE.md:1: lists no"],
        );
    }

    #[test]
    fn a_failure_without_its_test_is_found() {
        let page = "## Failures\n| what | seen | test |\n|---|---|---|\n| a | b | `two_uri_sans` |\n| c | d | `gone` |\n";
        check(
            architecture_names_its_tests,
            &[SOURCE, (ARCHITECTURE, page)],
            &["ARCHITECTURE.md:5: there is no test `gone`"],
        );
    }
}
