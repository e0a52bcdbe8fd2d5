//! What happens to real hosts: they are booted again, change their address, lose the control plane, and are upgraded.

mod booted {
    use mesh_tests::{
        machine::Machine,
        netns::{self, Dropped, Field},
        plain::Plain,
        scratch::Scratch,
        site::{PATIENCE, boot, found, mesh, serve},
        steady::{Seen, Steady},
        wait::until,
    };
    use tokio::sync::watch;

    /// As a program calls that knows nothing of the mesh.
    const CALL: &str = "curl -sS --fail --max-time 5 http://orders.default.mesh/";

    async fn until_answered(a: &Machine, when: &str) {
        let answered = || async {
            let said = a.run(CALL);
            if said.out == "ok" { Ok(()) } else { Err(said.err) }
        };
        let what = format!("orders answers {when}");
        until(&what, PATIENCE, answered).await.unwrap_or_else(|error| panic!("{error:#}\n{}", a.journal()));
    }

    /// Both hosts come up with nobody there to ask, then with a link of another name, and with another address; a host without
    /// its proxy still does all else, and nothing for the mesh gets out.
    #[test]
    fn hosts_survive_reboots_without_a_control_plane_and_a_change_of_address() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("life");
            let _repository = serve(&scratch);
            let [cp, mut a, mut b] = mesh(field, &scratch).await;
            until_answered(&a, "at first").await;
            cp.fine("systemctl stop meshd");
            b.reboot().await.expect("it comes up");
            until_answered(&a, "after a reboot of the host that is called").await;
            a.reboot().await.expect("it comes up");
            until_answered(&a, "after a reboot of the host that calls").await;
            assert_eq!(a.fine("systemctl is-active mesh-proxy mesh-capture"), "active\nactive\n");
            cp.fine("systemctl start meshd");
            let seen = renamed(field, &a, &b).await;
            println!("links renamed: {} calls, {} failed", seen.answered(), seen.failures.len());
            let other = field.address(103);
            let own = field.address(3);
            b.fine(&format!(
                "ip address delete {own}/24 dev {RENAMED} && ip address add {other}/24 dev {RENAMED}"
            ));
            let told = || async {
                let said = cp.run(". /srv/admin; meshctl get endpoints").out;
                let others = said.lines().filter(|line| line.contains(&other.to_string())).count();
                if others == 2 { Ok(()) } else { Err(said) }
            };
            until("the registry has the new address", PATIENCE, told).await.expect("it does");
            until_answered(&a, "at another address").await;
            a.fine("systemctl stop mesh-proxy");
            assert_ne!(a.run(CALL).code, Some(0));
            a.fine(&format!("curl -sS --fail http://{}:8000/apt/mesh.asc", field.address(0)));
            a.fine("systemctl start mesh-proxy");
            until_answered(&a, "when its proxy is back").await;
        });
    }

    /// What the links of both hosts are called in the end.
    const RENAMED: &str = "lan0";

    /// Calls go on over links that are taken down, renamed and taken up again.
    async fn renamed(field: &Field, a: &Machine, b: &Machine) -> Seen {
        let (stop, stopped) = watch::channel(false);
        let load = field.beside(2, move || dialling(stopped));
        for (from, to) in [("eth0", "lan1"), ("lan1", RENAMED)] {
            for machine in [b, a] {
                machine.fine(&format!(
                    "ip link set {from} down && ip link set {from} name {to} && ip link set {to} up"
                ));
                until_answered(a, "over a link of another name").await;
            }
        }
        stop.send_replace(true);
        let seen = load.join().expect("no panic");
        assert!(seen.answered() > CALLS && seen.failures.is_empty(), "{:?}", seen.failures);
        seen
    }

    /// More calls than this are made, however fast the rest is: at 50 a second, two seconds of them.
    const CALLS: u64 = 100;

    /// Calls of host A that dial anew each time, until they are stopped and there were enough.
    async fn dialling(mut stopped: watch::Receiver<bool>) -> Seen {
        let orders = ([127, 0, 0, 1], 9_001).into();
        let calls = Steady::start(Plain::dialling(orders, "orders"), 50);
        // Who stops them may be gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        let enough = || async {
            let seen = calls.seen();
            if seen.answered() > CALLS { Ok(()) } else { Err(format!("{seen:?}")) }
        };
        until("so many calls that some were under way at each step", PATIENCE, enough)
            .await
            .expect("they go on");
        calls.stop().await
    }

    /// Hosts that the control plane does not reach, and which do not reach it, for less than their session's life.
    #[test]
    fn a_partition_from_the_control_plane_costs_no_call() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("partition");
            let _repository = serve(&scratch);
            let [cp, a, b] = mesh(field, &scratch).await;
            let (stop, stopped) = watch::channel(false);
            let load = field.beside(2, move || dialling(stopped));
            let cut = [(1, 2), (2, 1), (1, 3), (3, 1)];
            field.drop_packets(&cut.map(|(from, to)| Dropped { from, to, percent: 100 })).expect("rules");
            for machine in [&a, &b] {
                let noticed = || async {
                    let log = machine.run("journalctl -u mesh-proxy -o cat").out;
                    if log.contains("the session was not kept alive") { Ok(()) } else { Err("not yet") }
                };
                until("the host is cut off", PATIENCE, noticed).await.expect("it notices");
            }
            field.drop_packets(&[]).expect("no rules");
            let live = || async {
                let said = cp.run(". /srv/admin; meshctl proxies").out;
                if said.matches(" Live ").count() == 2 { Ok(()) } else { Err(said) }
            };
            until("both are back", PATIENCE, live).await.expect("they are");
            stop.send_replace(true);
            let seen = load.join().expect("no panic");
            println!("{} calls, {} failed", seen.answered(), seen.failures.len());
            assert!(seen.answered() > CALLS && seen.failures.is_empty(), "{:?}", seen.failures);
        });
    }

    /// A file that binds a service to a unit: whatever way a call of another process takes, it is refused, and no word of it
    /// reaches the service.
    #[test]
    fn a_service_s_name_is_its_unit_s_alone() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("unit");
            let _repository = serve(&scratch);
            let [_cp, a, b] = mesh(field, &scratch).await;
            until_answered(&a, "where nothing is bound").await;
            let web = a.fine("cat /etc/mesh/services.d/web.toml");
            a.write(
                "/etc/mesh/services.d/web.toml",
                web.replace("name = \"web\"", "name = \"web\"\nunit = \"web.service\""),
            );
            let ways = [
                CALL.to_owned(),
                "curl -sS --fail -6 --max-time 5 http://orders.default.mesh/".to_owned(),
                "curl -sS --fail --max-time 5 http://127.0.0.1:9001/".to_owned(),
                "curl -sS --fail --max-time 5 -H 'Host: orders.default.mesh' http://127.0.0.1:15080/"
                    .to_owned(),
            ];
            let refused = || async {
                let said = a.run(&ways[0]);
                if said.code == Some(0) { Err("it is answered") } else { Ok(()) }
            };
            until("the file is taken up", PATIENCE, refused).await.expect("it is");
            let logged = "journalctl -u applications -o cat | wc -l";
            let before = b.fine(logged);
            for way in &ways {
                assert_ne!(a.run(way).code, Some(0), "{way}");
                let own = a.run(&format!("systemd-run -q --wait --pipe --unit web {way}"));
                assert_eq!(own.out, "ok", "{way}: {}\n{}", own.err, a.journal());
            }
            assert_eq!(b.fine(logged), before);
            assert_ne!(a.run("curl -sS --fail --max-time 5 http://127.0.0.1:15001/").code, Some(0));
        });
    }

    /// Where Debian's faketime has what programs are preloaded with.
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

    /// Five minutes of time, either way, for a unit that is restarted by these words.
    fn wrong_clock(machine: &Machine, unit: &str, offset: &str, restart: &str) {
        let faketime = "/usr/local/lib/faketime.so";
        if machine.run(&format!("test -e {faketime}")).code != Some(0) {
            machine.write(faketime, std::fs::read(FAKETIME).expect("Debian's faketime is installed"));
        }
        machine.write(
            &format!("/etc/systemd/system/{unit}.service.d/clock.conf"),
            format!("[Service]\nEnvironment=LD_PRELOAD={faketime} FAKETIME={offset} FAKETIME_DONT_FAKE_MONOTONIC=1\n"),
        );
        machine.fine(&format!("systemctl daemon-reload && {restart}"));
    }

    /// A server whose clock is wrong: no call fails, no session ends, and what it signs is accepted by those whose clocks are
    /// right.
    async fn servers_clock(field: &Field, [cp, a]: [&Machine; 2]) -> Seen {
        let (stop, stopped) = watch::channel(false);
        let load = field.beside(2, move || dialling(stopped));
        // A registration that says something else (a check that has passed) is of the same session; one that comes after the
        // session has ended opens another.
        let since = |node: &str| {
            let node = cp.fine(&format!(". /srv/admin; meshctl get node {node} -o json"));
            let node: serde_json::Value = serde_json::from_str(&node).expect("JSON");
            node["status"]["session"]["since"].as_str().expect("a session").to_owned()
        };
        let sessions = ["host-a", "host-b"].map(since);
        for (offset, service, port) in [("+299s", "early", 9_003), ("-299s", "late", 9_004)] {
            wrong_clock(cp, "meshd", offset, "systemctl restart meshd");
            a.write(
                &format!("/etc/mesh/services.d/{service}.toml"),
                format!("[service]\nname = \"{service}\"\n[[upstream]]\nservice = \"orders\"\nlisten = \"127.0.0.1:{port}\"\n"),
            );
            let called = || async {
                let said = a.run(&format!("curl -sS --fail --max-time 5 http://127.0.0.1:{port}/"));
                if said.out == "ok" { Ok(()) } else { Err(said.err) }
            };
            let what = format!("a call with a certificate of a server whose clock is {offset} off");
            until(&what, PATIENCE, called)
                .await
                .unwrap_or_else(|error| panic!("{error:#}\n{}", cp.journal()));
            let live = || async {
                let said = cp.run(". /srv/admin; meshctl proxies").out;
                if said.matches(" Live ").count() == 2 { Ok(()) } else { Err(said) }
            };
            until("both sessions live", PATIENCE, live).await.expect("they do");
        }
        assert_eq!(["host-a", "host-b"].map(since), sessions, "a session began anew");
        cp.fine("rm /etc/systemd/system/meshd.service.d/clock.conf; systemctl daemon-reload && systemctl restart meshd");
        // Whose calls the captured ones are would not be clear with three services.
        a.fine("rm /etc/mesh/services.d/early.toml /etc/mesh/services.d/late.toml");
        stop.send_replace(true);
        let seen = load.join().expect("no panic");
        assert!(seen.answered() > CALLS && seen.failures.is_empty(), "{:?}", seen.failures);
        seen
    }

    /// What a host may have wrong for a while: five minutes of time, either way, and no room on its disk. And a server, its
    /// time.
    #[test]
    fn a_host_with_a_wrong_clock_or_a_full_disk_serves_on() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("trouble");
            let _repository = serve(&scratch);
            let [cp, a, b] = mesh(field, &scratch).await;
            let seen = servers_clock(field, [&cp, &a]).await;
            println!("a server's clock wrong: {} calls, {} failed", seen.answered(), seen.failures.len());
            let drop_in = "/etc/systemd/system/mesh-proxy.service.d/clock.conf";
            for offset in ["+299s", "-299s"] {
                wrong_clock(
                    &b,
                    "mesh-proxy",
                    offset,
                    "systemctl stop mesh-proxy && systemctl start mesh-proxy",
                );
                until_answered(&a, &format!("by a host whose clock is {offset} off")).await;
                let said = b.run("mesh-proxy doctor").out;
                assert!(said.contains("identity") || !said.is_empty(), "{said}");
            }
            b.fine(&format!("rm {drop_in} && systemctl daemon-reload && systemctl stop mesh-proxy"));
            b.fine(
                "cp -a /var/lib/mesh-proxy /srv/kept && mount -t tmpfs -o size=2m,mode=0700 tmpfs /var/lib/mesh-proxy \
                 && cp -a /srv/kept/. /var/lib/mesh-proxy/ && ! dd if=/dev/zero of=/var/lib/mesh-proxy/fill bs=4k",
            );
            b.fine("systemctl start mesh-proxy");
            until_answered(&a, "by a host whose disk is full").await;
            // What is new holds, though it cannot be written down.
            b.write(
                "/etc/mesh/services.d/orders.toml",
                "[service]\nname = \"orders\"\nport = 8081\nservice_port = 81\nprotocol = \"http\"\n",
            );
            let moved = || async {
                let said = a.run("curl -sS --fail --max-time 5 http://orders.default.mesh:81/");
                if said.out == "ok" { Ok(()) } else { Err(said.err) }
            };
            until("orders answers at another port", PATIENCE, moved).await.expect("it does");
            let log = || async {
                let log = b.run("journalctl -u mesh-proxy -o verbose").out;
                if log.contains("No space left") { Ok(()) } else { Err("nothing of it") }
            };
            until("the log says what is wrong", PATIENCE, log).await.expect("it does");
        });
    }

    /// Writes, one after the other, each by whichever server takes it; what was acknowledged is told.
    const WRITER: &str = "import os, ssl, time, urllib.request, http.client
env = dict(line.split(' ', 1)[1].strip().split('=', 1) for line in open('/srv/admin'))
context = ssl.create_default_context(cafile='/srv/ca.pem')
def write(server, n):
    body = '{\"kind\":\"Service\",\"metadata\":{\"namespace\":\"default\",\"name\":\"s%d\"},\"spec\":{\"ports\":[{\"port\":80}]}}' % n
    request = urllib.request.Request('https://%s:8443/v1/namespaces/default/services/s%d' % (server, n), body.encode(),
        {'authorization': 'Bearer ' + env['MESH_TOKEN'], 'content-type': 'application/json'}, method='PUT')
    return urllib.request.urlopen(request, timeout=5, context=context).status
n, retries, failed = 0, 0, 0
while n <= 50 or not os.path.exists('/srv/enough'):
    n += 1
    for attempt in range(20):
        try:
            write(('cp1', 'cp2', 'cp3')[(n + attempt) % 3], n)
            break
        except (OSError, http.client.HTTPException):
            retries += 1
            time.sleep(0.1)
    else:
        failed += 1
    time.sleep(0.01)
print(n, retries, failed)
";

    /// Three servers are upgraded one by one, under writes: each is taken by one server or another.
    #[test]
    fn a_control_plane_is_upgraded_one_by_one_and_takes_every_write() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("rolling");
            let _repository = serve(&scratch);
            let machines = boot(field, &scratch, &["cp1", "cp2", "cp3"]).await;
            found(&machines[0]);
            for cp in &machines[1..] {
                let name = cp.name();
                let token = machines[0].fine(&format!(". /srv/admin; meshctl token join {name} --server"));
                cp.fine(&format!(
                    "apt-get install -y -q meshd && meshd join https://cp1:8443 --token {token}"
                ));
            }
            until_voting(&machines[0]).await;
            machines[0].write("/srv/writer.py", WRITER);
            machines[0].fine("cp /var/lib/meshd/ca.pem /srv/ca.pem");
            machines[0].fine("systemd-run -q --unit writer --property StandardOutput=file:/srv/written python3 /srv/writer.py");
            for cp in machines.iter().rev() {
                let pid = "systemctl show --property MainPID --value meshd";
                let before = cp.fine(pid);
                cp.fine("apt-get install -y -q --reinstall meshd");
                assert_ne!(cp.fine(pid), before, "the new version runs");
                until_voting(&machines[0]).await;
            }
            machines[0].fine("touch /srv/enough");
            let written = || async {
                let said = machines[0].run("cat /srv/written").out;
                let figures: Vec<u64> =
                    said.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
                <[u64; 3]>::try_from(figures).map_err(|_| said)
            };
            let [writes, retries, failed] =
                until("the writer ends", PATIENCE, written).await.expect("it does");
            println!("{writes} writes, {retries} tries again, {failed} failed");
            assert!(writes > 50 && failed == 0);
            let there =
                machines[0].fine(". /srv/admin; meshctl get services -o json | grep -c '\"name\": \"s[0-9]'");
            assert_eq!(there.trim(), writes.to_string());
        });
    }

    /// Waits until all three servers vote and lack nothing.
    async fn until_voting(cp: &Machine) {
        let voting = || async {
            let said = cp.run(". /srv/admin; meshctl cluster status").out;
            let voters = said.lines().filter(|line| line.to_lowercase().contains("voter")).count();
            if voters == 3 { Ok(()) } else { Err(said) }
        };
        until("three servers vote", PATIENCE, voting).await.expect("they do");
    }
}
