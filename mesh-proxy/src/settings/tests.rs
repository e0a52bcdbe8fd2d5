use model::resource::{Port, Protocol};

use super::*;

const SAMPLE: &str = r#"
node = "host-a"
servers = ["https://cp1:8443", "https://[::1]:9443", "https://cp2"]
data_dir = "/tmp/p"
services_dir = "/tmp/s"
advertise = "10.0.0.5"
threads = 2
drain = "3s"
host_router_identity = "default/web"
default_identity = "default/legacy"

[listen]
inbound = "0.0.0.0:15008"
inbound_plain = ""
outbound = []
host_router = ["127.0.0.1:15080", "[::1]:15080"]
dns = ""
admin = ""

[capture]
user = "mesh"
dns = false

[access_log]
output = "/var/log/mesh.log"
"#;

#[track_caller]
fn wrong(text: &str, want: &str) {
    let error = parse_proxy(text, "proxy.toml").expect_err("it must be refused").to_string();
    assert!(error.starts_with(want), "{error}\nis not\n{want}");
}

/// The one user of this host.
fn user(name: &str) -> Result<u32, String> {
    (name == "orders").then_some(1_001).ok_or_else(|| format!("there is no {name}"))
}

#[track_caller]
fn wrong_service(text: &str, want: &str) {
    let error = parse_service(text, "orders.toml", user).expect_err("it must be refused").to_string();
    assert!(error.starts_with(want), "{error}\nis not\n{want}");
}

/// The manual's files of a sort.
fn shown<'a>(manual: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = manual.split(language).skip(1).filter_map(|rest| rest.split_once("```"));
    blocks.map(|(block, _)| block).collect()
}

#[test]
fn what_the_manuals_show_is_read() {
    let manual = include_str!("../../../docs/operating.md");
    let read = shown(manual, "```toml proxy\n").into_iter().map(|text| parse_proxy(text, "proxy.toml"));
    let read: Vec<_> = read.map(|read| read.expect("it is right")).collect();
    let [names, traces] = &read[..] else { panic!("{} files", read.len()) };
    let both = ["127.0.0.1:15053", "[::1]:15053"].map(|address| address.parse().expect("an address"));
    assert_eq!(names.listen.dns.0, both);
    assert!(traces.tracing.traces_url().is_some());

    let manual = include_str!("../../../docs/local-identity.md");
    let [text] = shown(manual, "```toml\n")[..] else { panic!("one file") };
    let file = parse_service(text, "orders.toml", user).expect("it is right");
    assert_eq!(file.service.to_string(), "default/orders");
    assert_ne!(file.binding, Binding::default());
}

#[test]
fn every_key_is_read() {
    let settings = parse_proxy(SAMPLE, "proxy.toml").expect("it is right");
    assert_eq!(settings.node.as_ref().map(Name::as_str), Some("host-a"));
    let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["https://cp1:8443", "https://[::1]:9443", "https://cp2:8443"]);
    assert_eq!(settings.listen.host_router.0.len(), 2);
    assert_eq!(settings.listen.admin, Addresses::default());
    assert_eq!((settings.capture.user.as_str(), settings.capture.dns), ("mesh", Some(false)));
    assert_eq!(settings.access_log.output, Output::File("/var/log/mesh.log".into()));
    assert_eq!((settings.threads(8), settings.drain()), (2, Duration::from_secs(3)));
}

#[test]
fn an_empty_file_is_the_defaults() {
    let settings = parse_proxy("", "proxy.toml").expect("it is right");
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.listen.inbound.0, ["0.0.0.0:15008".parse().expect("an address")]);
    assert_eq!((settings.threads(1), settings.threads(64)), (1, THREADS_DEFAULT));
}

#[test]
fn errors_name_file_line_and_key() {
    wrong("threads = 2\nthread = 3\n", "proxy.toml:2: thread: unknown field `thread`");
    wrong("[listen]\n\nadmin = 15000\n", "proxy.toml:3: listen.admin: must be an address");
    wrong(
        "[listen]\nadmin = \"localhost:15000\"\n",
        "proxy.toml:2: listen.admin: must be an address such as",
    );
    wrong("threads = 0", "proxy.toml:1: threads: must be from 1 to 64, is 0");
    wrong("servers = [\"http://cp1\"]", "proxy.toml:1: servers: must be https://HOST:PORT");
    wrong("node = \"Host_A\"", "proxy.toml:1: node: must be lower-case");
    wrong(
        "[access_log]\noutput = \"journal\"",
        "proxy.toml:2: access_log.output: must be \"stdout\", \"journald\" or a file's path",
    );
    wrong("[tracing]\ncollector = \"localhost:4318\"", "proxy.toml:2: tracing.collector: must be a URL");
    wrong("[tracing]\nsample = 1.5", "proxy.toml:2: tracing.sample: must be from 0 to 1, is 1.5");
    wrong("drain = \"soon\"", "proxy.toml:1: drain: must be a duration");
    wrong("\n[listen\n", "proxy.toml:2: ");
}

#[test]
fn spans_go_to_the_collector_s_path_for_traces() {
    assert_eq!(Settings::default().tracing.traces_url(), None);
    for (text, want) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://c.example/otlp/", "https://c.example/otlp/v1/traces"),
    ] {
        let settings =
            parse_proxy(&format!("[tracing]\ncollector = \"{text}\""), "proxy.toml").expect("valid");
        assert_eq!(settings.tracing.traces_url().as_deref(), Some(want));
    }
}

#[test]
fn what_needs_capture_is_read_and_off_where_nothing_is_said() {
    let text = "[listen]\noutbound = [\"127.0.0.1:15001\", \"[::1]:15001\"]\ndns = \"127.0.0.1:15053\"\ninbound_plain = \"\"\n";
    let settings = parse_proxy(text, "proxy.toml").expect("valid");
    assert_eq!((settings.listen.outbound.0.len(), settings.listen.dns.0.len()), (2, 1));
    let off = Settings::default().listen;
    assert_eq!((off.outbound, off.dns), (Addresses::default(), Addresses::default()));
    wrong(
        "[listen]\ndns = \"15053\"\n",
        "proxy.toml:2: listen.dns: must be an address such as 127.0.0.1:15000",
    );
}

#[test]
fn who_answers_for_other_names_is_said() {
    let read = |value: &str| {
        parse_proxy(&format!("dns_upstream = {value}"), "proxy.toml").map(|read| read.dns_upstream)
    };
    let these = |texts: &[&str]| {
        DnsUpstream::These(texts.iter().map(|text| text.parse().expect("an address")).collect())
    };
    assert_eq!(read("\"\"").expect("valid"), DnsUpstream::Nobody);
    assert_eq!(read("\"system\"").expect("valid"), DnsUpstream::System);
    assert_eq!(read("\"192.0.2.1\"").expect("valid"), these(&["192.0.2.1:53"]));
    let several = read("[\"192.0.2.1:5353\", \"::1\"]").expect("valid");
    assert_eq!(several, these(&["192.0.2.1:5353", "[::1]:53"]));
    wrong("dns_upstream = \"resolver\"", "proxy.toml:1: dns_upstream: must be \"system\"");
}

const ORDERS: &str = r#"
[service]
name = "orders"
namespace = "shop"
port = 8080
service_port = 80
protocol = "http"
unit = "orders.service"
[service.labels]
version = "v2"
[service.check]
http = "/healthz"
interval = "500ms"
[[upstream]]
service = "payments"
listen = "127.0.0.1:9001"
[[upstream]]
service = "other/ledger"
port = 50051
listen = ["127.0.0.1:9002", "[::1]:9002"]
"#;

#[test]
fn a_service_s_file_is_read() {
    let file = parse_service(ORDERS, "orders.toml", user).expect("it is right");
    assert_eq!(file.service.to_string(), "shop/orders");
    assert_eq!(file.target_port.map(Port::value), Some(8_080));
    assert_eq!(file.service_port.map(Port::value), Some(80));
    assert_eq!((file.protocol, file.shared), (Protocol::Http, false));
    assert_eq!(file.binding.unit.as_ref().map(ToString::to_string).as_deref(), Some("orders.service"));
    let check = file.check.expect("it has one");
    assert_eq!(check.kind, CheckKind::Http("/healthz".to_owned()));
    assert_eq!((check.interval, check.timeout), (Timespan::from_millis(500), CHECK_TIMEOUT));
    let upstreams: Vec<_> =
        file.upstreams.iter().map(|up| (up.service.to_string(), up.port, up.listen.len())).collect();
    assert_eq!(
        upstreams,
        [("shop/payments".to_owned(), None, 1), ("other/ledger".to_owned(), Some(50_051), 2)]
    );
}

#[test]
fn who_speaks_for_a_service_is_read() {
    let text = "[service]\nname = \"a\"\nuser = \"orders\"\ncgroup = \"/machine.slice/a\"";
    let binding = parse_service(text, "a.toml", user).expect("it is right").binding;
    assert_eq!((binding.uid, binding.unit), (Some(1_001), None));
    assert_eq!(binding.cgroup.map(|cgroup| cgroup.to_string()).as_deref(), Some("/machine.slice/a"));
    let shared =
        parse_service("[service]\nname = \"a\"\nshared = true", "a.toml", user).expect("it is right");
    assert!(shared.shared && shared.binding.is_empty());
}

#[test]
fn the_least_file_is_a_caller_and_a_port_is_its_own_service_port() {
    let caller = parse_service("[service]\nname = \"web\"", "web.toml", user).expect("it is right");
    assert_eq!((caller.service.to_string().as_str(), caller.target_port), ("default/web", None));
    let server =
        parse_service("[service]\nname = \"web\"\nport = 8080", "web.toml", user).expect("it is right");
    assert_eq!(server.service_port.map(Port::value), Some(8_080));
    assert_eq!((server.protocol, server.check), (Protocol::Auto, None));
}

#[test]
fn a_wrong_service_file_names_line_and_key() {
    wrong_service("", "orders.toml:1: ");
    wrong_service("[service]\nname = \"a\"\nprot = \"http\"", "orders.toml:3: service.prot: unknown field");
    wrong_service("[service]\nname = \"a\"\nport = 70000", "orders.toml:3: service.port: must be a port");
    wrong_service(
        "[service]\nname = \"a\"\nprotocol = \"udp\"",
        "orders.toml:3: service.protocol: must be http,",
    );
    wrong_service("[service]\nname = \"a\"\nservice_port = 80", "orders.toml:1: service.port: is required");
    let check = "[service]\nname = \"a\"\nport = 1\n[service.check]\n";
    wrong_service(&format!("{check}interval = \"5s\""), "orders.toml:4: service.check: needs one of");
    wrong_service(&format!("{check}http = \"healthz\""), "orders.toml:5: service.check.http: must be a path");
    wrong_service(&format!("{check}tcp = true\nhttp = \"/\""), "orders.toml:4: service.check: needs one of");
    wrong_service(&format!("{check}command = []"), "orders.toml:4: service.check: command must name");
    wrong_service(
        "[service]\nname = \"a\"\n[[upstream]]\nservice = \"b\"\nlisten = \"9001\"",
        "orders.toml:5: upstream.listen: must be an address",
    );
    let bound = |line: &str| format!("[service]\nname = \"a\"\n{line}");
    wrong_service(&bound("user = \"nobody\""), "orders.toml:3: service.user: there is no nobody");
    wrong_service(
        &bound("unit = \"orders\""),
        "orders.toml:3: service.unit: must be the whole name of a unit",
    );
    wrong_service(&bound("cgroup = \"/\""), "orders.toml:3: service.cgroup: must be a cgroup below the root");
    wrong_service(&bound("cgroup = \"/a/../b\""), "orders.toml:3: service.cgroup: must be a cgroup");
    let both = "user = \"orders\"\nshared = true";
    wrong_service(&bound(both), "orders.toml:4: service.shared: lets everybody speak for the service");
    wrong_service("[service]\nname = \"a\"\n[service.labels]\n\"-\" = \"b\"", "orders.toml:");
}
