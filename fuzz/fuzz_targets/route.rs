//! Which rule a request finds: the one that a plain reading of Gateway API finds (HTTPRouteRule.matches), which asks each
//! match and then weighs all that fit.
#![no_main]

use std::{cmp::Reverse, sync::Arc};

use model::{duration::Millis, kind::Kind, object::Parsed};
use serde_json::{Value, json};
use traffic::{
    Dice,
    compile::{Inputs, compile},
    path::{Strictness, normalize},
    request::{Caller, Fields, RequestHead},
    route::Unroutable,
};

const METHODS: [&str; 2] = ["GET", "PUT"];
const VALUES: [&str; 2] = ["1", "2"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let routes: Vec<Route> = (0..=bytes.below(3)).map(|_| Route::new(&mut bytes)).collect();
    let snapshot = compile(None, &inputs(&routes)).expect("what is asked for is well formed");
    let destination = snapshot.by_hostname("web.default.mesh").expect("it is there");
    let port = destination.default_port().expect("it has one");
    for _ in 0..4 {
        let request = Request::new(&mut bytes);
        let target = request.target();
        let path = normalize(&target, Strictness::Plain).expect("a plain path has a form");
        let fields = Pairs(["X", "y"].into_iter().zip(request.headers).filter_map(given).collect());
        let head = RequestHead { method: request.method, path: &path, authority: "", fields: &fields };
        let routed = port.route(&head, Caller::default(), &mut Dice::seeded(1));
        let found =
            (routed.backend.err() != Some(&Unroutable::NoRule)).then(|| routed.rule.as_str().to_owned());
        assert_eq!(found, naive(&routes, &request), "{target} {request:?} among {routes:?}");
    }
});

/// A request's fields.
struct Pairs(Vec<(&'static str, &'static str)>);

impl Fields for Pairs {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.as_slice().each(name, each);
    }
}

/// A cursor over the input; where it has ended all is zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn below(&mut self, bound: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % bound
    }

    /// Up to three segments, some with a final `/`.
    fn path(&mut self) -> String {
        let segments = (0..self.below(4)).map(|_| ["/a", "/b", "/ab"][usize::from(self.below(3))]);
        let path: String = segments.collect();
        if path.is_empty() || self.below(4) == 0 { path + "/" } else { path }
    }

    fn one(&mut self, of: [&'static str; 2]) -> Option<&'static str> {
        of.get(usize::from(self.below(3))).copied()
    }

    fn both(&mut self) -> [Option<&'static str>; 2] {
        [self.one(VALUES), self.one(VALUES)]
    }
}

#[derive(Debug)]
struct Route {
    created_at: u64,
    /// Each rule's matches.
    rules: Vec<Vec<Match>>,
}

#[derive(Debug)]
struct Match {
    path: Option<(&'static str, String)>,
    method: Option<&'static str>,
    headers: [Option<&'static str>; 2],
    params: [Option<&'static str>; 2],
}

#[derive(Debug)]
struct Request {
    path: String,
    method: &'static str,
    headers: [Option<&'static str>; 2],
    params: [Option<&'static str>; 2],
}

impl Route {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let created_at = u64::from(bytes.below(2));
        let rules = (0..=bytes.below(3)).map(|_| (0..=bytes.below(2)).map(|_| Match::new(bytes)).collect());
        Self { created_at, rules: rules.collect() }
    }

    fn spec(&self) -> Value {
        let rules = self.rules.iter().map(|matches| {
            let matches: Vec<_> = matches.iter().map(Match::spec).collect();
            json!({"matches": matches, "backendRefs": [{"name": "web", "port": 80}]})
        });
        json!({"parentRefs": [{"name": "web"}], "rules": rules.collect::<Vec<_>>()})
    }
}

impl Match {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let path = match bytes.below(5) {
            0 => None,
            1 => Some(("Exact", bytes.path())),
            2 => Some(("RegularExpression", "/a.*".to_owned())),
            _ => Some(("PathPrefix", bytes.path())),
        };
        Self { path, method: bytes.one(METHODS), headers: bytes.both(), params: bytes.both() }
    }

    fn spec(&self) -> Value {
        let mut spec = json!({});
        if let Some((kind, value)) = &self.path {
            spec["path"] = json!({"type": kind, "value": value});
        }
        if let Some(method) = self.method {
            spec["method"] = json!(method);
        }
        let named = |names: [&'static str; 2], values: [Option<&'static str>; 2]| -> Vec<Value> {
            let pairs = names.into_iter().zip(values).filter_map(given);
            pairs.map(|(name, value)| json!({"name": name, "value": value})).collect()
        };
        spec["headers"] = named(["x", "Y"], self.headers).into();
        spec["queryParams"] = named(["p", "q"], self.params).into();
        spec
    }

    fn fits(&self, request: &Request) -> bool {
        let path = match &self.path {
            None => true,
            Some(("Exact", path)) => request.path == *path,
            Some(("RegularExpression", _)) => request.path.starts_with("/a"),
            Some((_, prefix)) => {
                format!("{}/", request.path).starts_with(&format!("{}/", prefix.trim_end_matches('/')))
            }
        };
        let all = |wanted: &[Option<&str>; 2], got: &[Option<&str>; 2]| {
            wanted.iter().zip(got).all(|(wanted, got)| wanted.is_none() || wanted == got)
        };
        path && self.method.is_none_or(|method| method == request.method)
            && all(&self.headers, &request.headers)
            && all(&self.params, &request.params)
    }

    /// The lesser comes first. Regular expressions are the implementation's matter: ours come before what says nothing.
    fn rank(&self) -> impl Ord {
        let path = match &self.path {
            Some(("Exact", _)) => (0, Reverse(0)),
            Some(("PathPrefix", prefix)) if prefix != "/" => (1, Reverse(prefix.trim_end_matches('/').len())),
            Some(("RegularExpression", _)) => (2, Reverse(0)),
            _ => (3, Reverse(0)),
        };
        let count = |of: &[Option<&str>; 2]| Reverse(of.iter().flatten().count());
        (path, self.method.is_none(), count(&self.headers), count(&self.params))
    }
}

impl Request {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let (path, method) = (bytes.path(), METHODS[usize::from(bytes.below(2))]);
        Self { path, method, headers: bytes.both(), params: bytes.both() }
    }

    fn target(&self) -> String {
        let params = ["p", "q"].into_iter().zip(self.params).filter_map(given);
        let query: Vec<_> = params.map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, query.join("&")) }
    }
}

fn given((name, value): (&'static str, Option<&'static str>)) -> Option<(&'static str, &'static str)> {
    Some((name, value?))
}

/// The name of the rule that wins: by its match, then by its route's age and name, then by its place.
fn naive(routes: &[Route], request: &Request) -> Option<String> {
    let all = routes.iter().enumerate().flat_map(|(r, route)| {
        let rules = route.rules.iter().enumerate();
        rules.flat_map(move |(n, matches)| matches.iter().map(move |one| (one, (route.created_at, r, n))))
    });
    let fitting = all.filter(|(one, _)| one.fits(request));
    let (_, (_, route, rule)) = fitting.min_by_key(|(one, place)| (one.rank(), *place))?;
    Some(format!("default/r{route}/{rule}"))
}

fn inputs(routes: &[Route]) -> Inputs {
    let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"ports": [{"port": 80, "protocol": "http"}]}});
    let service = Parsed::from_input(&service, Some(Kind::Service)).expect("a service").object;
    let route = |(number, route): (usize, &Route)| {
        let input =
            json!({"metadata": {"namespace": "default", "name": format!("r{number}")}, "spec": route.spec()});
        let mut object = Parsed::from_input(&input, Some(Kind::HTTPRoute)).expect("a route").object;
        object.metadata.created_at = Millis(route.created_at);
        object
    };
    let objects = routes.iter().enumerate().map(route).chain([service]);
    Inputs {
        revision: 1,
        domain: "mesh.internal".parse().expect("a domain"),
        trust_generation: 0,
        objects: objects.map(|object| (object.key(), Arc::new(object))).collect(),
        local: Vec::new(),
        callers: Default::default(),
    }
}
