//! Pure. The peers' configurations for the pair: plain in → A → mTLS → B → plain out, with access log and statistics on,
//! as ours has them. Facts about their settings come from their manuals.

use crate::certificates::Certificates;

/// The ports of a pair and of the application behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// HTTP into A.
    pub(crate) a: u16,
    /// HTTP over mTLS into B.
    pub(crate) b: u16,
    /// TCP into A.
    pub(crate) a_tcp: u16,
    /// TCP over mTLS into B.
    pub(crate) b_tcp: u16,
    /// gRPC into A.
    pub(crate) a_grpc: u16,
    /// gRPC over mTLS into B.
    pub(crate) b_grpc: u16,
    /// The application.
    pub(crate) app: u16,
    /// The application that answers gRPC.
    pub(crate) grpc: u16,
}

/// Which side of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Takes plain traffic, sends mTLS.
    A,
    /// Takes mTLS, sends plain traffic.
    B,
}

impl Side {
    /// For file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// The cipher that all use: ours and BoringSSL's first choice where AES is in hardware.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// The application: nginx, 1 KB at `/`, 10 MB at `/big`.
pub(crate) fn application(port: u16, folder: &str) -> String {
    format!(
        "daemon off; master_process off; pid {folder}/app.pid; error_log {folder}/app.err; worker_rlimit_nofile 60000;\n\
         events {{ worker_connections 30000; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; sendfile on; tcp_nopush on;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096;\n\
         location / {{ default_type text/plain; return 200 \"{}\"; }}\n\
         location /big {{ alias {folder}/big.bin; }} }} }}\n",
        "x".repeat(1_024)
    )
}

/// nginx, HTTP/1.1 between the two (it speaks no HTTP/2 upstream).
pub(crate) fn nginx(side: Side, ports: Ports, certificates: &Certificates, folder: &str) -> String {
    let name = side.name();
    let ca = certificates.file("ca.crt");
    let own = |prefix: &str| {
        let (certificate, key) =
            (certificates.file(&format!("{name}.crt")), certificates.file(&format!("{name}.key")));
        format!(
            "{prefix}_certificate {certificate}; {prefix}_certificate_key {key}; {prefix}_protocols TLSv1.3; {prefix}_conf_command Ciphersuites {CIPHER};"
        )
    };
    let head = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.err; worker_rlimit_nofile 60000;\n\
         events {{ worker_connections 30000; }}\n"
    );
    let base = format!(
        "access_log {folder}/{name}.access combined buffer=64k flush=1s; keepalive_requests 1000000000; keepalive_timeout 3600s; proxy_http_version 1.1; proxy_max_temp_file_size 0;"
    );
    let Ports { a, b, a_tcp, b_tcp, app, .. } = ports;
    let keep = "keepalive 512; keepalive_requests 1000000000; keepalive_timeout 3600s;";
    if side == Side::A {
        let up = format!(
            "{} proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name b.mesh.test; proxy_ssl_server_name on;",
            own("proxy_ssl")
        );
        return format!(
            "{head}http {{ {base} upstream b {{ server 127.0.0.1:{b}; {keep} }}\n\
             server {{ listen 127.0.0.1:{a} backlog=4096; location / {{ proxy_pass https://b; proxy_set_header Connection \"\"; {up} }} }} }}\n\
             stream {{ server {{ listen 127.0.0.1:{a_tcp}; proxy_pass 127.0.0.1:{b_tcp}; proxy_ssl on; {up} }} }}\n"
        );
    }
    let tls = format!("{} ssl_client_certificate {ca}; ssl_verify_client on;", own("ssl"));
    format!(
        "{head}http {{ {base} upstream app {{ server 127.0.0.1:{app}; {keep} }}\n\
         server {{ listen 127.0.0.1:{b} ssl backlog=4096; {tls} location / {{ proxy_pass http://app; proxy_set_header Connection \"\"; }} }} }}\n\
         stream {{ server {{ listen 127.0.0.1:{b_tcp} ssl; {tls} proxy_pass 127.0.0.1:{app}; }} }}\n"
    )
}

/// HAProxy, HTTP/2 between the two.
pub(crate) fn haproxy(side: Side, ports: Ports, certificates: &Certificates) -> String {
    let Ports { a, b, a_tcp, b_tcp, a_grpc, b_grpc, app, grpc } = ports;
    let (pem, ca) = (certificates.file(&format!("{}.pem", side.name())), certificates.file("ca.crt"));
    let head = format!(
        "global\n  nbthread 1\n  maxconn 9000\n  log stdout format raw local0\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  ssl-default-server-options ssl-min-ver TLSv1.3\n\
         \x20 ssl-default-bind-ciphersuites {CIPHER}\n  ssl-default-server-ciphersuites {CIPHER}\n\
         defaults\n  log global\n  option httplog\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout http-keep-alive 1h\n  mode http\n  http-reuse always\n"
    );
    if side == Side::A {
        let tls =
            format!("ssl crt {pem} ca-file {ca} verify required verifyhost b.mesh.test sni str(b.mesh.test)");
        return format!(
            "{head}frontend f\n  bind 127.0.0.1:{a} backlog 4096\n  default_backend b\nbackend b\n  balance random(2)\n  server b1 127.0.0.1:{b} {tls} alpn h2 pool-max-conn 1000\n\
             frontend g\n  bind 127.0.0.1:{a_grpc} proto h2\n  default_backend bg\nbackend bg\n  balance random(2)\n  server b1 127.0.0.1:{b_grpc} {tls} alpn h2 pool-max-conn 1000\n\
             listen t\n  mode tcp\n  option tcplog\n  bind 127.0.0.1:{a_tcp}\n  server b1 127.0.0.1:{b_tcp} {tls}\n"
        );
    }
    let tls = format!("ssl crt {pem} ca-file {ca} verify required");
    format!(
        "{head}frontend f\n  bind 127.0.0.1:{b} backlog 4096 {tls} alpn h2,http/1.1\n  default_backend app\nbackend app\n  server app 127.0.0.1:{app} pool-max-conn 1000\n\
         frontend g\n  bind 127.0.0.1:{b_grpc} {tls} alpn h2\n  default_backend grpc\nbackend grpc\n  server app 127.0.0.1:{grpc} proto h2 pool-max-conn 1000\n\
         listen t\n  mode tcp\n  option tcplog\n  bind 127.0.0.1:{b_tcp} {tls}\n  server app 127.0.0.1:{app}\n"
    )
}

/// Envoy, HTTP/2 between the two. JSON, which is YAML.
pub(crate) fn envoy(side: Side, ports: Ports, certificates: &Certificates, folder: &str) -> String {
    let Ports { a, b, a_tcp, b_tcp, a_grpc, b_grpc, app, grpc } = ports;
    let config = if side == Side::A {
        let tls = envoy_tls("UpstreamTlsContext", "a", "b", certificates);
        serde_json::json!({
            "listeners": [envoy_listener("http", a, envoy_http("b", folder, side), None), envoy_listener("tcp", a_tcp, envoy_tcp("b_tcp", folder, side), None),
                envoy_listener("grpc", a_grpc, envoy_http("b_grpc", folder, side), None)],
            "clusters": [envoy_cluster("b", b, true, Some(&tls)), envoy_cluster("b_tcp", b_tcp, false, Some(&tls)),
                envoy_cluster("b_grpc", b_grpc, true, Some(&tls))],
        })
    } else {
        let tls = envoy_tls("DownstreamTlsContext", "b", "a", certificates);
        serde_json::json!({
            "listeners": [envoy_listener("http", b, envoy_http("app", folder, side), Some(&tls)), envoy_listener("tcp", b_tcp, envoy_tcp("app_tcp", folder, side), Some(&tls)),
                envoy_listener("grpc", b_grpc, envoy_http("app_grpc", folder, side), Some(&tls))],
            "clusters": [envoy_cluster("app", app, false, None), envoy_cluster("app_tcp", app, false, None),
                envoy_cluster("app_grpc", grpc, true, None)],
        })
    };
    serde_json::json!({ "static_resources": config }).to_string()
}

fn envoy_type(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

fn envoy_tls(context: &str, own: &str, peer: &str, certificates: &Certificates) -> serde_json::Value {
    let common = serde_json::json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [{"certificate_chain": {"filename": certificates.file(&format!("{own}.crt"))},
            "private_key": {"filename": certificates.file(&format!("{own}.key"))}}],
        "validation_context": {"trusted_ca": {"filename": certificates.file("ca.crt")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": format!("spiffe://mesh.test/{peer}")}}]},
    });
    let mut config = serde_json::json!({"@type": envoy_type(&format!("transport_sockets.tls.v3.{context}")), "common_tls_context": common});
    if context == "UpstreamTlsContext" {
        config["sni"] = "b.mesh.test".into();
    } else {
        config["require_client_certificate"] = true.into();
    }
    serde_json::json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

fn envoy_listener(
    name: &str,
    port: u16,
    filter: serde_json::Value,
    tls: Option<&serde_json::Value>,
) -> serde_json::Value {
    let mut chain = serde_json::json!({"filters": [filter]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls.clone();
    }
    serde_json::json!({"name": name, "filter_chains": [chain],
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}})
}

fn envoy_log(folder: &str, side: Side) -> serde_json::Value {
    serde_json::json!([{"name": "envoy.access_loggers.file", "typed_config": {
        "@type": envoy_type("access_loggers.file.v3.FileAccessLog"), "path": format!("{folder}/{}.access", side.name())}}])
}

fn envoy_http(cluster: &str, folder: &str, side: Side) -> serde_json::Value {
    serde_json::json!({"name": "http", "typed_config": {
        "@type": envoy_type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in", "codec_type": "AUTO", "access_log": envoy_log(folder, side),
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "60s"}}]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": envoy_type("filters.http.router.v3.Router")}}]}})
}

fn envoy_tcp(cluster: &str, folder: &str, side: Side) -> serde_json::Value {
    serde_json::json!({"name": "tcp", "typed_config": {"@type": envoy_type("filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "t", "cluster": cluster, "access_log": envoy_log(folder, side)}})
}

fn envoy_cluster(name: &str, port: u16, h2: bool, tls: Option<&serde_json::Value>) -> serde_json::Value {
    let many = serde_json::json!({"max_connections": 100_000, "max_requests": 100_000, "max_pending_requests": 100_000});
    let protocol = if h2 { "http2_protocol_options" } else { "http_protocol_options" };
    let mut cluster = serde_json::json!({"name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": envoy_type("upstreams.http.v3.HttpProtocolOptions"), "explicit_http_config": {protocol: {}}}}});
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls.clone();
    }
    cluster
}
