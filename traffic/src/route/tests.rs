use model::{
    kind::Kind,
    object::{Object, Parsed},
    resource::Resource,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::path::{Strictness, normalize};

/// The rules of a service, a line each: `[<route>[@<seconds of creation>]:] <match>… -> <name of the rule>`, where a match
/// is `=/exact`, `/prefix`, `~regex`, a METHOD, or `h:`, `q:`, `c:` (header, query parameter, cookie) with `name=value` or
/// `name~regex`. Lines of one route are its rules in order.
fn table(rules: &str) -> RouteTable {
    let mut routes: Vec<(String, Vec<Value>)> = Vec::new();
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (route, line) = line.split_once(": ").unwrap_or(("route", line));
        let (matches, name) = line.split_once("->").expect("an arrow");
        let rule =
            json!({"name": name.trim(), "matches": matches.split(" or ").map(one).collect::<Vec<_>>()});
        match routes.iter_mut().find(|(known, _)| known == route) {
            Some((_, rules)) => rules.push(rule),
            None => routes.push((route.to_owned(), vec![rule])),
        }
    }
    let routes: Vec<_> = routes.iter().map(|(route, rules)| compiled(route, rules)).collect();
    RouteTable::new(&routes, |_| Err(Missing::Service))
}

fn compiled(route: &str, rules: &[Value]) -> Route {
    let (name, created) = route.split_once('@').unwrap_or((route, "0"));
    let (object, spec) = parsed(name, &json!({"parentRefs": [{"name": "web"}], "rules": rules}));
    let mut metadata = object.metadata;
    metadata.created_at.0 = created.parse().expect("a number");
    Route::compile(&metadata, &spec).expect("it compiles")
}

fn parsed(name: &str, spec: &Value) -> (Object, Resource) {
    let input = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    let parsed = Parsed::from_input(&input, Some(Kind::HTTPRoute)).expect("a route");
    (parsed.object, parsed.resource)
}

fn one(text: &str) -> Value {
    let (mut one, mut lists) = (json!({}), [vec![], vec![], vec![]]);
    for word in text.split_whitespace() {
        let path = |kind, value: &str| json!({"type": kind, "value": value});
        match word.split_at(1) {
            ("=", exact) => one["path"] = path("Exact", exact),
            ("~", regex) => one["path"] = path("RegularExpression", regex),
            ("/", _) => one["path"] = path("PathPrefix", word),
            ("h", rest) if rest.starts_with(':') => lists[0].push(pair(&rest[1..])),
            ("q", rest) if rest.starts_with(':') => lists[1].push(pair(&rest[1..])),
            ("c", rest) if rest.starts_with(':') => lists[2].push(pair(&rest[1..])),
            _ => one["method"] = json!(word),
        }
    }
    let [headers, params, cookies] = lists;
    (one["headers"], one["queryParams"], one["cookies"]) = (json!(headers), json!(params), json!(cookies));
    one
}

fn pair(text: &str) -> Value {
    let at = text.find(['=', '~']).expect("a comparison");
    let kind = if text[at..].starts_with('=') { "Exact" } else { "RegularExpression" };
    json!({"type": kind, "name": text[..at], "value": text[at + 1..]})
}

/// `request` is `METHOD /path?query [field: value | …]`; `want` is the rule's name, or `none`.
#[track_caller]
fn check(rules: &str, request: &str, want: &str) {
    let (line, fields) = request.split_once(" [").unwrap_or((request, "]"));
    let (method, target) = line.split_once(' ').expect("a method");
    let path = normalize(target, Strictness::Plain).expect("a path");
    let fields = fields.trim_end_matches(']').split(" | ").filter_map(|field| field.split_once(": "));
    let fields: Box<[(&str, &str)]> = fields.collect();
    struct Pairs<'a>(&'a [(&'a str, &'a str)]);
    impl crate::request::Fields for Pairs<'_> {
        fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            self.0.each(name, each);
        }
    }
    let head = RequestHead { method, path: &path, authority: "web.default.mesh", fields: &Pairs(&fields) };
    let (table, source) = (table(rules), "default/caller".parse().expect("a name"));
    let name = table
        .find(&head, Caller::of(&source))
        .map_or("none", |rule| rule.name.as_str().rsplit('/').next().expect("a name"));
    assert_eq!(name, want, "{request}");
}

#[test]
fn exact_before_longest_prefix_before_expression_before_everything() {
    let rules = "/ -> all \n ~/a.* -> regex \n /a -> a \n /a/b -> ab \n =/a/b/c -> exact";
    check(rules, "GET /a/b/c", "exact");
    check(rules, "GET /a/b/c/d", "ab");
    check(rules, "GET /a/b/c/", "ab");
    check(rules, "GET /a/c", "a");
    check(rules, "GET /ab", "regex");
    check(rules, "GET /b", "all");
    check(rules, "OPTIONS *", "all");
}

#[test]
fn prefixes_are_whole_segments() {
    for prefix in ["/abc", "/abc/"] {
        let rules = format!("{prefix} -> hit");
        for (target, want) in
            [("/abc", "hit"), ("/abc/", "hit"), ("/abc/d", "hit"), ("/abcd", "none"), ("/ab", "none")]
        {
            check(&rules, &format!("GET {target}"), want);
        }
    }
    check("/abc -> hit", "GET /abc?d=1", "hit");
    check("/abc -> hit", "GET /x/../abc", "hit");
    check("/%7Euser -> hit", "GET /~user", "hit");
    check("/Abc -> hit", "GET /abc", "none");
}

#[test]
fn after_the_path_method_then_headers_then_parameters_then_cookies() {
    let rules = "/a -> plain \n /a GET -> method \n /a h:x=1 -> header \n /a h:x=1 h:y=2 -> headers \n \
        /a q:p=1 -> param \n /a q:p=1 q:r=2 -> params \n /a c:s=1 -> cookie";
    check(rules, "GET /a?p=1 [x: 1 | cookie: s=1]", "method");
    check(rules, "POST /a?p=1&r=2 [x: 1 | cookie: s=1]", "header");
    check(rules, "POST /a?p=1&r=2 [x: 1 | y: 2]", "headers");
    check(rules, "POST /a?p=1&r=2 [cookie: s=1]", "params");
    check(rules, "POST /a?p=1 [cookie: s=1]", "param");
    check(rules, "POST /a [cookie: s=1]", "cookie");
    check(rules, "POST /a", "plain");
    check("/a/b -> longer \n /a GET h:x=1 -> more", "GET /a/b [x: 1]", "longer");
}

#[test]
fn among_equals_the_oldest_route_then_the_first_name_then_the_first_rule() {
    check("b@5: /a -> young \n c@4: /a -> old", "GET /a", "old");
    check("b@5: /a -> b \n a@5: /a -> a", "GET /a", "a");
    check("/a -> first \n /a -> second", "GET /a", "first");
    check("b@1: /a -> old \n a@9: /a/b -> special", "GET /a/b", "special");
    check("/a h:x=1 -> first \n /a h:y=1 -> second", "GET /a [y: 1 | x: 1]", "first");
}

#[test]
fn any_match_of_a_rule_will_do_and_each_has_its_own_rank() {
    let rules = "=/x or /a -> either \n /a/b -> ab";
    check(rules, "GET /x", "either");
    check(rules, "GET /a/c", "either");
    check(rules, "GET /a/b", "ab");
}

#[test]
fn methods_are_compared_as_sent() {
    check("GET -> get", "GET /", "get");
    check("GET -> get", "get /", "none");
    check("GET -> get", "HEAD /", "none");
}

#[test]
fn headers_are_found_in_any_case_and_compared_whole() {
    check("h:X-Env=test -> hit", "GET / [x-env: test]", "hit");
    check("h:x-env=test -> hit", "GET / [X-ENV: test]", "hit");
    check("h:x-env=test -> hit", "GET / [x-env: Test]", "none");
    check("h:x-env=test -> hit", "GET / [x-env: test2]", "none");
    check("h:x-env=test -> hit", "GET /", "none");
    check("h:x-env~te.* -> hit", "GET / [x-env: test]", "hit");
    check("h:x-env~te -> hit", "GET / [x-env: test]", "none");
    check("h:x-env~a,.b -> hit", "GET / [x-env: a | x-env: b]", "hit");
    check("h:x-env=a -> hit", "GET / [x-env: a | x-env: b]", "none");
}

#[test]
fn of_several_wants_for_one_header_the_first_counts() {
    check("h:x=1 h:X=2 -> hit", "GET / [x: 1]", "hit");
    check("h:x=1 h:X=2 -> one \n h:x=1 h:y=1 -> two", "GET / [x: 1 | y: 1]", "two");
}

#[test]
fn parameters_and_cookies_are_compared() {
    check("q:a=1 -> hit", "GET /?a=1&a=2", "hit");
    check("q:a=2 -> hit", "GET /?a=1&a=2", "none");
    check("q:A=1 -> hit", "GET /?a=1", "none");
    check("q:a~[0-9]+ -> hit", "GET /?a=12", "hit");
    check("c:s=1 -> hit", "GET / [cookie: t=2; s=1]", "hit");
    check("c:s~1|2 -> hit", "GET / [cookie: s=12]", "none");
}

// === what is compared ===

/// How many matches of `table` a request for `target` may be compared with.
fn compared(table: &RouteTable, target: &str) -> usize {
    let path = normalize(target, Strictness::Plain).expect("a path");
    table.paths.perhaps_for(path.path()).count()
}

/// What is compared does not grow with what there is for other paths: whole ones and prefixes are looked up.
#[test]
fn matches_for_other_paths_are_not_looked_at() {
    let rules = |count: usize| {
        let rules = (0..count).map(|n| {
            format!(
                "r{n}: /api/v{n} -> prefix \n r{n}: =/api/v{n}/x -> whole \n r{n}: /api/v{n}/x/y -> longer \n"
            )
        });
        rules.collect::<String>() + "s: /api GET -> api \n s: ~/api/.*/z -> like \n s: / -> all"
    };
    for table in [table(&rules(3)), table(&rules(2_000))] {
        assert_eq!(compared(&table, "/api/v2/x"), 5, "whole, prefix, api, like, all");
        assert_eq!(compared(&table, "/api/v2/x/y/z"), 5, "longer, prefix, api, like, all");
        assert_eq!(compared(&table, "/api/other"), 3, "api, like, all");
        assert_eq!(compared(&table, "*"), 2, "like, all");
    }
    check(&rules(2_000), "GET /api/v1999/x", "whole");
    check(&rules(2_000), "GET /api/v1999/x/y/z", "longer");
    check(&rules(2_000), "GET /api/z/z", "api");
    check(&rules(2_000), "POST /api/z/z", "like");
}

/// Calls of gRPC are looked up, too, as far as their words are exact.
#[test]
fn calls_are_looked_up_by_their_words() {
    let method = |kind: &str, service: Option<&str>, method: Option<&str>| {
        let mut wanted = json!({"type": kind});
        let words = [("service", service), ("method", method)];
        for (word, text) in words {
            if let Some(text) = text {
                wanted[word] = json!(text);
            }
        }
        json!({"matches": [{"method": wanted}]})
    };
    let mut rules: Vec<_> =
        (0..8).map(|n| method("Exact", Some("shop.Orders"), Some(&format!("Get{n}")))).collect();
    rules.extend((0..8).map(|n| method("Exact", Some(&format!("shop.S{n}")), None)));
    rules.extend([method("Exact", None, Some("Get1")), method("RegularExpression", Some("shop.*"), None)]);
    let input = json!({"metadata": {"namespace": "default", "name": "r"}, "spec": {"parentRefs": [{"name": "web"}], "rules": rules}});
    let parsed = Parsed::from_input(&input, Some(Kind::GRPCRoute)).expect("a route");
    let route = Route::compile(&parsed.object.metadata, &parsed.resource).expect("it compiles");
    let table = RouteTable::new([&route], |_| Err(Missing::Service));
    for (path, want, looked_at) in [
        ("/shop.Orders/Get1", "default/r/1", 3),
        ("/shop.S7/Get1", "default/r/15", 3),
        ("/shop.S7", "none", 3),
        ("/shop.Other/Get1", "default/r/16", 2),
        ("/shop.Other/Get2", "default/r/17", 2),
        ("/other.Other/Get1", "default/r/16", 2),
        ("/other.Other/Get2", "none", 2),
    ] {
        let normal = normalize(path, Strictness::Plain).expect("a path");
        let head = RequestHead { method: "POST", path: &normal, authority: "", fields: &[] };
        let found = table.find(&head, Caller::default()).map_or("none", |rule| rule.name.as_str());
        assert_eq!((found, compared(&table, path)), (want, looked_at), "{path}");
    }
}

proptest! {
    /// What is looked up is what comparing with one after the other finds.
    #[test]
    fn looking_up_finds_what_trying_all_finds(
        paths in prop::collection::vec("(=|~)?(/[ab]{1,2}){0,3}/?( GET| h:x=1)?", 1..24),
        targets in prop::collection::vec("(/[abc]{1,2}){0,4}/?", 1..16),
        method in "GET|PUT",
        value in "1|2",
    ) {
        let path = |rule: &str| if rule.starts_with(['=', '~']) && !rule[1..].starts_with('/') {
            format!("{}/{}", &rule[..1], &rule[1..])
        } else {
            rule.to_owned()
        };
        let rules: String =
            paths.iter().enumerate().map(|(n, rule)| format!("r@{}: {} -> n{n}\n", n % 3, path(rule))).collect();
        let table = table(&rules);
        for target in targets {
            let target = if target.is_empty() { "/" } else { &target };
            let normal = normalize(target, Strictness::Plain).expect("a path");
            let fields = [("x", value.as_str())];
            let head = RequestHead { method: &method, path: &normal, authority: "", fields: &fields };
            let tried = table.tried().find(|(matcher, _)| matcher.matches(&head, Caller::default()));
            let found = table.find(&head, Caller::default());
            prop_assert_eq!(found.map(|rule| &rule.name), tried.map(|(_, rule)| &rule.name), "{}", target);
        }
    }
}

/// The errors of a route with this one match, as `path: message`.
#[track_caller]
fn check_errors(one: &Value, want: &[&str]) {
    let (_, spec) = parsed("r", &json!({"parentRefs": [{"name": "web"}], "rules": [{}, {"matches": [one]}]}));
    let got: Vec<_> =
        check_spec(&spec).iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "{got}");
    }
}

use super::check as check_spec;

#[test]
fn what_cannot_be_compiled_is_named_by_its_path() {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    check_errors(&path("PathPrefix", "/ok"), &[]);
    let at = "spec.rules[1].matches[0].path.value: must be a";
    check_errors(
        &path("PathPrefix", "/a/../b"),
        &[&format!("{at} path without empty segments, '.' and '..'")],
    );
    check_errors(&path("Exact", "/a//b"), &[&format!("{at} path without empty segments")]);
    check_errors(&path("Exact", "/a?b"), &[&format!("{at} path without a query")]);
    check_errors(&path("Exact", "/a%zz"), &[&format!("{at} path: the path has a '%'")]);
    check_errors(
        &path("RegularExpression", "("),
        &[&format!("{at} regular expression (RE2 syntax): unclosed group")],
    );
    let wrong = |name: &str| json!({"type": "RegularExpression", "name": name, "value": "("});
    let lists = json!({"headers": [{"name": "a", "value": "b"}, wrong("x")], "queryParams": [wrong("y")], "cookies": [wrong("z")]});
    let at = "spec.rules[1].matches[0]";
    let want = [
        format!("{at}.headers[1].value"),
        format!("{at}.queryParams[0].value"),
        format!("{at}.cookies[0].value"),
    ];
    check_errors(&lists, &want.each_ref().map(String::as_str));
}

#[test]
fn a_route_has_an_end() {
    let rule = |matches: usize| json!({"matches": vec![json!({}); matches]});
    let spec = |last| {
        parsed("r", &json!({"parentRefs": [{"name": "web"}], "rules": [rule(1_000), rule(0), rule(last)]})).1
    };
    assert_eq!(check_spec(&spec(23)), []);
    let errors = check_spec(&spec(24));
    assert_eq!(errors[0].path, "spec.rules");
    assert!(errors[0].message.contains("1024"), "{errors:?}");
}

#[test]
fn settings_come_from_the_rule_or_are_the_defaults() {
    let timeouts = json!({"request": "10s", "backendRequest": "0s"});
    let rules = [json!({"timeouts": timeouts, "retry": {"attempts": 2, "codes": [500]}}), json!({})];
    let table = RouteTable::new([&compiled("r", &rules)], |_| Err(Missing::Service));
    let [set, unset] = &table.rules[..] else { panic!("not two rules") };
    let retry = set.retry.expect("it says so");
    assert_eq!((retry.attempts, retry.backoff), (2, Duration::from_millis(25)));
    assert_eq!(retry.causes, retry::Causes::new(&[], [500].into_iter(), &[]));
    let dice = &mut Dice::seeded(1);
    let (set_routed, unset_routed) = (set.routed(dice), unset.routed(dice));
    let ten = Timeouts { request: Some(Duration::from_secs(10)), ..Timeouts::default() };
    assert_eq!((set_routed.timeouts, set_routed.retry), (ten, &retry));
    assert_eq!((unset_routed.timeouts, unset_routed.retry), (Timeouts::default(), &retry::Settings::DEFAULT));
    assert_eq!((set.name.as_str(), unset.name.as_str()), ("default/r/0", "default/r/1"));
    assert_eq!(set.to(set.split.draw(7)).backend.map(|_| ()), Err(&Unroutable::NoBackend));
}

/// A back end without endpoints.
pub(super) fn backend(name: &BackendName) -> Arc<Backend> {
    let domain = "mesh.internal".parse().expect("a domain");
    Arc::new(Backend {
        name: name.clone(),
        hostname: name.service.hostname().into(),
        id: model::identity::SpiffeId::service(&domain, &name.service),
        protocol: model::resource::Protocol::Http,
        plain: false,
        conduct: Arc::default(),
        pool: crate::balancer::Pool::default(),
    })
}

// === the split by weight ===

/// A split whose back ends are marked by their port, 1 and up.
fn split(weights: &[u64]) -> Split {
    let service: ServiceName = "default/web".parse().expect("a service");
    let marked = |port| Unroutable::Invalid(BackendName::whole(&service, port), Missing::Service);
    Split::new(weights.iter().zip(1..).map(|(&weight, port)| (weight, Err(marked(port)).into())))
}

fn drawn(split: &Split, point: u64) -> usize {
    match &split.draw(point).expect("there is one").backend {
        Err(Unroutable::Invalid(name, _)) => usize::from(name.port) - 1,
        other => panic!("{other:?}"),
    }
}

/// The share of each weight, as the points at which the back end changes lie: exact, without drawing.
fn shares(weights: &[u64]) -> Vec<f64> {
    let split = split(weights);
    let border = |after: usize| {
        let (mut low, mut high) = (0_u128, 1_u128 << 64);
        while low < high {
            let middle = (low + high) / 2;
            if drawn(&split, middle as u64) > after { high = middle } else { low = middle + 1 }
        }
        low as f64 / 2_f64.powi(64)
    };
    let borders: Vec<f64> = (0..weights.len()).map(border).collect();
    borders.iter().scan(0.0, |last, border| Some(border - std::mem::replace(last, *border))).collect()
}

#[test]
fn back_ends_without_weight_get_nothing() {
    let split = split(&[0, 5, 0]);
    for point in [0, u64::MAX / 3, u64::MAX] {
        assert_eq!(drawn(&split, point), 1);
    }
    assert!(super::Split::new([]).draw(0).is_none());
}

#[test]
fn a_thousand_draws_of_one_percent_are_about_ten() {
    let split = split(&[9_900, 100]);
    let mut dice = Dice::seeded(11);
    let few = (0..100_000).filter(|_| drawn(&split, dice.roll()) == 1).count();
    assert!((850..1_150).contains(&few), "{few}");
}

proptest! {
    #[test]
    fn shares_are_exact_to_a_millionth(weights in prop::collection::vec(0_u64..=1_000_000, 1..8)) {
        let sum: u64 = weights.iter().sum();
        prop_assume!(sum > 0);
        for (share, weight) in shares(&weights).iter().zip(&weights) {
            let want = *weight as f64 / sum as f64;
            prop_assert!((share - want).abs() < 1e-6, "{share} is not {want} in {weights:?}");
        }
    }
}
