//! What each request takes that can be counted, whatever else the machine does: system calls, of all pairs; instructions
//! and allocations, of ours, whose proxies run under valgrind for it, and so much slower. What is counted includes what the
//! proxies do beside requests.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use mesh_tests::{binaries, process::run};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    CLOSED, Figures, GRPC, Load, STEADY, grpc, keep,
    pairs::{Bench, Pair},
    put_on,
};
use crate::results::{Comparison, Rounds, alone};

/// The row of system calls.
pub(super) const CALLS: &str = "system calls each";
/// One request after the other: nothing is gathered.
const ONE: &str = "HTTP/1.1, 1 connection";
/// How long each load lasts whose instructions are counted: proxies are some fifty times slower then.
const COUNTED_SECONDS: u64 = 8;
/// What hands out memory, by the names that the C library has for it.
const ALLOCATING: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// Counts the system calls of each pair under the loads of HTTP/1.1.
pub(super) async fn system_calls(
    bench: &Bench,
    pairs: &[Pair],
    seconds: u64,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for (name, load) in [(ONE, None), (CLOSED, Some(Load::Closed)), (STEADY, Some(Load::Steady))] {
        for pair in pairs {
            eprintln!("{name}, {CALLS} · {}", pair.name);
            requests(bench, load, &pair.http, 1).await?;
            let table = bench.folder.join("strace.txt");
            let tracer = traced(&pair.pids, &table).await?;
            let requests = requests(bench, load, &pair.http, seconds).await;
            let calls = untraced(tracer, &table).await?;
            keep(figures, (pair.name, name, CALLS), calls / requests?);
        }
    }
    Ok(())
}

/// Requests that went through; without a load of its own, one after the other.
async fn requests(bench: &Bench, load: Option<Load>, address: &str, seconds: u64) -> anyhow::Result<f64> {
    let requests = match load {
        Some(load) => put_on(bench, load, address, seconds).await?.requests,
        None => super::wrk(&["-c1"], address, "", seconds).await?,
    };
    anyhow::ensure!(requests > 0.0, "no request went through");
    Ok(requests)
}

/// Counts on all threads of these processes from when it returns.
async fn traced(pids: &[u32], table: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(table);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut tracer = command.stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let said = tracer.stderr.take().context("stderr was asked for")?;
    let (mut lines, mut attached) = (BufReader::new(said).lines(), 0);
    while attached < pids.len() {
        let line = lines.next_line().await?.context("strace ended before it was attached")?;
        attached += usize::from(line.contains(" attached"));
    }
    // What it says further is read by nobody, and is not much.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(tracer)
}

async fn untraced(mut tracer: Child, table: &Path) -> anyhow::Result<f64> {
    let pid = tracer.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("strace is gone")?;
    kill_process(pid, Signal::INT)?;
    tracer.wait().await?;
    let text = fs::read_to_string(table)?;
    calls(&text).with_context(|| format!("strace counted nothing: {text}"))
}

/// The sum of a table: `100.00    0.123456           1    123456       789 total`.
fn calls(table: &str) -> Option<f64> {
    let total = table.lines().rev().find(|line| line.trim_end().ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

/// Counts the instructions and allocations of our pair, with one connection and with many, and of calls of gRPC. What was
/// written of each load is kept where a folder is named.
pub(super) async fn instructions(bench: &Bench, keep: Option<&Path>) -> anyhow::Result<Vec<Comparison>> {
    let wrapper = bench.folder.join("counted-mesh-proxy");
    let outputs = bench.folder.join("callgrind");
    fs::write(&wrapper, script(&binaries::path("mesh-proxy"), &outputs))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let pair = bench.ours_as(&bench.folder.join("counted"), &wrapper).await?;
    let mut rows = Vec::new();
    for name in [ONE, CLOSED, GRPC] {
        eprintln!("{name}, instructions · {}", pair.name);
        let load = |seconds| slowly(bench, &pair, name, seconds);
        load(1).await?;
        control(&pair, &["-i", "on"]).await?;
        load(COUNTED_SECONDS).await?;
        control(&pair, &["-z"]).await?;
        let requests = load(COUNTED_SECONDS).await?;
        control(&pair, &["-d"]).await?;
        control(&pair, &["-i", "off"]).await?;
        if requests == 0.0 {
            bail!("no request went through");
        }
        let counted = taken(&outputs, keep.map(|folder| (folder, name)))?;
        let each = |count: f64| Rounds(vec![count / requests]);
        rows.push(alone(&format!("{name}: instructions of the pair"), "each", &each(counted.instructions)));
        rows.push(alone(&format!("{name}: allocations of the pair"), "each", &each(counted.allocations)));
    }
    Ok(rows)
}

/// Requests that went through a pair that is some fifty times slower than it would be.
async fn slowly(bench: &Bench, pair: &Pair, name: &str, seconds: u64) -> anyhow::Result<f64> {
    match (name, &pair.grpc) {
        (GRPC, Some(address)) => grpc::load(address, &bench.folder, seconds).await,
        _ => {
            let connections = if name == ONE { "-c1" } else { "-c64" };
            super::wrk(&[connections, "--timeout", "20s"], &pair.http, "", seconds).await
        }
    }
}

/// The program, under a profiler that counts nothing until it is told to.
fn script(program: &Path, outputs: &Path) -> String {
    format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no --compress-strings=no --compress-pos=no \\\n\
         --callgrind-out-file={}.%p {} \"$@\"\n",
        outputs.display(),
        program.display()
    )
}

async fn control(pair: &Pair, arguments: &[&str]) -> anyhow::Result<()> {
    for pid in &pair.pids {
        run(Command::new("callgrind_control").args(arguments).arg(pid.to_string())).await?;
    }
    Ok(())
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Counted {
    instructions: f64,
    allocations: f64,
}

/// Takes away what was written, all files together, to the folder that keeps it under the load's name.
fn taken(outputs: &Path, keep: Option<(&Path, &str)>) -> anyhow::Result<Counted> {
    let (folder, name) = (outputs.parent().context("a folder")?, outputs.file_name().context("a name")?);
    let mut sum = Counted::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let own = path.file_name().and_then(|own| own.to_str()).unwrap_or_default();
        if !own.starts_with(&*name.to_string_lossy()) {
            continue;
        }
        let counted = counted(&fs::read_to_string(&path)?);
        sum.instructions += counted.instructions;
        sum.allocations += counted.allocations;
        if let Some((folder, load)) = keep {
            fs::create_dir_all(folder)?;
            fs::copy(&path, folder.join(format!("{}.{own}", load.replace(['/', ' '], "-"))))?;
        }
        fs::remove_file(&path)?;
    }
    anyhow::ensure!(sum.instructions > 0.0, "callgrind counted nothing");
    Ok(sum)
}

/// Reads what callgrind writes (Callgrind Format Specification, 3.1): the sum of all, and how often something was called.
fn counted(text: &str) -> Counted {
    let number = |line: &str, key: &str| {
        line.strip_prefix(key).and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
    };
    let mut called: BTreeMap<&str, f64> = BTreeMap::new();
    let (mut callee, mut instructions) = ("", 0.0);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(times) = number(line, "calls=") {
            *called.entry(callee).or_default() += times;
        } else if let Some(sum) = number(line, "totals:") {
            instructions += sum;
        }
    }
    Counted { instructions, allocations: ALLOCATING.iter().filter_map(|name| called.get(name)).sum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strace_counted_is_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ----------------\n 61.30    0.155403           2     61311           writev\n100.00    0.253512           3     81234     20002 total\n";
        assert_eq!(calls(table), Some(81_234.0));
        assert_eq!(calls("strace: nothing\n"), None);
    }

    #[test]
    fn what_callgrind_counted_is_read() {
        let text = "events: Ir\nfn=serve\n16 400\ncfn=malloc\ncalls=7 0\n16 700\ncfi=x.c\ncfn=copy\ncalls=5 0\n17 9\nfn=other\ncfn=malloc\ncalls=2 0\n3 4\ncfn=realloc\ncalls=1 0\n4 5\ntotals: 1118\n";
        assert_eq!(counted(text), Counted { instructions: 1_118.0, allocations: 10.0 });
    }
}
