//! Pure. Reads foreign values field by field, so that none is passed over: what nobody asked for is told when the map is
//! done with.

use std::str::FromStr;

use super::{
    remark::{Degree, Remark, Remarks},
    tree::{Field, Node, Tree},
};

/// How names of fields are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As they are.
    Exact,
    /// Without regard to case and `_`, as Consul reads its entries: `ServiceSubset`, `service_subset`.
    Loose,
}

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    /// The field's own line, where it has one: the value may begin below.
    pub(crate) line: u64,
    file: &'a str,
    /// `service-router web: Routes[0]`.
    path: String,
    names: Names,
    remarks: &'a Remarks,
}

/// A map whose fields are taken one by one.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) at: At<'a>,
    left: Vec<&'a Field>,
}

impl<'a> At<'a> {
    /// A document.
    pub(crate) fn document(node: &'a Node, file: &'a str, names: Names, remarks: &'a Remarks) -> Self {
        Self { node, line: node.line, file, path: String::new(), names, remarks }
    }

    /// The same, called by the entry that it is.
    pub(crate) fn named(mut self, entry: &str) -> Self {
        self.path = format!("{entry}:");
        self
    }

    fn below(&self, name: &str, node: &'a Node, line: u64) -> Self {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else if self.path.ends_with(':') {
            format!("{} {name}", self.path)
        } else {
            format!("{}.{name}", self.path)
        };
        Self { node, line, path, ..self.clone() }
    }

    fn remark(&self, degree: Degree, why: &str, instead: &str) {
        self.remarks.add(Remark {
            file: self.file.to_owned(),
            line: self.line,
            degree,
            what: if self.path.is_empty() { "entry" } else { self.path.trim_end_matches(':') }.to_owned(),
            why: why.to_owned(),
            instead: instead.to_owned(),
        });
    }

    /// It does not come over.
    pub(crate) fn lost(&self, why: &str, instead: &str) {
        self.remark(Degree::Lost, why, instead);
    }

    /// It comes over, and does not do quite the same.
    pub(crate) fn differs(&self, why: &str, instead: &str) {
        self.remark(Degree::Differs, why, instead);
    }

    fn mistaken(&self, wanted: &str) {
        let is = self.node.tree.describe();
        self.lost(&format!("it must be {wanted}, and is {is}"), "correct it, and import again");
    }

    /// The text; numbers and truths as they are written.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.node.tree {
            Tree::Text(text) => Some(text.clone()),
            Tree::Number(number) => Some(number.to_string()),
            Tree::Bool(truth) => Some(truth.to_string()),
            _ => {
                self.mistaken("a text");
                None
            }
        }
    }

    /// What the text says.
    pub(crate) fn parse<T: FromStr<Err: std::fmt::Display>>(&self) -> Option<T> {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.lost(&format!("{error}"), "give it another name or value");
                None
            }
        }
    }

    /// The number; a text that is one counts.
    pub(crate) fn number(&self) -> Option<f64> {
        let number = match &self.node.tree {
            Tree::Number(number) => Some(*number),
            Tree::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        if number.is_none() {
            self.mistaken("a number");
        }
        number
    }

    /// The whole number within the bounds; one outside is told and brought within.
    pub(crate) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let number = self.number()?;
        let within = (number.round() as u64).clamp(least, most);
        if within as f64 != number {
            self.differs(
                &format!("it is {number}, and may be a whole number from {least} to {most}"),
                &format!("{within} is taken"),
            );
        }
        Some(within)
    }

    /// The elements; a lone map or text is a list of one, as HCL has it.
    pub(crate) fn list(&self) -> Vec<At<'a>> {
        match &self.node.tree {
            Tree::List(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, node)| At {
                    node,
                    line: node.line,
                    path: format!("{}[{index}]", self.path),
                    ..self.clone()
                })
                .collect(),
            Tree::Null => Vec::new(),
            _ => vec![self.clone()],
        }
    }

    /// The texts of a list.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.list().iter().filter_map(At::text).collect()
    }

    /// The fields; a list of one map counts as that map, as HCL's blocks are read.
    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        let mut node = self.node;
        if let Tree::List(elements) = &node.tree
            && let [only] = &elements[..]
        {
            node = only;
        }
        match &node.tree {
            Tree::Map(fields) => Some(Fields { at: self.clone(), left: fields.iter().collect() }),
            Tree::Null => Some(Fields { at: self.clone(), left: Vec::new() }),
            _ => {
                self.mistaken("a map");
                None
            }
        }
    }
}

impl<'a> Fields<'a> {
    fn fits(&self, own: &str, wanted: &str) -> bool {
        let bare = |text: &str| text.replace('_', "").to_ascii_lowercase();
        own == wanted || (self.at.names == Names::Loose && bare(own) == bare(wanted))
    }

    /// The field of that name, unless it says nothing: `null`, `false`, 0, an empty text, list or map.
    pub(crate) fn take(&mut self, name: &str) -> Option<At<'a>> {
        self.take_given(name).filter(|at| !at.node.is_empty())
    }

    /// The field of that name, also where it is false, 0 or empty.
    pub(crate) fn take_given(&mut self, name: &str) -> Option<At<'a>> {
        let mut found = None;
        while let Some(index) = self.left.iter().position(|field| self.fits(&field.name, name)) {
            let field = self.left.remove(index);
            let at = self.at.below(&field.name, &field.value, field.line);
            if found.is_some() {
                at.lost("the field stands twice", "write one list");
            } else {
                found = Some(at);
            }
        }
        found.filter(|at: &At<'_>| at.node.tree != Tree::Null)
    }

    /// Whether a field of that name is left.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.iter().any(|field| self.fits(&field.name, name))
    }

    /// The text of a field that is yet to be taken.
    pub(crate) fn peek(&self, name: &str) -> Option<String> {
        let field = self.left.iter().find(|field| self.fits(&field.name, name))?;
        if let Tree::Text(text) = &field.value.tree { Some(text.clone()) } else { None }
    }

    /// The text of a field.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).and_then(|at| at.text())
    }

    /// A field for which there is nothing here.
    pub(crate) fn lost(&mut self, name: &str, why: &str, instead: &str) {
        if let Some(at) = self.take(name) {
            at.lost(why, instead);
        }
    }

    /// Fields that say nothing about what shall be: bookkeeping.
    pub(crate) fn pass(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// The fields that are left, by their own names: of maps from names to something.
    pub(crate) fn rest(&mut self) -> Vec<(String, At<'a>)> {
        let left = std::mem::take(&mut self.left);
        left.into_iter()
            .map(|field| (field.name.clone(), self.at.below(&field.name, &field.value, field.line)))
            .collect()
    }

    /// Tells of every field that nobody asked for.
    pub(crate) fn finish(mut self) {
        for (_, at) in self.rest() {
            at.lost("meshctl does not know this field", "look up what it does, and say it by hand");
        }
    }
}
