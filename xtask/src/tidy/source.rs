//! Pure. One Rust file as the checks see it: what is code, what is comment, what is test.
//! A lexer of a hundred lines, not a parser: it must never be fooled by a brace in a string or a word in a comment,
//! and it need not understand more than that.

/// Where a file stands decides which checks hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ships, or is a tool that we live with.
    Production,
    /// The harness, demo and bench: held like production, but for tests only.
    Harness,
    /// Tests from the first line to the last.
    Test,
}

/// A Rust file, lexed once.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    /// As long as `text`, byte for byte: comments are blanks, the insides of literals are `"`, the rest is ASCII.
    pub code: String,
    pub role: Role,
    starts: Vec<usize>,
    test_lines: Vec<bool>,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// 1-based, of the `fn`.
    pub line: usize,
    /// Lines which hold code, from `fn` to its closing brace.
    pub length: usize,
    /// Carries a `#[test]` or `#[…::test]`.
    pub is_test: bool,
    /// Its name is not ours to choose: it stands in an `impl Trait for Type`.
    pub of_a_trait: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = mask(text);
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let role = role(path);
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            test_lines: vec![role == Role::Test || code.contains("#![cfg(test)]"); starts.len()],
            code,
            role,
            starts,
        };
        for (from, to) in cfg_test_items(&source.code) {
            let (first, last) = (source.line_at(from), source.line_at(to));
            source.test_lines[first - 1..last].fill(true);
        }
        source
    }

    /// Turns the whole file into tests: it was declared under `#[cfg(test)] mod name;`.
    pub fn declare_test(&mut self) {
        self.test_lines.fill(true);
        self.role = Role::Test;
    }

    /// The files of modules that are declared here under `#[cfg(test)]`, as paths that may exist.
    pub fn test_modules(&self) -> Vec<String> {
        let items = cfg_test_items(&self.code).into_iter().map(|(from, to)| &self.code[from..to]);
        let names =
            items.filter_map(|item| item.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let own = match file {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            other => format!("{folder}/{}", other.trim_end_matches(".rs")),
        };
        names.map(|name| format!("{own}/{}.rs", name.trim())).collect()
    }

    /// 1-based line of a byte offset.
    pub fn line_at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// Lines of code with their 1-based numbers; `tests` says whether those of tests are among them.
    pub fn code_lines(&self, tests: bool) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(move |(number, _)| tests || !self.is_test_line(*number))
    }

    /// Lines outside tests which are not empty, comments among them.
    pub fn production_length(&self) -> usize {
        let lines = self.text.lines().enumerate();
        lines.filter(|(index, line)| !line.trim().is_empty() && !self.is_test_line(index + 1)).count()
    }

    pub fn functions(&self) -> Vec<Function> {
        let trait_impls = trait_impls(&self.code);
        let places = words(&self.code, "fn").filter_map(|at| self.function_at(at));
        places
            .map(|(at, mut function)| {
                function.of_a_trait = trait_impls.iter().any(|(from, to)| (*from..*to).contains(&at));
                function
            })
            .collect()
    }

    fn function_at(&self, at: usize) -> Option<(usize, Function)> {
        let rest = &self.code[at + 2..];
        let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            return None; // a function pointer's type
        }
        let open = at + item_head(&self.code[at..])?;
        let length = match self.code.as_bytes()[open] {
            b'{' => {
                let span = &self.code[at..=closing(&self.code, open)];
                span.lines().filter(|line| !line.trim().is_empty()).count()
            }
            _ => 0, // declared in a trait, without a body
        };
        let before = &self.code[..at];
        let attributes = &before[before.rfind(['{', '}', ';']).map_or(0, |end| end + 1)..];
        let is_test = ["#[test]", "::test]", "::test("].iter().any(|mark| attributes.contains(mark));
        Some((at, Function { name, line: self.line_at(at), length, is_test, of_a_trait: false }))
    }
}

/// Byte offsets where `word` stands in `code` with no letter, digit or underscore at either side.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let open_start = !word.starts_with(is_word) || !before.is_some_and(is_word);
        let open_end = !word.ends_with(is_word) || !after.is_some_and(is_word);
        open_start && open_end
    })
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn role(path: &str) -> Role {
    let harness = path.starts_with("tests/src/") || path.starts_with("fuzz/");
    let test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/");
    match (harness, test) {
        (true, _) => Role::Harness,
        (false, true) => Role::Test,
        (false, false) => Role::Production,
    }
}

/// Spans of the items that stand under `#[cfg(test)]` or `#[cfg(all(test, …))]`, the attribute included.
fn cfg_test_items(code: &str) -> Vec<(usize, usize)> {
    let starts = ["#[cfg(test)]", "#[cfg(all(test"].into_iter().flat_map(|mark| code.match_indices(mark));
    let mut items: Vec<(usize, usize)> = starts
        .filter_map(|(at, _)| {
            let body = at + skip_attributes(&code[at..]);
            let head = body + item_head(&code[body..])?;
            let end = if code.as_bytes()[head] == b'{' { closing(code, head) } else { head };
            Some((at, end + 1))
        })
        .collect();
    items.sort_unstable();
    items
}

/// How many bytes of attributes `code` begins with.
fn skip_attributes(code: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = code[at..].trim_start();
        let start = code.len() - rest.len();
        if !rest.starts_with("#[") {
            return start;
        }
        at = closing(code, start + 1) + 1;
    }
}

/// Spans of `impl Trait for Type { … }`.
fn trait_impls(code: &str) -> Vec<(usize, usize)> {
    let heads = words(code, "impl").filter_map(|at| {
        let open = at + item_head(&code[at..])?;
        let of_a_trait = code.as_bytes()[open] == b'{' && code[at..open].contains(" for ");
        of_a_trait.then(|| (at, closing(code, open)))
    });
    heads.collect()
}

/// Offset of the `{` or `;` that ends an item's head: the first one outside round and square brackets.
fn item_head(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    code.bytes().position(|byte| {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            _ => {}
        }
        depth <= 0 && (byte == b'{' || byte == b';')
    })
}

/// Offset of the bracket that closes the one at `open`; the end of the text where none does.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    let found = code.bytes().enumerate().skip(open).find(|(_, byte)| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    found.map_or(code.len() - 1, |(at, _)| at)
}

/// Blanks out comments and fills literals, keeping every byte's place and every line's end.
fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let at = out.len();
        let (end, fill) = match token(bytes, at) {
            Token::Comment(end) => (end, b' '),
            Token::Literal(end) => (end, b'"'),
            Token::Code(end) => {
                out.extend(bytes[at..end].iter().map(|byte| if byte.is_ascii() { *byte } else { b'_' }));
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { fill }));
    }
    String::from_utf8(out).expect("only ASCII was written")
}

/// What begins at an offset, with the offset after it.
enum Token {
    Comment(usize),
    Literal(usize),
    Code(usize),
}

fn token(bytes: &[u8], at: usize) -> Token {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Token::Comment(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Token::Comment(at + block_comment(rest));
    }
    if let Some(length) = literal(rest) {
        return Token::Literal(at + length);
    }
    // A whole word at once, so that the r of `for"` is not taken for a raw string's mark.
    let word = rest.iter().take_while(|byte| is_word(char::from(**byte))).count();
    Token::Code(at + word.max(1))
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of the string, byte string or character that `rest` begins with.
fn literal(rest: &[u8]) -> Option<usize> {
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let (prefix, body) = if prefix <= 2 { rest.split_at(prefix) } else { return None };
    if prefix.ends_with(b"r") {
        let hashes = body.iter().take_while(|byte| **byte == b'#').count();
        let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
        let open = prefix.len() + hashes + 1;
        if body.get(hashes) != Some(&b'"') {
            return None;
        }
        let length = rest[open..].windows(close.len()).position(|window| window == close);
        return Some(length.map_or(rest.len(), |length| open + length + close.len()));
    }
    match body.first() {
        Some(b'"') => Some(prefix.len() + escaped(body, b'"')),
        Some(b'\'') if is_character(body) => Some(prefix.len() + escaped(body, b'\'')),
        _ => None,
    }
}

/// A character, not a lifetime: an escape, or one character and then the quote.
fn is_character(body: &[u8]) -> bool {
    let width = match body.get(1) {
        Some(b'\\') => return true,
        Some(first) if first.is_ascii() => 1,
        Some(_) => body[1..].iter().take(4).take_while(|byte| **byte >= 0x80).count(),
        None => return false,
    };
    body.get(1 + width) == Some(&b'\'')
}

/// Length of a literal with backslash escapes, both quotes included.
fn escaped(body: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < body.len() {
        match body[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_mask(text: &str, want: &str) {
        assert_eq!(mask(text), want);
        assert_eq!(mask(text).len(), text.len());
    }

    #[test]
    fn comments_become_blanks_and_literals_are_filled() {
        check_mask("a // b\nc", "a     \nc");
        check_mask("a /* b /* c */ d */ e", "a                   e");
        check_mask(
            r#"f("x // {", 1)"#,
            r#"f("""""""""", 1)"#.replace("\"\"\"\"\"\"\"\"\"\"", "\"\"\"\"\"\"\"\"").as_str(),
        );
    }

    #[test]
    fn raw_strings_characters_and_lifetimes_are_told_apart() {
        check_mask("r#\"{\"#;", "\"\"\"\"\"\";");
        check_mask("'{' + b'\\'' <'a>", "\"\"\" + \"\"\"\"\" <'a>");
        check_mask("'é';", "\"\"\"\";");
        check_mask("for_r \"{\"", "for_r \"\"\"");
    }

    #[test]
    fn a_function_ends_at_its_own_brace() {
        let source =
            Source::new("a/src/lib.rs", "fn one() {\n  // }\n  let b = \"}\";\n}\nfn two(x: [u8; 4]) {}\n");
        let found: Vec<_> = source.functions().iter().map(|f| (f.name.clone(), f.line, f.length)).collect();
        assert_eq!(found, [("one".to_owned(), 1, 3), ("two".to_owned(), 5, 1)]);
    }

    #[test]
    fn tests_are_known_by_their_attribute_and_by_their_place() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    #[tokio::test(flavor = \"x\")]\n    async fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("a/src/lib.rs", text);
        let lines: Vec<_> = (1..=7).filter(|line| source.is_test_line(*line)).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6]);
        assert_eq!(source.production_length(), 2);
        let tests: Vec<_> = source.functions().into_iter().filter(|f| f.is_test).map(|f| f.name).collect();
        assert_eq!(tests, ["b"]);
        assert_eq!(Source::new("a/tests/b.rs", "").role, Role::Test);
        assert_eq!(Source::new("tests/src/world.rs", "").role, Role::Harness);
    }

    #[test]
    fn a_test_module_in_its_own_file_is_found() {
        let source = Source::new("a/src/wal.rs", "#[cfg(test)]\nmod tests;\nmod record;\n");
        assert_eq!(source.test_modules(), ["a/src/wal/tests.rs"]);
        let source = Source::new("a/src/lib.rs", "#[cfg(test)] pub(crate) mod suite;\n");
        assert_eq!(source.test_modules(), ["a/src/suite.rs"]);
    }

    #[test]
    fn a_function_of_a_foreign_trait_is_marked() {
        let source = Source::new(
            "a/src/lib.rs",
            "impl Log for Wal { fn get_state(&self) {} }\nimpl Wal { fn state(&self) {} }\n",
        );
        let marks: Vec<_> = source.functions().iter().map(|f| f.of_a_trait).collect();
        assert_eq!(marks, [true, false]);
    }
}
