//! The groups of a run: each with a budget that is printed beside the time that it took.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::clock;

/// What one group took.
struct Row {
    name: &'static str,
    budget: Duration,
    took: Duration,
    error: Option<String>,
}

/// A run in groups. One that fails does not stop the others: a log shows all that is wrong.
pub struct Groups {
    began: Instant,
    rows: Vec<Row>,
}

impl Groups {
    pub fn new() -> Self {
        Self { began: clock::now(), rows: Vec::new() }
    }

    /// Runs one group; says whether it went well.
    pub fn run(&mut self, name: &'static str, budget: Duration, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n=== {name} (budget {})", shown(budget));
        let began = clock::now();
        let error = work().err().map(|error| format!("{error:#}"));
        let row = Row { name, budget, took: clock::now() - began, error };
        println!("{}", row.line());
        self.rows.push(row);
        self.rows.last().is_some_and(|row| row.error.is_none())
    }

    pub fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.error.is_some())
    }

    /// The times of all groups, with the total.
    pub fn table(&self) -> String {
        let total = Row {
            name: "total",
            budget: self.rows.iter().map(|row| row.budget).sum(),
            took: clock::now() - self.began,
            error: None,
        };
        self.rows.iter().chain([&total]).map(Row::line).collect::<Vec<_>>().join("\n")
    }
}

impl Row {
    fn line(&self) -> String {
        let over = if self.took > self.budget { ", OVER BUDGET" } else { "" };
        let error = self.error.as_ref().map_or(String::new(), |error| format!(": FAILED: {error}"));
        format!("=== {:<10} {:>8} of {:>8}{over}{error}", self.name, shown(self.took), shown(self.budget))
    }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{}m{:02}s", seconds as u64 / 60, seconds as u64 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failed_group_does_not_stop_the_next_and_is_not_forgotten() {
        let mut groups = Groups::new();
        assert!(!groups.run("first", Duration::from_secs(1), || bail!("it broke")));
        assert!(groups.run("second", Duration::from_secs(61), || Ok(())));
        assert!(groups.failed());
        let table = groups.table();
        assert!(table.contains("first") && table.contains("FAILED: it broke"), "{table}");
        assert!(table.contains("of    1m01s") && table.contains("of    1m02s"), "{table}");
    }

    #[test]
    fn a_group_over_its_budget_says_so() {
        let mut groups = Groups::new();
        groups.run("slow", Duration::ZERO, || Ok(()));
        assert!(groups.table().contains("OVER BUDGET"));
        assert!(!groups.failed());
    }
}
