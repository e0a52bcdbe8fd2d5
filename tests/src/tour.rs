//! A tour of the documents, typed as it stands: blocks of ` ```console ` whose lines say on which host what is typed
//! (`cp1# meshd init`), or in one shell (`$ meshctl get services`), and below it what is answered, with `…` for what
//! differs each time.

use std::{collections::BTreeMap, path::Path};

use crate::machine::Machine;

/// The word in whose place the token stands that was printed last.
const TOKEN: &str = "TOKEN";

/// A command and what it answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The host's name.
    pub host: String,
    /// What is typed; lines of a here-document included.
    pub command: String,
    /// What is answered; nothing where the document shows nothing.
    pub answer: Vec<String>,
}

/// The steps of a document.
///
/// # Panics
/// If it cannot be read.
pub fn steps(document: &Path) -> Vec<Step> {
    parse(&std::fs::read_to_string(document).expect("a document"))
}

fn parse(text: &str) -> Vec<Step> {
    let (mut steps, mut inside, mut here): (Vec<Step>, _, _) = (Vec::new(), false, false);
    for line in text.lines() {
        match (line, steps.last_mut()) {
            ("```console", _) => inside = true,
            ("```", _) => inside = false,
            _ if !inside => {}
            (_, Some(step)) if here => {
                here = line != "END";
                step.command += &format!("\n{line}");
            }
            // A block of one shell.
            _ if line.starts_with("$ ") => inside = false,
            (_, last) => match (line.split_once("# "), last) {
                (Some((host, command)), _) if !host.contains(' ') => {
                    here = command.contains("<<'END'");
                    let (host, command) = (host.to_owned(), command.to_owned());
                    steps.push(Step { host, command, answer: Vec::new() });
                }
                (_, Some(step)) => step.answer.push(line.to_owned()),
                (_, None) => {}
            },
        }
    }
    steps
}

/// What is typed in a block of one shell (`$ command`, here-documents included), and what is answered.
///
/// # Panics
/// If it begins with an answer.
pub fn typed(block: &str) -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    let mut here = false;
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) if !here => {
                here = command.contains("<<'END'");
                steps.push((command.to_owned(), Vec::new()));
            }
            (_, Some((command, _))) if here => {
                here = line != "END";
                *command += &format!("\n{line}");
            }
            (_, Some((_, answer))) => answer.push(line.to_owned()),
            (_, None) => panic!("{line:?} answers nothing"),
        }
    }
    steps
}

/// Types all steps, each on its host, and compares what is answered. What a command says to export is exported there from
/// then on.
///
/// # Panics
/// If a command fails or answers something else.
pub fn take(steps: &[Step], machines: &[&Machine]) {
    let mut exported: BTreeMap<&str, String> = BTreeMap::new();
    let mut token = String::new();
    for step in steps {
        let machine = machines.iter().find(|machine| machine.name() == step.host);
        let machine = machine.unwrap_or_else(|| panic!("no host {} for {:?}", step.host, step.command));
        let exports = exported.entry(&step.host).or_default();
        let command = step.command.replace(TOKEN, &token);
        eprintln!("{}# {command}", step.host);
        let said = machine.fine(&format!("{exports}{command}"));
        eprint!("{said}");
        for line in said.lines().map(str::trim) {
            if line.starts_with("export ") {
                *exports += &format!("{line}\n");
            }
            if line.starts_with("mesh1.") && !line.contains(' ') {
                line.clone_into(&mut token);
            }
        }
        assert!(
            answers(&said, &step.answer),
            "{} answered\n{said}, not\n{}",
            step.command,
            step.answer.join("\n")
        );
    }
}

/// Whether all of the lines come in what was said, in their order; `…` is anything.
pub fn answers(said: &str, lines: &[String]) -> bool {
    let mut said = said.lines();
    lines.iter().filter(|line| line.trim() != "…").all(|line| said.any(|said| fits(said, line)))
}

fn fits(said: &str, line: &str) -> bool {
    let mut rest = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts: Vec<&str> = line.split('…').collect();
    for (n, part) in parts.iter().enumerate() {
        // What `…` stands for may hold the last part as well.
        if n > 0 && n + 1 == parts.len() {
            return rest.ends_with(part);
        }
        let at = if n == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = rest.split_off(at + part.len());
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_with_their_here_documents_and_answers() {
        let text = "x\n```console\na# one\nyes …\nb# cat > f <<'END'\n[x]\n# no\nEND\n```\n```\na# not this\n```\n```console\n$ nor\nthis\n```\n";
        let step = |host: &str, command: &str, answer: &[&str]| Step {
            host: host.to_owned(),
            command: command.to_owned(),
            answer: answer.iter().map(|line| (*line).to_owned()).collect(),
        };
        let want = [step("a", "one", &["yes …"]), step("b", "cat > f <<'END'\n[x]\n# no\nEND", &[])];
        assert_eq!(parse(text), want);
    }

    #[test]
    fn answers_are_compared_but_for_what_differs_each_time() {
        assert!(fits("joined as node  host-a", "joined as node host-a"));
        assert!(fits("token mesh1.abc made at 3", "token mesh1.… made at …"));
        assert!(!fits("token abc made", "token mesh1.…"));
        assert!(!fits("yes and more", "yes"));
        assert!(fits("{a: {b}, c}", "{a: {…}") && !fits("{a: {b}, c}", "{a: …, d}"));
        let lines = ["one".to_owned(), "…".to_owned(), "three".to_owned()];
        assert!(answers("zero\none\ntwo\nthree\n", &lines));
        assert!(!answers("three\none\n", &lines));
    }
}
