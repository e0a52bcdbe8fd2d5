//! Pure. HCL as Consul's config entries use it (`consul config write`): literals only, in version 1 of the language.
//! `name = value`, blocks (`name { … }`, with labels, too), lists, maps, heredocs, comments; commas are optional in maps.

use super::tree::{Field, Node, Tree};

/// Values may stand so deep in each other: Consul's own need fewer than ten.
const DEPTH_MAX: usize = 32;

/// The one document of a text in HCL.
///
/// # Errors
/// The first fault, with its line.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    let mut reader = Reader { rest: text, line: 1 };
    let fields = reader.fields(None, 0)?;
    Ok(Node { line: 1, tree: Tree::Map(fields) })
}

struct Reader<'t> {
    rest: &'t str,
    line: u64,
}

impl Reader<'_> {
    fn wrong<T>(&self, message: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("not HCL: line {}: {message}", self.line))
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.matches('\n').count() as u64;
        self.rest = rest;
    }

    fn takes(&mut self, wanted: char) -> bool {
        let there = self.rest.starts_with(wanted);
        if there {
            self.skip(wanted.len_utf8());
        }
        there
    }

    /// Passes white space and comments.
    fn blank(&mut self) -> Result<(), String> {
        loop {
            let white = self.rest.len() - self.rest.trim_start().len();
            self.skip(white);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                match self.rest.find("*/") {
                    Some(end) => self.skip(end + 2),
                    None => return self.wrong("a comment has no end"),
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Fields up to `end`, or to the end of the text.
    fn fields(&mut self, end: Option<char>, depth: usize) -> Result<Vec<Field>, String> {
        if depth > DEPTH_MAX {
            return self.wrong(format_args!("more than {DEPTH_MAX} levels"));
        }
        let mut fields = Vec::new();
        loop {
            self.blank()?;
            match (self.peek(), end) {
                (None, None) => return Ok(fields),
                (None, Some(end)) => return self.wrong(format_args!("no {end:?} until the end")),
                (Some(next), Some(end)) if next == end => {
                    self.skip(end.len_utf8());
                    return Ok(fields);
                }
                (Some(_), _) => fields.push(self.field(depth)?),
            }
            self.blank()?;
            self.takes(',');
        }
    }

    fn field(&mut self, depth: usize) -> Result<Field, String> {
        let line = self.line;
        let name = self.name()?;
        self.blank()?;
        let value = if self.takes('=') || self.takes(':') {
            self.blank()?;
            self.value(depth)?
        } else if self.peek() == Some('{') {
            self.value(depth)?
        } else if self.peek().is_some_and(|next| next == '"' || is_word(next)) {
            // A label: `config "global" { … }` is a map of one field.
            let (line, inner) = (self.line, self.field(depth + 1)?);
            Node { line, tree: Tree::Map(vec![inner]) }
        } else {
            return self.wrong(format_args!("{name:?} is followed by neither '=' nor '{{'"));
        };
        Ok(Field { line, name, value })
    }

    fn name(&mut self) -> Result<String, String> {
        if self.peek() == Some('"') {
            return self.text();
        }
        let length = self.rest.find(|next| !is_word(next)).unwrap_or(self.rest.len());
        if length == 0 {
            let next = self.peek().map_or_else(String::new, |next| next.to_string());
            return self.wrong(format_args!("{next:?} is no field's name"));
        }
        let name = self.rest[..length].to_owned();
        self.skip(length);
        Ok(name)
    }

    fn value(&mut self, depth: usize) -> Result<Node, String> {
        let line = self.line;
        let tree = match self.peek() {
            Some('"') => Tree::Text(self.text()?),
            Some('<') if self.rest.starts_with("<<") => Tree::Text(self.heredoc()?),
            Some('{') => {
                self.skip(1);
                Tree::Map(self.fields(Some('}'), depth + 1)?)
            }
            Some('[') => {
                self.skip(1);
                Tree::List(self.elements(depth + 1)?)
            }
            _ => self.word()?,
        };
        Ok(Node { line, tree })
    }

    fn elements(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        if depth > DEPTH_MAX {
            return self.wrong(format_args!("more than {DEPTH_MAX} levels"));
        }
        let mut elements = Vec::new();
        loop {
            self.blank()?;
            if self.takes(']') {
                return Ok(elements);
            }
            elements.push(self.value(depth)?);
            self.blank()?;
            if !self.takes(',') && self.peek() != Some(']') {
                return self.wrong("a list's elements are separated by commas");
            }
        }
    }

    /// A number, a truth, or nothing; anything else is an expression, which config entries have none of.
    fn word(&mut self) -> Result<Tree, String> {
        let length = self.rest.find(|next| !is_word(next) && next != '+').unwrap_or(self.rest.len());
        let word = &self.rest[..length];
        let tree = match word {
            "true" => Tree::Bool(true),
            "false" => Tree::Bool(false),
            "null" => Tree::Null,
            _ => match word.parse::<f64>() {
                Ok(number) if number.is_finite() => Tree::Number(number),
                _ => {
                    return self.wrong(format_args!(
                        "{word:?} is no value: texts stand in quotes, and expressions are not read"
                    ));
                }
            },
        };
        self.skip(length);
        Ok(tree)
    }

    fn text(&mut self) -> Result<String, String> {
        self.skip(1);
        let mut text = String::new();
        loop {
            let Some(next) = self.peek() else { return self.wrong("a text has no end") };
            self.skip(next.len_utf8());
            match next {
                '"' => return Ok(text),
                '\n' => return self.wrong("a text ends on its line; longer ones are heredocs"),
                '\\' => text.push(self.escaped()?),
                other => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let Some(next) = self.peek() else { return self.wrong("a text has no end") };
        self.skip(next.len_utf8());
        match next {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            '"' | '\\' | '/' => Ok(next),
            'u' => {
                let digits = self.rest.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                match digits.and_then(char::from_u32) {
                    Some(character) => {
                        self.skip(4);
                        Ok(character)
                    }
                    None => self.wrong("\\u needs four digits that name a character"),
                }
            }
            other => self.wrong(format_args!("\\{other} stands for nothing")),
        }
    }

    fn heredoc(&mut self) -> Result<String, String> {
        let indented = self.rest.starts_with("<<-");
        self.skip(if indented { 3 } else { 2 });
        let Some(end) = self.rest.find('\n') else { return self.wrong("a heredoc has no end") };
        let marker = self.rest[..end].trim().to_owned();
        self.skip(end + 1);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.find('\n').or((!self.rest.is_empty()).then_some(self.rest.len())) {
            let line = self.rest[..end].to_owned();
            if line.trim() == marker {
                self.skip(end);
                return Ok(lines.concat());
            }
            self.skip((end + 1).min(self.rest.len()));
            lines.push(format!("{}\n", if indented { line.trim_start() } else { &line }));
        }
        self.wrong(format_args!("a heredoc has no end: {marker}"))
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_-.".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value in a short form: lines of the fields in brackets.
    fn short(node: &Node) -> String {
        match &node.tree {
            Tree::Map(fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|field| format!("{}[{}]={}", field.name, field.line, short(&field.value)))
                    .collect();
                format!("{{{}}}", fields.join(" "))
            }
            Tree::List(elements) => format!("({})", elements.iter().map(short).collect::<Vec<_>>().join(" ")),
            other => other.describe(),
        }
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(parse(text).map(|node| short(&node)), Ok(want.to_owned()), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, want: &str) {
        let error = parse(text).expect_err("it is wrong");
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn config_entries_are_read_with_their_lines() {
        check(
            "Kind = \"service-splitter\" # what\nName = \"web\"\n\nSplits = [\n  {\n    Weight = 90.5\n    ServiceSubset = \"v1\"\n  },\n  { Weight = 10, ServiceSubset = \"v2\" },\n]\n",
            "{Kind[1]=\"service-splitter\" Name[2]=\"web\" Splits[4]=({Weight[6]=90.5 ServiceSubset[7]=\"v1\"} {Weight[9]=10 ServiceSubset[9]=\"v2\"})}",
        );
        check(
            "Meta { a = true }\nSubsets = {\n  \"v 1\" = { Filter = \"\\\"a\\\" in x\" }\n}\n// end\n/* and\nmore */ Config { x { y = -1 } }",
            "{Meta[1]={a[1]=true} Subsets[2]={v 1[3]={Filter[3]=\"\\\"a\\\" in x\"}} Config[7]={x[7]={y[7]=-1}}}",
        );
        check(
            "a \"b\" { c = null }\nd = <<-END\n  one\n  two\n  END\ne = []",
            "{a[1]={b[1]={c[1]=null}} d[2]=\"one\\ntwo\\n\" e[6]=()}",
        );
    }

    #[test]
    fn faults_are_refused_with_their_line() {
        refused("a = 1\nb = \"x", "line 2: a text has no end");
        refused("a = {\n b = 1\n", "line 3: no '}' until the end");
        refused("a = var.b", "line 1: \"var.b\" is no value");
        refused("a = [1 2]", "separated by commas");
        refused("a =", "no value");
        refused("= 1", "no field's name");
        refused("a 1", "followed by neither");
        refused("/* a", "a comment has no end");
        refused(&"a = [".repeat(2), "no value");
        refused(&format!("a = {}", "[".repeat(40)), "more than 32 levels");
    }
}
