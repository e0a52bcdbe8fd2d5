//! What `cargo xtask dist` makes: Debian's rules, rpm's files and scripts, and what a host keeps of them.

use std::{path::PathBuf, process::Command};

use mesh_tests::{
    binaries,
    scratch::{Said, Scratch},
    terraform::Terraform,
};

/// The packages of one form.
fn packages(form: &str) -> Vec<PathBuf> {
    let folder = binaries::target().join("dist").join(form);
    let found = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("cargo xtask dist --profile dev"));
    let found: Vec<PathBuf> = found.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    found
}

fn run(program: &str, arguments: &[&str]) -> Said {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}")).into()
}

#[test]
fn packages_for_apt_keep_debian_s_rules() {
    for package in packages("deb") {
        let package = package.to_str().expect("a path of ours");
        let said = run("lintian", &["--allow-root", "--fail-on", "error", package]);
        said.fine();
        let control = run("dpkg-deb", &["--field", package, "Depends", "Section", "Description"]).fine();
        assert!(control.contains("libc6") && control.contains("Section: net"), "{control}");
    }
}

#[test]
fn packages_for_dnf_hold_the_same_and_say_what_they_need() {
    let root = tempfile::tempdir().expect("a folder");
    let place = root.path().to_str().expect("a path of ours");
    for package in packages("rpm") {
        let package = package.to_str().expect("a path of ours");
        run("rpm", &["--root", place, "--install", "--nodeps", "--noscripts", package]).fine();
        let scripts = run("rpm", &["--query", "--package", "--scripts", package]).fine();
        let needs = run("rpm", &["--query", "--package", "--requires", package]).fine();
        let daemon = !package.contains("meshctl");
        assert_eq!(scripts.contains("systemd-sysusers"), daemon, "{scripts}");
        assert_eq!(scripts.contains("systemctl stop"), daemon, "{scripts}");
        assert_eq!(needs.lines().any(|line| line.starts_with("systemd")), daemon, "{needs}");
        assert_eq!(
            needs.lines().any(|line| line.starts_with("nftables")),
            package.contains("mesh-proxy"),
            "{needs}"
        );
        let config = run("rpm", &["--query", "--package", "--configfiles", package]).fine();
        assert_eq!(config.contains("/etc/mesh/"), daemon, "{config}");
    }
    for file in [
        "usr/bin/meshd",
        "usr/bin/mesh-proxy",
        "usr/bin/meshctl",
        "usr/lib/systemd/system/meshd.service",
        "usr/lib/systemd/system/mesh-proxy.service",
        "usr/lib/systemd/system/mesh-capture.path",
        "usr/libexec/mesh-proxy/unit-job",
        "usr/lib/sysusers.d/mesh-proxy.conf",
        "usr/share/man/man1/meshctl.1",
        "usr/share/bash-completion/completions/meshctl",
        "etc/mesh/proxy.toml",
    ] {
        let there = root.path().join(file).exists() || root.path().join(format!("{file}.gz")).exists();
        assert!(there, "{file} is not in the packages");
    }
}

mod booted {
    use mesh_tests::{
        machine::Machine,
        netns::{self, Field},
        process::Process,
        scratch::Scratch,
    };

    use super::binaries;

    async fn host(field: &Field, scratch: &Scratch) -> (Machine, Process) {
        let dist = binaries::target().join("dist");
        let mut server = std::process::Command::new("python3");
        server.args(["-m", "http.server", "--directory"]).arg(dist).arg("8000");
        let server = Process::spawn("repository", scratch.path(), &mut server).expect("python3");
        let host = Machine::boot(field, scratch.path(), 1, "cp1").await.expect("a host");
        let from = format!("http://{}:8000/deb", field.address(0));
        host.fine("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*");
        for package in super::packages("deb") {
            let name = package.file_name().expect("a name").to_string_lossy().into_owned();
            host.fine(&format!("cd /srv && curl -fsS --retry 5 --retry-all-errors -O {from}/{name}"));
        }
        (host, server)
    }

    /// What an administrator changed stays, what was running runs on, a removal stops it, and a purge leaves nothing.
    #[test]
    fn a_package_is_installed_upgraded_removed_and_purged() {
        netns::inside(1, async |field| {
            let scratch = Scratch::new("packages");
            let (host, _server) = host(field, &scratch).await;
            let before = host.fine("cd / && find /etc /usr /var/lib -xdev | grep -i mesh; true");
            assert_eq!(before, "");
            host.fine("apt-get install -y -q /srv/meshd_*.deb /srv/meshctl_*.deb /srv/mesh-proxy_*.deb");
            assert_eq!(host.run("systemctl is-active meshd mesh-proxy").out, "inactive\ninactive\n");
            // Before it joined, a start says so instead of failing.
            host.fine("systemctl start mesh-proxy");
            host.fine("meshd init");
            assert_eq!(host.fine("systemctl is-active meshd"), "active\n");
            assert_eq!(
                host.fine("stat -c '%U %a' /var/lib/meshd /etc/mesh/seal.key"),
                "meshd 700\nroot 600\n"
            );
            let user = host.fine("ps -o user= -p $(systemctl show --property MainPID --value meshd)");
            assert_eq!(user.trim(), "meshd");
            host.fine("echo '# ours' >> /etc/mesh/meshd.toml");
            let pid = "systemctl show --property MainPID --value meshd";
            let first = host.fine(pid);
            host.fine("apt-get install -y -q --reinstall /srv/meshd_*.deb");
            assert_ne!(host.fine(pid), first, "the new version runs");
            assert_eq!(
                host.fine("systemctl is-active meshd && tail -1 /etc/mesh/meshd.toml"),
                "active\n# ours\n"
            );
            let journal = host.fine("journalctl -u meshd -o verbose");
            assert!(journal.contains("MESH_") || journal.contains("TARGET="), "{journal}");
            let man = host.fine("zcat -f /usr/share/man/man1/meshd.1* | head -5");
            assert!(man.contains(".TH meshd"), "{man}");
            host.fine("apt-get remove -y -q meshd");
            assert_eq!(host.run("systemctl is-active meshd").out, "inactive\n");
            assert_eq!(host.fine("ls /var/lib/meshd/member.json"), "/var/lib/meshd/member.json\n");
            host.fine("apt-get purge -y -q meshd meshctl mesh-proxy");
            let after = host
                .fine("cd / && find /etc /usr /var/lib -xdev | grep -i mesh | grep -v /var/lib/dpkg; true");
            assert_eq!(after, "");
        });
    }

    /// As tight as each of them allows: systemd's own measure, which is lower the fewer things a unit may do.
    #[test]
    fn units_may_do_little() {
        netns::inside(1, async |field| {
            let scratch = Scratch::new("units");
            let (host, _server) = host(field, &scratch).await;
            host.fine("apt-get install -y -q /srv/meshd_*.deb /srv/mesh-proxy_*.deb");
            for (unit, most) in [
                ("meshd", "25"),
                ("mesh-proxy", "35"),
                ("mesh-capture", "35"),
                ("mesh-capture-refresh", "35"),
            ] {
                let said = host
                    .run(&format!("systemd-analyze security --threshold={most} --no-pager {unit}.service"));
                let verdict = said.out.lines().last().unwrap_or_default().to_owned();
                println!("{verdict}");
                said.fine();
            }
            host.fine(
                "systemd-analyze verify --man=no meshd.service mesh-proxy.service mesh-capture.service \
                 mesh-capture.path mesh-capture-refresh.service",
            );
        });
    }
}

#[test]
fn terraform_finds_the_packed_provider_in_the_mirror() {
    let scratch = Scratch::new("mirror");
    let mirror = binaries::target().join("dist/terraform");
    assert!(mirror.exists(), "cargo xtask dist --profile dev");
    // Nobody is dialled where nothing is planned.
    let nowhere = "https://127.0.0.1:1";
    let terraform = Terraform::from_mirror(scratch.path(), &mirror, nowhere, "", scratch.path());
    let schemas = terraform.workspace("packed", "").json(&["providers", "schema"]);
    let provider = &schemas["provider_schemas"]["mesh.internal/mesh/mesh"];
    assert!(provider["resource_schemas"]["mesh_service"].is_object(), "{schemas}");
}
