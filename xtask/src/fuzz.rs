//! Builds the fuzz targets with coverage on the stable compiler and runs them, two at a time. A target passes when it ran
//! long enough, often enough and without a crash; a planted bug that the fuzzer must find shows that red is possible.

use std::collections::VecDeque;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, line, run as run_command};
use crate::{clock, tree};

/// Seconds that each target runs at least.
pub const SECONDS_MIN: u64 = 10;
/// Inputs that each target is given at least, however slow it is.
const EXECUTIONS_MIN: u64 = 10_000;
/// Seconds within which a slow target must have reached them, and the planted bug must be found.
const PATIENCE_SECONDS: u64 = 120;
/// The seed of runs that are repeated; 0 would draw one.
const SEED: u32 = 1;
/// Where inputs that reached new code are kept between runs.
const FOUND: &str = "target/fuzz";
/// One for each core of the smallest machine that we test on.
const AT_ONCE: usize = 2;

/// One for each parser that faces the network or a file, and for what decides by what a caller sends.
pub const TARGETS: &[&str] = &[
    "manifest",
    "watch_frame",
    "wal_record",
    "snapshot",
    "token",
    "settings_toml",
    "mesh1",
    "http2",
    "path",
    "http1",
    "dns",
    "dns_reply",
    "detection",
    "headers",
    "route",
    "access_log",
];
const PLANTED: &str = "planted";

/// What cargo-fuzz passes to a nightly compiler, less the address sanitizer, which stable does not have.
const COVERAGE: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What one run of libFuzzer came to.
struct Outcome {
    executed: u64,
    took: Duration,
    crash: Option<String>,
}

/// Where the fuzzer's inputs come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// One seed and only the committed corpus: two runs of one commit go the same way.
    Repeated,
    /// A seed of its own, and what earlier runs found: goes where none has been.
    Onward,
}

/// Runs `target`, or all of them and the control.
pub fn run(target: Option<&str>, seconds: u64, search: Search) -> Result<()> {
    let folder = build()?;
    if search == Search::Repeated && tree::root().join(FOUND).exists() {
        fs::remove_dir_all(tree::root().join(FOUND)).context(FOUND)?;
    }
    let targets: Vec<&str> = target.map_or(TARGETS.to_vec(), |target| vec![target]);
    let queue = Mutex::new(VecDeque::from(targets));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(target) = lock(&queue).pop_front() {
                    match whole(&folder, target, seconds, search)
                        .and_then(|outcome| verdict(target, &outcome, seconds))
                    {
                        Ok(line) => println!("{line}"),
                        Err(error) => lock(&failures).push(format!("{error:#}")),
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if target.is_none() {
        failures.extend(control(&folder, search).err().map(|error| format!("{error:#}")));
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The planted bug must be found: coverage guides the fuzzer, and a crash is seen.
fn control(folder: &str, search: Search) -> Result<()> {
    let outcome = fuzz(folder, PLANTED, search, &[format!("-max_total_time={PATIENCE_SECONDS}")])?;
    let error =
        verdict(PLANTED, &outcome, 0).err().context("the planted bug was not found: the fuzzer is blind")?;
    if !format!("{error:#}").contains("the planted bug") {
        bail!("the control failed by another fault: {error:#}");
    }
    println!(
        "fuzz {PLANTED}: the planted bug was found after {} executions, as it must be",
        outcome.executed
    );
    Ok(())
}

/// The folder of the built targets.
fn build() -> Result<String> {
    let version = command("rustc", &["-vV"]).output().context("cannot start rustc")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    // With `--target` what runs at build time is apart from what is fuzzed.
    let arguments = [
        "build",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "fuzz/target",
        "--release",
        "--locked",
    ];
    let mut build = cargo(&[&arguments[..], &["--target", host]].concat());
    let wrapper = tree::root().join("fuzz/rustc.sh");
    build.env("RUSTC_WRAPPER", wrapper).env("MESH_COVERAGE", COVERAGE.join(" ")).env_remove("RUSTFLAGS");
    run_command(&mut build)?;
    Ok(format!("fuzz/target/{host}/release"))
}

/// Long enough and, where the target is slow, on until it was run often enough.
fn whole(folder: &str, target: &str, seconds: u64, search: Search) -> Result<Outcome> {
    let first = fuzz(folder, target, search, &[format!("-max_total_time={seconds}")])?;
    if first.crash.is_some() || first.executed >= EXECUTIONS_MIN {
        return Ok(first);
    }
    let missing = EXECUTIONS_MIN - first.executed;
    let limits = [format!("-runs={missing}"), format!("-max_total_time={PATIENCE_SECONDS}")];
    let more = fuzz(folder, target, search, &limits)?;
    Ok(Outcome { executed: first.executed + more.executed, took: first.took + more.took, crash: more.crash })
}

/// One run of libFuzzer over the committed corpus; what it finds new goes to target, not into the tree.
fn fuzz(folder: &str, target: &str, search: Search, limits: &[String]) -> Result<Outcome> {
    let (found, seeds, artifacts) =
        (format!("{FOUND}/{target}"), format!("fuzz/corpus/{target}"), format!("fuzz/artifacts/{target}/"));
    let root = tree::root();
    for made in [&found, &artifacts] {
        fs::create_dir_all(root.join(made)).with_context(|| made.clone())?;
    }
    let mut corpora = vec![found.as_str()];
    if target != PLANTED {
        let count = fs::read_dir(root.join(&seeds))
            .with_context(|| format!("{seeds}: each target has seeds"))?
            .count();
        if count == 0 {
            bail!("{seeds} is empty");
        }
        corpora.push(&seeds);
    }
    let mut process = command(&format!("./{folder}/{target}"), &corpora);
    process.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]);
    process.arg(format!("-artifact_prefix={artifacts}")).args(limits);
    if search == Search::Repeated {
        process.arg(format!("-seed={SEED}"));
    }
    measure(&mut process)
}

fn measure(process: &mut Command) -> Result<Outcome> {
    let began = clock::now();
    let output = process.output().with_context(|| format!("cannot start {}", line(process)))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let crash = (!output.status.success()).then(|| format!("{}\n{}", line(process), crash_report(&log)));
    Ok(Outcome { executed: executed(&log).unwrap_or(0), took: clock::now() - began, crash })
}

/// libFuzzer's own count.
fn executed(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim().parse().ok()
}

/// From the panic's message on; all that there is where nothing panicked.
fn crash_report(log: &str) -> &str {
    log.find("panicked at").or_else(|| log.find("ERROR: libFuzzer")).map_or(log, |at| &log[at..])
}

/// One line for a target that passed.
fn verdict(target: &str, outcome: &Outcome, seconds: u64) -> Result<String> {
    if let Some(crash) = &outcome.crash {
        bail!("fuzz {target}: {crash}");
    }
    if outcome.executed < EXECUTIONS_MIN || outcome.took < Duration::from_secs(seconds) {
        bail!("fuzz {target}: only {} executions in {:.1} s", outcome.executed, outcome.took.as_secs_f64());
    }
    Ok(format!("fuzz {target}: {} executions in {:.1} s", outcome.executed, outcome.took.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(executed: u64, seconds: u64, crash: Option<&str>) -> Outcome {
        Outcome { executed, took: Duration::from_secs(seconds), crash: crash.map(str::to_owned) }
    }

    #[test]
    fn a_target_passes_only_when_it_ran_long_and_often_and_did_not_crash() {
        assert_eq!(
            verdict("a", &outcome(10_000, 11, None), 11).expect("passes"),
            "fuzz a: 10000 executions in 11.0 s"
        );
        verdict("a", &outcome(9_999, 11, None), 11).expect_err("not often enough");
        verdict("a", &outcome(10_000, 10, None), 11).expect_err("not long enough");
        verdict("a", &outcome(10_000, 11, Some("boom")), 11).expect_err("crashed");
    }

    #[test]
    fn a_crash_is_seen_and_the_count_is_read() {
        let script = "echo 'stat::number_of_executed_units: 17' >&2; echo 'x panicked at the planted bug' >&2; exit 77";
        let seen = measure(Command::new("sh").args(["-c", script])).expect("sh starts");
        assert_eq!(seen.executed, 17);
        assert!(seen.crash.expect("exit code 77").contains("panicked at the planted bug"));
    }

    #[test]
    fn every_target_has_a_file_and_seeds() {
        let root = tree::root();
        for target in TARGETS {
            assert!(root.join(format!("fuzz/fuzz_targets/{target}.rs")).is_file(), "{target} has no file");
            assert!(root.join(format!("fuzz/corpus/{target}")).is_dir(), "{target} has no seeds");
        }
    }

    #[test]
    fn every_target_is_compiled_with_coverage() {
        let wrapper = fs::read_to_string(tree::root().join("fuzz/rustc.sh")).expect("the wrapper");
        let covered: Vec<&str> = wrapper.split([' ', '\n', '|', ')']).collect();
        for target in TARGETS.iter().chain([&PLANTED]) {
            assert!(covered.contains(target), "{target} is fuzzed blindly: fuzz/rustc.sh does not name it");
        }
    }
}
