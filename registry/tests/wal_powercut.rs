//! Simulated power cuts (`powercut.py`): nothing that was acknowledged may be missing, and the same log
//! without fdatasync must lose something, or the cuts prove nothing.
//! Needs root, python3, e2fsprogs and loop devices, and fails where they are missing.
//! `MESH_FULL=1` makes ten times as many cuts.

#![allow(clippy::unwrap_used, reason = "a test: whatever fails, fails it")]

use std::process::Command;

const CUTS: u32 = 20;
const CUTS_FULL: u32 = 200;

/// The control loses in its first cut nearly always.
const CONTROL_CUTS: u32 = 8;

#[derive(Debug)]
struct Summary {
    cuts: u64,
    acknowledged: u64,
    neighbour_syncs: u64,
    lost: u64,
    refused: u64,
}

fn cut_power(cuts: u32, flags: &[&str]) -> Summary {
    assert!(rustix::process::geteuid().is_root(), "power cuts need root: mounts and EXT4_IOC_SHUTDOWN");
    let output = Command::new("unshare")
        .args(["--mount", "python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/powercut.py")])
        .args([env!("CARGO_BIN_EXE_wal-torture"), "--cuts", &cuts.to_string()])
        .args(flags)
        .output()
        .expect("unshare (util-linux) and python3 are installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stderr}{stdout}");
    let last = stdout.lines().last().unwrap_or_default();
    eprintln!("{stderr}{last}");
    let fields: serde_json::Value = serde_json::from_str(last).expect("the last line is the summary");
    let field = |name: &str| fields[name].as_u64().unwrap_or_else(|| panic!("{name} in {last}"));
    Summary {
        cuts: field("cuts"),
        acknowledged: field("acknowledged"),
        neighbour_syncs: field("neighbour_syncs"),
        lost: field("lost"),
        refused: field("refused"),
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let full = std::env::var_os("MESH_FULL").is_some_and(|value| value == "1");
    let cuts = if full { CUTS_FULL } else { CUTS };
    let summary = cut_power(cuts, &[]);
    assert_eq!((summary.lost, summary.refused), (0, 0), "{summary:?}");
    assert_eq!(summary.cuts, u64::from(cuts));
    assert!(summary.acknowledged > 0 && summary.neighbour_syncs > 0, "{summary:?}");
}

#[test]
fn without_fdatasync_a_power_cut_is_noticed() {
    let summary = cut_power(CONTROL_CUTS, &["--control"]);
    assert!(summary.lost + summary.refused > 0, "the cuts are no test of anything: {summary:?}");
    assert!(summary.acknowledged > 0, "{summary:?}");
}
