//! What decisions cost as the mesh grows, and what one change does: counted by a profiler in a program that does nothing
//! else, so that neither noise nor other work bears on it. Times are beside, as caches are not counted.

use anyhow::Context as _;
use mesh_tests::{binaries, process::run};
use serde_json::Value;
use tokio::process::Command;

use crate::results::{Comparison, Goal, Rounds, alone, compare};

/// Routes and policies of one service, and its endpoints; and the same of a small mesh.
const MANY: (&str, &str) = ("10000", "5000");
const FEW: (&str, &str) = ("10", "10");
/// Endpoints and services: ten for each; and all for one.
const SPREAD: (&str, &str) = ("5000", "500");
const ONE_SERVICE: (&str, &str) = ("5000", "1");
const SMALL: (&str, &str) = ("50", "5");
/// What is counted of is what so many cost beyond half of them.
const REQUESTS: u32 = 20_000;
const CHANGES: u32 = 200;
/// A decision among many, as a ratio to one among few.
const DECISION_GOAL: f64 = 1.2;
/// A change among many, as a ratio to one among few: in proportion to the change, but for the depth of a tree.
const CHANGE_GOAL: f64 = 1.5;
/// How long a change may take, in milliseconds.
const CHANGE_MILLIS: f64 = 5.0;

/// What is counted of one run.
#[derive(Debug, Clone, Copy)]
enum Tool {
    Instructions,
    Allocations,
}

/// Counts both.
pub(super) async fn measure() -> anyhow::Result<Vec<Comparison>> {
    let mut results = decisions().await?;
    results.extend(changes().await?);
    Ok(results)
}

async fn decisions() -> anyhow::Result<Vec<Comparison>> {
    let title = format!("a request among {} routes and policies, {} endpoints", MANY.0, MANY.1);
    let mut rows = Vec::new();
    for (what, tool) in [("instructions", Tool::Instructions), ("allocations", Tool::Allocations)] {
        let many = each(tool, &["decide", MANY.0, MANY.1], REQUESTS).await?;
        let few = each(tool, &["decide", FEW.0, FEW.1], REQUESTS).await?;
        let row = compare(&format!("{title}: {what}"), "", &Rounds(vec![many]), "ten", &Rounds(vec![few]));
        rows.push(row.with_goal(Goal::AtMost(DECISION_GOAL)));
    }
    let took = |line: &Value| Rounds(vec![line["microsEach"].as_f64().unwrap_or(f64::NAN)]);
    let requests = (REQUESTS * 10).to_string();
    let many = took(&plainly(&["decide", MANY.0, MANY.1, &requests]).await?);
    let few = took(&plainly(&["decide", FEW.0, FEW.1, &requests]).await?);
    rows.push(compare(&format!("{title}: time"), "µs", &many, "ten", &few));
    Ok(rows)
}

async fn changes() -> anyhow::Result<Vec<Comparison>> {
    let mut rows = Vec::new();
    for (what, tool) in [("instructions", Tool::Instructions), ("allocations", Tool::Allocations)] {
        let all = each(tool, &["apply", SPREAD.0, SPREAD.1], CHANGES).await?;
        let few = each(tool, &["apply", SMALL.0, SMALL.1], CHANGES).await?;
        let title = format!("one changed endpoint among 5,000: {what}");
        let row = compare(&title, "", &Rounds(vec![all]), "of 50", &Rounds(vec![few]));
        rows.push(row.with_goal(Goal::AtMost(CHANGE_GOAL)));
    }
    for (title, (endpoints, services)) in [
        ("one changed endpoint among 5,000: time", SPREAD),
        ("one changed endpoint of a service of 5,000: time", ONE_SERVICE),
    ] {
        let line = plainly(&["apply", endpoints, services, &CHANGES.to_string()]).await?;
        let took = Rounds(vec![line["millis"].as_f64().unwrap_or(f64::NAN)]);
        rows.push(alone(title, "ms", &took).with_goal(Goal::AtMost(CHANGE_MILLIS)));
    }
    let allocations = each(Tool::Allocations, &["apply", ONE_SERVICE.0, ONE_SERVICE.1], CHANGES).await?;
    rows.push(alone(
        "one changed endpoint of a service of 5,000: allocations",
        "",
        &Rounds(vec![allocations]),
    ));
    Ok(rows)
}

/// What each of `count` costs: what a run of `count` has beyond one of half as many.
async fn each(tool: Tool, arguments: &[&str], count: u32) -> anyhow::Result<f64> {
    let (half, whole) = (counted(tool, arguments, count / 2).await?, counted(tool, arguments, count).await?);
    Ok((whole - half) / f64::from(count - count / 2))
}

async fn counted(tool: Tool, arguments: &[&str], count: u32) -> anyhow::Result<f64> {
    let mut command = Command::new("valgrind");
    match tool {
        Tool::Instructions => command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]),
        Tool::Allocations => command.args(["--tool=dhat", "--dhat-out-file=/dev/null"]),
    };
    command.arg(binaries::path("proxy-cost")).args(arguments).arg(count.to_string());
    let output = command.output().await.context("valgrind does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{said}");
    total(tool, &said).with_context(|| format!("valgrind counted nothing: {said}"))
}

/// What valgrind says that it counted.
fn total(tool: Tool, said: &str) -> Option<f64> {
    let number = |word: &str| word.replace(',', "").parse().ok();
    match tool {
        Tool::Instructions => {
            let (_, count) = said.lines().find_map(|line| line.split_once("Collected : "))?;
            number(count.split_whitespace().next()?)
        }
        Tool::Allocations => {
            let (_, total) = said.lines().find_map(|line| line.split_once("Total:"))?;
            let (_, blocks) = total.split_once(" in ")?;
            number(blocks.split_whitespace().next()?)
        }
    }
}

async fn plainly(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(binaries::path("proxy-cost"));
    Ok(serde_json::from_str(&run(command.args(arguments)).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_valgrind_counted_is_read() {
        let callgrind = "==7== \n==7== Events    : Ir\n==7== Collected : 123456789\n==7== \n";
        assert_eq!(total(Tool::Instructions, callgrind), Some(123_456_789.0));
        let dhat = "==7== Total:     1,234,567 bytes in 8,901 blocks\n==7== At t-gmax: 1 bytes in 1 blocks\n";
        assert_eq!(total(Tool::Allocations, dhat), Some(8_901.0));
        assert_eq!(total(Tool::Allocations, callgrind), None);
    }
}
