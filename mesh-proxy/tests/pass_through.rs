//! TLS of the applications' own through two proxies: the service is found by the name in the ClientHello, and nothing of
//! what follows is touched. The clients are curl, openssl and rustls.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::Arc,
};

use crate::world::*;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::CertificateDer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use traffic::protocol::{Detected, detect};

/// The port of services that speak TLS themselves.
const HTTPS: u16 = 443;

/// A web server with a certificate of its own, which no authority of the mesh knows.
struct Site {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

impl Site {
    /// One that says its name to every request.
    async fn start(host: &str) -> Self {
        let own = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        let certificate = own.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(svid::provider().clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let body = host.to_owned();
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(served(acceptor.clone(), stream, body.clone()));
            }
        });
        Self { address, certificate }
    }

    fn pem(&self) -> String {
        svid::pem::encode_chain(std::slice::from_ref(&self.certificate))
    }
}

async fn served(acceptor: TlsAcceptor, stream: TcpStream, body: String) {
    // Who breaks off is what some tests are about.
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

/// Two services that speak TLS, one that does not, and who calls them.
struct Mesh {
    world: World,
    caller: Proxy,
    callee: Proxy,
    sites: [Site; 2],
    _plain: app::App,
}

const ORDERS: &str = "orders.default.mesh";
const LEDGER: &str = "ledger.default.mesh";

async fn mesh() -> Mesh {
    let (sites, plain) = ([Site::start(ORDERS).await, Site::start(LEDGER).await], app::http("plain").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = vec![
        local("orders", HTTPS, "tls", sites[0].address),
        local("ledger", HTTPS, "tls", sites[1].address),
        local("plain", HTTPS, "http", plain.address),
    ];
    let callee = world.proxy("host-b", &[], locals);
    world.publish(&[&caller, &callee]);
    Mesh { world, caller, callee, sites, _plain: plain }
}

async fn said(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs")
}

/// What `openssl s_client` sees.
async fn openssl(to: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    let output = said(command.args(["s_client", "-connect", &to.to_string()]).args(arguments)).await;
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits until so many streams were turned away for this reason.
async fn turned_away(proxy: &Proxy, reason: &str, count: u64) {
    let line = format!("mesh_tls_refused_total{{reason=\"{reason}\"}} {count}");
    until(&line, || proxy.metrics().lines().any(|own| own == line).then_some(())).await;
}

#[tokio::test]
async fn curl_reaches_the_site_that_it_names_and_sees_its_own_certificate() {
    let mesh = mesh().await;
    let router = mesh.caller.host_router();
    let folder = tempfile::tempdir().expect("a folder");
    for (host, site) in [ORDERS, LEDGER].into_iter().zip(&mesh.sites) {
        let authority = folder.path().join(host);
        std::fs::write(&authority, site.pem()).expect("written");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--cacert"]).arg(&authority);
        curl.args(["--connect-to", &format!("{host}:443:{router}"), &format!("https://{host}/")]);
        let output = said(&mut curl).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), host, "{output:?}");
        let shown = openssl(router, &["-servername", host]).await;
        assert!(shown.contains(site.pem().trim_end()), "not its certificate: {shown}");
        // Which TLS it is they settle among themselves: the site has 1.3 alone, and says so.
        assert!(
            openssl(router, &["-servername", host, "-tls1_2"]).await.contains("protocol version"),
            "{host}"
        );
    }
    for (proxy, direction) in [(&mesh.caller, "outbound"), (&mesh.callee, "inbound")] {
        let line = proxy.log.line(|line| line["destination"] == "default/ledger").await;
        assert_eq!((&line["direction"], &line["protocol"]), (&direction.into(), &"tcp".into()), "{line}");
        assert_eq!((&line["source"], &line["mtls"]), (&"default/web".into(), &true.into()), "{line}");
    }
}

#[tokio::test]
async fn at_a_virtual_ip_the_name_counts_and_at_an_upstream_the_listener() {
    let mesh = mesh().await;
    let (source, destination) = (Some(service("web")), service("orders"));
    let captured =
        mesh.caller.listener(mesh_proxy::outbound::Entry::Captured { source, destination, port: HTTPS });
    let upstream = mesh.caller.upstream("web", "orders", Some(HTTPS));
    let [orders, ledger] = mesh.sites.each_ref().map(|site| site.pem().trim_end().to_owned());
    assert!(openssl(captured, &["-servername", ORDERS]).await.contains(&orders));
    assert!(openssl(captured, &["-servername", LEDGER]).await.contains(&ledger));
    // Whom an upstream is for its file says, under whatever name the caller knows it.
    assert!(openssl(upstream, &["-servername", "orders.example"]).await.contains(&orders));
    assert!(openssl(upstream, &["-noservername"]).await.contains(&orders));
}

#[tokio::test]
async fn what_names_nobody_is_closed_and_the_log_says_why() {
    let mesh = mesh().await;
    let (source, destination) = (Some(service("web")), service("orders"));
    let captured =
        mesh.caller.listener(mesh_proxy::outbound::Entry::Captured { source, destination, port: HTTPS });
    let router = mesh.caller.host_router();
    let logged = async |words: &str| {
        let words = words.to_owned();
        mesh.caller.log.line(|line| line["reason"].as_str().is_some_and(|why| why.contains(&words))).await
    };
    for (to, count) in [(captured, 1), (router, 2)] {
        assert!(openssl(to, &["-noservername"]).await.contains("missing extension"), "{to}");
        turned_away(&mesh.caller, "no_name", count).await;
    }
    logged("names no server (SNI)").await;
    let unknown = ["example.org", "gone.default.mesh"];
    for (name, count) in unknown.into_iter().zip(1..) {
        assert!(openssl(router, &["-servername", name]).await.contains("unrecognized name"), "{name}");
        turned_away(&mesh.caller, "unknown_name", count).await;
        logged(&format!("names {name}")).await;
    }
    assert!(openssl(router, &["-servername", "plain.default.mesh"]).await.contains("unrecognized name"));
    turned_away(&mesh.caller, "no_port", 1).await;
    let upstream = mesh.caller.upstream("web", "orders", Some(HTTPS));
    for (to, count) in [(captured, 1), (upstream, 2)] {
        let mut other = TcpStream::connect(to).await.expect("connected");
        other.write_all(b"SSH-2.0-OpenSSH_9\r\n").await.expect("written");
        let mut rest = Vec::new();
        // Bytes that nobody read may make it a reset.
        let _ = other.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
        turned_away(&mesh.caller, "not_tls", count).await;
    }
    logged("no ClientHello of TLS came").await;
    assert!(mesh.callee.log.lines().is_empty(), "nothing of it went on");
}

#[tokio::test]
async fn who_may_call_is_said_by_policy_as_for_every_stream() {
    let mut mesh = mesh().await;
    let rules =
        json!([{"name": "bots", "from": [{"services": ["default/bot"]}], "to": [{"ports": [HTTPS]}]}]);
    mesh.world.routes = vec![object(json!({
        "kind": "AuthorizationPolicy", "metadata": {"namespace": "default", "name": "callers"},
        "spec": {"targetRefs": [{"name": "orders"}], "rules": rules},
    }))];
    mesh.world.publish(&[&mesh.caller, &mesh.callee]);
    let router = mesh.caller.host_router();
    let [orders, ledger] = mesh.sites.each_ref().map(|site| site.pem().trim_end().to_owned());
    assert!(!openssl(router, &["-servername", ORDERS]).await.contains(&orders));
    let line = mesh.callee.log.line(|line| line["destination"] == "default/orders").await;
    assert_eq!(line["rule"], "only-allowed", "{line}");
    assert!(openssl(router, &["-servername", LEDGER]).await.contains(&ledger), "it is for one service");
}

/// A ClientHello of rustls for this name, post-quantum share and all.
fn hello(host: &str) -> Vec<u8> {
    let name = host.to_owned().try_into().expect("a host");
    let mut client = rustls::ClientConnection::new(Arc::new(client(&[])), name).expect("a connection");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

fn client(roots: &[&Site]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|site| store.add(site.certificate.clone()).expect("a root"));
    ClientConfig::builder_with_provider(svid::provider().clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth()
}

#[test]
fn a_hello_of_rustls_is_read_wherever_it_is_cut() {
    let whole = hello(ORDERS);
    assert!(whole.len() > 1_200, "it has a post-quantum share: {}", whole.len());
    for length in 0..whole.len() {
        assert_eq!(detect(&whole[..length]), Detected::NeedMore, "{length} of {}", whole.len());
    }
    assert_eq!(detect(&whole), Detected::Tls { server_name: Some(ORDERS.to_owned()) });
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_goes_on_whole() {
    let mesh = mesh().await;
    let router = mesh.caller.host_router();
    // Between a client and the proxy, this passes on a byte at a time.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let between = listener.local_addr().expect("an address");
    let passing = tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("accepted");
        let proxy = TcpStream::connect(router).await.expect("connected");
        proxy.set_nodelay(true).expect("set");
        let ((mut client_reads, mut client_writes), (mut proxy_reads, mut proxy_writes)) =
            (client.into_split(), proxy.into_split());
        let up = async {
            while let Ok(byte) = client_reads.read_u8().await {
                if proxy_writes.write_u8(byte).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(up, tokio::io::copy(&mut proxy_reads, &mut client_writes)).1.expect("copied");
    });
    let stream = TcpStream::connect(between).await.expect("connected");
    let connector = TlsConnector::from(Arc::new(client(&[&mesh.sites[0]])));
    let name = ORDERS.try_into().expect("a host");
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.ends_with(ORDERS), "{answer}");
    drop(stream);
    passing.await.expect("it ran");
}
