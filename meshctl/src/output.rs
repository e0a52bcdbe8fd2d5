//! Prints results. Colours only on a terminal, and not where `NO_COLOR` is set.
#![allow(clippy::print_stdout, reason = "stdout is what this program is for")]

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::cli::Format;

/// A table for people.
pub(crate) struct Rows {
    /// The columns' names.
    pub(crate) header: Vec<&'static str>,
    /// A text for each column.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Prints a result as asked: as rows, or whole.
pub(crate) fn print(
    format: Format,
    whole: &impl Serialize,
    rows: impl FnOnce() -> Rows,
) -> anyhow::Result<()> {
    match format {
        Format::Table => table(&rows()),
        Format::Json => line(&serde_json::to_string_pretty(whole)?),
        Format::Yaml => line(yaml(whole)?.trim_end()),
    }
}

/// A value as YAML. By way of JSON, so that both say the same.
pub(crate) fn yaml(whole: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(&serde_json::to_value(whole)?)?)
}

/// Prints a line. A reader that went away (`| head`) is no fault: the program ends as any other would.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints a hint for people, which is not part of the result.
pub(crate) fn hint(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints what went wrong.
pub(crate) fn complain(error: &anyhow::Error) {
    let (red, plain) = if colours() { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    hint(&format!("{red}error:{plain} {error:#}"));
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && wanted()
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line of a diff, in its colour where stdout is a terminal.
pub(crate) fn coloured(line: &str) -> String {
    let colour = match line.as_bytes().first() {
        Some(b'+') => "\x1b[32m",
        Some(b'-') => "\x1b[31m",
        Some(b'@') => "\x1b[36m",
        _ => return line.to_owned(),
    };
    if std::io::stdout().is_terminal() && wanted() {
        format!("{colour}{line}\x1b[0m")
    } else {
        line.to_owned()
    }
}

/// Asks at the terminal whether to go on.
pub(crate) fn confirm(what: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("this has to be confirmed, and nobody is here to be asked: add --yes");
    }
    let mut answer = String::new();
    write!(std::io::stderr(), "{what}\nGo on? [y/N] ")?;
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { anyhow::bail!("nothing was changed") }
}

fn table(rows: &Rows) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(rows.header.iter().map(|name| name.to_uppercase()));
    for row in &rows.rows {
        table.add_row(row);
    }
    let mut text = String::new();
    for row in table.lines() {
        text.push_str(row.trim_end().strip_prefix(' ').unwrap_or(row.trim_end()));
        text.push('\n');
    }
    line(text.trim_end())
}

/// The text of a field deep in a value; `-` where there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
