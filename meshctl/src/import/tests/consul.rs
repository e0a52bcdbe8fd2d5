use super::{
    super::{Source, Verdict, consul},
    same, setting,
};

/// The files of a text: each begins with `== NAME`.
fn files(text: &str) -> Vec<Source> {
    let parts = text.strip_prefix("== ").unwrap_or(text).split("\n== ");
    let file = |part: &str| {
        part.split_once('\n').map(|(file, text)| Source { file: file.to_owned(), text: text.to_owned() })
    };
    parts.filter_map(file).collect()
}

#[track_caller]
fn check(text: &str, want: &[&str], told: &[&str]) {
    let sources = if text.starts_with("== ") { files(text) } else { files(&format!("== a\n{text}")) };
    let imported = consul(&sources, setting(Verdict::open())).expect("it is read");
    same(&imported, want, told);
}

#[test]
fn a_chain_becomes_one_route() {
    check(
        r#"== web.hcl
Kind = "service-router"
Name = "web"
Routes = [
  {
    Match { HTTP { PathExact = "/health" } }
    Destination { Service = "monitor", PrefixRewrite = "/healthz" }
  },
  {
    Match { HTTP { PathPrefix = "/admin/", Methods = ["GET", "post"] } }
    Destination {
      Service = "admin"
      PrefixRewrite = "/"
      RequestTimeout = "10s"
      NumRetries = 3
      RetryOnConnectFailure = true
      RetryOnStatusCodes = [503]
    }
  },
  {
    Match { HTTP {
      PathRegex = "/v[0-9]+/.*"
      Header = [{ Name = "x-beta", Exact = "1" }, { Name = "x-on", Present = true }, { Name = "x-id", Prefix = "a.", IgnoreCase = true }]
      QueryParam = [{ Name = "q", Regex = "a+" }]
    } }
    Destination { ServiceSubset = "v2", ResponseHeaders { Add { x-from = "v2" }, Remove = ["server"] } }
  },
]
== split.json
{"Kind": "service-splitter", "Name": "web", "Splits": [
  {"Weight": 90, "ServiceSubset": "v1", "RequestHeaders": {"Set": {"x-web": "v1"}}},
  {"Weight": 9.5, "ServiceSubset": "v2"},
  {"Weight": 0.5, "Service": "web-next"}
], "Meta": {"team": "shop"}, "CreateIndex": 10, "ModifyIndex": 11}
== resolve.hcl
kind = "service-resolver"
name = "web"
default_subset = "v1"
connect_timeout = "5s"
request_timeout = "1m30s"
subsets = {
  v1 = { filter = "Service.Meta.version == v1" }
  v2 = { filter = "\"v2\" in Service.Tags" }
}
load_balancer {
  policy = "maglev"
  hash_policies = [{ field = "header", field_value = "x-user", terminal = true }]
}
== moved.json
{"Kind": "service-resolver", "Name": "web-next", "Redirect": {"Service": "web", "ServiceSubset": "v2"}}
"#,
        &[
            r#"Service default/web {"ports":[{"port":80,"protocol":"http"}],"subsets":[{"labels":{"version":"v1"},"name":"v1"},{"labels":{"v2":"true"},"name":"v2"}]}"#,
            r#"HTTPRoute default/web {"parentRefs":[{"name":"web"}],"rules":[{"backendRefs":[{"name":"monitor","port":80}],"filters":[{"type":"URLRewrite","urlRewrite":{"path":{"replaceFullPath":"/healthz","type":"ReplaceFullPath"}}}],"matches":[{"path":{"type":"Exact","value":"/health"}}]},{"backendRefs":[{"name":"admin","port":80}],"filters":[{"type":"URLRewrite","urlRewrite":{"path":{"replacePrefixMatch":"/","type":"ReplacePrefixMatch"}}}],"matches":[{"method":"GET","path":{"type":"PathPrefix","value":"/admin/"}}],"retry":{"attempts":3,"codes":[503],"conditions":["ConnectFailure"]},"timeouts":{"request":"10s"}},{"backendRefs":[{"name":"admin","port":80}],"filters":[{"type":"URLRewrite","urlRewrite":{"path":{"replacePrefixMatch":"/","type":"ReplacePrefixMatch"}}}],"matches":[{"method":"POST","path":{"type":"PathPrefix","value":"/admin/"}}],"retry":{"attempts":3,"codes":[503],"conditions":["ConnectFailure"]},"timeouts":{"request":"10s"}},{"backendRefs":[{"name":"web","port":80,"subset":"v2"}],"filters":[{"responseHeaderModifier":{"add":[{"name":"x-from","value":"v2"}],"remove":["server"]},"type":"ResponseHeaderModifier"}],"matches":[{"headers":[{"name":"x-beta","type":"Exact","value":"1"},{"name":"x-on","type":"RegularExpression","value":".*"},{"name":"x-id","type":"RegularExpression","value":"(?i)a\\..*"}],"path":{"type":"RegularExpression","value":"/v[0-9]+/.*"},"queryParams":[{"name":"q","type":"RegularExpression","value":"a+"}]}]},{"backendRefs":[{"filters":[{"requestHeaderModifier":{"set":[{"name":"x-web","value":"v1"}]},"type":"RequestHeaderModifier"}],"name":"web","port":80,"subset":"v1","weight":180},{"name":"web","port":80,"subset":"v2","weight":19},{"name":"web","port":80,"subset":"v2"}]}]}"#,
            r#"TCPRoute default/web-next {"parentRefs":[{"name":"web-next"}],"rules":[{"backendRefs":[{"name":"web","port":80,"subset":"v2"}]}]}"#,
            r#"TrafficPolicy default/web {"loadBalancer":{"hashOn":[{"name":"x-user","type":"Header"}],"type":"Maglev"},"targetRefs":[{"kind":"Service","name":"web"}],"timeouts":{"connect":"5s","request":"1m30s"}}"#,
        ],
        &["9 service-router web: Routes[1].Match.HTTP.PathPrefix differs"],
    );
}

#[test]
fn what_is_not_known_or_cannot_be_said_is_told() {
    check(
        r#"Kind = "service-router"
Name = "web"
Routes = [
  { Match { HTTP { PathPrefix = "/a" } }, Destination { Service = "a", IdleTimeout = "5s", Teapot = 1 } },
  { Match { HTTP { Header = [{ Name = "x", Exact = "1", Invert = true }] } }, Destination { Service = "b" } },
  { Match { HTTP { PathExact = "/a/x" } }, Destination { Service = "c", RetryOn = ["cancelled"] } },
  { Match { HTTP { PathRegex = "/r/.*" } }, Destination { Service = "d", PrefixRewrite = "/" } },
  { Destination { Service = "Bad_Name" } },
  { Destination { Service = "e", Namespace = "shop", Partition = "east" } },
]
ServerSideTeapot = true
"#,
        &[
            r#"Service default/web {"ports":[{"port":80,"protocol":"http"}]}"#,
            r#"HTTPRoute default/web {"parentRefs":[{"name":"web"}],"rules":[{"backendRefs":[{"name":"a","port":80}],"matches":[{"path":{"type":"PathPrefix","value":"/a"}}]},{"backendRefs":[{"name":"c","port":80}],"matches":[{"path":{"type":"Exact","value":"/a/x"}}]},{"backendRefs":[{"name":"d","port":80}],"matches":[{"path":{"type":"RegularExpression","value":"/r/.*"}}]},{"backendRefs":[{"name":"web","port":80}]}]}"#,
        ],
        &[
            "4 service-router web: Routes[0].Match.HTTP.PathPrefix differs",
            "4 service-router web: Routes[0].Destination.IdleTimeout lost",
            "4 service-router web: Routes[0].Destination.Teapot lost",
            "5 service-router web: Routes[1].Match.HTTP.Header[0].Invert lost",
            "6 service-router web: Routes[2].Destination.RetryOn[0] lost",
            "6 service-router web: Routes[2] differs",
            "7 service-router web: Routes[3] lost",
            "8 service-router web: Routes[4].Destination.Service lost",
            "9 service-router web: Routes[5].Destination.Partition lost",
            "11 service-router web: ServerSideTeapot lost",
        ],
    );
}

#[test]
fn what_nothing_here_stands_for_is_told() {
    check(
        r#"[
 {"Kind": "service-resolver", "Name": "db", "Failover": {"*": {"Datacenters": ["dc2"]}}, "PrioritizeByLocality": {"Mode": "failover"},
  "Subsets": {"v1": {"Filter": "Service.ID == db-1"}, "V2": {"Filter": "Service.Meta.v == 2"}, "v3": {"OnlyPassing": true}},
  "LoadBalancer": {"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 64}, "HashPolicies": [{"SourceIP": true}, {"Field": "query_parameter", "FieldValue": "q"}]}},
 {"Kind": "service-splitter", "Name": "api", "Splits": [{"Weight": 50}, {"Weight": 50, "Service": "other", "Partition": "east"}]},
 {"Kind": "service-defaults", "Name": "db", "Protocol": "mongo", "MaxInboundConnections": 5, "MutualTLSMode": "none",
  "UpstreamConfig": {"Defaults": {"ConnectTimeoutMs": 100}}, "Destination": {"Addresses": ["db.example"], "Port": 5432},
  "MeshGateway": {}, "Expose": {"Checks": true}, "RateLimits": {"InstanceLevel": {"RequestsPerSecond": 10, "Routes": [{"PathExact": "/x", "RequestsPerSecond": 0.5}]}}},
 {"Kind": "ingress-gateway", "Name": "in"},
 {"Kind": "service-defaults"},
 {"Name": "web"}
]"#,
        &[
            r#"Service default/api {"ports":[{"port":80,"protocol":"http"}]}"#,
            r#"HTTPRoute default/api {"parentRefs":[{"name":"api"}],"rules":[{"backendRefs":[{"name":"api","port":80}]}]}"#,
            r#"TrafficPolicy default/db {"loadBalancer":{"hashOn":[{"type":"Source"}],"type":"RingHash"},"rateLimits":[{"requests":10},{"matches":[{"path":{"type":"Exact","value":"/x"}}],"requests":1}],"targetRefs":[{"kind":"Service","name":"db"}]}"#,
        ],
        &[
            "2 service-resolver db: Failover lost",
            "2 service-resolver db: PrioritizeByLocality lost",
            "3 service-resolver db: Subsets.v1.Filter lost",
            "3 service-resolver db: Subsets.V2 lost",
            "3 service-resolver db: Subsets.v3.OnlyPassing lost",
            "3 service-resolver db: Subsets.v3 lost",
            "4 service-resolver db: LoadBalancer.RingHashConfig lost",
            "4 service-resolver db: LoadBalancer.HashPolicies[0].SourceIP differs",
            "4 service-resolver db: LoadBalancer.HashPolicies[1] lost",
            "5 service-splitter api: Splits[1].Partition lost",
            "5 service-splitter api differs",
            "6 service-defaults db: Protocol lost",
            "6 service-defaults db: MutualTLSMode lost",
            "6 service-defaults db: MaxInboundConnections lost",
            "7 service-defaults db: Destination lost",
            "7 service-defaults db: UpstreamConfig lost",
            "8 service-defaults db: Expose lost",
            "8 service-defaults db: RateLimits.InstanceLevel.Routes[0].RequestsPerSecond differs",
            "8 service-defaults db: RateLimits.InstanceLevel.Routes[0] differs",
            "9 ingress-gateway in lost",
            "10 service-defaults lost",
            "11 [5] lost",
        ],
    );
}

#[test]
fn defaults_are_ports_modes_rates_and_times() {
    check(
        r#"== all.hcl
Kind = "proxy-defaults"
Name = "global"
MutualTLSMode = "permissive"
Config {
  protocol = "http"
  local_connect_timeout_ms = 1000
}
AccessLogs { Enabled = true }
== orders.hcl
Kind = "service-defaults"
Name = "orders"
Protocol = "grpc"
MutualTLSMode = "strict"
LocalRequestTimeoutMs = 1500
RateLimits { InstanceLevel { RequestsPerSecond = 100, RequestsMaxBurst = 200 } }
== ledger.hcl
Kind = "service-resolver"
Name = "ledger"
DefaultSubset = "v1"
Subsets { v1 { Filter = "Service.Meta.version == 1" } }
== old.hcl
Kind = "service-resolver"
Name = "old"
Redirect { Service = "new", Namespace = "shop" }
"#,
        &[
            r#"Service default/ledger {"ports":[{"port":80,"protocol":"http"}],"subsets":[{"labels":{"version":"1"},"name":"v1"}]}"#,
            r#"Service default/old {"ports":[{"port":80,"protocol":"http"}]}"#,
            r#"Service default/orders {"ports":[{"port":80,"protocol":"grpc"}]}"#,
            r#"HTTPRoute default/ledger {"parentRefs":[{"name":"ledger"}],"rules":[{"backendRefs":[{"name":"ledger","port":80,"subset":"v1"}]}]}"#,
            r#"HTTPRoute default/old {"parentRefs":[{"name":"old"}],"rules":[{"backendRefs":[{"name":"new","namespace":"shop","port":80}]}]}"#,
            r#"TrafficPolicy default/orders {"rateLimits":[{"burst":200,"requests":100}],"targetRefs":[{"kind":"Service","name":"orders"}],"timeouts":{"request":"1s500ms"}}"#,
            r#"PeerAuthentication mesh-system/mesh {"mode":"Permissive"}"#,
            r#"PeerAuthentication default/orders {"mode":"Strict","targetRefs":[{"kind":"Service","name":"orders"}]}"#,
        ],
        &[
            "6 proxy-defaults global: Config.local_connect_timeout_ms lost",
            "8 proxy-defaults global: AccessLogs lost",
        ],
    );
}

#[test]
fn streams_go_by_a_route_of_their_own() {
    check(
        "Kind = \"service-resolver\"\nName = \"db\"\nRedirect { Service = \"db2\" }\n",
        &[
            r#"TCPRoute default/db {"parentRefs":[{"name":"db"}],"rules":[{"backendRefs":[{"name":"db2","port":80}]}]}"#,
        ],
        &[],
    );
}

#[test]
fn intentions_of_both_forms_become_policies() {
    check(
        r#"== web.hcl
Kind = "service-intentions"
Name = "web"
Sources = [
  { Name = "api", Action = "allow", Precedence = 9, Type = "consul", Description = "as ever" },
  { Name = "*", Action = "deny" },
  { Name = "ops", Permissions = [
    { Action = "allow", HTTP { PathExact = "/ok" } },
    { Action = "deny", HTTP { PathPrefix = "/admin", Header = [{ Name = "x-a", Exact = "1" }] } },
    { Action = "allow", HTTP { Methods = ["GET"], Header = [{ Name = "x-a", Exact = "1" }, { Name = "x-b", Present = true }] }, JWT { Providers = [{ Name = "okta" }] } },
  ] },
  { Name = "far", Peer = "other", Action = "allow" },
]
== list.json
[{"ID": "1", "SourceNS": "default", "SourceName": "web", "DestinationNS": "default", "DestinationName": "db", "SourceType": "consul",
  "Action": "allow", "Precedence": 9, "CreatedAt": "2024-01-01T00:00:00Z", "CreateIndex": 1, "Hash": "aa"},
 {"ID": "2", "SourceName": "*", "DestinationName": "db", "Action": "maybe", "Teapot": 1}]
"#,
        &[
            r#"AuthorizationPolicy default/db-callers {"action":"Allow","rules":[{"from":[{"services":["default/web"]}]}],"targetRefs":[{"kind":"Service","name":"db"}]}"#,
            r#"AuthorizationPolicy default/web-callers {"action":"Allow","rules":[{"from":[{"services":["default/api","default/ops"]}]}],"targetRefs":[{"kind":"Service","name":"web"}]}"#,
            r#"AuthorizationPolicy default/web-refused {"action":"Deny","rules":[{"from":[{"services":["default/ops"]}],"to":[{"paths":[{"type":"RegularExpression","value":"/admin.*"}]}],"when":[{"header":"x-a","values":["1"]}]}],"targetRefs":[{"kind":"Service","name":"web"}]}"#,
        ],
        &[
            "8 service-intentions web: Sources[2].Permissions[1] differs",
            "9 service-intentions web: Sources[2].Permissions[2].HTTP lost",
            "9 service-intentions web: Sources[2].Permissions[2].HTTP.Header[1] lost",
            "9 service-intentions web: Sources[2].Permissions[2].JWT lost",
            "11 service-intentions web: Sources[3].Peer lost",
            "3 intention * -> db: Action lost",
            "3 intention * -> db: Teapot lost",
        ],
    );
}

#[test]
fn faults_of_syntax_name_the_file_and_the_line() {
    let fault = |text: &str| consul(&files(text), setting(Verdict::open())).expect_err("it is wrong");
    assert_eq!(
        fault("== a\nKind = \"x\"\n== b\nKind = [\n"),
        "b: not HCL: line 2: \"\" is no value: texts stand in quotes, and expressions are not read"
    );
    assert!(fault("== b\n{\"Kind\": }").starts_with("b: not JSON: "));
}
