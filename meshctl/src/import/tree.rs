//! Pure. A foreign text as values that know their lines: what is read of YAML and JSON, and of HCL (`hcl`).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A value and the line that it begins at, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) tree: Tree,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// A field of a map. A name may stand twice: HCL makes a list of that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) line: u64,
    pub(crate) name: String,
    pub(crate) value: Node,
}

/// The documents of a text in YAML or JSON.
///
/// # Errors
/// The first fault of syntax, with its line.
pub(crate) fn of_yaml(text: &str) -> Result<Vec<Node>, String> {
    let start = text.trim_start();
    // What means to be JSON is held to its rules: YAML would take more.
    if start.starts_with("{\"") || start.starts_with('[') {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("not JSON: {error}"))?;
    }
    let documents: Vec<Node> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("not YAML: {error}"))?;
    Ok(documents.into_iter().filter(|node| node.tree != Tree::Null).collect())
}

impl Node {
    /// Whether it says nothing: what programs write for what was never set.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.tree {
            Tree::Null | Tree::Bool(false) => true,
            Tree::Bool(true) => false,
            Tree::Number(number) => *number == 0.0,
            Tree::Text(text) => text.is_empty(),
            Tree::List(elements) => elements.iter().all(Self::is_empty),
            Tree::Map(fields) => fields.iter().all(|field| field.value.is_empty()),
        }
    }
}

impl Tree {
    /// What it is, for a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), tree: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shapes)
    }
}

struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = entries.next_entry::<Spanned<String>, Node>()? {
            fields.push(Field { line: name.referenced.line(), name: name.value, value });
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(node: &Node, path: &str, found: &mut Vec<String>) {
        match &node.tree {
            Tree::Map(fields) => {
                for field in fields {
                    lines(&field.value, &format!("{path}.{}@{}", field.name, field.line), found);
                }
            }
            Tree::List(elements) => elements.iter().for_each(|element| lines(element, path, found)),
            other => found.push(format!("{path} {} {}", node.line, other.describe())),
        }
    }

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let documents = of_yaml(text).expect("it is read");
        let mut found = Vec::new();
        documents.iter().for_each(|document| lines(document, "", &mut found));
        assert_eq!(found, want);
    }

    #[test]
    fn values_know_their_lines() {
        check(
            "a: 1\nb:\n- x: yes it is\n  y: true\n- {z: 1.5}\n---\n---\nc: ~\nd: \"2\"\n",
            &[
                ".a@1 1 1",
                ".b@2.x@3 3 \"yes it is\"",
                ".b@2.y@4 4 true",
                ".b@2.z@5 5 1.5",
                ".c@8 8 null",
                ".d@9 9 \"2\"",
            ],
        );
        check(
            "{\n\t\"Kind\": \"service-router\",\n\t\"Routes\": [\n\t\t{\"A\": \"\\u00e9 \\/\"},\n\t\t{}\n\t]\n}\n",
            &[".Kind@2 2 \"service-router\"", ".Routes@3.A@4 4 \"é /\""],
        );
    }

    #[test]
    fn what_is_neither_is_refused_with_its_line() {
        let error = of_yaml("{\"a\": 1,}").expect_err("a comma too many");
        assert!(error.starts_with("not JSON: ") && error.contains("line 1"), "{error}");
        let error = of_yaml("a: [1\nb: 2\n").expect_err("no end");
        assert!(error.starts_with("not YAML: ") && error.contains("line"), "{error}");
    }
}
