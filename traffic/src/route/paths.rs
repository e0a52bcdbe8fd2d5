//! Pure. What asks for paths, found by a request's path: it is compared with what may be for it, however much there is
//! for other paths. Whole paths and prefixes are looked up; regular expressions, and what asks for no path, are compared
//! with every request.

use std::collections::HashMap;

use super::{matcher::Path, value::Value};

/// Numbered things by the paths that they ask for. What it finds may be for a path; whether it is says the thing itself.
#[derive(Debug, Default)]
pub(crate) struct PathIndex {
    /// By whole paths.
    whole: HashMap<Box<str>, Vec<usize>>,
    /// The segments of prefixes, the root first; none where there are no prefixes.
    nodes: Vec<Node>,
    /// What may be for any path.
    any: Vec<usize>,
}

/// A prefix of whole segments.
#[derive(Debug, Default)]
struct Node {
    parent: Option<usize>,
    longer: HashMap<Box<str>, usize>,
    /// What asks for this prefix.
    own: Vec<usize>,
}

impl PathIndex {
    /// Enters `number`, which is not less than any that was entered before, by a path that it asks for.
    pub(crate) fn enter(&mut self, number: usize, path: &Path) {
        let list = match path {
            Path::Exact(path) => self.whole(path.as_str().into()),
            Path::Prefix(prefix) => self.below(prefix),
            Path::Call(Some(Value::Exact(service)), method) if !service.contains('/') => match method {
                Some(Value::Exact(method)) => self.whole(format!("/{service}/{method}").into()),
                _ => self.below(&format!("/{service}")),
            },
            Path::Any | Path::Whole(_) | Path::Call(..) => &mut self.any,
        };
        if list.last() != Some(&number) {
            list.push(number);
        }
    }

    /// The first that may be for `path` and is, as `is_for` says.
    pub(crate) fn first(&self, path: &str, is_for: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = None;
        for list in self.lists(path) {
            let before = list.iter().copied().take_while(|number| best.is_none_or(|best| *number < best));
            best = before.into_iter().find(|number| is_for(*number)).or(best);
        }
        best
    }

    /// All that may be for `path`, in no order, some perhaps twice.
    pub(crate) fn perhaps_for(&self, path: &str) -> impl Iterator<Item = usize> {
        self.lists(path).flatten().copied()
    }

    /// All, in no order, some perhaps twice.
    pub(crate) fn all(&self) -> impl Iterator<Item = usize> {
        let prefixes = self.nodes.iter().map(|node| &node.own);
        self.whole.values().chain(prefixes).chain([&self.any]).flatten().copied()
    }

    /// What may be for `path`, the narrowest first.
    fn lists(&self, path: &str) -> impl Iterator<Item = &[usize]> {
        let longest = self.longest_below(path).map(|at| &self.nodes[at]);
        let prefixes = std::iter::successors(longest, |node| node.parent.map(|at| &self.nodes[at]));
        let whole = if self.whole.is_empty() { None } else { self.whole.get(path) };
        whole.into_iter().chain(prefixes.map(|node| &node.own)).chain([&self.any]).map(Vec::as_slice)
    }

    /// The longest prefix of `path` that is here.
    fn longest_below(&self, path: &str) -> Option<usize> {
        let (mut at, segments) = (0, segments(path)?);
        self.nodes.first()?;
        for segment in segments {
            match self.nodes[at].longer.get(segment) {
                Some(longer) => at = *longer,
                None => break,
            }
        }
        Some(at)
    }

    fn whole(&mut self, path: Box<str>) -> &mut Vec<usize> {
        self.whole.entry(path).or_default()
    }

    /// What asks for a prefix, which begins with `/` as all paths do; one that does not is for no path.
    fn below(&mut self, prefix: &str) -> &mut Vec<usize> {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for segment in segments(prefix).into_iter().flatten() {
            let (parent, next) = (at, self.nodes.len());
            at = *self.nodes[parent].longer.entry(segment.into()).or_insert(next);
            if at == next {
                self.nodes.push(Node { parent: Some(parent), ..Node::default() });
            }
        }
        &mut self.nodes[at].own
    }
}

/// The segments of a path; none of `*`, which is no path.
fn segments(path: &str) -> Option<impl Iterator<Item = &str>> {
    path.strip_prefix('/').map(|path| path.split('/'))
}
