//! What processes use, as the kernel accounts it.

use std::{fs, time::Duration};

/// CPU time of a process so far.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory of a process, now and at its greatest, in MB (10^6 bytes).
pub fn memory_mb(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let kilobytes: f64 =
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
        kilobytes * 1_024.0 / 1e6
    };
    (of("VmRSS:"), of("VmHWM:"))
}
