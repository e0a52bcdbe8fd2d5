//! Pure. Every limit stands in docs/limits.md with its value and its reason, which is its doc comment.
//! The table is written by `cargo xtask tidy --fix` from the constants; the check only reads.

use super::Finding;
use super::source::{Role, Source, words};
use crate::tree::Tree;

/// Where limits are written down.
pub const PAGE: &str = "docs/limits.md";
const BEGIN: &str = "<!-- limits: written by `cargo xtask tidy --fix` -->";
const END: &str = "<!-- end of limits -->";

/// A constant whose name ends in `_MAX` or `_LIMIT`.
struct Limit {
    path: String,
    line: usize,
    name: String,
    value: String,
    reason: String,
}

pub fn limits_are_written_down(tree: &Tree) -> Vec<Finding> {
    let limits = limits(tree);
    let page = tree.texts.get(PAGE).map_or("", String::as_str);
    let rows: Vec<(usize, &str)> =
        page.lines().enumerate().filter(|(_, line)| line.starts_with("| `")).collect();
    let stands = |limit: &Limit, line: &str| line.starts_with(&head(limit));
    let unreasoned = limits.iter().filter(|limit| limit.reason.is_empty());
    let unreasoned = unreasoned
        .map(|l| Finding::new(&l.path, l.line, format!("`{}` has no doc comment: unit and reason", l.name)));
    let absent = limits.iter().filter(|limit| !rows.iter().any(|(_, row)| stands(limit, row)));
    let absent = absent.map(|l| {
        Finding::new(&l.path, l.line, format!("`{}` is not in {PAGE}: `cargo xtask tidy --fix`", l.name))
    });
    let stale = rows.iter().filter(|(_, row)| !limits.iter().any(|limit| stands(limit, row)));
    let stale = stale.filter(|(_, row)| generated(row));
    let stale = stale.map(|(index, _)| {
        Finding::new(PAGE, index + 1, "a limit that is not there: `cargo xtask tidy --fix`")
    });
    unreasoned.chain(absent).chain(stale).collect()
}

/// The page with its table as the constants say, or nothing where it has no place for one.
pub fn rewritten(tree: &Tree) -> Option<String> {
    let (before, rest) = tree.texts.get(PAGE)?.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let mut table = String::from("\n| limit | where | value | unit and reason |\n|---|---|---|---|\n");
    for limit in limits(tree) {
        table.push_str(&format!("{} `{}` | {} |\n", head(&limit), limit.value, limit.reason));
    }
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// How a limit's row begins; it is known by name and file.
fn head(limit: &Limit) -> String {
    format!("| `{}` | [{1}](../{1}) |", limit.name, limit.path)
}

fn generated(row: &str) -> bool {
    row.split('|').nth(2).is_some_and(|cell| cell.trim().ends_with(".rs)"))
}

fn limits(tree: &Tree) -> Vec<Limit> {
    let sources = tree.sources.iter().filter(|source| source.role == Role::Production);
    sources.flat_map(|source| words(&source.code, "const").filter_map(|at| limit(source, at))).collect()
}

fn limit(source: &Source, at: usize) -> Option<Limit> {
    let line = source.line_at(at);
    let head = source.code[at..].strip_prefix("const ")?;
    let (name, rest) = head.split_once(':')?;
    let named = name.ends_with("_MAX") || name.ends_with("_LIMIT");
    if !named
        || !name.bytes().all(|byte| super::source::is_word(char::from(byte)))
        || source.is_test_line(line)
    {
        return None;
    }
    let equals = rest.find('=')?;
    let end = equals + rest[equals..].find(';')?;
    let offset = source.code.len() - rest.len();
    let value = source.text.get(offset + equals + 1..offset + end)?;
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    Some(Limit {
        path: source.path.clone(),
        line,
        name: name.to_owned(),
        value,
        reason: reason(source, line),
    })
}

/// The doc comment above a line, on one line.
fn reason(source: &Source, line: usize) -> String {
    let above: Vec<&str> = source.text.lines().take(line - 1).map(str::trim).collect();
    let above = above.iter().rev().skip_while(|line| line.starts_with("#["));
    let mut comment: Vec<&str> = above.map_while(|line| line.strip_prefix("///")).map(str::trim).collect();
    comment.reverse();
    comment.join(" ").trim().replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    const SOURCE: (&str, &str) = (
        "a/src/b.rs",
        "/// Bytes; a body\n/// larger is 413.\npub const BODY_BYTES_MAX: usize = 64 * 1024;\nconst ROW_LIMIT: u8 = 3;\n",
    );

    #[test]
    fn a_limit_that_is_not_written_down_is_found() {
        let page = "| `BODY_BYTES_MAX` | [a/src/b.rs](../a/src/b.rs) | `1` | x |\n| `GONE_MAX` | [a/src/c.rs](../a/src/c.rs) | `1` | x |\n";
        let want = [
            "a/src/b.rs:4: `ROW_LIMIT` has no doc comment",
            "a/src/b.rs:4: `ROW_LIMIT` is not in",
            "docs/limits.md:2: a limit that is not",
        ];
        check(limits_are_written_down, &[SOURCE, (PAGE, page)], &want);
    }

    #[test]
    fn a_limit_of_a_test_or_of_the_harness_is_none() {
        let text = "#[cfg(test)]\nmod tests { const A_MAX: u8 = 1; }\n";
        check(
            limits_are_written_down,
            &[("a/src/b.rs", text), ("tests/src/c.rs", "const B_MAX: u8 = 1;\n")],
            &[],
        );
    }

    #[test]
    fn the_table_is_written_from_the_constants() {
        let page = format!("# Limits\n{BEGIN}\nold\n{END}\nby hand\n");
        let tree =
            Tree::of([SOURCE, (PAGE, page.as_str())].map(|(path, text)| (path.to_owned(), text.to_owned())));
        let page = rewritten(&tree).expect("the page has its marks");
        assert!(page.contains("| `BODY_BYTES_MAX` | [a/src/b.rs](../a/src/b.rs) | `64 * 1024` | Bytes; a body larger is 413. |"), "{page}");
        assert!(!page.contains("old") && page.ends_with("by hand\n"), "{page}");
    }
}
