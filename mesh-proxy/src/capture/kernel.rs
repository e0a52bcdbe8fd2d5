//! Rules and routes in the kernel, by `nft` and `ip`: what stands of ours, loaded, and put back.

use std::{
    io::{ErrorKind, Write},
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::{
    CaptureError, Family, Plan, TABLE,
    applied::Applied,
    rules::{ROUTE_PROTOCOL, VIRTUAL},
};

/// What of ours stands in the kernel, and what it was made from; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Our table, as `nft` lists it.
    table: Option<String>,
    /// Our routes, as `ip` lists them, for each family.
    routes: [Vec<String>; 2],
    /// Nothing where it is not known.
    applied: Option<Applied>,
}

impl Standing {
    /// `folder` is where it is kept what the rules were made from.
    pub(super) fn read(folder: &Path) -> Result<Self, CaptureError> {
        let has = has_table()?;
        let list = ["--stateless", "list", "table"].into_iter().chain(TABLE.split(' ')).collect::<Vec<_>>();
        let table = has.then(|| nft(&list, "")).transpose()?;
        let mut routes = [Vec::new(), Vec::new()];
        for ((family, _), routes) in VIRTUAL.iter().zip(&mut routes) {
            *routes = own_routes(*family)?;
        }
        Ok(Self { table, routes, applied: Applied::read(folder)? })
    }
}

/// Whether our table is there.
pub(super) fn has_table() -> Result<bool, CaptureError> {
    let tables = nft(&["list", "tables"], "")?;
    Ok(tables.lines().any(|line| line.trim() == format!("table {TABLE}")))
}

/// Loads a plan in place of what stands. The rules come first: without them a local route would lead to any program that
/// listens at every address. A route that stays is never gone: no call is lost where the same is loaded again.
pub(super) fn load(plan: &Plan) -> Result<(), CaptureError> {
    load_rules(plan)?;
    for route in &plan.routes {
        ip(&route.split(' ').collect::<Vec<_>>())?;
    }
    let planned = |family: Family, kind: &str| {
        plan.routes
            .iter()
            .any(|route| route.starts_with(&format!("{} route replace {kind} ", family.option())))
    };
    forget_routes(planned)
}

/// The rules alone, in one transaction: the routes are what they are.
pub(super) fn load_rules(plan: &Plan) -> Result<(), CaptureError> {
    nft(&["-f", "-"], &plan.rules).map(drop)
}

/// Brings back what stood before.
pub(super) fn restore(before: &Standing, folder: &Path) -> Result<(), CaptureError> {
    let table = before.table.as_deref().unwrap_or_default();
    Applied::keep(before.applied.as_ref(), folder)?;
    // While routes change, nothing for a virtual IP gets out, as the rules still stand.
    forget_routes(|_, _| false)?;
    for ((family, _), routes) in VIRTUAL.iter().zip(&before.routes) {
        for route in routes {
            let words = route.split_whitespace();
            ip(&[family.option(), "route", "replace"].into_iter().chain(words).collect::<Vec<_>>())?;
        }
    }
    nft(&["-f", "-"], &format!("add table {TABLE}\ndelete table {TABLE}\n{table}")).map(drop)
}

/// All but those that stay, by their kind.
fn forget_routes(stays: impl Fn(Family, &str) -> bool) -> Result<(), CaptureError> {
    for (family, _) in VIRTUAL {
        let routes = own_routes(family)?;
        for route in routes.iter().filter(|route| !stays(family, route.split(' ').next().unwrap_or_default()))
        {
            let words = route.split_whitespace();
            ip(&[family.option(), "route", "delete"].into_iter().chain(words).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

fn own_routes(family: Family) -> Result<Vec<String>, CaptureError> {
    let list = ip(&[family.option(), "route", "show", "table", "all", "proto", ROUTE_PROTOCOL])?;
    let named = |line: &str| format!("{} proto {ROUTE_PROTOCOL}", line.trim());
    // What it was asked for it does not say again.
    Ok(list.lines().filter(|line| !line.trim().is_empty()).map(named).collect())
}

fn nft(arguments: &[&str], input: &str) -> Result<String, CaptureError> {
    run(("nft", "nftables"), arguments, input)
}

fn ip(arguments: &[&str]) -> Result<String, CaptureError> {
    run(("ip", "iproute2"), arguments, "")
}

/// Runs a program with this on its standard input, to its end; what it says.
fn run(
    (program, package): (&'static str, &'static str),
    arguments: &[&str],
    input: &str,
) -> Result<String, CaptureError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => CaptureError::Missing { program, package },
        _ => CaptureError::Io { what: program.to_owned(), source },
    };
    let mut command = Command::new(program);
    // An administrator's shell may not look where these are.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let given = child.stdin.take().expect("a pipe was asked for").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CaptureError::Refused { program: format!("{program} {}", arguments.join(" ")), said });
    }
    given.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_told_with_what_has_it() {
        let error = run(("no-such-nft", "nftables"), &["list"], "").expect_err("it is missing").to_string();
        assert_eq!(error, "no-such-nft is missing: install it (Debian and RPM package nftables)");
        let error = run(("ls", "coreutils"), &["/no/such/folder"], "").expect_err("refused").to_string();
        assert!(error.starts_with("ls /no/such/folder: ls: cannot access"), "{error}");
    }
}
