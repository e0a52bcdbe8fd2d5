//! Pure. What an object may say beyond what its kind's shape allows: rules that need the state, or the rights of who
//! writes. Refuses what could never be right or would hand on rights; a reference to what is not there yet is no fault
//! but a condition in the status.

use model::{
    invalid::{FIELD_ERRORS_MAX, FieldError, Invalid},
    kind::Kind,
    name::Name,
    object::{Key, Object, Parsed},
    resource::{
        AccessTokenSpec, DiscoverySourceSpec, JoinRole, JoinTokenSpec, Resource, RoleSpec, TargetRef, Verb,
    },
};
use registry::state::State;

use crate::rights::{BUILT_IN, Missing, Place, Rights};

/// Why an object is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotAdmitted {
    /// The writer lacks a permission; at which field that shows.
    #[error("{missing}, for {path}")]
    Missing {
        /// The permission.
        missing: Missing,
        /// What asks for it.
        path: String,
    },
    /// Wrong fields.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It does not go together with what is there.
    #[error("{0}")]
    Conflict(String),
    /// Not an operator's to write.
    #[error("{0}")]
    NotYours(String),
}

/// What to do instead of writing an endpoint.
pub const ENDPOINTS_ARE_REGISTERED: &str = "endpoints are written by the proxy of their host when it registers; to change \
     one, change services.d on its host, and to take a host out, set spec.disabled of its Node";

/// Whether judging an object of this kind needs the state as it is now, not as this member knows it.
pub fn needs_state(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Role | Kind::AccessToken | Kind::JoinToken | Kind::TrafficPolicy | Kind::PeerAuthentication
    )
}

/// Whether the object may be written by someone with these rights; that they may write its kind in its place was
/// checked before.
///
/// # Errors
/// Why not.
pub fn admit(state: &State, rights: &Rights, parsed: &Parsed) -> Result<(), NotAdmitted> {
    match &parsed.resource {
        Resource::Endpoint(_) => Err(NotAdmitted::NotYours(ENDPOINTS_ARE_REGISTERED.to_owned())),
        Resource::HttpRoute(_) | Resource::GrpcRoute(_) | Resource::TcpRoute(_) => {
            admit_route(rights, &parsed.object, &parsed.resource)
        }
        Resource::AuthorizationPolicy(spec) => compiles(traffic::policy::check(spec)),
        Resource::TrafficPolicy(spec) => {
            compiles(traffic::rate::check(spec))?;
            admit_alone(state, &parsed.object, spec.target_refs.as_deref())
        }
        Resource::PeerAuthentication(spec) => admit_alone(state, &parsed.object, spec.target_refs.as_deref()),
        Resource::Role(spec) => admit_role(rights, &parsed.object, spec),
        Resource::AccessToken(spec) => {
            unchanged(state, &parsed.object)?;
            admit_access_token(state, rights, spec)
        }
        Resource::JoinToken(spec) => {
            unchanged(state, &parsed.object)?;
            admit_join_token(rights, spec)
        }
        Resource::DiscoverySource(spec) => admit_source(rights, spec),
        Resource::Namespace(_) | Resource::Node(_) | Resource::Service(_) => Ok(()),
    }
}

/// The rights of the roles with these names: built-in ones and Roles. One that does not exist gives none.
pub fn rights_of<'a>(state: &State, roles: impl IntoIterator<Item = &'a Name>) -> Rights {
    roles.into_iter().filter_map(|role| role_rights(state, role)).fold(Rights::none(), Rights::and)
}

fn role_rights(state: &State, role: &Name) -> Option<Rights> {
    if let Some(rights) = Rights::built_in(role.as_str()) {
        return Some(rights);
    }
    match state.get(&Key::mesh_wide(Kind::Role, role.clone()))?.resource() {
        Ok(Resource::Role(spec)) => Some(Rights::none().with(&spec)),
        _ => None,
    }
}

/// What the data plane could not take is not taken here.
fn compiles(mut errors: Vec<FieldError>) -> Result<(), NotAdmitted> {
    errors.truncate(FIELD_ERRORS_MAX);
    if errors.is_empty() { Ok(()) } else { Err(Invalid { errors }.into()) }
}

/// Back ends in another namespace are that namespace's: the writer must be able to write routes there too.
fn admit_route(rights: &Rights, object: &Object, route: &Resource) -> Result<(), NotAdmitted> {
    compiles(traffic::route::check(route))?;
    for (at, backend) in route.route().map(|route| route.backends).unwrap_or_default() {
        let other =
            backend.namespace.as_ref().filter(|other| Some(*other) != object.metadata.namespace.as_ref());
        if let Some(other) = other {
            let missing = |missing| NotAdmitted::Missing { missing, path: format!("{at}.namespace") };
            rights.check(Verb::Write, object.kind, Place::Namespace(other)).map_err(missing)?;
        }
    }
    Ok(())
}

/// Of two objects of a kind of which the most specific counts, for one service or namespace, one would say nothing.
fn admit_alone(state: &State, object: &Object, targets: Option<&[TargetRef]>) -> Result<(), NotAdmitted> {
    match rivals(state, object, targets).next() {
        Some((other, what)) => {
            Err(NotAdmitted::Conflict(format!("{other} is for {what} already; change that one")))
        }
        None => Ok(()),
    }
}

/// The objects of a kind that are for the same as one, as specifically, each with what that is.
pub fn rivals<'a>(
    state: &'a State,
    object: &'a Object,
    targets: Option<&'a [TargetRef]>,
) -> impl Iterator<Item = (Key, String)> + 'a {
    let others = state.list(object.kind, object.metadata.namespace.as_ref());
    others.filter(|other| other.metadata.name != object.metadata.name).filter_map(move |other| {
        let theirs = match other.resource().ok()? {
            Resource::TrafficPolicy(theirs) => theirs.target_refs,
            Resource::PeerAuthentication(theirs) => theirs.target_refs,
            _ => return None,
        };
        let what = match (targets, &theirs) {
            (None, None) => "all of its place".to_owned(),
            (Some(own), Some(theirs)) => {
                let shared = own.iter().find(|own| theirs.iter().any(|their| their.name == own.name))?;
                format!("Service {}", shared.name)
            }
            _ => return None,
        };
        Some((other.key(), what))
    })
}

/// What a source brings is written by the mesh itself: its writer must be able to write Services where they come to.
fn admit_source(rights: &Rights, spec: &DiscoverySourceSpec) -> Result<(), NotAdmitted> {
    let to = spec.namespace();
    let place = to.as_ref().map_or(Place::Everywhere, Place::Namespace);
    let missing = |missing| NotAdmitted::Missing { missing, path: "spec.namespaceMapping".to_owned() };
    rights.check(Verb::Write, Kind::Service, place).map_err(missing)
}

fn admit_role(rights: &Rights, object: &Object, role: &RoleSpec) -> Result<(), NotAdmitted> {
    let name = object.metadata.name.as_str();
    if BUILT_IN.contains(&name) {
        return Err(NotAdmitted::Conflict(format!("{name} is a built-in role; choose another name")));
    }
    let missing = |missing| NotAdmitted::Missing { missing, path: "spec.rules".to_owned() };
    rights.check_covers(&Rights::none().with(role)).map_err(missing)
}

fn admit_access_token(state: &State, rights: &Rights, token: &AccessTokenSpec) -> Result<(), NotAdmitted> {
    let mut unknown = Vec::new();
    for (index, role) in token.roles.iter().enumerate() {
        let path = format!("spec.roles[{index}]");
        match role_rights(state, role) {
            Some(of_role) => {
                rights.check_covers(&of_role).map_err(|missing| NotAdmitted::Missing { missing, path })?;
            }
            None => unknown.extend(Invalid::one(path, format_args!("role {role} does not exist")).errors),
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(Invalid { errors: unknown }.into()) }
}

fn admit_join_token(rights: &Rights, token: &JoinTokenSpec) -> Result<(), NotAdmitted> {
    if token.role == JoinRole::Server {
        let missing = |missing| NotAdmitted::Missing { missing, path: "spec.role".to_owned() };
        rights.check_admin().map_err(missing)?;
    }
    let missing = |missing| NotAdmitted::Missing { missing, path: "spec.services".to_owned() };
    rights.check_grants(&token.services).map_err(missing)
}

/// A secret was handed out for what the token said then: it cannot come to mean something else.
fn unchanged(state: &State, object: &Object) -> Result<(), NotAdmitted> {
    let key = object.key();
    match state.get(&key) {
        Some(present) if present.spec != object.spec => Err(NotAdmitted::Conflict(format!(
            "the spec of {key} cannot be changed, as its secret is out; delete it and create it anew"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::testing::{object, put, state};

    fn shop_operator(state: &mut State) -> Rights {
        put(
            state,
            r#"Role shop-operator {"rules":[{"kinds":["Service","HTTPRoute"],"verbs":["get","write"],"namespaces":["shop"]}]}"#,
        );
        rights_of(state, &["shop-operator".parse().expect("a name")])
    }

    #[track_caller]
    fn check(state: &State, rights: &Rights, text: &str, want: Result<(), &str>) {
        let value: Value = serde_json::to_value(object(text)).expect("serialises");
        let parsed = Parsed::from_input(&value, None).expect("well-formed");
        let got = admit(state, rights, &parsed).map_err(|error| error.to_string());
        assert_eq!(got, want.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn of_peer_authentications_one_is_for_each_target() {
        let mut state = state();
        let operator = Rights::built_in("operator").expect("built in");
        for present in [
            r#"PeerAuthentication default/orders {"targetRefs":[{"name":"orders"},{"name":"web"}],"mode":"Strict"}"#,
            r#"PeerAuthentication default/all {"mode":"Strict"}"#,
            r#"PeerAuthentication mesh-system/all {"mode":"Strict"}"#,
        ] {
            check(&state, &operator, present, Ok(()));
            put(&mut state, present);
            check(&state, &operator, present, Ok(()));
        }
        check(
            &state,
            &operator,
            r#"PeerAuthentication default/more {"targetRefs":[{"name":"inventory"},{"name":"web"}],"mode":"Strict"}"#,
            Err("PeerAuthentication default/orders is for Service web already; change that one"),
        );
        check(
            &state,
            &operator,
            r#"PeerAuthentication default/more {"mode":"Strict"}"#,
            Err("PeerAuthentication default/all is for all of its place already; change that one"),
        );
        check(&state, &operator, r#"PeerAuthentication shop/more {"mode":"Strict"}"#, Ok(()));
        check(
            &state,
            &operator,
            r#"PeerAuthentication default/more {"targetRefs":[{"name":"inventory"}],"mode":"Strict"}"#,
            Ok(()),
        );
    }

    #[test]
    fn a_source_needs_the_right_to_write_services_where_they_come_to() {
        let mut state = state();
        let rights = shop_operator(&mut state);
        let source = |mapping: &str| {
            format!(
                r#"DiscoverySource old {{"type":"File","file":{{"path":"/a"}},"namespaceMapping":{mapping}}}"#
            )
        };
        check(&state, &rights, &source(r#"{"to":"shop"}"#), Ok(()));
        check(
            &state,
            &rights,
            &source(r#"{"to":"default"}"#),
            Err("needs write on Service in namespace default, for spec.namespaceMapping"),
        );
        check(
            &state,
            &rights,
            &source(r#"{"from":"namespace"}"#),
            Err("needs write on Service in all namespaces, for spec.namespaceMapping"),
        );
        let operator = Rights::built_in("operator").expect("built in");
        let missing = operator.check(Verb::Write, Kind::DiscoverySource, Place::MeshWide);
        assert_eq!(missing.expect_err("a right of its own").to_string(), "needs write on DiscoverySource");
        assert_eq!(operator.check(Verb::List, Kind::DiscoverySource, Place::MeshWide), Ok(()));
    }

    #[test]
    fn back_ends_elsewhere_need_the_right_there() {
        let mut state = state();
        let rights = shop_operator(&mut state);
        let route = |namespace: &str| {
            let rules = json!([{"backendRefs": [{"namespace": namespace, "name": "web", "port": 80}]}]);
            format!("HTTPRoute shop/r {}", json!({"parentRefs": [{"name": "web"}], "rules": rules}))
        };
        check(&state, &rights, &route("shop"), Ok(()));
        check(
            &state,
            &rights,
            &route("default"),
            Err("needs write on HTTPRoute in namespace default, for spec.rules[0].backendRefs[0].namespace"),
        );
        check(&state, &Rights::built_in("operator").expect("built in"), &route("default"), Ok(()));
        let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"namespace": "default", "name": "web", "port": 80}}});
        let mirrored = json!({"parentRefs": [{"name": "web"}], "rules": [{"filters": [mirror]}]});
        check(
            &state,
            &rights,
            &format!("HTTPRoute shop/r {mirrored}"),
            Err(
                "needs write on HTTPRoute in namespace default, for spec.rules[0].filters[0].requestMirror.backendRef.namespace",
            ),
        );
    }

    #[test]
    fn routes_do_not_touch_what_the_proxies_say() {
        let rights = Rights::built_in("admin").expect("built in");
        let modifier =
            json!({"set": [{"name": "X-Forwarded-For", "value": "me"}], "remove": ["x-mesh-port"]});
        let filter = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier});
        let spec = json!({"parentRefs": [{"name": "web"}], "rules": [{"filters": [filter]}]});
        let why = "it says who called, which the proxies alone may say";
        let at = "spec.rules[0].filters[0].requestHeaderModifier";
        let want = format!(
            "{at}.set[0].name: must not be x-forwarded-for: {why}; {at}.remove[0]: must not be x-mesh-port: {why}"
        );
        check(&state(), &rights, &format!("HTTPRoute default/r {spec}"), Err(&want));
    }

    #[test]
    fn policies_say_what_the_data_plane_can_see() {
        let policy = |rule: &str| format!(r#"AuthorizationPolicy shop/p {{"rules":[{rule}]}}"#);
        let (state, rights) = (state(), Rights::built_in("operator").expect("built in"));
        check(&state, &rights, &policy(r#"{"to":[{"paths":[{"value":"/api"}]}]}"#), Ok(()));
        let claim = r#"{"when":[{"claim":"role","values":["admin"]}],"to":[{"paths":[{"type":"RegularExpression","value":"("}]}]}"#;
        check(
            &state,
            &rights,
            &policy(claim),
            Err(
                "spec.rules[0].to[0].paths[0].value: must be a regular expression (RE2 syntax): unclosed group; \
                 spec.rules[0].when[0].claim: claims are not verified yet, so that no condition on one could hold: use header",
            ),
        );
    }

    #[test]
    fn two_traffic_policies_are_not_for_the_same() {
        let (mut state, rights) = (state(), Rights::built_in("operator").expect("built in"));
        let policy =
            |name: &str, targets: &str| format!(r#"TrafficPolicy {name} {{"targetRefs":[{targets}]}}"#);
        put(&mut state, &policy("default/a", r#"{"name":"web"},{"name":"orders"}"#));
        let taken = Err("TrafficPolicy default/a is for Service orders already; change that one");
        check(&state, &rights, &policy("default/b", r#"{"name":"x"},{"name":"orders"}"#), taken);
        check(&state, &rights, &policy("default/b", r#"{"name":"x"}"#), Ok(()));
        check(&state, &rights, &policy("default/a", r#"{"name":"orders"}"#), Ok(()));
        check(&state, &rights, "TrafficPolicy default/all {}", Ok(()));
        put(&mut state, "TrafficPolicy default/all {}");
        let taken = Err("TrafficPolicy default/all is for all of its place already; change that one");
        check(&state, &rights, "TrafficPolicy default/every {}", taken);
        check(&state, &rights, "TrafficPolicy mesh-system/every {}", Ok(()));
    }

    #[test]
    fn roles_and_tokens_stay_within_the_writer_s_rights() {
        let mut state = state();
        let rights = shop_operator(&mut state);
        check(
            &state,
            &rights,
            r#"Role mine {"rules":[{"kinds":["Service"],"verbs":["get"],"namespaces":["shop"]}]}"#,
            Ok(()),
        );
        check(
            &state,
            &rights,
            r#"Role mine {"rules":[{"kinds":["Node"],"verbs":["get"]}]}"#,
            Err("needs get on Node, for spec.rules"),
        );
        check(&state, &rights, r#"AccessToken t {"roles":["shop-operator"]}"#, Ok(()));
        check(
            &state,
            &rights,
            r#"AccessToken t {"roles":["admin"]}"#,
            Err("needs * on all kinds in all namespaces, for spec.roles[0]"),
        );
        check(
            &state,
            &rights,
            r#"AccessToken t {"roles":["later"]}"#,
            Err("spec.roles[0]: role later does not exist"),
        );
        let admin = Rights::built_in("admin").expect("built in");
        check(
            &state,
            &admin,
            r#"Role viewer {"rules":[]}"#,
            Err("viewer is a built-in role; choose another name"),
        );
        check(&state, &admin, r#"AccessToken t {"roles":["admin","shop-operator"]}"#, Ok(()));
    }

    #[test]
    fn join_tokens_for_servers_need_admin_and_for_hosts_their_services() {
        let mut state = state();
        let (shop, operator) = (shop_operator(&mut state), Rights::built_in("operator").expect("built in"));
        check(
            &state,
            &operator,
            r#"JoinToken t {"role":"server"}"#,
            Err("needs admin on all kinds, for spec.role"),
        );
        check(
            &state,
            &Rights::built_in("admin").expect("built in"),
            r#"JoinToken t {"role":"server"}"#,
            Ok(()),
        );
        check(&state, &operator, r#"JoinToken t {"services":["*/*"]}"#, Ok(()));
        check(&state, &shop, r#"JoinToken t {"services":["shop/*"]}"#, Ok(()));
        check(
            &state,
            &shop,
            r#"JoinToken t {"services":["default/web"]}"#,
            Err("needs write on Service in namespace default, for spec.services"),
        );
    }

    #[test]
    fn a_token_does_not_change_its_meaning() {
        let mut state = state();
        put(&mut state, r#"AccessToken t {"roles":["viewer"]}"#);
        let admin = Rights::built_in("admin").expect("built in");
        check(&state, &admin, r#"AccessToken t {"roles":["viewer"]}"#, Ok(()));
        check(
            &state,
            &admin,
            r#"AccessToken t {"roles":["admin"]}"#,
            Err(
                "the spec of AccessToken t cannot be changed, as its secret is out; delete it and create it anew",
            ),
        );
    }

    #[test]
    fn endpoints_are_not_the_operators() {
        let endpoint = r#"Endpoint default/a {"service":"a","address":"10.0.0.1","source":"discovery/x"}"#;
        check(
            &state(),
            &Rights::built_in("admin").expect("built in"),
            endpoint,
            Err(ENDPOINTS_ARE_REGISTERED),
        );
    }
}
