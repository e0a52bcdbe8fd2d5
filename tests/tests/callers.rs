//! Whose connection it is, where the caller is on another host: nobody of this one, whatever stands at its port here.

mod heavy {
    use std::{process::Command, time::Duration};

    use mesh_tests::{
        backend::Backend,
        cluster::Cluster,
        foreign,
        host::{Host, LocalService},
        netns::{self, Field},
        scratch::Scratch,
        wait::until,
    };
    use rustix::{process::Uid, thread::set_thread_res_uid};

    const PATIENCE: Duration = Duration::from_secs(30);
    const OWN: u8 = 0;
    const WEB: u32 = 64_301;
    const UPSTREAM: u16 = 9_001;

    /// A listener of this user at a port of all addresses: what the kernel names where it knows no connection.
    fn listens(uid: u32) -> std::net::TcpListener {
        let user = Uid::from_raw(uid);
        // Of this thread alone: what it opens is that user's.
        let thread = std::thread::spawn(move || {
            set_thread_res_uid(user, user, user).expect("root");
            std::net::TcpListener::bind("0.0.0.0:0").expect("a free port")
        });
        thread.join().expect("no panic")
    }

    /// The status that a caller gets from a port of its own.
    async fn status(mut curl: Command, field: &Field, port: u16) -> String {
        let url = format!("http://{}:{UPSTREAM}/", field.address(OWN));
        curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "10"]);
        curl.args(["--local-port", &port.to_string(), &url]);
        foreign::said(curl).await.out
    }

    #[test]
    fn a_caller_on_another_host_is_not_taken_for_who_listens_at_its_port_here() {
        netns::inside(1, async |field| {
            let scratch = Scratch::new("callers");
            let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
            let app = Backend::start("orders").await.expect("an application");
            let own =
                [LocalService::new("web", 1, 80, "http"), LocalService::new("orders", app.port, 80, "http")];
            let host = Host::start(&cluster, scratch.path(), "one", 12, &own, |_| {}).await.expect("a host");
            let file = host.config().with_file_name("services.d").join("web.toml");
            let listen = format!("{}:{UPSTREAM}", field.address(OWN));
            let text = format!(
                "[service]\nname = \"web\"\nuser = \"{WEB}\"\n[[upstream]]\nservice = \"orders\"\nlisten = \"{listen}\"\n"
            );
            std::fs::write(file, text).expect("written");
            // The user itself calls, and it works.
            until("the listener is there", PATIENCE, || async {
                let mut curl = foreign::program("curl");
                std::os::unix::process::CommandExt::uid(&mut curl, WEB);
                let status = status(curl, field, 41_900).await;
                if status == "200" { Ok(()) } else { Err(status) }
            })
            .await
            .expect("it is bound");
            let listener = listens(WEB);
            let port = listener.local_addr().expect("an address").port();
            let words: Vec<_> = field.wrapper().iter().map(|word| word.replace("{n}", "1")).collect();
            let mut beside = Command::new(&words[0]);
            beside.args(&words[1..]).arg("curl");
            assert_eq!(status(beside, field, port).await, "403");
            until("the log says why", PATIENCE, || async {
                let log = host.access_log();
                let want = "its other end is no socket of this host's network";
                if log.contains(want) { Ok(()) } else { Err(log) }
            })
            .await
            .expect("it is unknown");
        });
    }
}
