//! Chaos under load: endpoints are killed, held up, slowed, made to fail, taken out and put back, one after the other, while
//! the configuration changes ten times a second and certificates are renewed. No call fails that the retry policy covers,
//! and when it is over nothing is left of it: no task, no connection, no memory.

mod heavy {
    use std::{
        convert::Infallible,
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        time::Duration,
    };

    use http::{Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use hyper::service::service_fn;
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
    };
    use serde_json::json;
    use tokio::{
        net::TcpListener,
        sync::watch,
        task::{JoinHandle, JoinSet},
    };

    use crate::world::{
        client::{self, Http1},
        *,
    };

    /// How long it lasts, before it is measured for the first time and after; the second with `MESH_FULL` set.
    const SPANS: (Duration, Duration, Duration) =
        (Duration::from_secs(4), Duration::from_secs(10), Duration::from_secs(600));
    /// Between two revisions.
    const PACE: Duration = Duration::from_millis(100);
    /// Steps of one fault: long enough that many calls meet it.
    const STEPS_PER_FAULT: u64 = 3;
    /// Steps after which the logs are thrown away.
    const STEPS_OF_LOG: u64 = 20;
    const ENDPOINTS: usize = 4;
    /// How callers call, each on a connection of its own.
    const CALLERS: [Call; 8] =
        [Call::Get, Call::Get, Call::Get, Call::Get, Call::Put, Call::Put, Call::Http2, Call::Http2];
    /// The body of a PUT.
    const BODY: &str = "something that is kept until a try has an answer, as it may have to be sent again; ";
    /// Descriptors and tasks that may be there more than before: connections that were made anew wait to be closed, a
    /// minute at the most.
    const LEFT_MAX: usize = 64;
    /// Allocated memory that may be there more than before, in MiB: what is under way at that moment, and histograms and pools
    /// that have filled up.
    const MEMORY_MIB_MAX: u64 = 4;

    /// How an application behaves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Mood {
        Well,
        /// All answers are 503.
        Failing,
        /// Each answer takes a while.
        Slow,
        /// No answer comes, as of a process that is stopped: its connections are taken, and stay.
        Stopped,
    }

    /// What a caller does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Call {
        /// GET in HTTP/1.1.
        Get,
        /// PUT in HTTP/1.1.
        Put,
        /// PUT in HTTP/2, which rides on a stream between the proxies.
        Http2,
    }

    /// An application that can be given a mood, killed and started again.
    struct Application {
        address: SocketAddr,
        mood: watch::Sender<Mood>,
        task: Option<JoinHandle<()>>,
    }

    impl Application {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let (address, mood) =
                (listener.local_addr().expect("an address"), watch::Sender::new(Mood::Well));
            let task = Some(tokio::spawn(serve(listener, mood.subscribe())));
            Self { address, mood, task }
        }

        fn kill(&mut self) {
            if let Some(task) = self.task.take() {
                task.abort();
            }
        }

        async fn heal(&mut self) {
            self.mood.send_replace(Mood::Well);
            if self.task.is_none() {
                let listener = until_bound(self.address).await;
                self.task = Some(tokio::spawn(serve(listener, self.mood.subscribe())));
            }
        }
    }

    /// Its old self may take a moment to be gone.
    async fn until_bound(address: SocketAddr) -> TcpListener {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    async fn serve(listener: TcpListener, mood: watch::Receiver<Mood>) {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let mood = mood.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut mood = mood.clone();
                async move {
                    let (version, body) = (request.version(), request.into_body().collect().await);
                    let bytes = body.map_or(0, |body| body.to_bytes().len());
                    if *mood.borrow() == Mood::Slow {
                        // Pace: an application that takes its time.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let now = mood.wait_for(|mood| *mood != Mood::Stopped).await.map(|mood| *mood);
                    let mut answer = Response::new(format!("well: {version:?}, {bytes} bytes"));
                    if now.is_ok_and(|mood| mood == Mood::Failing) {
                        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    }

    /// What is there at one moment.
    #[derive(Debug, Clone, Copy)]
    struct Load {
        descriptors: usize,
        tasks: usize,
        memory_mib: u64,
    }

    impl Load {
        fn now() -> Self {
            let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            Self { descriptors, tasks, memory_mib: allocated_bytes() >> 20 }
        }
    }

    /// What is allocated and not freed. How much is resident hangs on what the allocator gives back, and when.
    #[expect(unsafe_code, reason = "the C library is asked in C: Rust has no such call")]
    fn allocated_bytes() -> u64 {
        /// `malloc.h` of glibc 2.33 and later.
        #[repr(C)]
        #[derive(Default)]
        struct MallInfo {
            arena: usize,
            ordblks: usize,
            smblks: usize,
            hblks: usize,
            /// Bytes of blocks that were mapped by themselves.
            hblkhd: usize,
            usmblks: usize,
            fsmblks: usize,
            /// Bytes of all other blocks that are in use.
            uordblks: usize,
            fordblks: usize,
            keepcost: usize,
        }
        unsafe extern "C" {
            fn mallinfo2() -> MallInfo;
        }
        // SAFETY: it takes nothing, and fills in ten numbers.
        let info = unsafe { mallinfo2() };
        (info.hblkhd + info.uordblks) as u64
    }

    /// The mesh, and what is done to it.
    struct Chaos {
        world: World,
        caller: Proxy,
        endpoints: Vec<(Proxy, Application)>,
        upstream: SocketAddr,
        step: u64,
        retried: bool,
    }

    impl Chaos {
        async fn new() -> Self {
            let world = World::new();
            let caller = world.proxy("host-a", &["web"], Vec::new());
            let mut endpoints = Vec::new();
            for name in ["host-b", "host-c", "host-d", "host-e"] {
                let application = Application::start().await;
                let local = local("orders", 80, "auto", application.address);
                endpoints.push((world.proxy(name, &[], vec![local]), application));
            }
            assert_eq!(endpoints.len(), ENDPOINTS);
            let upstream = caller.upstream("web", "orders", None);
            let mut chaos = Self { world, caller, endpoints, upstream, step: 0, retried: false };
            chaos.publish();
            chaos
        }

        /// Another revision, in which one endpoint may be missing.
        fn publish(&mut self) {
            let policy = json!({
                "kind": "TrafficPolicy", "metadata": {"namespace": "default", "name": "orders"},
                "spec": {
                    "targetRefs": [{"name": "orders"}],
                    "timeouts": {"idle": "1m"},
                    "outlierDetection": {"baseEjectionTime": "200ms", "maxEjectionTime": "500ms"},
                    "retry": {
                        "attempts": 5, "perTryTimeout": "1s", "backoff": "5ms",
                        "conditions": ["ConnectFailure", "Refused", "Reset", "GatewayError"],
                        "budget": {"percent": 100, "minPerSecond": 1000},
                    },
                },
            });
            let set = json!({"set": [{"name": "x-step", "value": self.step.to_string()}]});
            let filter = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": set});
            let route = json!({
                "kind": "HTTPRoute", "metadata": {"namespace": "default", "name": "orders"},
                "spec": {"parentRefs": [{"name": "orders"}],
                    "rules": [{"filters": [filter], "backendRefs": [{"name": "orders", "port": 80}]}]},
            });
            self.world.routes = vec![object(policy), object(route)];
            let missing = self.missing();
            let there = self.endpoints.iter().enumerate().filter(|(index, _)| Some(*index) != missing);
            let mut told = vec![&self.caller];
            told.extend(there.map(|(_, (proxy, _))| proxy));
            self.world.publish(&told);
        }

        /// Which endpoint is taken out: every other fault, one that has no other.
        fn missing(&self) -> Option<usize> {
            let fault = self.step / STEPS_PER_FAULT;
            (fault % 2 == 1).then(|| (fault as usize + 2) % ENDPOINTS)
        }

        async fn advance(&mut self) {
            self.step += 1;
            if self.step.is_multiple_of(STEPS_PER_FAULT) {
                let fault = (self.step / STEPS_PER_FAULT) as usize;
                for (_, application) in &mut self.endpoints {
                    application.heal().await;
                }
                let application = &mut self.endpoints[fault % ENDPOINTS].1;
                match fault % 5 {
                    0 => application.kill(),
                    1 => drop(application.mood.send_replace(Mood::Stopped)),
                    2 => drop(application.mood.send_replace(Mood::Failing)),
                    3 => drop(application.mood.send_replace(Mood::Slow)),
                    _ => {}
                }
                self.renew(fault);
            }
            self.publish();
        }

        /// Another certificate for a service of one of the proxies.
        fn renew(&self, turn: usize) {
            let (proxy, of) = match turn % (ENDPOINTS + 1) {
                0 => (&self.caller, "web"),
                n => (&self.endpoints[n - 1].0, "orders"),
            };
            let svid =
                self.world.authority.svid(&id(of).to_string(), &proxy.name, Duration::from_secs(3_600));
            proxy.shared.identities.put(&service(of), svid);
        }

        /// Throws the logs away, so that they do not pass for memory that is lost; whether calls were tried again stays.
        fn forget(&mut self) {
            let tried_again = |line: &serde_json::Value| line["retries"].as_u64() > Some(0);
            self.retried |= self.caller.log.lines().iter().any(tried_again);
            for proxy in self.endpoints.iter().map(|(proxy, _)| proxy).chain([&self.caller]) {
                proxy.log.forget();
            }
        }

        /// Calls for so long while everything changes; says what there is when all is well again.
        async fn run(&mut self, span: Duration) -> (u64, Vec<String>, Load) {
            let (calls, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
            let mut callers = JoinSet::new();
            for call in CALLERS {
                callers.spawn(call_on(self.upstream, call, calls.clone(), over.clone()));
            }
            let mut beat = tokio::time::interval(PACE);
            for _ in 0..span.as_millis() / PACE.as_millis() {
                beat.tick().await;
                self.advance().await;
                if self.step.is_multiple_of(STEPS_OF_LOG) {
                    self.forget();
                }
            }
            over.store(true, Ordering::SeqCst);
            let failed = callers.join_all().await.concat();
            for (_, application) in &mut self.endpoints {
                application.heal().await;
            }
            self.forget();
            assert!(std::mem::take(&mut self.retried), "no fault was met");
            (calls.load(Ordering::SeqCst), failed, Load::now())
        }
    }

    /// Calls until it is over, on one connection; every answer other than the application's own.
    async fn call_on(
        upstream: SocketAddr,
        call: Call,
        calls: Arc<AtomicU64>,
        over: Arc<AtomicBool>,
    ) -> Vec<String> {
        let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
        let (text, want) = match call {
            Call::Get => ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "well: HTTP/1.1, 0 bytes".to_owned()),
            Call::Put => (put.as_str(), format!("well: HTTP/1.1, {} bytes", BODY.len())),
            Call::Http2 => ("", format!("well: HTTP/2.0, {} bytes", BODY.len())),
        };
        let (mut connection, mut sender) = (Http1::connect(upstream).await, client::h2(upstream).await);
        let mut failed = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let (status, body) = if call == Call::Http2 {
                let request = Request::put("http://orders/").body(client::full(BODY)).expect("a request");
                let (head, body, _) = client::h2_call(&mut sender, request).await;
                (head.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
            } else {
                connection.send(text.as_bytes()).await;
                let answer = connection.answer().await;
                (answer.status, answer.body)
            };
            if (status, &body) != (200, &want) {
                failed.push(format!("{call:?}: {status} {body}"));
            }
            calls.fetch_add(1, Ordering::SeqCst);
        }
        failed
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_call_fails_that_is_covered_and_nothing_is_left_of_it() {
        let full = std::env::var_os("MESH_FULL").is_some();
        let mut chaos = Chaos::new().await;
        let (warm, failed, before) = chaos.run(SPANS.0).await;
        assert!(failed.is_empty(), "of {warm}: {failed:?}");
        let (calls, failed, after) = chaos.run(if full { SPANS.2 } else { SPANS.1 }).await;
        eprintln!("{calls} calls in {} revisions; {before:?}, then {after:?}", chaos.step);
        assert!(failed.is_empty(), "of {calls}: {failed:?}");
        assert!(calls > 100, "there was load: {calls}");
        assert!(after.descriptors <= before.descriptors + LEFT_MAX, "{before:?}, then {after:?}");
        assert!(after.tasks <= before.tasks + LEFT_MAX, "{before:?}, then {after:?}");
        assert!(after.memory_mib <= before.memory_mib + MEMORY_MIB_MAX, "{before:?}, then {after:?}");
    }
}
