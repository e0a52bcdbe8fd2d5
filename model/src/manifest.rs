//! Pure. Manifests: what `POST /v1/apply` and `meshctl apply -f` take. JSON (one object, a list, or `{"items": […]}`),
//! or YAML with any number of documents of the same forms.

use serde_json::Value;

use crate::{invalid::Invalid, object::Parsed};

/// As many objects as one apply takes: they become one entry of the log.
pub const MANIFEST_OBJECTS_MAX: usize = 1_000;
/// The largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Why a text is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Neither JSON nor YAML.
    #[error("{0}")]
    Syntax(String),
    /// Over a limit.
    #[error("a manifest may have at most {limit} {unit}, this one has {actual}")]
    TooLarge {
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Objects with wrong fields.
    #[error("{0}")]
    Invalid(#[from] Invalid),
}

/// The objects of a manifest, decoded strictly. `items[N]` stands before the paths of errors where there are several.
///
/// # Errors
/// The first fault of syntax with its line, or every wrong field of every object.
pub fn parse(text: &str) -> Result<Vec<Parsed>, ManifestError> {
    let values = values(text)?;
    let several = values.len() > 1;
    let (mut objects, mut errors) = (Vec::with_capacity(values.len()), Vec::new());
    for (index, value) in values.iter().enumerate() {
        match Parsed::from_input(value, None) {
            Ok(parsed) => objects.push(parsed),
            Err(invalid) if several => errors.extend(invalid.below(format_args!("items[{index}]")).errors),
            Err(invalid) => errors.extend(invalid.errors),
        }
    }
    errors.truncate(crate::invalid::FIELD_ERRORS_MAX);
    if errors.is_empty() { Ok(objects) } else { Err(Invalid { errors }.into()) }
}

/// The objects of a manifest as JSON values, not yet decoded.
///
/// # Errors
/// The first fault of syntax with its line, or a limit that was passed.
pub fn values(text: &str) -> Result<Vec<Value>, ManifestError> {
    if text.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge { actual: text.len(), limit: MANIFEST_BYTES_MAX, unit: "bytes" });
    }
    let documents = documents(text)?;
    let objects: Vec<Value> = documents.into_iter().flat_map(items).collect();
    if objects.len() > MANIFEST_OBJECTS_MAX {
        return Err(ManifestError::TooLarge {
            actual: objects.len(),
            limit: MANIFEST_OBJECTS_MAX,
            unit: "objects",
        });
    }
    Ok(objects)
}

fn documents(text: &str) -> Result<Vec<Value>, ManifestError> {
    if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text) {
            Ok(value) => return Ok(vec![value]),
            // `{name: orders}` is YAML: let its parser have the last word unless the text means to be JSON.
            Err(error) if text.trim_start().starts_with("{\"") => {
                return Err(ManifestError::Syntax(format!("not JSON: {error}")));
            }
            Err(_) => {}
        }
    }
    serde_saphyr::from_multiple(text).map_err(|error| ManifestError::Syntax(format!("not YAML: {error}")))
}

fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        Value::Object(mut fields)
            if !fields.contains_key("kind") && fields.get("items").is_some_and(Value::is_array) =>
        {
            match fields.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "kind: Namespace\nmetadata: {name: shop}\n---\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec:\n  ports:\n  - port: 80\n";

    #[test]
    fn yaml_documents_json_objects_and_lists_are_the_same() {
        let keys = |text: &str| {
            parse(text)
                .expect("valid")
                .into_iter()
                .map(|parsed| parsed.object.key().to_string())
                .collect::<Vec<_>>()
        };
        let want = ["Namespace shop", "Service shop/web"];
        assert_eq!(keys(TWO), want);
        let objects = serde_json::to_string(&values(TWO).expect("valid")).expect("serialises");
        assert_eq!(keys(&objects), want);
        assert_eq!(keys(&format!("{{\"items\": {objects}}}")), want);
        assert_eq!(keys("--- \n---\nkind: Namespace\nmetadata: {name: a}\n"), ["Namespace a"]);
        assert_eq!(keys(""), Vec::<String>::new());
    }

    #[test]
    fn errors_name_the_object_and_the_field() {
        let error = parse(&TWO.replace("port: 80", "port: 0")).expect_err("a wrong port").to_string();
        assert_eq!(error, "items[1].spec.ports[0].port: must be a whole number from 1 to 65535, is 0");
        let error = parse("kind: [").expect_err("not YAML").to_string();
        assert!(error.starts_with("not YAML: "), "{error}");
        let error = parse("{\"kind\": ").expect_err("not JSON").to_string();
        assert!(error.starts_with("not JSON: ") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn manifests_are_bounded() {
        let many = "---\nkind: Namespace\nmetadata: {name: a}\n".repeat(MANIFEST_OBJECTS_MAX + 1);
        assert!(matches!(values(&many), Err(ManifestError::TooLarge { actual: 1_001, unit: "objects", .. })));
        assert!(matches!(
            values(&" ".repeat(MANIFEST_BYTES_MAX + 1)),
            Err(ManifestError::TooLarge { unit: "bytes", .. })
        ));
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        assert!(matches!(values(laughs), Err(ManifestError::Syntax(_))), "an alias bomb was expanded");
    }

    /// The shapes that users and outside tools rely on.
    #[test]
    fn the_documented_manifests_are_taken() {
        for text in [
            "kind: Service\nmetadata: {namespace: default, name: orders, labels: {team: shop}}\nspec:\n  ports:\n  - {name: http, port: 80, targetPort: 8080, protocol: http}\n  subsets:\n  - {name: v1, labels: {version: v1}}\n",
            "kind: Node\nmetadata: {name: shop-1, labels: {rack: r7}}\nspec:\n  zone: a\n  services: [default/orders, \"shop/*\"]\n  disabled: false\n",
            "kind: JoinToken\nmetadata: {name: shop-hosts}\nspec:\n  role: host\n  uses: 1\n  ttl: 1h\n  rejoin: false\n  nodes: [\"shop-*\"]\n  services: [default/orders]\n  nodeLabels: {zone: a}\n",
            "kind: AccessToken\nmetadata: {name: ci}\nspec:\n  roles: [shop-operator]\n  ttl: 720h\n",
            "kind: Role\nmetadata: {name: shop-operator}\nspec:\n  rules:\n  - kinds: [Service, HTTPRoute, TrafficPolicy]\n    verbs: [get, list, watch, write, delete]\n    namespaces: [shop]\n",
            "kind: Endpoint\nmetadata: {namespace: default, name: orders-shop-1-8080, labels: {version: v2}}\nspec:\n  service: orders\n  node: shop-1\n  source: registration\n  address: 10.0.0.5\n  ports: [{port: 80, targetPort: 8080}]\n  zone: a\n  weight: 1\n",
            "kind: HTTPRoute\nmetadata: {namespace: default, name: orders}\nspec:\n  parentRefs:\n  - {kind: Service, name: orders, port: 80}\n  rules:\n  - name: preview\n    matches:\n    - path: {type: PathPrefix, value: /api}\n      method: GET\n      headers:\n      - {type: Exact, name: x-employee, value: \"true\"}\n      queryParams: []\n      cookies: []\n    backendRefs:\n    - {kind: Service, name: orders, subset: v2, port: 80, weight: 1}\n  - backendRefs:\n    - {kind: Service, name: orders, subset: v1, port: 80, weight: 9900}\n    timeouts: {request: 10s, backendRequest: 2s}\n    retry: {attempts: 2, codes: [502, 503, 504], backoff: 25ms}\n",
            "kind: PeerAuthentication\nmetadata: {namespace: default, name: orders}\nspec:\n  targetRefs:\n  - {kind: Service, name: orders}\n  mode: Strict                         # Disabled | Permissive | Strict\n  portModes:\n  - {port: 9090, mode: Permissive}\n",
            "kind: AuthorizationPolicy\nmetadata: {namespace: default, name: orders-from-web}\nspec:\n  targetRefs:\n  - {kind: Service, name: orders}      # absent: every service of the namespace; in mesh-system: of the mesh\n  action: Allow                        # Allow | Deny | Audit\n  dryRun: false\n  rules:                               # any rule; in a rule from AND to AND when; lists are OR; [] matches nothing\n  - name: web-reads\n    from:\n    - services: [default/web]          # <ns>/<name> or <ns>/*\n    - namespaces: [ops]\n    - principals: [\"spiffe://mesh.internal/ns/default/svc/admin\"]\n    to:\n    - ports: [80]                      # the Service's port\n      methods: [GET, HEAD]\n      paths:\n      - {type: PathPrefix, value: /api}\n    when:\n    - {header: x-tenant, values: [acme]}   # or claim: role\n",
            "kind: TrafficPolicy\nmetadata: {namespace: default, name: orders}\nspec:\n  targetRefs:\n  - {kind: Service, name: orders}\n  loadBalancer: {type: PeakEWMA}       # PeakEWMA | LeastRequest | RoundRobin | Random | RingHash | Maglev\n  healthCheck: {http: {path: /healthz}, interval: 5s, timeout: 1s, unhealthyThreshold: 3, healthyThreshold: 2}\n  outlierDetection: {consecutiveErrors: 5, baseEjectionTime: 30s, maxEjectionPercent: 50}\n  limits: {maxConnections: 1024, maxPendingRequests: 256, maxRequests: 4096, maxRetries: 64}\n  timeouts: {connect: 1s, request: 15s, idle: 5m}\n  retry: {attempts: 2, codes: [502, 503, 504], backoff: 25ms, budget: {percent: 20, minPerSecond: 3}}\n",
        ] {
            let parsed = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(parsed.len(), 1);
        }
    }
}
