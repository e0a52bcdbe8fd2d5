use super::{
    super::{Source, Verdict, kuma},
    same, setting,
};

#[track_caller]
fn check(text: &str, want: &[&str], told: &[&str]) {
    let sources = [Source { file: "a".to_owned(), text: text.to_owned() }];
    let imported = kuma(&sources, setting(Verdict::closed())).expect("it is read");
    same(&imported, want, told);
}

#[test]
fn both_forms_are_the_same() {
    check(
        r#"
type: MeshTimeout
name: orders
mesh: default
spec:
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: MeshService, name: orders}
    default: {connectionTimeout: 2s, idleTimeout: 1h, http: {requestTimeout: 15s, streamIdleTimeout: 30m}}
---
apiVersion: kuma.io/v1alpha1
kind: MeshTimeout
metadata:
  name: pay
  namespace: kuma-system
  labels: {kuma.io/mesh: default}
spec:
  to:
  - targetRef: {kind: MeshService, name: payments_shop_svc_8080}
    default: {http: {requestTimeout: 1.5s}}
---
apiVersion: v1
kind: List
items:
- apiVersion: kuma.io/v1alpha1
  kind: MeshTimeout
  metadata: {name: own, namespace: shop, resourceVersion: "7"}
  spec:
    targetRef: {kind: Mesh}
    to:
    - targetRef: {kind: MeshService, name: web, namespace: front}
      default: {idleTimeout: 5m}
    - targetRef: {kind: Mesh}
      default: {http: {requestTimeout: 60s}}
"#,
        &[
            "Namespace shop null",
            r#"TrafficPolicy default/orders {"targetRefs":[{"kind":"Service","name":"orders"}],"timeouts":{"connect":"2s","idle":"1h","request":"15s"}}"#,
            r#"TrafficPolicy shop/payments {"targetRefs":[{"kind":"Service","name":"payments"}],"timeouts":{"request":"1s500ms"}}"#,
        ],
        &[
            "9 MeshTimeout orders: spec.to[0].default.http.streamIdleTimeout lost",
            "31 MeshTimeout own: spec.to[0] lost",
            "33 MeshTimeout own: spec.to[1] lost",
        ],
    );
}

#[test]
fn permissions_close_what_they_do_not_open() {
    check(
        r#"
type: MeshTrafficPermission
name: all
spec:
  targetRef: {kind: Mesh}
  from:
  - targetRef: {kind: MeshService, name: monitor}
    default: {action: Allow}
---
type: MeshTrafficPermission
name: orders
spec:
  targetRef: {kind: MeshSubset, tags: {kuma.io/service: orders_shop_svc_8080}}
  from:
  - targetRef: {kind: MeshService, name: web_shop_svc_80}
    default: {action: ALLOW}
  - targetRef: {kind: MeshService, name: monitor}
    default: {action: DENY}
  - targetRef: {kind: MeshSubset, tags: {env: dev}}
    default: {action: Allow}
---
type: MeshTrafficPermission
name: ids
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/service: db}}
  rules:
  - default:
      allow: [{spiffeID: {type: Exact, value: "spiffe://default/web"}}, {spiffeID: {type: Prefix, value: "spiffe://default/"}}]
      allowWithShadowDeny: [{spiffeID: {type: Exact, value: "spiffe://default/api"}}]
"#,
        &[
            "Namespace shop null",
            r#"AuthorizationPolicy mesh-system/all-callers {"action":"Allow","rules":[{"from":[{"services":["default/monitor"]}]}]}"#,
            r#"AuthorizationPolicy default/db-callers {"action":"Allow","rules":[{"from":[{"services":["default/api","default/monitor","default/web"]}]}],"targetRefs":[{"kind":"Service","name":"db"}]}"#,
            r#"AuthorizationPolicy shop/orders-callers {"action":"Allow","rules":[{"from":[{"services":["shop/web"]}]}],"targetRefs":[{"kind":"Service","name":"orders"}]}"#,
            r#"AuthorizationPolicy shop/orders-refused {"action":"Deny","rules":[{"from":[{"services":["default/monitor"]}]}],"targetRefs":[{"kind":"Service","name":"orders"}]}"#,
        ],
        &[
            "19 MeshTrafficPermission orders: spec.from[2].targetRef lost",
            "28 MeshTrafficPermission ids: spec.rules[0].default.allow[1] lost",
            "29 MeshTrafficPermission ids: spec.rules[0].default.allowWithShadowDeny[0] differs",
        ],
    );
    check(
        r#"
type: MeshTrafficPermission
name: open
spec:
  targetRef: {kind: Mesh}
  from:
  - {targetRef: {kind: Mesh}, default: {action: Allow}}
  - {targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}
"#,
        &[r#"AuthorizationPolicy mesh-system/all-callers {"action":"Allow","rules":[]}"#],
        &[
            "7 MeshTrafficPermission open: spec.from[0] lost",
            "8 MeshTrafficPermission open: spec.from[1].targetRef lost",
        ],
    );
}

/// Kuma takes the later of two entries of a policy, and of two policies for the same the later by name.
#[test]
fn who_may_be_refused_by_an_entry_that_comes_later_is_not_let_in() {
    check(
        r#"
type: MeshTrafficPermission
name: a
spec:
  targetRef: {kind: MeshService, name: orders}
  from:
  - {targetRef: {kind: MeshService, name: early}, default: {action: Allow}}
  - {targetRef: {kind: Mesh}, default: {action: Deny}}
  - {targetRef: {kind: MeshService, name: late}, default: {action: Allow}}
---
type: MeshTrafficPermission
name: b
spec:
  targetRef: {kind: MeshService, name: orders}
  from:
  - {targetRef: {kind: MeshService, name: other}, default: {action: Allow}}
---
type: MeshTrafficPermission
name: c
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/service: db}}
  rules:
  - default:
      deny: [{spiffeID: {type: Prefix, value: "spiffe://default/"}}]
      allow: [{spiffeID: {type: Exact, value: "spiffe://default/web"}}]
"#,
        &[
            r#"AuthorizationPolicy mesh-system/all-callers {"action":"Allow","rules":[]}"#,
            r#"AuthorizationPolicy default/db-callers {"action":"Allow","rules":[],"targetRefs":[{"kind":"Service","name":"db"}]}"#,
            r#"AuthorizationPolicy default/orders-callers {"action":"Allow","rules":[{"from":[{"services":["default/late"]}]}],"targetRefs":[{"kind":"Service","name":"orders"}]}"#,
        ],
        &[
            "7 MeshTrafficPermission a: spec.from[0] lost",
            "16 MeshTrafficPermission b: spec.from[0] lost",
            "24 MeshTrafficPermission c: spec.rules[0].default.deny[0] lost",
            "25 MeshTrafficPermission c: spec.rules[0].default.allow[0] lost",
        ],
    );
    check(
        r#"
type: MeshTrafficPermission
name: a
spec:
  targetRef: {kind: MeshService, name: orders}
  from:
  - {targetRef: {kind: MeshService, name: web}, default: {action: Allow}}
---
type: MeshTrafficPermission
name: b
spec:
  targetRef: {kind: MeshSubset, tags: {env: dev}}
  from:
  - {targetRef: {kind: MeshService, name: web}, default: {action: Deny}}
"#,
        &[
            r#"AuthorizationPolicy mesh-system/all-callers {"action":"Allow","rules":[]}"#,
            r#"AuthorizationPolicy default/orders-callers {"action":"Allow","rules":[],"targetRefs":[{"kind":"Service","name":"orders"}]}"#,
        ],
        &["7 MeshTrafficPermission a: spec.from[0] lost", "12 MeshTrafficPermission b: spec.targetRef lost"],
    );
}

#[test]
fn routes_of_a_service_are_one_route() {
    check(
        r#"
type: MeshHTTPRoute
name: canary
spec:
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: MeshService, name: orders}
    rules:
    - matches:
      - path: {type: PathPrefix, value: /api}
        method: GET
        headers: [{type: Exact, name: x-v, value: "2"}, {type: Present, name: x-on}, {type: Prefix, name: x-p, value: a.}]
        queryParams: [{type: RegularExpression, name: q, value: a+}]
      default:
        filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: "1"}], remove: [x-b]}}
        - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
        - {type: RequestMirror, requestMirror: {percentage: 12.5, backendRef: {kind: MeshService, name: shadow, port: 81}}}
        backendRefs:
        - {kind: MeshServiceSubset, name: orders, tags: {version: v2}, weight: 90}
        - {kind: MeshService, name: orders-next, weight: 10}
    - matches: [{path: {type: Exact, value: /old}}]
      default:
        filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
    - matches: [{headers: [{type: Absent, name: x}]}]
      default: {backendRefs: [{kind: MeshService, name: other}]}
---
type: MeshHTTPRoute
name: of-bot
spec:
  targetRef: {kind: MeshService, name: bot}
  to:
  - targetRef: {kind: MeshService, name: orders}
    rules:
    - matches: [{path: {type: PathPrefix, value: /}}]
      default: {backendRefs: [{kind: MeshService, name: orders-slow}]}
  - targetRef: {kind: MeshExternalService, name: far}
    rules: []
---
type: MeshTCPRoute
name: db
spec:
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: MeshService, name: db}
    rules:
    - default: {backendRefs: [{kind: MeshService, name: db-a, port: 5432, weight: 9}, {kind: MeshService, name: db-b, port: 5432, weight: 1}]}
"#,
        &[
            r#"Service default/orders {"ports":[{"port":80,"protocol":"http"}],"subsets":[{"labels":{"version":"v2"},"name":"v2"}]}"#,
            r#"HTTPRoute default/orders {"parentRefs":[{"name":"orders"}],"rules":[{"backendRefs":[{"name":"orders","port":80,"subset":"v2","weight":90},{"name":"orders-next","port":80,"weight":10}],"filters":[{"requestHeaderModifier":{"remove":["x-b"],"set":[{"name":"x-a","value":"1"}]},"type":"RequestHeaderModifier"},{"type":"URLRewrite","urlRewrite":{"path":{"replacePrefixMatch":"/","type":"ReplacePrefixMatch"}}},{"requestMirror":{"backendRef":{"name":"shadow","port":81},"fraction":{"denominator":10000,"numerator":1250}},"type":"RequestMirror"}],"matches":[{"headers":[{"name":"x-v","type":"Exact","value":"2"},{"name":"x-on","type":"RegularExpression","value":".*"},{"name":"x-p","type":"RegularExpression","value":"a\\..*"}],"method":"GET","path":{"type":"PathPrefix","value":"/api"},"queryParams":[{"name":"q","type":"RegularExpression","value":"a+"}]}]},{"filters":[{"requestRedirect":{"hostname":"new.example","path":{"replaceFullPath":"/new","type":"ReplaceFullPath"},"scheme":"https","statusCode":301},"type":"RequestRedirect"}],"matches":[{"path":{"type":"Exact","value":"/old"}}]},{"backendRefs":[{"name":"orders-slow","port":80}],"matches":[{"path":{"type":"PathPrefix","value":"/"},"sources":["default/bot"]}]},{"backendRefs":[{"name":"orders","port":80}]}]}"#,
            r#"TCPRoute default/db {"parentRefs":[{"name":"db"}],"rules":[{"backendRefs":[{"name":"db-a","port":5432,"weight":9},{"name":"db-b","port":5432,"weight":1}]}]}"#,
        ],
        &[
            "25 MeshHTTPRoute canary: spec.to[0].rules[2].matches[0].headers[0] lost",
            "37 MeshHTTPRoute of-bot: spec.to[1].targetRef lost",
        ],
    );
}

#[test]
fn conduct_is_one_policy_of_the_called_service() {
    check(
        r#"
type: MeshRetry
name: r
spec:
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: Mesh}
    default: {http: {numRetries: 3, perTryTimeout: 2s, backOff: {baseInterval: 20ms, maxInterval: 1s}, retryOn: [5xx, "503", HTTP_METHOD_GET]}}
  - targetRef: {kind: MeshService, name: ledger}
    default: {grpc: {numRetries: 2, retryOn: [Unavailable, RESOURCE_EXHAUSTED]}, tcp: {maxConnectAttempt: 5}}
---
type: MeshCircuitBreaker
name: c
spec:
  to:
  - targetRef: {kind: MeshService, name: ledger}
    default:
      connectionLimits: {maxConnections: 10, maxRequests: 20, maxConnectionPools: 2}
      outlierDetection:
        interval: 5s
        baseEjectionTime: 10m
        maxEjectionPercent: 20
        detectors: {totalFailures: {consecutive: 7}, failurePercentage: {requestVolume: 30, minimumHosts: 3, threshold: 85}, successRate: {standardDeviationFactor: 1.9}}
---
type: MeshHealthCheck
name: h
spec:
  to:
  - targetRef: {kind: MeshService, name: ledger}
    default: {interval: 10s, timeout: 2s, unhealthyThreshold: 3, healthyThreshold: 1, http: {path: /healthz, expectedStatuses: [200, 404]}, initialJitter: 1s}
"#,
        &[
            r#"TrafficPolicy mesh-system/all {"retry":{"attempts":3,"backoff":"20ms","codes":[503],"conditions":["ServerError","Reset","ConnectFailure","Refused"],"perTryTimeout":"2s"}}"#,
            r#"TrafficPolicy default/ledger {"healthCheck":{"healthyThreshold":1,"http":{"path":"/healthz"},"interval":"10s","timeout":"2s","unhealthyThreshold":3},"limits":{"maxConnections":10,"maxRequests":20},"outlierDetection":{"baseEjectionTime":"10m","consecutiveErrors":7,"interval":"5s","maxEjectionPercent":20,"maxEjectionTime":"10m","minRequests":30,"successRate":15},"retry":{"attempts":2,"backoff":"20ms","codes":[503],"conditions":["ServerError","Reset","ConnectFailure","Refused"],"grpcCodes":["Unavailable","ResourceExhausted"],"perTryTimeout":"2s"},"targetRefs":[{"kind":"Service","name":"ledger"}]}"#,
        ],
        &[
            "8 MeshRetry r: spec.to[0].default.http.backOff.maxInterval lost",
            "8 MeshRetry r: spec.to[0].default.http.retryOn[2] lost",
            "10 MeshRetry r: spec.to[1].default.tcp lost",
            "18 MeshCircuitBreaker c: spec.to[0].default.connectionLimits.maxConnectionPools lost",
            "19 MeshCircuitBreaker c: spec.to[0].default.outlierDetection differs",
            "23 MeshCircuitBreaker c: spec.to[0].default.outlierDetection.detectors.failurePercentage.minimumHosts lost",
            "23 MeshCircuitBreaker c: spec.to[0].default.outlierDetection.detectors.successRate lost",
            "30 MeshHealthCheck h: spec.to[0].default.initialJitter lost",
            "30 MeshHealthCheck h: spec.to[0].default.http.expectedStatuses lost",
        ],
    );
}

#[test]
fn balancing_and_rates_are_its_too() {
    check(
        r#"
type: MeshLoadBalancingStrategy
name: l
spec:
  to:
  - targetRef: {kind: MeshService, name: ledger}
    default: {loadBalancer: {type: RingHash, ringHash: {hashFunction: XX_HASH, hashPolicies: [{type: Header, header: {name: x-user}, terminal: true}, {type: Connection, connection: {sourceIP: true}}]}}}
  - targetRef: {kind: MeshService, name: web}
    default: {localityAwareness: {crossZone: {failoverThreshold: {percentage: 60}}}, loadBalancer: {type: LeastRequest, leastRequest: {choiceCount: 4}}}
---
type: MeshRateLimit
name: rl
spec:
  targetRef: {kind: MeshService, name: web}
  from:
  - targetRef: {kind: Mesh}
    default: {local: {http: {requestRate: {num: 100, interval: 10s}, onRateLimit: {status: 423}}}}
  - targetRef: {kind: MeshService, name: bot}
    default: {local: {http: {requestRate: {num: 1, interval: 1s}}}}
"#,
        &[
            r#"TrafficPolicy default/ledger {"loadBalancer":{"hashOn":[{"name":"x-user","type":"Header"},{"type":"Source"}],"type":"RingHash"},"targetRefs":[{"kind":"Service","name":"ledger"}]}"#,
            r#"TrafficPolicy default/web {"loadBalancer":{"type":"LeastRequest","zones":{"spillOverBelow":60}},"rateLimits":[{"per":"10s","requests":100},{"matches":[{"sources":["default/bot"]}],"per":"1s","requests":1}],"targetRefs":[{"kind":"Service","name":"web"}]}"#,
        ],
        &[
            "7 MeshLoadBalancingStrategy l: spec.to[0].default.loadBalancer.ringHash.hashPolicies[1] differs",
            "7 MeshLoadBalancingStrategy l: spec.to[0].default.loadBalancer.ringHash.hashFunction lost",
            "9 MeshLoadBalancingStrategy l: spec.to[1].default.loadBalancer.leastRequest lost",
            "17 MeshRateLimit rl: spec.from[0].default.local.http.onRateLimit lost",
            "18 MeshRateLimit rl: spec.from[1] differs",
        ],
    );
}

#[test]
fn faults_are_filters_of_the_called_service_s_route() {
    check(
        r#"
type: MeshFaultInjection
name: f
spec:
  targetRef: {kind: MeshService, name: orders}
  from:
  - targetRef: {kind: MeshService, name: web}
    default: {http: [{abort: {httpStatus: 503, percentage: 50}}, {delay: {value: 100ms, percentage: "0.5"}, responseBandwidth: {limit: 1mbps, percentage: 1}}]}
---
type: MeshFaultInjection
name: all
spec:
  targetRef: {kind: Mesh}
  from:
  - targetRef: {kind: Mesh}
    default: {http: [{abort: {httpStatus: 500, percentage: 1}}]}
"#,
        &[
            r#"HTTPRoute default/orders {"parentRefs":[{"name":"orders"}],"rules":[{"backendRefs":[{"name":"orders","port":80}],"filters":[{"faultInjection":{"abort":{"percent":50,"status":503},"delay":{"duration":"100ms","fraction":{"denominator":10000,"numerator":50}}},"type":"FaultInjection"}],"matches":[{"sources":["default/web"]}]},{"backendRefs":[{"name":"orders","port":80}]}]}"#,
        ],
        &[
            "8 MeshFaultInjection f: spec.from[0].default.http[1].responseBandwidth lost",
            "15 MeshFaultInjection all: spec.from[0] lost",
        ],
    );
}

#[test]
fn a_mesh_is_its_mode() {
    check(
        r#"
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends: [{name: ca-1, type: builtin, mode: PERMISSIVE, dpCert: {rotation: {expiration: 24h}}}]
metrics: {enabledBackend: p}
"#,
        &[r#"PeerAuthentication mesh-system/mesh {"mode":"Permissive"}"#],
        &["6 Mesh default: mtls.backends[0].dpCert lost", "7 Mesh default: metrics lost"],
    );
    check(
        "apiVersion: kuma.io/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {mtls: {enabledBackend: a, backends: [{name: a, type: builtin}]}}\n",
        &[r#"PeerAuthentication mesh-system/mesh {"mode":"Strict"}"#],
        &[],
    );
    check(
        "{\"type\": \"Mesh\", \"name\": \"default\"}",
        &["PeerAuthentication mesh-system/mesh {\"mode\":\"Permissive\"}"],
        &["1 Mesh default differs"],
    );
}

#[test]
fn what_is_not_known_or_has_no_place_is_told() {
    check(
        r#"
type: MeshGateway
name: edge
spec: {listeners: []}
---
type: MeshTimeout
name: t
teapot: 1
spec:
  targetRef: {kind: MeshService, name: web}
  to: [{targetRef: {kind: MeshService, name: a}, default: {idleTimeout: 1s}}]
  from: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]
---
type: MeshTimeout
name: u
spec:
  to:
  - targetRef: {kind: MeshService, name: a, sectionName: http}
    default: {idleTimeout: soon, teapot: {}}
  - targetRef: {kind: MeshHTTPRoute, name: x}
    default: {idleTimeout: 1s}
---
name: nothing
"#,
        &[],
        &[
            "2 MeshGateway edge lost",
            "8 MeshTimeout t: teapot lost",
            "11 MeshTimeout t: spec.to[0] lost",
            "12 MeshTimeout t: spec.from lost",
            "18 MeshTimeout u: spec.to[0].targetRef.sectionName lost",
            "20 MeshTimeout u: spec.to[1].targetRef lost",
            "23 entry lost",
        ],
    );
}
