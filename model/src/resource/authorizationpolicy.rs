//! Pure. AuthorizationPolicy: who may call which services. How policies are weighed against each other is decided in
//! `traffic`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde_json::{Value, json};

use super::{
    PathMatch, PathMatchType, Port, Rules,
    filter::check_name,
    httproute::{RefKind, is_method},
};
use crate::{
    identity::SpiffeId,
    name::{Name, NameError, ServiceName, as_text},
    object::Metadata,
    shape::{Decoder, Path, Shape, Text, choice, record},
};

choice! {
    /// What becomes of a call that a rule matches.
    pub enum PolicyAction {
        /// It may go on. What none of a service's policies of this kind matches may not.
        Allow = "Allow",
        /// It is refused, whatever else allows it.
        Deny = "Deny",
        /// It is noted in log and metrics; nothing else.
        Audit = "Audit",
    }
}

/// Services that call: one (`default/web`), or all of a namespace (`default/*`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Callers {
    /// One.
    Service(ServiceName),
    /// All of a namespace.
    Namespace(Name),
}

impl FromStr for Callers {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix("/*") {
            Some(namespace) => namespace.parse().map(Self::Namespace),
            None => text.parse().map(Self::Service),
        }
    }
}

impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Namespace(namespace) => write!(f, "{namespace}/*"),
        }
    }
}

as_text!(Callers);

impl Shape for Callers {
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[-a-z0-9]+/([-a-z0-9]+|\\*)$"})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        if parsed.is_none() {
            decoder.report(at, "must be a service, <namespace>/<name>, or all of a namespace, <namespace>/*");
        }
        parsed
    }
}

record! {
    /// A service that a policy is for; of the policy's own namespace.
    pub struct TargetRef {
        /// `Service`.
        "kind" kind: RefKind = RefKind::Service,
        /// Its name.
        "name" name: Name,
    }
}

record! {
    /// Who calls: all of what is given must hold, and one of each list.
    pub struct PolicyFrom {
        /// The calling service, `<namespace>/<name>`, or all of a namespace, `<namespace>/*`.
        "services" services: Option<Vec<Callers>>,
        /// The caller's namespace.
        "namespaces" namespaces: Option<Vec<Name>>,
        /// The caller's SPIFFE id.
        "principals" principals: Option<Vec<SpiffeId>>,
    }
}

record! {
    /// What is called: all of what is given must hold, and one of each list.
    pub struct PolicyTo {
        /// The service's port.
        "ports" ports: Option<Vec<Port>>,
        /// The request's method.
        "methods" methods: Option<Vec<Text<32>>>,
        /// The request's path, in its normal form.
        "paths" paths: Option<Vec<PathMatch>>,
    }
}

record! {
    /// A value that a request carries; a header, or a claim of a verified token.
    pub struct PolicyCondition {
        /// The header's name; case does not matter.
        "header" header: Option<Text<256>>,
        /// The claim's name.
        "claim" claim: Option<Text<256>>,
        /// One of these.
        "values" values: Option<Vec<Text<4096>>>,
    }
}

record! {
    /// Calls of a kind: from AND to AND when.
    pub struct PolicyRule {
        /// For logs, metrics and explain; its index if left out.
        "name" name: Option<Name>,
        /// Who calls, one of these; anybody if left out, also without an identity where a PeerAuthentication permits
        /// that; nobody if empty.
        "from" from: Option<Vec<PolicyFrom>>,
        /// What is called, one of these; anything if left out, nothing if empty.
        "to" to: Option<Vec<PolicyTo>>,
        /// What the request carries, one of these; whatever it is if left out, nothing if empty.
        "when" when: Option<Vec<PolicyCondition>>,
    }
}

record! {
    /// Who may call which services.
    pub struct AuthorizationPolicySpec {
        /// The services that it is for; if left out every service of the namespace, and in `mesh-system` of the mesh.
        "targetRefs" target_refs: Option<Vec<TargetRef>>,
        /// What becomes of a call that a rule matches.
        "action" action: PolicyAction = PolicyAction::Allow,
        /// Whether it is only rehearsed: what it would do stands in log and metrics, and nothing is refused.
        "dryRun" dry_run: bool = false,
        /// The rules, one of which must match; without one it matches nothing.
        "rules" rules: Vec<PolicyRule>,
    }
}

impl Rules for AuthorizationPolicySpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        if self.target_refs.as_ref().is_some_and(Vec::is_empty) {
            let targets_at = Path::Field(at, "targetRefs");
            decoder.report(&targets_at, "must name a Service, or be left out: then it is for all of them");
        }
        let (rules_at, mut names) = (Path::Field(at, "rules"), BTreeSet::new());
        for (index, rule) in self.rules.iter().enumerate() {
            let rule_at = Path::Index(&rules_at, index);
            if rule.name.as_ref().is_some_and(|name| !names.insert(name)) {
                decoder.report(&Path::Field(&rule_at, "name"), "must be another one: a rule has this name");
            }
            check_rule(rule, &rule_at, decoder);
        }
    }
}

fn check_rule(rule: &PolicyRule, at: &Path<'_>, decoder: &mut Decoder) {
    let (from_at, to_at) = (Path::Field(at, "from"), Path::Field(at, "to"));
    for (index, from) in rule.from.iter().flatten().enumerate() {
        if from.services.is_none() && from.namespaces.is_none() && from.principals.is_none() {
            let message = "must have services, namespaces or principals; leave `from` out for any caller";
            decoder.report(&Path::Index(&from_at, index), message);
        }
    }
    for (index, to) in rule.to.iter().flatten().enumerate() {
        check_to(to, &Path::Index(&to_at, index), decoder);
    }
    let when_at = Path::Field(at, "when");
    for (index, condition) in rule.when.iter().flatten().enumerate() {
        check_condition(condition, &Path::Index(&when_at, index), decoder);
    }
}

fn check_to(to: &PolicyTo, at: &Path<'_>, decoder: &mut Decoder) {
    if to.ports.is_none() && to.methods.is_none() && to.paths.is_none() {
        decoder.report(at, "must have ports, methods or paths; leave `to` out for any call");
    }
    let (methods_at, paths_at) = (Path::Field(at, "methods"), Path::Field(at, "paths"));
    for (index, method) in to.methods.iter().flatten().enumerate() {
        if !is_method(method.as_str()) {
            decoder.report(&Path::Index(&methods_at, index), "must be a method in upper case, such as GET");
        }
    }
    for (index, path) in to.paths.iter().flatten().enumerate() {
        if path.kind != PathMatchType::RegularExpression && !path.value.as_str().starts_with('/') {
            let path_at = Path::Index(&paths_at, index);
            decoder.report(&Path::Field(&path_at, "value"), "must start with '/'");
        }
    }
}

fn check_condition(condition: &PolicyCondition, at: &Path<'_>, decoder: &mut Decoder) {
    match (&condition.header, &condition.claim) {
        (Some(header), None) => check_name(header.as_str(), &Path::Field(at, "header"), decoder),
        (None, Some(_)) => {}
        (Some(_), Some(_)) | (None, None) => decoder.report(at, "must have either header or claim"),
    }
    if condition.values.is_none() {
        decoder.report(&Path::Field(at, "values"), "is required");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shape::{Mode, decode_at};

    /// `want` is what is wrong, a line each.
    #[track_caller]
    fn check(spec: &Value, want: &[&str]) {
        let at = Path::Field(&Path::Root, "spec");
        let mut decoder = Decoder::new(Mode::Strict);
        if let Some(decoded) = AuthorizationPolicySpec::decode(spec, &at, &mut decoder) {
            decoded.check(None, &at, &mut decoder);
        }
        let errors = decoder.finish().map_or_else(|invalid| invalid.errors, |()| Vec::new());
        let errors: Vec<_> =
            errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        assert_eq!(errors, want, "{spec}");
    }

    #[test]
    fn nothing_but_rules_is_needed_and_not_even_those() {
        check(&json!({}), &[]);
        check(&json!({"rules": [{}]}), &[]);
        check(&json!({"rules": [{"from": [], "to": [], "when": []}]}), &[]);
        let spec: AuthorizationPolicySpec =
            decode_at(&json!({}), &Path::Root, Mode::Strict).expect("all has a default");
        assert_eq!((spec.action, spec.dry_run, spec.target_refs), (PolicyAction::Allow, false, None));
    }

    #[test]
    fn left_out_and_empty_are_told_apart() {
        let spec = json!({"rules": [{"from": []}]});
        let decoded: AuthorizationPolicySpec = decode_at(&spec, &Path::Root, Mode::Strict).expect("valid");
        assert_eq!((decoded.rules[0].from.as_ref().map(Vec::len), &decoded.rules[0].to), (Some(0), &None));
        let effective = serde_json::to_value(&decoded).expect("serialises");
        assert_eq!(effective, json!({"action": "Allow", "dryRun": false, "rules": [{"from": []}]}));
    }

    #[test]
    fn every_wrong_field_is_named() {
        check(
            &json!({"targetRefs": [], "action": "allow", "rule": []}),
            &[
                "spec.rule: unknown field; known are targetRefs, action, dryRun, rules",
                "spec.action: must be one of Allow, Deny, Audit; is \"allow\"",
            ],
        );
        check(
            &json!({"targetRefs": [{"name": "orders", "namespace": "shop"}]}),
            &["spec.targetRefs[0].namespace: unknown field; known are kind, name"],
        );
        check(
            &json!({"targetRefs": []}),
            &["spec.targetRefs: must name a Service, or be left out: then it is for all of them"],
        );
        check(
            &json!({"rules": [{"from": [{"services": ["*/*", "shop/*", "shop/web"]}]}]}),
            &[
                "spec.rules[0].from[0].services[0]: must be a service, <namespace>/<name>, or all of a namespace, <namespace>/*",
            ],
        );
        check(
            &json!({"rules": [
                {"name": "a", "from": [{}], "to": [{}, {"methods": ["get"], "paths": [{"value": "api"}]}]},
                {"name": "a", "when": [{"header": "x y", "values": []}, {"values": ["1"]}, {"header": "a", "claim": "b", "values": []}, {"claim": "b"}]},
            ]}),
            &[
                "spec.rules[0].from[0]: must have services, namespaces or principals; leave `from` out for any caller",
                "spec.rules[0].to[0]: must have ports, methods or paths; leave `to` out for any call",
                "spec.rules[0].to[1].methods[0]: must be a method in upper case, such as GET",
                "spec.rules[0].to[1].paths[0].value: must start with '/'",
                "spec.rules[1].name: must be another one: a rule has this name",
                "spec.rules[1].when[0].header: must be a header's name (RFC 9110 §5.1)",
                "spec.rules[1].when[1]: must have either header or claim",
                "spec.rules[1].when[2]: must have either header or claim",
                "spec.rules[1].when[3].values: is required",
            ],
        );
    }
}
