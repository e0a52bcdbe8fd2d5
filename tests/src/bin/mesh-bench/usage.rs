//! What processes use, as the kernel accounts it.

use std::{fs, io, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time of these processes and their children so far (nanoseconds from schedstat, summed over threads).
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let nanos = pids.iter().flat_map(|pid| family(*pid)).map(threads_nanos).sum();
    Duration::from_nanos(nanos)
}

/// Resident memory of these processes and their children, in MB (10^6 bytes).
pub(crate) fn memory_mb(pids: &[u32]) -> f64 {
    pids.iter().flat_map(|pid| family(*pid)).map(resident_kb).sum::<f64>() * 1_024.0 / 1e6
}

/// The machine's load over the last minute, this program's own among it.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Thousands of connections are open files, here and in the programs that this one starts.
pub(crate) fn allow_many_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    for task in entries(&format!("/proc/{pid}/task")) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family));
    }
    all
}

fn threads_nanos(pid: u32) -> u64 {
    let nanos = |task: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    entries(&format!("/proc/{pid}/task")).into_iter().filter_map(nanos).sum()
}

fn resident_kb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn entries(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
