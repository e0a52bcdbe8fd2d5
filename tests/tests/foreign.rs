//! Programs that we did not write, in front of the mesh and behind it: nginx and Python as applications, curl, h2load,
//! gRPC and WebSocket clients as callers, all through two real proxies.

mod heavy {
    use std::{process::Command, time::Duration};

    use mesh_tests::{
        cluster::Cluster,
        foreign::{listening, program, python, said},
        host::{Host, LocalService},
        loopback::free_port,
        process::Process,
        scratch::Scratch,
        wait::until,
    };
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    /// What is made of RFC 6455, case by case.
    const WEBSOCKET_CASES: &str = include_str!("../programs/websocket_cases.txt");
    /// How long the mesh may take to hear of a new service.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// A large body: many times every window and buffer between the two ends.
    const LARGE_BYTES: usize = 10 << 20;
    /// What the mesh says of the caller.
    const CALLER: &str = "URI=spiffe://mesh.internal/ns/default/svc/caller";

    /// A mesh with one server, a host where applications run, and one that calls them.
    struct Mesh {
        cluster: Cluster,
        front: Host,
        back: Host,
        applications: Vec<Process>,
    }

    /// An application: its service, the protocol, the port that callers dial here, and the program.
    struct Application {
        service: &'static str,
        protocol: &'static str,
        upstream: u16,
        port: u16,
        command: Command,
    }

    fn application(
        service: &'static str,
        protocol: &'static str,
        upstream: u16,
        command: impl FnOnce(u16) -> Command,
    ) -> Application {
        let port = free_port();
        Application { service, protocol, upstream, port, command: command(port) }
    }

    /// A Python program that takes its port as its argument.
    fn script(name: &'static str) -> impl FnOnce(u16) -> Command {
        move |port| {
            let mut command = python(name);
            command.arg(port.to_string());
            command
        }
    }

    async fn open(scratch: &Scratch, applications: Vec<Application>) -> Mesh {
        let cluster = Cluster::start(scratch.path(), 1, |_| {}).await.expect("a server");
        let (mut services, mut running) = (Vec::new(), Vec::new());
        let mut caller = LocalService::new("caller", free_port(), 80, "http");
        for mut application in applications {
            let Application { service, protocol, upstream, port, .. } = application;
            running.push(
                listening(service, scratch.path(), &mut application.command, port).await.expect("it listens"),
            );
            let mut local = LocalService::new(service, port, 80, protocol).checked();
            if protocol == "grpc" {
                local.check = Some("grpc shop.Orders".to_owned());
            }
            services.push(local);
            caller = caller.calling(service, upstream);
        }
        let back =
            Host::start(&cluster, scratch.path(), "back", 12, &services, |_| {}).await.expect("a host");
        let front =
            Host::start(&cluster, scratch.path(), "front", 11, &[caller], |_| {}).await.expect("a host");
        Mesh { cluster, front, back, applications: running }
    }

    impl Mesh {
        /// The listener of the callers' host for a service.
        fn upstream(&self, port: u16) -> String {
            format!("{}:{port}", self.front.address)
        }

        /// curl, with its exit code and what it wrote.
        async fn curl(&self, arguments: &[&str]) -> String {
            let mut curl = program("curl");
            curl.args(["-sS", "--max-time", "30", "--noproxy", "*"]).args(arguments);
            said(curl).await.fine()
        }

        /// Waits until calls to a listener are answered with 200.
        async fn answers(&self, url: &str, options: &[&str]) {
            until(&format!("{url} answers"), PATIENCE, || async {
                let mut curl = program("curl");
                curl.args([
                    "-s",
                    "--max-time",
                    "5",
                    "--noproxy",
                    "*",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                ])
                .args(options)
                .arg(url);
                let said = said(curl).await;
                if said.out == "200" { Ok(()) } else { Err(format!("{said:?}")) }
            })
            .await
            .expect("the mesh carries calls");
        }
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// SHA-256 of a file, by a program that is not ours either.
    async fn sha256(path: &str) -> String {
        let mut command = program("sha256sum");
        command.arg(path);
        said(command).await.fine().split(' ').next().expect("a sum").to_owned()
    }

    fn nginx(scratch: &Scratch, port: u16) -> Command {
        let root = scratch.path().join("www");
        std::fs::create_dir_all(&root).expect("a folder");
        std::fs::write(root.join("hello.txt"), "hello from nginx\n".repeat(40)).expect("a file");
        let folder = scratch.path().display();
        let text = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off; client_max_body_size 64m; gzip on; gzip_types text/plain; gzip_min_length 1;\n\
             client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
             types {{ text/plain txt; }}\n  server {{\n    listen 127.0.0.1:{port}; root {folder}/www;\n\
             location /put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}\n    location /moved {{ return 302 /hello.txt; }}\n  }}\n}}\n"
        );
        let config = scratch.write("nginx.conf", text);
        // It starts as root and then becomes somebody who may not write here: it stays who it is.
        let mut nginx = program("nginx");
        nginx.arg("-c").arg(config).args(["-g", "user root;", "-p"]).arg(scratch.path());
        nginx
    }

    fn listing(scratch: &Scratch, port: u16) -> Command {
        let mut python = program("python3");
        python.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
        python.arg(scratch.path().join("www")).arg(port.to_string());
        python
    }

    #[tokio::test]
    async fn http_of_nginx_and_python_reaches_curl_whole() {
        let scratch = Scratch::new("foreign-http");
        let applications = vec![
            application("files", "http", 9_001, |port| nginx(&scratch, port)),
            application("listing", "http", 9_002, |port| listing(&scratch, port)),
            application("echo", "http", 9_003, script("http_server.py")),
        ];
        let mesh = open(&scratch, applications).await;
        for port in [9_001, 9_002] {
            mesh.answers(&format!("http://{}/hello.txt", mesh.upstream(port)), &[]).await;
        }
        mesh.answers(&format!("http://{}/", mesh.upstream(9_003)), &[]).await;
        answers_pass(&mesh).await;
        hosts_route(&mesh).await;
        bodies_pass(&mesh, &scratch).await;
        headers_tell_the_truth(&mesh).await;
        seen(&mesh).await;
        assert_eq!(mesh.applications.len(), 3);
    }

    async fn answers_pass(mesh: &Mesh) {
        let (nginx, listing) = (mesh.upstream(9_001), mesh.upstream(9_002));
        let hello = "hello from nginx\n".repeat(40);
        assert_eq!(mesh.curl(&[&format!("http://{nginx}/hello.txt")]).await, hello);
        assert_eq!(mesh.curl(&[&format!("http://{listing}/hello.txt")]).await, hello, "from HTTP/1.0");
        assert_eq!(
            mesh.curl(&["--http1.0", &format!("http://{nginx}/hello.txt")]).await,
            hello,
            "to HTTP/1.0"
        );
        let squeezed = mesh.curl(&["--compressed", "-D", "-", &format!("http://{nginx}/hello.txt")]).await;
        assert!(
            squeezed.to_lowercase().contains("content-encoding: gzip") && squeezed.ends_with(&hello),
            "{squeezed}"
        );
        let head = mesh.curl(&["-I", &format!("http://{nginx}/hello.txt")]).await.to_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {}", hello.len())),
            "{head}"
        );
        let part =
            mesh.curl(&["-r", "6-9", "-w", " %{http_code}", &format!("http://{nginx}/hello.txt")]).await;
        assert_eq!(part, "from 206");
        let absent = mesh.curl(&["-w", "%{http_code}", &format!("http://{nginx}/absent")]).await;
        assert!(absent.ends_with("404") && absent.contains("nginx"), "the application's own page: {absent}");
        let absent = mesh.curl(&["-w", "%{http_code}", &format!("http://{listing}/absent")]).await;
        assert!(absent.ends_with("404") && absent.contains("File not found"), "{absent}");
        let teapot =
            mesh.curl(&["-w", " %{http_code}", &format!("http://{}/teapot", mesh.upstream(9_003))]).await;
        assert_eq!(teapot, "{\"short\": \"stout\"} 418");
        let moved = mesh
            .curl(&[
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{redirect_url}",
                &format!("http://{nginx}/moved"),
            ])
            .await;
        assert!(moved.starts_with("302 ") && moved.ends_with("/hello.txt"), "{moved}");
        let url = format!("http://{nginx}/hello.txt");
        let kept = mesh
            .curl(&[
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-o",
                "/dev/null",
                "-w",
                "%{num_connects} ",
                &url,
                &url,
                &url,
            ])
            .await;
        assert_eq!(kept, "1 0 0 ", "the connection is kept");
    }

    async fn hosts_route(mesh: &Mesh) {
        let router = format!("http://{}:15080/hello.txt", mesh.front.address);
        for host in
            ["files.default.mesh", "files.default.mesh:80", "FILES.default.mesh", "listing.default.mesh"]
        {
            let answer = mesh.curl(&["-H", &format!("Host: {host}"), "-w", "%{http_code}", &router]).await;
            assert!(answer.starts_with("hello") && answer.ends_with("200"), "{host}: {answer}");
        }
        // As http_proxy, in both of its forms: the whole URL, and a tunnel.
        let as_proxy = [
            "-x",
            &format!("http://{}:15080", mesh.front.address),
            "--noproxy",
            "none",
            "http://files.default.mesh/hello.txt",
        ];
        assert!(mesh.curl(&as_proxy).await.starts_with("hello"));
        assert!(mesh.curl(&[&["-p"][..], &as_proxy].concat()).await.starts_with("hello"));
        for (host, status) in
            [("absent.default.mesh", "404"), ("example.org", "404"), ("files.default.mesh:81", "404")]
        {
            let answer = mesh.curl(&["-H", &format!("Host: {host}"), "-w", "%{http_code}", &router]).await;
            assert!(answer.starts_with("mesh: ") && answer.ends_with(status), "{host}: {answer}");
        }
    }

    async fn bodies_pass(mesh: &Mesh, scratch: &Scratch) {
        let large: Vec<u8> = (0..LARGE_BYTES).map(|n| (n * 31 % 251) as u8).collect();
        let file = scratch.write("large.bin", large).display().to_string();
        let (sum, back) = (sha256(&file).await, scratch.path().join("back.bin").display().to_string());
        let (nginx, echo) = (mesh.upstream(9_001), mesh.upstream(9_003));
        for (name, options) in
            [("sized", &["-T", &file][..]), ("chunked", &["-H", "Transfer-Encoding: chunked", "-T", &file])]
        {
            let url = format!("http://{nginx}/put/{name}.bin");
            let put = mesh.curl(&[options, &["-w", "%{http_code}", "-o", "/dev/null", &url]].concat()).await;
            assert_eq!(put, "201", "{name}");
            let read = mesh.curl(&["-o", &back, "-w", "%{http_code} %{size_download}", &url]).await;
            assert_eq!(read, format!("200 {LARGE_BYTES}"), "{name}");
            assert_eq!(sha256(&back).await, sum, "{name}");
            let post = json(
                &mesh.curl(&[&["-X", "POST"][..], options, &[&format!("http://{echo}/")]].concat()).await,
            );
            assert_eq!(
                (&post["sha256"], &post["length"]),
                (&sum.as_str().into(), &LARGE_BYTES.into()),
                "{name}"
            );
        }
        let small = json(&mesh.curl(&["-d", "a=1&b=2", &format!("http://{echo}/form")]).await);
        assert_eq!((&small["method"], &small["length"]), (&"POST".into(), &7.into()));
        let empty = json(&mesh.curl(&["-X", "POST", "-d", "", &format!("http://{echo}/")]).await);
        assert_eq!(empty["length"], 0);
    }

    async fn headers_tell_the_truth(mesh: &Mesh) {
        let url = format!("http://{}/a%20b/c?d=%2F&e", mesh.upstream(9_003));
        let lies = [
            "X-Forwarded-Client-Cert: URI=spiffe://mesh.internal/ns/default/svc/admin",
            "X-Mesh-Source: default/admin",
            "X-Own: kept",
            "Connection: x-hop",
            "X-Hop: gone",
        ];
        let mut arguments: Vec<_> = lies.iter().flat_map(|lie| ["-H", *lie]).collect();
        arguments.push(&url);
        let seen = json(&mesh.curl(&arguments).await);
        let header = |name: &str| seen["headers"][name].as_str().map(ToOwned::to_owned);
        assert_eq!(seen["path"], "/a%20b/c?d=%2F&e", "what is asked is what arrives");
        assert_eq!(header("x-forwarded-client-cert").as_deref(), Some(CALLER));
        assert_eq!(header("x-own").as_deref(), Some("kept"));
        for gone in ["x-mesh-source", "x-hop"] {
            assert_eq!(header(gone), None, "{seen}");
        }
        identity_cannot_be_tunnelled(mesh, lies[0]).await;
        let parent = header("traceparent").expect("a trace begins here");
        assert_eq!((parent.len(), &parent[..3]), (55, "00-"), "{parent}");
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let seen = json(&mesh.curl(&["-H", &format!("traceparent: {trace}"), &url]).await);
        let kept = seen["headers"]["traceparent"].as_str().expect("it goes on").to_owned();
        assert_eq!(kept[..36], trace[..36], "the caller's trace goes on");
    }

    /// What comes in a tunnel, or after an offer to go on in HTTP/2, are requests like all others.
    async fn identity_cannot_be_tunnelled(mesh: &Mesh, lie: &str) {
        let proxy = format!("http://{}:15080", mesh.front.address);
        let tunnel = ["-p", "-x", &proxy, "--noproxy", "none", "-H", lie, "http://echo.default.mesh/"];
        let upstream = format!("http://{}/", mesh.upstream(9_003));
        for arguments in [&tunnel[..], &["--http2", "-H", lie, &upstream]] {
            let seen = json(&mesh.curl(arguments).await);
            assert_eq!(seen["headers"]["x-forwarded-client-cert"], CALLER, "{arguments:?}: {seen}");
            assert!(seen["headers"]["upgrade"].is_null(), "{seen}");
        }
    }

    /// Both proxies count and log every call.
    async fn seen(mesh: &Mesh) {
        // One call asked for a port that there is not: it never left the caller's host.
        for (host, direction, count) in [(&mesh.front, "outbound", 2), (&mesh.back, "inbound", 1)] {
            let metrics = host.admin("/metrics").await.expect("it answers");
            let line = metrics.lines().find(|line| {
                let labels = [
                    format!("direction=\"{direction}\""),
                    "source=\"default/caller\"".to_owned(),
                    "destination=\"default/files\"".to_owned(),
                    "code=\"404\"".to_owned(),
                    "mtls=\"true\"".to_owned(),
                ];
                line.starts_with("mesh_requests_total{")
                    && labels.iter().all(|label| line.contains(label.as_str()))
            });
            assert!(
                line.is_some_and(|line| line.ends_with(&format!("}} {count}"))),
                "{line:?} in\n{metrics}"
            );
            until("the call stands in the access log", PATIENCE, || async {
                let log = host.access_log();
                let found = log
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                    .find(|line| line["path"] == "/absent");
                found.ok_or(log)
            })
            .await
            .expect("every call is logged");
        }
    }

    #[tokio::test]
    async fn http2_of_h2load_and_grpc_pass() {
        let scratch = Scratch::new("foreign-h2");
        let applications = vec![
            application("fast", "http2", 9_001, script("h2_server.py")),
            application("orders", "grpc", 9_002, script("grpc_server.py")),
            application("echo", "http", 9_003, script("http_server.py")),
        ];
        let mesh = open(&scratch, applications).await;
        let fast = format!("http://{}", mesh.upstream(9_001));
        mesh.answers(&format!("{fast}/10"), &["--http2-prior-knowledge"]).await;
        for (requests, bytes) in [("2000", "100"), ("60", "300000")] {
            let mut h2load = program("h2load");
            h2load.args(["-n", requests, "-c", "3", "-m", "10", &format!("{fast}/{bytes}")]);
            let text = said(h2load).await.fine();
            let good = format!("{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout");
            assert!(text.contains(&good), "{text}");
            let total: u64 =
                requests.parse::<u64>().expect("a number") * bytes.parse::<u64>().expect("a number");
            assert!(text.contains(&format!("({total}) data")), "{text}");
        }
        // HTTP/1.1 and HTTP/2 meet: either side speaks what it speaks.
        mesh.answers(&format!("{fast}/10"), &["--http1.1"]).await;
        mesh.answers(&format!("http://{}/", mesh.upstream(9_003)), &["--http2-prior-knowledge"]).await;
        let mut direct = python("grpc_client.py");
        direct.arg(mesh.upstream(9_002));
        grpc(&mesh, direct, 1).await;
        // By its name, through the proxy that every program's environment can name.
        let mut by_name = python("grpc_client.py");
        by_name
            .arg("orders.default.mesh:80")
            .env("http_proxy", format!("http://{}:15080", mesh.front.address));
        grpc(&mesh, by_name, 2).await;
    }

    /// `given_up`: so many callers of all clients gave up.
    async fn grpc(mesh: &Mesh, mut client: Command, given_up: u64) {
        client.arg(given_up.to_string());
        let seen = json(&said(client).await.fine());
        assert_eq!(seen["unary"], serde_json::json!(["hello", "one", "two", "OK"]), "{seen}");
        assert_eq!(seen["caller"], CALLER, "metadata cannot lie: {seen}");
        for (name, want) in
            [("large", true.into()), ("down", true.into()), ("up", 19_900.into()), ("both", true.into())]
        {
            assert_eq!(seen[name], Value::clone(&want), "{name}: {seen}");
        }
        assert_eq!(
            seen["fail"],
            serde_json::json!(["NOT_FOUND", "no such order: Müller", [0, 255]]),
            "{seen}"
        );
        assert_eq!(seen["absent"], "UNIMPLEMENTED", "{seen}");
        assert_eq!(
            (&seen["late"], &seen["givenUp"]),
            (&serde_json::json!(["DEADLINE_EXCEEDED", true]), &given_up.into()),
            "{seen}"
        );
        assert_eq!(seen["cancelled"], "still here", "{seen}");
        let metrics = mesh.back.admin("/metrics").await.expect("it answers");
        let counted = metrics
            .lines()
            .any(|line| line.starts_with("mesh_grpc_requests_total{") && line.contains("default/orders"));
        assert!(counted, "{metrics}");
    }

    #[tokio::test]
    async fn websockets_and_bare_tcp_pass() {
        let scratch = Scratch::new("foreign-tcp");
        let applications = vec![
            application("chat", "http", 9_001, script("websocket_server.py")),
            application("lines", "tcp", 9_002, script("tcp_server.py")),
        ];
        let mesh = open(&scratch, applications).await;
        greeted(&mesh).await;
        let mut client = python("websocket_client.py");
        client.arg(mesh.upstream(9_001));
        let seen = json(&said(client).await.fine());
        let want = serde_json::json!({"subprotocol": "chat.v1", "echoed": 200, "large": true, "pong": true, "left": "4001 enough",
            "first": format!("welcome {CALLER}"), "leave": [4002, "closing time"]});
        assert_eq!(seen, want);
        let mut by_name = python("websocket_client.py");
        by_name.args(["chat.default.mesh", &format!("http://{}:15080", mesh.front.address)]);
        assert_eq!(json(&said(by_name).await.fine()), want);
        half_closed(&mesh).await;
        // An application that is gone: the caller's connection ends, it does not hang.
        let mut mesh = mesh;
        mesh.applications.truncate(1);
        until("a dead application's callers are told", PATIENCE, || async {
            let mut stream =
                TcpStream::connect(mesh.upstream(9_002)).await.map_err(|error| error.to_string())?;
            let mut text = String::new();
            match tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await {
                Ok(Ok(0) | Err(_)) => Ok(()),
                other => Err(format!("{other:?} {text}")),
            }
        })
        .await
        .expect("closed at once");
        let status = mesh.cluster.said(&["get", "endpoints", "-o", "json"]).await.fine();
        assert!(status.contains("lines"), "{status}");
    }

    /// What an application answers, frame by frame, to what RFC 6455 allows and to what it does not. The mesh carries the
    /// bytes: whatever the application makes of them, it makes of them through two proxies as well.
    #[tokio::test]
    async fn what_rfc_6455_says_of_websockets_stays_between_the_two_ends() {
        let scratch = Scratch::new("foreign-websocket");
        let chat = application("chat", "http", 9_001, script("websocket_server.py"));
        let direct = format!("127.0.0.1:{}", chat.port);
        let mesh = open(&scratch, vec![chat]).await;
        // The server wants an upgrade, and says so.
        until("the mesh carries calls", PATIENCE, || async {
            let mut curl = program("curl");
            curl.args(["-sS", "--max-time", "5", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"]);
            curl.arg(format!("http://{}/", mesh.upstream(9_001)));
            let said = said(curl).await;
            if said.out == "426" { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await
        .expect("it answers");
        let mut cases = python("websocket_cases.py");
        cases.args([direct, mesh.upstream(9_001)]);
        let said = said(cases).await.fine();
        let want: Vec<_> = WEBSOCKET_CASES.lines().filter(|line| !line.starts_with('#')).collect();
        let ways = ["directly", "through the mesh"];
        assert_eq!(said.lines().count(), ways.len(), "{said}");
        for (way, line) in ways.into_iter().zip(said.lines()) {
            let got: Vec<[String; 3]> = serde_json::from_str(line).expect("a list of cases");
            let got: Vec<_> = got.iter().map(|case| case.join(" | ").trim_end().to_owned()).collect();
            assert_eq!(got, want, "{way}");
        }
    }

    /// The application speaks first: nobody on the way may wait for the caller's first word.
    async fn greeted(mesh: &Mesh) {
        until("the application greets", PATIENCE, || async {
            let mut stream =
                TcpStream::connect(mesh.upstream(9_002)).await.map_err(|error| error.to_string())?;
            let mut greeting = [0; 11];
            let read = tokio::time::timeout(Duration::from_secs(3), stream.read_exact(&mut greeting)).await;
            read.map_err(|_| "silence".to_owned())?.map_err(|error| error.to_string())?;
            if &greeting == b"220 ready\r\n" { Ok(()) } else { Err(format!("{greeting:?}")) }
        })
        .await
        .expect("it speaks first");
    }

    /// The caller has no more to say, and still gets its answer.
    async fn half_closed(mesh: &Mesh) {
        let calls = (1..=8_usize).map(|n| async move {
            let mut stream = TcpStream::connect(mesh.upstream(9_002)).await.expect("the listener takes it");
            let body = vec![n as u8; n * 300_000];
            stream.write_all(&body).await.expect("it is taken");
            stream.shutdown().await.expect("half of it is closed");
            let mut text = String::new();
            tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text))
                .await
                .expect("in time")
                .expect("it answers");
            assert!(text.starts_with(&format!("220 ready\r\n{} ", body.len())), "{text}");
        });
        futures_util::future::join_all(calls).await;
        let metrics = mesh.back.admin("/metrics").await.expect("it answers");
        let counted = metrics
            .lines()
            .any(|line| line.starts_with("mesh_tcp_connections_total{") && line.contains("default/lines"));
        assert!(counted, "{metrics}");
    }
}
