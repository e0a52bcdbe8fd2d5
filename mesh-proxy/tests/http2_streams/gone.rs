//! A caller that goes away is noticed, though its application neither reads nor answers: by both proxies and by the application,
//! whatever is spoken on each of the three legs.

use std::{future::poll_fn, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::*;

/// What does not move for so long, so many times in a row, is stuck: longer than a kernel waits before it asks whether a window
/// has opened again, and everybody has had his turn between, however busy the machine is.
const STUCK: Duration = Duration::from_millis(50);
const STUCK_TIMES: usize = 10;

/// The longest segment of TCP that callers of HTTP/1.1 and their application take, as on a network. One of loopback's is half of
/// what a socket receives before it is read: such streams move by the kernel's timers, which looks as if they were stuck.
const SEGMENT_BYTES: u32 = 1_400;

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES).expect("set");
    socket
}

/// How a caller goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// It speaks HTTP/2, and closes its connection.
    Http2,
    /// It speaks HTTP/1.1, and its connection is reset.
    Reset,
    /// It speaks HTTP/1.1, sends another request ahead, which is not read before the first is answered, and closes its
    /// connection.
    Closed,
}

/// A call.
#[derive(Debug, Clone, Copy)]
struct Case {
    goes: Goes,
    /// The application answered, with a head and nothing behind it.
    answered: bool,
    /// It has more fields than a head of HTTP/1.1 may have between proxies, and goes over `h2`.
    wide: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let (goes, both) = ([Goes::Http2, Goes::Reset, Goes::Closed], [false, true]);
        let each = goes.iter().flat_map(|goes| both.map(|answered| (*goes, answered)));
        each.flat_map(|(goes, answered)| both.map(|wide| Self { goes, answered, wide })).collect()
    }

    /// By which the application and the logs know it.
    fn path(&self) -> String {
        let (head, hop) =
            (if self.answered { "answered" } else { "silent" }, if self.wide { "h2" } else { "mesh" });
        format!("/{head}/{hop}/{:?}", self.goes)
    }

    fn fields(&self) -> impl Iterator<Item = String> {
        (0..if self.wide { 122 } else { 0 }).map(|n| format!("x-{n}"))
    }

    /// Calls, sends until nothing more is taken, and goes away.
    async fn call(self, to: SocketAddr) {
        match self.goes {
            Goes::Http2 => self.call_in_http2(to).await,
            Goes::Reset | Goes::Closed => self.call_in_http1(to).await,
        }
    }

    async fn call_in_http2(&self, to: SocketAddr) {
        let stream = TcpStream::connect(to).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("shaken hands");
        let driven = tokio::spawn(connection);
        let request = Request::post(format!("http://shop{}", self.path()));
        let request = self.fields().fold(request, |request, name| request.header(name, "1"));
        let mut sender = sender.ready().await.expect("it is open");
        let (answer, mut body) =
            sender.send_request(request.body(()).expect("a request"), false).expect("there is room");
        let answer = match self.answered {
            true => Ok(timeout(PATIENCE, answer).await.expect("in time").expect("an answer")),
            false => Err(answer),
        };
        let mut stuck = 0;
        while stuck < STUCK_TIMES {
            body.reserve_capacity(60_000);
            stuck += 1;
            if let Ok(room) = timeout(STUCK, poll_fn(|cx| body.poll_capacity(cx))).await {
                let room = room.expect("it is open").expect("nothing broke");
                body.send_data(vec![9; room].into(), false).expect("there is room");
                stuck = 0;
            }
        }
        driven.abort();
        assert!(driven.await.is_err(), "its socket is closed");
        drop((answer, sender, body));
    }

    async fn call_in_http1(&self, to: SocketAddr) {
        let mut caller = client::Http1(BufReader::new(socket().connect(to).await.expect("connected")));
        let fields: String = self.fields().map(|name| format!("{name}: 1\r\n")).collect();
        let head = |first: &str| format!("{first} {} HTTP/1.1\r\nHost: shop\r\n{fields}", self.path());
        if self.goes == Goes::Closed {
            caller.send(format!("{}\r\n", head("GET")).repeat(2).as_bytes()).await;
        } else {
            caller.send(format!("{}Content-Length: 99999999\r\n\r\n", head("POST")).as_bytes()).await;
        }
        if self.answered {
            assert_eq!(caller.head().await.0, 200);
        }
        if self.goes == Goes::Closed {
            return;
        }
        let (mut stream, mut stuck) = (caller.0.into_inner(), 0);
        while stuck < STUCK_TIMES {
            stuck += 1;
            if let Ok(written) = timeout(STUCK, stream.write(&[9; 64 * 1_024])).await {
                written.expect("it is open");
                stuck = 0;
            }
        }
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    }
}

/// A request that an application has.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn by(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::SeqCst);
        Self(held.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An application of HTTP/1.1 that reads nothing but heads, until `reads`.
async fn plain_application(held: Arc<AtomicUsize>, reads: Arc<Notify>) -> SocketAddr {
    let socket = socket();
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let listener = socket.listen(64).expect("listens");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let (held, reads) = (Held::by(&held), reads.clone());
            tokio::spawn(async move {
                let reads = reads.notified();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                if String::from_utf8_lossy(&head).contains(" /answered/") {
                    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    stream.write_all(answer).await.expect("written");
                }
                reads.await;
                let mut buffer = vec![0; 64 * 1_024];
                while let Ok(1..) = stream.read(&mut buffer).await {}
                drop(held);
            });
        }
    });
    address
}

/// All cases at once, through a pair of proxies to `app`: both notice, and say so.
async fn check(protocol: &'static str, app: SocketAddr) {
    let cases = Case::all();
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, protocol, app)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    futures_util::future::join_all(cases.iter().map(|case| case.call(upstream))).await;
    for (proxy, direction) in [(&caller, "outbound"), (&callee, "inbound")] {
        for case in &cases {
            let path = case.path();
            let over = || proxy.log.lines().into_iter().find(|line| line["path"] == *path);
            let line = until(&format!("the end of {path} to {protocol}, {direction}"), over).await;
            let code = if case.answered { 200 } else { 0 };
            assert_eq!(
                (&line["code"], &line["reason"]),
                (&code.into(), &"the caller went away".into()),
                "{line}"
            );
        }
        until("all is over", || (proxy.shared.in_flight() == 0).then_some(())).await;
    }
    let opened = cases.iter().filter(|case| !case.wide).count() as u64;
    assert_eq!(count(&caller, OPENED), opened, "the others went over HTTP/2");
}

/// An application of HTTP/2 that reads nothing.
async fn silent_application(held: Arc<AtomicUsize>) -> SocketAddr {
    application(move |request| {
        let held = Held::by(&held);
        async move {
            if request.uri().path().starts_with("/silent") {
                let _held = (request, held);
                return pending().await;
            }
            let silent = futures_util::stream::once(async move {
                let _held = (request, held);
                pending::<Piece>().await
            });
            Response::new(StreamBody::new(silent).boxed_unsync())
        }
    })
    .await
}

#[tokio::test]
async fn a_caller_that_goes_away_is_noticed_though_nobody_reads_and_nobody_answers() {
    let (reads, held) = (Arc::<Notify>::default(), Arc::<AtomicUsize>::default());
    let (http2, http1) =
        (silent_application(held.clone()).await, plain_application(held.clone(), reads.clone()).await);
    tokio::join!(check("http2", http2), check("http", http1));
    reads.notify_waiters();
    until("the applications are told", || (held.load(Ordering::SeqCst) == 0).then_some(())).await;
}
