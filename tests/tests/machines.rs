//! Real hosts: systemd as process 1, our packages installed with apt from our repository, everything by systemctl and the
//! commands that a user types.

mod booted {
    use std::{
        net::SocketAddr,
        path::Path,
        time::{Duration, Instant},
    };

    use mesh_tests::{
        machine::Machine,
        netns::{self, Field},
        plain::Plain,
        scratch::Scratch,
        site::{PATIENCE, boot, mesh, serve, until_works},
        steady::{Failure, Seen, Steady, now},
        tour,
        wait::until,
        websocket::WebSocket,
    };

    use tokio::sync::watch;

    /// From a bare Debian to a call between two hosts, as the README has it.
    #[test]
    fn the_tour_of_the_readme_works_as_it_stands() {
        netns::inside(6, async |field| {
            let scratch = Scratch::new("tour");
            let _repository = serve(&scratch);
            let machines = boot(field, &scratch, &["cp1", "cp2", "cp3", "host-a", "host-b", "host-c"]).await;
            let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
            let steps = tour::steps(&readme);
            assert!(steps.len() > 10, "{steps:?}");
            tour::take(&steps, &machines.iter().collect::<Vec<_>>());
        });
    }

    /// All sockets on which the proxy listens, by their numbers in the kernel.
    const LISTENING: &str = "ss -Hltune | awk '$5 ~ /:(15|90)[0-9]+$/' | grep -o 'ino:[0-9]*' | sort";

    /// Where orders is called by any program: its virtual IP.
    fn virtual_address(cp: &Machine) -> SocketAddr {
        let service = cp.fine(". /srv/admin; meshctl get service orders -o json");
        let ip = service.split('"').find(|text| text.starts_with("240.")).expect("it has one");
        SocketAddr::new(ip.parse().expect("an address"), 80)
    }

    fn main_pid(machine: &Machine) -> String {
        machine.fine("systemctl show --property MainPID --value mesh-proxy").trim().to_owned()
    }

    /// Waits until another worker serves than `before` did.
    async fn until_other(machine: &Machine, before: &str) {
        let serves = || async {
            // At once: between two answers it may come and go.
            let status =
                machine.run("systemctl show --property ActiveState,StatusText,MainPID mesh-proxy").out;
            let other =
                [before, "0"].iter().all(|pid| !status.lines().any(|line| line == format!("MainPID={pid}")));
            if status.contains("=active") && status.contains(" serves") && other {
                Ok(())
            } else {
                Err(status)
            }
        };
        until("another worker serves", PATIENCE, serves).await.expect("it does");
    }

    /// Does something after which another worker has to serve.
    async fn replace(machine: &Machine, by: &str) {
        let before = main_pid(machine);
        machine.fine(&by.replace("MAINPID", &before));
        until_other(machine, &before).await;
    }

    /// Installs a version that does not come to serve, lets systemd try it, and puts the good one back.
    async fn fail(machine: &Machine, bad: &str) {
        machine.write("/srv/bad", format!("#!/bin/sh\n{bad}\n"));
        machine.fine(
            "cp /usr/bin/mesh-proxy /srv/good && chmod +x /srv/bad && mv /srv/bad /usr/bin/mesh-proxy \
             && systemctl restart --no-block mesh-proxy",
        );
        let tried = || async {
            let restarts = machine.fine("systemctl show --property NRestarts --value mesh-proxy");
            if restarts.trim().parse::<u32>().is_ok_and(|n| n >= 2) { Ok(()) } else { Err(restarts) }
        };
        until("systemd tries again and again", PATIENCE, tried).await.expect("it does");
        machine.fine("mv /srv/good /usr/bin/mesh-proxy");
        until_other(machine, "").await;
        machine.fine("systemctl reset-failed mesh-proxy; systemctl is-active mesh-proxy");
    }

    fn drop_in(machine: &Machine, text: &str) {
        machine.write("/etc/systemd/system/mesh-proxy.service.d/test.conf", format!("[Service]\n{text}\n"));
        machine.fine("systemctl daemon-reload");
    }

    /// A stream of bytes and a WebSocket that are never cut off, and calls on new and on kept connections, through restarts of
    /// either side, an upgrade, a supervisor that is killed, versions that fail or hang at their start, and rules that are
    /// loaded again.
    #[test]
    fn restarts_and_upgrades_lose_no_call_and_cut_no_stream() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("restarts");
            let _repository = serve(&scratch);
            let [cp, a, b] = mesh(field, &scratch).await;
            let captured = virtual_address(&cp);
            let (stop, stopped) = watch::channel(false);
            let load = field.beside(2, move || load(captured, stopped));
            for machine in [&a, &b] {
                drop_in(machine, "TimeoutStartSec=3s");
                let before = machine.fine(LISTENING);
                assert!(before.lines().count() >= 8, "{before}");
                replace(machine, "systemctl restart mesh-proxy").await;
                assert_eq!(
                    machine.fine(LISTENING),
                    before,
                    "every socket is handed over, and no other one is made"
                );
                replace(machine, "systemctl restart mesh-proxy").await;
                machine.fine("for n in 1 2 3 4 5; do systemctl reload mesh-capture; done");
                replace(machine, "kill -9 MAINPID").await;
                replace(machine, "apt-get install -y -q --reinstall mesh-proxy").await;
                fail(machine, "exit 1").await;
                fail(machine, "exec sleep 100").await;
            }
            stop.send_replace(true);
            let (kept, dialled, echoed) = load.join().expect("no panic");
            let (answered, failures) = seen(&kept, &dialled);
            println!("{answered} calls, {} failed; {echoed} echoes on each stream", failures.len());
            assert!(answered > 1_000 && echoed > 100);
            assert!(failures.is_empty(), "{failures:?}");
            for (machine, whose) in [(&a, "caller"), (&b, "called")] {
                let (answered, failed) = kill_workers(field, machine, &a, captured).await;
                println!("workers of the {whose} killed: {answered} calls, {failed} failed with them");
            }
            drain(field, &a).await;
            // What is lost where workers are killed at a restart is noticed.
            drop_in(&a, "ExecStopPost=-+/usr/bin/pkill -KILL -u mesh-proxy");
            let (stop, stopped) = watch::channel(false);
            let load = field.beside(2, move || calls(captured, stopped));
            for _ in 0..3 {
                replace(&a, "systemctl restart mesh-proxy").await;
            }
            stop.send_replace(true);
            let (kept, dialled) = load.join().expect("no panic");
            assert!(!seen(&kept, &dialled).1.is_empty(), "it should have lost calls");
            // A real stop leaves nothing.
            b.fine("systemctl stop mesh-proxy");
            assert_eq!(b.run("pgrep -u mesh-proxy").out, "", "{}", b.journal());
            assert_eq!(b.run("systemctl is-active mesh-proxy").out, "inactive\n", "{}", b.journal());
            assert_eq!(b.fine("ss -Hltn 'sport = 15008'"), "");
            let endpoints = cp.fine(". /srv/admin; meshctl get endpoints");
            assert!(!endpoints.contains("host-b"), "{endpoints}");
        });
    }

    /// A worker that is killed takes with it what it carries at that moment, and no call that comes then or later. How many
    /// calls of host A were answered, and how many went with it.
    async fn kill_workers(
        field: &Field,
        machine: &Machine,
        a: &Machine,
        captured: SocketAddr,
    ) -> (u64, usize) {
        let (stop, stopped) = watch::channel(false);
        let load = field.beside(2, move || calls(captured, stopped));
        let mut kills: Vec<(Instant, Instant)> = Vec::new();
        for _ in 0..2 {
            let (before, began) = (main_pid(machine), now());
            machine.fine(&format!(
                "worker=$(pgrep -P {before}); kill -9 $worker; while [ -e /proc/$worker ]; do sleep 0.01; done"
            ));
            kills.push((began, now()));
            until_other(machine, &before).await;
            // What waited for it has been served before the next one is killed.
            until_works(a).await;
        }
        stop.send_replace(true);
        let (kept, dialled) = load.join().expect("no panic");
        let (answered, failed) = seen(&kept, &dialled);
        let under_way = |failure: &&Failure| {
            kills.iter().any(|(from, to)| failure.started <= *to && failure.ended >= *from)
        };
        let failures = kept.failures.iter().chain(&dialled.failures);
        let others: Vec<_> = failures.filter(|failure| !under_way(failure)).collect();
        assert!(answered > 20 && others.is_empty(), "{others:?}");
        (answered, failed.len())
    }

    /// What a worker carries that was replaced goes on until its time is over, and no longer.
    async fn drain(field: &Field, a: &Machine) {
        a.fine("sed -i 's/^# handover_drain.*/handover_drain = \"8s\"/' /etc/mesh/proxy.toml");
        let (go, mut going) = watch::channel(false);
        let (open, mut opened) = watch::channel(false);
        let lasts = field.beside(2, async move || {
            let mut websocket =
                WebSocket::open(([127, 0, 0, 1], 9_001).into(), "orders").await.expect("open");
            websocket.says("before").await.expect("open");
            open.send_replace(true);
            // Who lets it go on may be gone.
            let _ = going.wait_for(|going| *going).await;
            websocket.says("beside the successor").await.expect("open still");
            let ends = async {
                while websocket.says("still there").await.is_ok() {
                    // Pace: a word now and then.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
        });
        opened.wait_for(|opened| *opened).await.expect("it is open");
        replace(a, "systemctl restart mesh-proxy").await;
        go.send_replace(true);
        lasts.join().expect("it went on, and ended");
        let alone = || async {
            let workers = a.run("pgrep -u mesh-proxy").out;
            if workers.lines().count() == 2 { Ok(()) } else { Err(workers) }
        };
        until("one supervisor and one worker are left", PATIENCE, alone).await.expect("in time");
    }

    #[test]
    fn a_host_comes_back_and_leaves_with_its_unit_and_its_rules() {
        netns::inside(3, async |field| {
            let scratch = Scratch::new("leaving");
            let _repository = serve(&scratch);
            let [cp, a, b] = mesh(field, &scratch).await;
            let token = |more: &str| {
                cp.fine(&format!(". /srv/admin; meshctl token join back{} --node host-b {more}", more.len()))
            };
            let rejoin = token("--rejoin");
            let before = main_pid(&b);
            b.fine(&format!("mesh-proxy rejoin https://cp1:8443 --token {rejoin}"));
            until_other(&b, &before).await;
            until_works(&a).await;

            let told = b.fine("mesh-proxy leave");
            assert!(told.starts_with("node host-b has left mesh.internal"), "{told}");
            let units =
                b.run("systemctl is-active mesh-proxy mesh-capture; systemctl is-enabled mesh-proxy").out;
            assert!(units.lines().all(|state| state != "active" && state != "enabled"), "{units}");
            assert_eq!(b.run("pgrep -u mesh-proxy").out, "", "{}", b.journal());
            assert_eq!(
                b.fine("find /var/lib/mesh-proxy -type f; stat -c %U /var/lib/mesh-proxy"),
                "mesh-proxy\n"
            );
            assert_eq!(b.fine("nft list ruleset"), "");
            let left = cp.fine(". /srv/admin; meshctl get nodes");
            assert!(left.contains("host-a") && !left.contains("host-b"), "{left}");
            let token = token("--service default/orders --service default/echo");
            b.fine(&format!("mesh-proxy join https://cp1:8443 --token {token}"));
            until_works(&a).await;
        });
    }

    /// How many calls were answered, and why others were not.
    fn seen<'a>(kept: &'a Seen, dialled: &'a Seen) -> (u64, Vec<&'a str>) {
        let failures = kept.failures.iter().chain(&dialled.failures);
        (kept.answered() + dialled.answered(), failures.map(|failure| failure.reason.as_str()).collect())
    }

    /// Calls, a stream of bytes and one of frames until they are stopped, from host A.
    async fn load(captured: SocketAddr, mut stopped: watch::Receiver<bool>) -> (Seen, Seen, u64) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let calls = tokio::spawn(calls(captured, stopped.clone()));
        let mut stream = tokio::net::TcpStream::connect("127.0.0.1:9002").await.expect("the echo is there");
        let mut websocket = WebSocket::open(([127, 0, 0, 1], 9_001).into(), "orders").await.expect("open");
        let mut echoed = 0;
        while !*stopped.borrow_and_update() {
            stream.write_all(b"x").await.expect("the stream lives");
            let mut byte = [0];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut byte))
                .await
                .expect("in time")
                .expect("the stream lives");
            let said = tokio::time::timeout(PATIENCE, websocket.says("x")).await;
            said.expect("in time").expect("the WebSocket lives");
            echoed += 1;
            // Pace: a byte now and then.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (kept, dialled) = calls.await.expect("no panic");
        (kept, dialled, echoed)
    }

    /// Calls on kept connections to an explicit listener, and on new ones to a virtual IP.
    async fn calls(captured: SocketAddr, mut stopped: watch::Receiver<bool>) -> (Seen, Seen) {
        let orders = ([127, 0, 0, 1], 9_001).into();
        let kept = Steady::start(Plain::new(orders, "orders"), 40);
        let dialled = Steady::start(Plain::dialling(captured, "orders.default.mesh"), 40);
        // Who stops them may be gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        (kept.stop().await, dialled.stop().await)
    }
}
