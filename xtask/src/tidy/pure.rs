//! Pure. Holds files that call themselves pure to it: no async, no clock, no dice, no disk, no sockets. Comments and tests do not count.

use super::Finding;
use super::source::{Role, Source, words};
use crate::tree::Tree;

/// Words of the outside world, as whole words of code.
const BANNED: &[&str] = &[
    "async",
    ".await",
    "tokio",
    "::now()",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "fs::",
    "File::open",
    "File::create",
    "std::env",
    "env::var",
    "std::process",
    "std::thread",
    "thread::",
    "rand::rng",
    "hyper",
    "reqwest",
    "sled",
    "openraft",
    "rustix",
    "socket2",
    "println!",
    "eprintln!",
];

/// Crates of which every file is pure.
const PURE_CRATES: &[&str] = &["traffic/src/"];

const MARK: &str = "//! Pure.";

pub fn pure_files_name_no_outside_world(tree: &Tree) -> Vec<Finding> {
    tree.sources.iter().filter(|source| source.text.starts_with(MARK)).flat_map(impurities).collect()
}

fn impurities(source: &Source) -> Vec<Finding> {
    let lines = source.code_lines(false).filter_map(|(number, line)| {
        let word = BANNED.iter().find(|word| words(line, word).next().is_some())?;
        Some(Finding::new(&source.path, number, format!("a pure file names `{word}`")))
    });
    lines.collect()
}

pub fn whole_crates_are_pure(tree: &Tree) -> Vec<Finding> {
    let members =
        tree.sources.iter().filter(|source| PURE_CRATES.iter().any(|folder| source.path.starts_with(folder)));
    let members = members.filter(|source| source.role != Role::Test && !source.text.starts_with(MARK));
    members.map(|source| Finding::new(&source.path, 1, format!("does not begin with `{MARK}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_clock_in_a_pure_file_is_found_but_not_in_its_tests_or_comments() {
        let text = "//! Pure. Never calls tokio.\nfn a() { let s = \"tokio\"; }\nfn b() { Instant::now(); }\n\
            #[cfg(test)]\nmod tests { use tokio::test; }\n";
        check(
            pure_files_name_no_outside_world,
            &[("a/src/b.rs", text)],
            &["a/src/b.rs:3: a pure file names `::now()`"],
        );
    }

    #[test]
    fn a_word_inside_a_longer_one_is_not_taken_for_it() {
        let text = "//! Pure.\nfn asleep(tokios: u8, file: File) { bossled::x(); prefs::y() }\n";
        check(pure_files_name_no_outside_world, &[("a/src/b.rs", text)], &[]);
    }

    #[test]
    fn async_and_grouped_imports_are_found() {
        let text = "//! Pure.\nuse std::{fs::read, io};\nasync fn a() {}\n";
        let want = ["a/src/b.rs:2: a pure file names `fs::`", "a/src/b.rs:3: a pure file names `async`"];
        check(pure_files_name_no_outside_world, &[("a/src/b.rs", text)], &want);
    }

    #[test]
    fn a_file_of_a_pure_crate_without_the_mark_is_found() {
        let files = [
            ("traffic/src/a.rs", "//! Pure.\n"),
            ("traffic/src/b.rs", "//! Picks.\n"),
            ("traffic/tests/c.rs", "\n"),
        ];
        check(whole_crates_are_pure, &files, &["traffic/src/b.rs:1: does not begin"]);
    }
}
