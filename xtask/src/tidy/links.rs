//! Pure. A link in the docs leads somewhere: to a file of the tree, and to a heading where it names one.

use super::Finding;
use crate::tree::Tree;

pub fn links_resolve(tree: &Tree) -> Vec<Finding> {
    let pages = tree.texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let broken = pages.flat_map(|(path, text)| {
        let links = prose(text)
            .flat_map(|(number, line)| targets(&line).into_iter().map(move |target| (number, target)));
        let broken = links
            .filter_map(|(number, target)| Some(Finding::new(path, number, broken(tree, path, &target)?)));
        broken.collect::<Vec<_>>()
    });
    broken.collect()
}

/// Why a target does not resolve, seen from the page at `path`.
fn broken(tree: &Tree, path: &str, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let resolved = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
    let folder = format!("{resolved}/");
    if !tree.paths.contains(&resolved) && !tree.paths.iter().any(|path| path.starts_with(&folder)) {
        return Some(format!("the link to `{target}` leads nowhere"));
    }
    let page = tree.texts.get(&resolved).filter(|_| resolved.ends_with(".md") && !anchor.is_empty())?;
    let known = prose(page).any(|(_, line)| line.starts_with('#') && slug(&line) == anchor);
    (!known).then(|| format!("`{resolved}` has no heading `#{anchor}`"))
}

/// `../a.md` seen from `docs/adr/b.md` is `docs/a.md`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Numbered lines outside fenced code, with what stands in backticks blanked out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    let lines = text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then(|| (index + 1, line))
    });
    lines.map(|(number, line)| {
        let pieces = line.split('`').enumerate();
        let kept =
            pieces.map(|(index, piece)| if index % 2 == 0 || line.starts_with('#') { piece } else { "" });
        (number, kept.collect())
    })
}

fn targets(line: &str) -> Vec<String> {
    let links = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target.split(' ').next().unwrap_or(target).to_owned()).collect()
}

/// A heading's anchor as the forges make it.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_link_to_nowhere_is_found() {
        let files = [
            (
                "docs/adr/1.md",
                "see [a](../limits.md), [b](../gone.md)\n[c](https://x.example/) [d](../adr/)\n",
            ),
            ("docs/limits.md", "# Limits\n"),
        ];
        check(links_resolve, &files, &["docs/adr/1.md:1: the link to `../gone.md` leads nowhere"]);
    }

    #[test]
    fn a_heading_that_is_not_there_is_found() {
        let files = [("a.md", "[x](b.md#two-words) [y](b.md#gone) [z](#here)\n"), ("b.md", "## Two Words\n")];
        check(
            links_resolve,
            &files,
            &["a.md:1: `b.md` has no heading `#gone`", "a.md:1: `a.md` has no heading `#here`"],
        );
    }

    #[test]
    fn code_is_not_read_as_a_link() {
        check(links_resolve, &[("a.md", "`x[0](y)`\n```\n[a](b)\n```\n")], &[]);
    }
}
