use serde_json::json;

use super::*;
use model::shape::{Mode, decode};

/// `kinds verbs namespaces`, a rule a line, lists with commas; `-` is no namespace.
fn rights(text: &str) -> Rights {
    let list = |word: &str| if word == "-" { json!([]) } else { json!(word.split(',').collect::<Vec<_>>()) };
    let rules = text.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        json!({"kinds": list(words[0]), "verbs": list(words[1]), "namespaces": list(words[2])})
    });
    let role: RoleSpec = decode(&json!({"rules": rules.collect::<Vec<_>>()}), Mode::Strict).expect("a role");
    Rights::none().with(&role)
}

#[track_caller]
fn check(rules: &str, verb: Verb, kind: Kind, namespace: &str, want: Result<(), &str>) {
    let name: Option<Name> = (!["*", "-"].contains(&namespace)).then(|| namespace.parse().expect("a name"));
    let place = match &name {
        Some(name) => Place::Namespace(name),
        None if namespace == "*" => Place::Everywhere,
        None => Place::MeshWide,
    };
    let got = rights(rules).check(verb, kind, place).map_err(|missing| missing.to_string());
    assert_eq!(got, want.map_err(str::to_owned));
}

#[test]
fn rules_allow_verbs_on_kinds_in_places() {
    let shop = "Service,HTTPRoute get,write shop";
    check(shop, Verb::Write, Kind::Service, "shop", Ok(()));
    check(shop, Verb::Write, Kind::Service, "default", Err("needs write on Service in namespace default"));
    check(shop, Verb::Delete, Kind::Service, "shop", Err("needs delete on Service in namespace shop"));
    check(shop, Verb::Get, Kind::Service, "*", Err("needs get on Service in all namespaces"));
    check(shop, Verb::Get, Kind::Node, "-", Err("needs get on Node"));
    check("* * *", Verb::Get, Kind::Node, "-", Ok(()));
    check("* * *", Verb::Tap, Kind::Service, "*", Ok(()));
    check("Node get -", Verb::Get, Kind::Node, "-", Ok(()));
    check("* get shop", Verb::Get, Kind::Node, "-", Err("needs get on Node"));
    check("Service get -\nService get shop", Verb::Get, Kind::Service, "shop", Ok(()));
}

#[test]
fn built_in_roles_are_three() {
    for role in BUILT_IN {
        assert!(Rights::built_in(role).is_some(), "{role}");
    }
    assert_eq!(Rights::built_in("root"), None);
    let viewer = Rights::built_in("viewer").expect("built in");
    assert!(viewer.check(Verb::List, Kind::Service, Place::Everywhere).is_ok());
    assert!(viewer.check(Verb::Write, Kind::Service, Place::Everywhere).is_err());
    let operator = Rights::built_in("operator").expect("built in");
    assert!(operator.check(Verb::Write, Kind::HTTPRoute, Place::Everywhere).is_ok());
    assert!(operator.check(Verb::Write, Kind::AuthorizationPolicy, Place::Everywhere).is_ok());
    assert!(operator.check(Verb::Write, Kind::Role, Place::MeshWide).is_err());
    assert!(operator.check_admin().is_err());
    assert!(Rights::built_in("admin").expect("built in").check_admin().is_ok());
}

#[track_caller]
fn covers(own: &str, others: &str, want: Result<(), &str>) {
    let got = rights(own).check_covers(&rights(others)).map_err(|missing| missing.to_string());
    assert_eq!(got, want.map_err(str::to_owned), "{own} covers {others}");
}

#[test]
fn nobody_hands_on_more_than_they_have() {
    covers("* * *", "* * *", Ok(()));
    covers("* * *", "Service,Later get,* shop,*", Ok(()));
    covers("Service get,list shop", "Service get shop", Ok(()));
    covers("Service get shop\nService list shop", "Service get,list shop", Ok(()));
    covers("Service get shop", "Service write shop", Err("needs write on Service in namespace shop"));
    covers("Service get shop", "* get shop", Err("needs get on all kinds in namespace shop"));
    covers("Service get shop", "Service * shop", Err("needs * on Service in namespace shop"));
    covers("Service get shop", "Service get *", Err("needs get on Service in all namespaces"));
    covers("Service get shop", "Node get -", Err("needs get on Node"));
    covers("Node get -", "Node get *", Err("needs get on Node in all namespaces"));
    covers("* get -", "Node get -", Ok(()));
}

#[test]
fn granting_a_service_to_hosts_needs_write_on_it() {
    let grants = |rules: &str, globs: &[&str]| {
        let globs: Vec<ServiceGlob> = globs.iter().map(|glob| glob.parse().expect("a glob")).collect();
        rights(rules).check_grants(&globs).map_err(|missing| missing.to_string())
    };
    assert_eq!(grants("Service write shop", &["shop/*", "shop/web"]), Ok(()));
    assert_eq!(
        grants("Service write shop", &["default/web"]),
        Err("needs write on Service in namespace default".to_owned())
    );
    assert_eq!(
        grants("Service write shop", &["sho*/web"]),
        Err("needs write on Service in all namespaces".to_owned())
    );
}
