//! Pure. A test waits for what it wants to see, never for time to pass. The pause between two looks of a poll with a
//! deadline, and the beat of a load that is paced, are no synchronisation: they are marked with a comment that says so.

use super::Finding;
use super::source::{Role, Source};
use crate::tree::Tree;

const SLEEPS: &[&str] = &["thread::sleep", "time::sleep", " sleep(", "(sleep("];
/// How a comment on the line or on the one above begins that allows a sleep; its rest is the reason.
const MARKS: &[&str] = &["// Poll:", "// Pace:"];

pub fn tests_do_not_sleep(tree: &Tree) -> Vec<Finding> {
    tree.sources.iter().flat_map(sleeps).collect()
}

fn sleeps(source: &Source) -> Vec<Finding> {
    let texts: Vec<&str> = source.text.lines().collect();
    let all_tests = source.role != Role::Production;
    let lines = source.code_lines(true).filter(|(number, _)| all_tests || source.is_test_line(*number));
    let sleeping = lines.filter(|(_, line)| SLEEPS.iter().any(|word| line.contains(word)));
    let sleeping =
        sleeping.filter(|(_, line)| !line.trim_start().starts_with("use ") && !line.contains("fn sleep"));
    let bare = sleeping.filter(|(number, _)| {
        let near = [texts.get(number - 1), number.checked_sub(2).and_then(|above| texts.get(above))];
        !near.into_iter().flatten().any(|text| MARKS.iter().any(|mark| text.contains(mark)))
    });
    bare.map(|(number, _)| {
        Finding::new(
            &source.path,
            number,
            "a sleep in a test: wait for the event, or poll until a deadline (`// Poll: …`)",
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn a_sleep_in_a_test_is_found_and_one_in_the_daemon_is_not() {
        let text = "fn a() { time::sleep(B) }\n#[cfg(test)]\nmod tests {\n    fn b() { tokio::time::sleep(C).await }\n}\n";
        check(tests_do_not_sleep, &[("a/src/b.rs", text)], &["a/src/b.rs:4: a sleep"]);
        check(
            tests_do_not_sleep,
            &[("a/tests/b.rs", "fn a() { std::thread::sleep(X); }\n")],
            &["a/tests/b.rs:1: a sleep"],
        );
    }

    #[test]
    fn a_poll_says_so() {
        let text = "fn until() {\n    // Poll: the file appears when the child is ready.\n    thread::sleep(STEP);\n    thread::sleep(STEP);\n}\n";
        check(tests_do_not_sleep, &[("tests/src/until.rs", text)], &["tests/src/until.rs:4: a sleep"]);
    }
}
