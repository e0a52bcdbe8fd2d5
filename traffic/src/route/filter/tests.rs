use model::{kind::Kind, object::Parsed, resource::Resource};
use serde_json::{Value, json};

use super::*;
use crate::{
    path::{Strictness, normalize},
    route::{BackendName, Missing},
};

/// The filters of a rule without matches, compiled, or what is wrong with them.
fn compiled(filters: &Value) -> Result<Filters, String> {
    let input = json!({"metadata": {"namespace": "default", "name": "r"},
        "spec": {"parentRefs": [{"name": "web"}], "rules": [{"filters": filters}]}});
    let Resource::HttpRoute(spec) =
        Parsed::from_input(&input, Some(Kind::HTTPRoute)).expect("a route").resource
    else {
        panic!("no route")
    };
    let mut errors = Vec::new();
    let filters = Filters::new(&spec.rules[0].filters, Some(""), "spec.rules[0]", &mut errors);
    match errors.first() {
        None => Ok(filters),
        Some(FieldError { path, message }) => Err(format!("{path}: {message}")),
    }
}

/// Where a redirect of a request with this authority leads.
#[track_caller]
fn check_location(redirect: &Value, authority: &str, want: &str) {
    let filters =
        compiled(&json!([{"type": "RequestRedirect", "requestRedirect": redirect}])).expect("compiled");
    let path = normalize("/a", Strictness::Plain).expect("a path");
    let head = RequestHead { method: "GET", path: &path, authority, fields: &[] };
    let reply = filters.reply(&head).expect("a redirect");
    assert_eq!(reply.fields, [("location".to_owned(), want.to_owned())]);
}

#[test]
fn a_redirect_keeps_the_listener_s_port_unless_it_names_a_scheme() {
    let (nothing, https) = (json!({}), json!({"scheme": "https"}));
    check_location(&nothing, "web:9001", "http://web:9001/a");
    check_location(&nothing, "web:80", "http://web/a");
    check_location(&json!({"hostname": "b"}), "web:9001", "http://b:9001/a");
    check_location(&https, "web:9001", "https://web/a");
    check_location(&https, "[::1]:9001", "https://[::1]/a");
    check_location(&nothing, "[::1]", "http://[::1]/a");
    check_location(&json!({"port": 443}), "web", "http://web:443/a");
    check_location(&nothing, "", "/a");
    check_location(&json!({"hostname": "b"}), "", "http://b/a");
}

#[test]
fn what_frames_a_message_or_says_who_called_is_refused_by_name() {
    let set = |name: &str| json!({"set": [{"name": name, "value": "x"}]});
    for (filter, at) in [
        (
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": set("Host")}),
            "requestHeaderModifier.set[0].name: must not be host",
        ),
        (
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x-forwarded-client-cert", "value": "x"}]}}),
            "requestHeaderModifier.add[0].name: must not be x-forwarded-client-cert",
        ),
        (
            json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a", "Content-Length"]}}),
            "responseHeaderModifier.remove[1]: must not be content-length",
        ),
        (
            json!({"type": "DirectResponse", "directResponse": {"headers": [{"name": "Connection", "value": "close"}]}}),
            "directResponse.headers[0].name: must not be connection",
        ),
    ] {
        let error = compiled(&json!([filter])).expect_err("refused");
        assert!(error.starts_with(&format!("spec.rules[0].filters[0].{at}")), "{error}");
    }
}

#[test]
fn a_replacement_is_a_path_in_its_one_form() {
    let rewrite = |path: &str| json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": path}}}]);
    let path = normalize("/a", Strictness::Plain).expect("a path");
    assert_eq!(compiled(&rewrite("/%7eb")).expect("compiled").path(&path), "/~b");
    let error = compiled(&rewrite("/a/../b")).expect_err("refused");
    assert!(
        error.starts_with("spec.rules[0].filters[0].urlRewrite.path.replaceFullPath: must be a path"),
        "{error}"
    );
}

/// How many of 100,000 requests a mirror with this share copies.
fn copied(share: &Value) -> usize {
    let mut spec = json!({"backendRef": {"name": "b", "port": 80}});
    spec.as_object_mut().expect("an object").extend(share.as_object().expect("an object").clone());
    let filter = json!({"type": "RequestMirror", "requestMirror": spec});
    let input = json!({"metadata": {"namespace": "default", "name": "r"},
        "spec": {"parentRefs": [{"name": "web"}], "rules": [{"filters": [filter]}]}});
    let Resource::HttpRoute(spec) =
        Parsed::from_input(&input, Some(Kind::HTTPRoute)).expect("a route").resource
    else {
        panic!("no route")
    };
    let mirror = spec.rules[0].filters[0].request_mirror.as_ref().expect("a mirror");
    let mirror = UnboundMirror::new(mirror, &"default".parse().expect("a name"));
    let backend = crate::route::tests::backend(&mirror.backend);
    assert!(mirror.bound(|_: &BackendName| Err(Missing::Service)).draw(&mut Dice::seeded(1)).is_none());
    let (bound, mut dice) = (mirror.bound(|_| Ok(Arc::clone(&backend))), Dice::seeded(1));
    (0..100_000).filter(|_| bound.draw(&mut dice).is_some()).count()
}

#[test]
fn a_mirror_gets_its_share() {
    assert_eq!((copied(&json!({})), copied(&json!({"percent": 100}))), (100_000, 100_000));
    assert_eq!((copied(&json!({"percent": 0})), copied(&json!({"fraction": {"numerator": 0}}))), (0, 0));
    for (share, about) in [
        (json!({"percent": 10}), 10_000_usize),
        (json!({"fraction": {"numerator": 50}}), 50_000),
        (json!({"fraction": {"numerator": 1, "denominator": 1_000}}), 100),
    ] {
        let copies = copied(&share);
        assert!(copies.abs_diff(about) < about / 4, "{share}: {copies}");
    }
}

/// What comes of a request with this content type at this second, as `delay status` with `-` for neither.
fn fault(spec: &Value, kind: &str, now: u64, dice: &mut Dice) -> String {
    let filters = compiled(&json!([{"type": "FaultInjection", "faultInjection": spec}])).expect("compiled");
    let path = normalize("/a", Strictness::Plain).expect("a path");
    let fields = [("content-type", kind)];
    let head = RequestHead { method: "POST", path: &path, authority: "web", fields: &fields };
    let fault = filters.fault(&head, || Millis(now * 1_000), dice);
    let status = fault.abort.map_or("-".to_owned(), |reply| {
        let grpc = reply.fields.iter().find(|(name, _)| name == "grpc-status");
        grpc.map_or(reply.status.to_string(), |(_, code)| format!("grpc {code}"))
    });
    format!("{} {status}", fault.delay.map_or("-".to_owned(), |delay| format!("{delay:?}")))
}

#[test]
fn a_fault_is_told_in_the_caller_s_words_and_ends_at_its_time() {
    let mut dice = Dice::seeded(1);
    let both = json!({"delay": {"duration": "2s"}, "abort": {"status": 503, "grpcStatus": 14}, "until": "1970-01-01T00:01:40Z"});
    assert_eq!(fault(&both, "text/plain", 99, &mut dice), "2s 503");
    assert_eq!(fault(&both, "application/grpc+proto", 99, &mut dice), "2s grpc 14");
    assert_eq!(fault(&both, "text/plain", 100, &mut dice), "- -");
    let for_grpc = json!({"abort": {"grpcStatus": 14}});
    assert_eq!(fault(&for_grpc, "text/plain", 1, &mut dice), "- -");
    assert_eq!(fault(&json!({"abort": {"status": 500}}), "application/grpc", 1, &mut dice), "- 500");
    let tenth = json!({"abort": {"status": 500, "percent": 10}});
    let hit = (0..10_000).filter(|_| fault(&tenth, "a/b", 1, &mut dice) == "- 500").count();
    assert!((850..1_150).contains(&hit), "{hit}");
}
