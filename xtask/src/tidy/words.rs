//! Pure. Words that we do not write, and names that say nothing.

use super::Finding;
use super::source::{Source, words};
use crate::tree::Tree;

/// Promises that belong into an issue. In pieces, so that this file passes its own check.
const PROMISES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
/// What must not stand in code, tests among it.
const BANNED_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// Module names that only say that their author did not know where to put something.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];
const TEXTS: &[&str] = &[".rs", ".md", ".toml", ".sh", ".py", ".yaml", ".yml", ".service"];

pub fn banned_words(tree: &Tree) -> Vec<Finding> {
    let texts = tree.texts.iter().filter(|(path, _)| TEXTS.iter().any(|end| path.ends_with(end)));
    let promises = texts.flat_map(|(path, text)| {
        let lines = text.lines().enumerate().filter_map(|(index, line)| {
            let word = PROMISES.iter().find(|word| words(line, word).next().is_some())?;
            Some(Finding::new(path, index + 1, format!("`{word}`: do it, or file an issue")))
        });
        lines.collect::<Vec<_>>()
    });
    promises.chain(tree.sources.iter().flat_map(banned_code)).collect()
}

fn banned_code(source: &Source) -> Vec<Finding> {
    let places = BANNED_CODE.iter().flat_map(|word| words(&source.code, word).map(move |at| (at, word)));
    places
        .map(|(at, word)| {
            Finding::new(&source.path, source.line_at(at), format!("`{word}` is not for a commit"))
        })
        .collect()
}

pub fn module_names(tree: &Tree) -> Vec<Finding> {
    let files = tree.sources.iter().flat_map(|source| {
        let parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        parts
            .filter(|part| EMPTY_NAMES.contains(part))
            .map(|part| Finding::new(&source.path, 1, nothing(part)))
    });
    let types = tree.sources.iter().flat_map(|source| {
        let heads = ["mod", "struct", "enum", "trait"].into_iter();
        let named = heads.flat_map(|head| {
            words(&source.code, head)
                .filter_map(|at| named(&source.code[at + head.len()..]).map(|name| (at, name)))
        });
        named
            .filter(|(_, name)| {
                EMPTY_NAMES.contains(name) || name.ends_with("Manager") || name.ends_with("Helper")
            })
            .map(|(at, name)| Finding::new(&source.path, source.line_at(at), nothing(name)))
    });
    files.chain(types).collect()
}

fn nothing(name: &str) -> String {
    format!("`{name}` says nothing: name what it is")
}

/// The identifier that follows a keyword.
fn named(rest: &str) -> Option<&str> {
    rest.strip_prefix(' ')?.split(|c: char| !super::source::is_word(c)).next().filter(|name| !name.is_empty())
}

pub fn function_names(tree: &Tree) -> Vec<Finding> {
    let functions =
        tree.sources.iter().flat_map(|source| source.functions().into_iter().map(move |f| (source, f)));
    let getters = functions.filter(|(_, function)| function.name.starts_with("get_") && !function.of_a_trait);
    getters
        .map(|(source, f)| Finding::new(&source.path, f.line, format!("`{}`: drop the `get_`", f.name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_promise_is_found_in_code_and_text() {
        let text = format!("fine\n// {} later\n", PROMISES[0]);
        let want = ["a/b.rs:2: `", "docs/c.md:2: `"];
        check(banned_words, &[("a/b.rs", &text), ("docs/c.md", &text)], &want);
    }

    #[test]
    fn an_unfinished_macro_is_found_and_its_name_in_a_string_is_not() {
        let text = "fn a() { let s = \"todo!\"; }\nfn b() { todo!() }\n#[ignore = \"slow\"]\nfn c() {}\n";
        check(banned_words, &[("a/b.rs", text)], &["a/b.rs:2: `todo!`", "a/b.rs:3: `#[ignore`"]);
    }

    #[test]
    fn an_empty_name_is_found() {
        check(module_names, &[("a/src/util.rs", "")], &["a/src/util.rs:1: `util`"]);
        let text = "mod helpers;\nstruct PoolManager;\nstruct Pool;\n";
        check(
            module_names,
            &[("a/src/b.rs", text)],
            &["a/src/b.rs:1: `helpers`", "a/src/b.rs:2: `PoolManager`"],
        );
    }

    #[test]
    fn a_getter_is_found_unless_a_trait_named_it() {
        let text = "fn get_name() {}\nimpl Log for Wal {\n    fn get_state() {}\n}\n";
        check(function_names, &[("a/b.rs", text)], &["a/b.rs:1: `get_name`"]);
    }
}
