//! Attacks on who a connection is said to be: a caller that leaves before it is looked up, and another one that takes its
//! place. Each attack knows whose the connection really is. Needs root, to be two users.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpStream as Stream},
    time::Duration,
};

use rustix::{process::Uid, thread::set_thread_res_uid};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::TcpListener;

use super::*;

const ALICE: u32 = 64_101;
const MALLORY: u32 = 64_102;

/// Does something as another user, in a thread of its own: what it opens is that user's.
fn by<T: Send + 'static>(uid: u32, what: impl FnOnce() -> T + Send + 'static) -> T {
    let user = Uid::from_raw(uid);
    let thread = std::thread::spawn(move || {
        set_thread_res_uid(user, user, user).expect("this test is root's");
        what()
    });
    thread.join().expect("no panic")
}

/// A connection from `port`, which may be one that was used a moment ago.
fn dial(port: u16, to: SocketAddr) -> std::io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let own = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    socket.bind(&SocketAddr::new(own, port).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// How a caller leaves.
#[derive(Clone, Copy)]
enum Leaves {
    Not,
    /// It says its last and waits for an answer.
    SaysItsLast,
    Closes,
    Resets,
}

impl Leaves {
    fn leave(self, stream: Stream) -> Option<Stream> {
        match self {
            Self::Not => return Some(stream),
            Self::SaysItsLast => {
                stream.shutdown(std::net::Shutdown::Write).expect("shut down");
                return Some(stream);
            }
            Self::Closes => {}
            Self::Resets => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
            }
        }
        drop(stream);
        None
    }
}

/// Who says whose a connection is.
type Judge = fn(&Callers, &TcpStream, SocketAddr, SocketAddr) -> Option<u32>;

fn sound(callers: &Callers, stream: &TcpStream, peer: SocketAddr, dialled: SocketAddr) -> Option<u32> {
    match callers.of(stream, peer, dialled) {
        Caller::Known(owner) => Some(owner.uid),
        Caller::Unknown(_) => None,
    }
}

/// A planted fault: the own end is not looked at after the other one was.
fn hasty(callers: &Callers, _: &TcpStream, peer: SocketAddr, dialled: SocketAddr) -> Option<u32> {
    callers.look_up(peer, dialled).ok().map(|owner| owner.uid)
}

/// A planted fault: whatever the kernel finds is believed.
fn credulous(callers: &Callers, _: &TcpStream, peer: SocketAddr, dialled: SocketAddr) -> Option<u32> {
    callers.diag.lock().look_up(peer, dialled).ok().map(|facts| facts.uid)
}

struct Scene {
    listener: TcpListener,
    at: SocketAddr,
    callers: Callers,
    judge: Judge,
}

impl Scene {
    async fn new(judge: Judge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        Self { listener, at, callers: Callers::default(), judge }
    }

    fn judge(&self, stream: &TcpStream, peer: SocketAddr) -> Option<u32> {
        (self.judge)(&self.callers, stream, peer, self.at)
    }

    /// Alice calls and leaves; whose is the connection said to be, once Mallory has done something at Alice's port?
    async fn alice_and<T: Send + 'static>(
        &self,
        leaves: Leaves,
        mallory: impl FnOnce(u16, SocketAddr) -> T + Send + 'static,
    ) -> Option<u32> {
        let at = self.at;
        let mut alice = by(ALICE, move || dial(0, at)).expect("dialled");
        let (stream, peer) = self.listener.accept().await.expect("taken");
        alice.write_all(b"in Alice's name").expect("sent");
        let stays = leaves.leave(alice);
        let held = by(MALLORY, move || mallory(peer.port(), at));
        let said = self.judge(&stream, peer);
        drop((held, stays));
        said
    }
}

fn nothing(_: u16, _: SocketAddr) {}

fn takes_the_addresses(port: u16, at: SocketAddr) -> std::io::Result<Stream> {
    dial(port, at)
}

fn listens_at_the_port(port: u16, _: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    socket.listen(1)?;
    Ok(socket)
}

/// All attacks: what is said of Alice's connection in each.
async fn attacks(judge: Judge) -> Vec<Option<u32>> {
    let scene = Scene::new(judge).await;
    let mut said = Vec::new();
    for leaves in [Leaves::Closes, Leaves::Resets] {
        said.push(scene.alice_and(leaves, nothing).await);
        said.push(scene.alice_and(leaves, takes_the_addresses).await);
        said.push(scene.alice_and(leaves, listens_at_the_port).await);
    }
    said
}

#[tokio::test]
async fn who_is_there_is_known_also_when_it_has_said_its_last() {
    let scene = Scene::new(sound).await;
    for leaves in [Leaves::Not, Leaves::SaysItsLast] {
        assert_eq!(scene.alice_and(leaves, nothing).await, Some(ALICE));
        assert_eq!(scene.alice_and(leaves, takes_the_addresses).await, Some(ALICE));
    }
}

#[tokio::test]
async fn who_left_is_nobody_and_never_whoever_came_after() {
    let said = attacks(sound).await;
    assert!(said.iter().all(|said| said.is_none_or(|uid| uid == ALICE)), "{said:?}");
}

#[tokio::test]
async fn the_attacks_catch_a_look_up_that_does_not_look_at_its_own_end() {
    assert!(attacks(hasty).await.contains(&Some(MALLORY)));
    assert!(attacks(credulous).await.contains(&Some(MALLORY)));
}

#[tokio::test]
async fn who_listens_at_a_caller_s_port_is_not_the_caller() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let (peer, callers) = (listener.local_addr().expect("an address"), Callers::default());
    let dialled = "127.0.0.1:9".parse().expect("an address");
    assert_eq!(callers.look_up(peer, dialled), Err(Unknown::Elsewhere));
    let found = callers.diag.lock().look_up(peer, dialled).expect("the kernel names the listener");
    assert_ne!(found.inode, 0, "which is why its state is asked");
}

/// What two users at once say who they are, on few ports, while each leaves as it likes: never is one taken for the other.
#[tokio::test]
async fn in_a_storm_nobody_is_taken_for_another() {
    const ROUNDS: u32 = 300;
    let scene = Scene::new(sound).await;
    let (at, first) = (scene.at, scene.at.port());
    let storm = |uid: u32| {
        std::thread::spawn(move || {
            by(uid, move || {
                for round in 0..ROUNDS {
                    let port =
                        1_024 + (first.wrapping_add(u16::try_from(round % 7).expect("small"))) % 60_000;
                    let Ok(mut stream) = dial(port, at) else { continue };
                    let ways = [Leaves::Not, Leaves::SaysItsLast, Leaves::Closes, Leaves::Resets];
                    if stream.write_all(&uid.to_ne_bytes()).is_ok()
                        && let Some(mut stays) = ways[round as usize % 4].leave(stream)
                    {
                        let _ = stays.read(&mut [0]);
                    }
                }
            })
        })
    };
    let storms = [storm(ALICE), storm(MALLORY)];
    let mut known = [0, 0];
    let watched = async {
        loop {
            let (stream, peer) = scene.listener.accept().await.expect("taken");
            for _ in 0..peer.port() % 5 {
                tokio::task::yield_now().await;
            }
            let said = scene.judge(&stream, peer);
            let mut stream = stream;
            let mut name = [0; 4];
            let truth = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut name).await;
            if let (Ok(_), Some(said)) = (truth, said) {
                assert_eq!(said, u32::from_ne_bytes(name));
                known[usize::from(said == MALLORY)] += 1;
            }
        }
    };
    let over = tokio::task::spawn_blocking(move || storms.map(|storm| storm.join().expect("no panic")));
    tokio::select! {
        () = watched => unreachable!("it goes on"),
        over = over => drop(over.expect("no panic")),
    }
    assert!(known[0] > 0 && known[1] > 0, "{known:?}");
}

/// A listener, and a caller of it, each with this address.
async fn meet(listen: SocketAddr, dial: SocketAddr) -> Caller {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None).expect("a socket");
    if listen.is_ipv6() {
        socket.set_only_v6(false).expect("set");
    }
    socket.set_nonblocking(true).expect("set");
    socket.bind(&listen.into()).and_then(|()| socket.listen(1)).expect("bound");
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let to = SocketAddr::new(dial.ip(), port);
    let _client = by(ALICE, move || Stream::connect(to).expect("dialled"));
    let (stream, peer) = listener.accept().await.expect("taken");
    Callers::default().of(&stream, peer, stream.local_addr().expect("an address"))
}

#[tokio::test]
async fn callers_are_known_by_v4_and_by_v6_and_by_v4_in_v6_s_clothes() {
    for (listen, dial) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "[::ffff:127.0.0.1]:0"),
        ("[::1]:0", "[::1]:0"),
        ("[::]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0"),
        ("[::]:0", "[::ffff:127.0.0.1]:0"),
    ] {
        let said = meet(listen.parse().expect("an address"), dial.parse().expect("an address")).await;
        assert!(matches!(said, Caller::Known(Owner { uid: ALICE, .. })), "{listen} {dial}: {said:?}");
    }
}

#[tokio::test]
async fn a_listener_s_own_service_is_spoken_for_by_its_own_processes_and_by_all_where_it_is_shared() {
    let [a, b] = ["default/a", "default/b"].map(|name| name.parse().expect("a name"));
    let mut table = Table::default();
    table.bind(&a, &crate::settings::Binding { uid: Some(ALICE), ..Default::default() });
    table.share(&b);
    let bindings = Bindings::new(table);
    let caller = |uid| Caller::Known(Owner { uid, cgroup: None });
    let gone = Caller::Unknown(Unknown::Left);
    for (caller, listener, want) in [
        (caller(ALICE), Some(&a), Ok("a")),
        (caller(MALLORY), Some(&a), Err("other")),
        (gone, Some(&a), Err("unknown")),
        (caller(ALICE), None, Ok("a")),
        (caller(MALLORY), None, Err("unbound")),
        (gone, None, Err("unknown")),
        (caller(MALLORY), Some(&b), Ok("b")),
        (gone, Some(&b), Ok("b")),
    ] {
        let said = bindings.speaks_for(caller, listener).await;
        let said = said.map(|service: ServiceName| service.name.to_string());
        assert_eq!(said.map_err(|why| why.kind()), want.map(str::to_owned), "{caller:?} {listener:?}");
    }
}
