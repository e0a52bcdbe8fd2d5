//! Pure. What the docs show is run: each fenced block of a page is taken up by a test that exists, or there is a reason why
//! nothing can run it. A page that gains a block of another sort, or one more that nothing runs, has to be looked at.

use std::collections::BTreeSet;

use super::Finding;
use crate::tree::Tree;

/// What becomes of the blocks of one language on a page.
enum Runs {
    /// This test takes all of them, however many there are.
    By(&'static str),
    /// So many are run by no test, for this reason.
    Not(usize, &'static str),
}

use Runs::{By, Not};

/// By page, where one that ends in `/` is all below it, and by what stands behind the fence.
const BLOCKS: &[(&str, &str, Runs)] = &[
    (
        "README.md",
        "",
        Not(
            2,
            "what builds, tests and shows the whole tree; the demo's line differs each time: tests/tests/demo.rs",
        ),
    ),
    ("README.md", "console", By("the_tour_in_five_minutes_works_as_it_stands")),
    ("README.md", "console", By("the_tour_of_the_readme_works_as_it_stands")),
    ("ARCHITECTURE.md", "", Not(1, "a figure")),
    ("docs/api.md", "sh", By("what_the_manual_types_is_answered_as_it_says")),
    ("docs/api.md", "console", By("what_the_manual_types_is_answered_as_it_says")),
    ("docs/api.md", "python", By("what_the_manual_types_is_answered_as_it_says")),
    ("docs/api.md", "text", By("what_the_manual_types_is_answered_as_it_says")),
    ("docs/authorization.md", "", Not(1, "a refusal, whose id differs each time: tests/tests/policies.rs")),
    (
        "docs/authorization.md",
        "yaml",
        By("policies_hold_by_what_the_manual_says_and_without_a_control_plane"),
    ),
    ("docs/capture.md", "", Not(1, "the commands at a glance; tests/tests/capture.rs types each")),
    ("docs/discovery.md", "yaml", By("the_manual_s_examples_are_what_it_says")),
    ("docs/guide/", "yaml", By("every_example_of_the_guide_is_taken")),
    (
        "docs/guide/routing.md",
        "",
        Not(
            2,
            "an explanation and a call for one; tests/tests/explain.rs compares both with what proxies do",
        ),
    ),
    (
        "docs/guide/routing.md",
        "sh curl",
        Not(1, "asks with a certificate of the reader's: mesh-proxy/tests/pass_through.rs does as much"),
    ),
    ("docs/guide/routing.md", "sh", By("every_example_of_the_guide_is_taken")),
    ("docs/local-identity.md", "", Not(1, "a refusal, whose ids differ each time: tests/tests/callers.rs")),
    ("docs/local-identity.md", "toml", By("what_the_manuals_show_is_read")),
    ("docs/mesh1.md", "text", Not(1, "a figure of a frame")),
    ("docs/migrating.md", "console", By("the_steps_of_the_manual_are_typed_as_they_stand")),
    ("docs/migrating.md", "hcl", By("what_the_manual_shows_of_consul_is_what_is_imported")),
    ("docs/migrating.md", "text", By("what_the_manual_shows_of_consul_is_what_is_imported")),
    ("docs/migrating.md", "yaml", By("what_the_manual_shows_of_consul_is_what_is_imported")),
    ("docs/migrating.md", "yaml kuma", By("what_the_manual_shows_of_kuma_is_what_is_imported")),
    ("docs/migrating.md", "yaml result", By("what_the_manual_shows_of_kuma_is_what_is_imported")),
    ("docs/operating.md", "toml meshd", By("what_the_manual_shows_is_read")),
    ("docs/operating.md", "toml proxy", By("what_the_manuals_show_is_read")),
    ("docs/peer-authentication.md", "", Not(1, "rules of the reader's own firewall")),
    ("docs/peer-authentication.md", "yaml", By("callers_outside_come_in_where_a_mode_and_policies_let_them")),
    ("docs/terraform/README.md", "hcl", By("the_examples_of_all_pages_apply")),
    ("docs/terraform/", "sh", By("the_examples_of_all_pages_apply")),
    ("docs/terraform/", "terraform", By("the_examples_of_all_pages_apply")),
];

/// Every block is one of the list, and every row of the list has its blocks and its test.
pub fn examples_are_run(tree: &Tree) -> Vec<Finding> {
    judge(tree, BLOCKS)
}

fn judge(tree: &Tree, rows: &[(&str, &str, Runs)]) -> Vec<Finding> {
    let known = tree.test_names();
    let blocks: Vec<_> = tree.texts.iter().filter(|(path, _)| is_page(path)).flat_map(fences).collect();
    let of = |(page, language, _): &(&str, &str, Runs), (path, _, own): &(&str, usize, &str)| {
        let there = path == page || (page.ends_with('/') && path.starts_with(page));
        there && language == own
    };
    let unknown =
        blocks.iter().filter(|block| !rows.iter().any(|row| of(row, block))).map(|(path, line, language)| {
            Finding::new(
                path,
                *line,
                format!("a block of `{language}` that no test runs, by xtask/src/tidy/examples.rs"),
            )
        });
    let stale = rows.iter().filter_map(|row| {
        let own: Vec<_> = blocks.iter().filter(|block| of(row, block)).collect();
        wrong(row, own.len(), &known)
            .map(|what| Finding::new(row.0, own.last().map_or(1, |(_, line, _)| *line), what))
    });
    unknown.chain(stale).collect()
}

/// What is wrong with a row that has so many blocks.
fn wrong(
    (_, language, runs): &(&str, &str, Runs),
    blocks: usize,
    known: &BTreeSet<String>,
) -> Option<String> {
    match runs {
        _ if blocks == 0 => Some(format!("there is no block of `{language}` any more")),
        By(test) if !known.contains(*test) => {
            Some(format!("there is no test `{test}`, which runs blocks of `{language}`"))
        }
        Not(count, why) if *count != blocks => {
            Some(format!("{blocks} blocks of `{language}`, of which {count} are run by no test ({why})"))
        }
        By(_) | Not(..) => None,
    }
}

fn is_page(path: &str) -> bool {
    let of_the_root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].contains(&path);
    of_the_root || (path.starts_with("docs/") && path.ends_with(".md"))
}

/// Where blocks begin, and what stands behind their fences.
fn fences<'a>((path, text): (&'a String, &'a String)) -> Vec<(&'a str, usize, &'a str)> {
    let mut open = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        if !open {
            found.push((path.as_str(), index + 1, language.trim_end()));
        }
        open = !open;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_nothing_runs_and_rows_without_blocks_are_found() {
        let page = "text\n```sh\nrun\n```\n  ```json\n{}\n  ```\n";
        let test = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn types_it() {}\n}\n";
        let tree = Tree::of(
            [("docs/a/b.md", page), ("a/src/lib.rs", test)].map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        let said = |rows: &[(&str, &str, Runs)]| {
            judge(&tree, rows).iter().map(Finding::to_string).collect::<Vec<_>>()
        };
        let (sh, json) = (("docs/a/", "sh", By("types_it")), ("docs/a/b.md", "json", Not(1, "a shape")));
        assert_eq!(said(&[sh, json]), [""; 0]);
        assert_eq!(
            said(&[("docs/a/", "sh", By("gone"))]),
            [
                "docs/a/b.md:5: a block of `json` that no test runs, by xtask/src/tidy/examples.rs",
                "docs/a/:2: there is no test `gone`, which runs blocks of `sh`",
            ]
        );
        assert_eq!(
            said(&[
                ("docs/a/", "sh", Not(2, "a")),
                ("docs/a/b.md", "json", Not(1, "b")),
                ("docs/c.md", "", Not(1, "c"))
            ]),
            [
                "docs/a/:2: 1 blocks of `sh`, of which 2 are run by no test (a)",
                "docs/c.md:1: there is no block of `` any more",
            ]
        );
    }
}
