//! Pure. TCPRoute: where streams to a service go, in Gateway API's terms. A stream says nothing by which rules could be
//! told apart, so that there is one.

use super::{
    BackendRef, ParentRef, Rules,
    filter::OfBackends,
    route::{check_backends, check_parents},
};
use crate::{
    name::Name,
    object::Metadata,
    shape::{Decoder, Path, record},
};

record! {
    /// The rule.
    pub struct TcpRouteRule {
        /// For metrics and explain; its index if left out.
        "name" name: Option<Name>,
        /// Where streams go, by weight, drawn for each connection; at least one.
        "backendRefs" backend_refs: Vec<BackendRef>,
    }
}

record! {
    /// Where streams to a service go.
    pub struct TcpRouteSpec {
        /// The services that it is for; at least one.
        "parentRefs" parent_refs: Vec<ParentRef>,
        /// The rule.
        "rules" rules: Vec<TcpRouteRule>,
    }
}

impl Rules for TcpRouteSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        check_parents(&self.parent_refs, at, decoder);
        let rules_at = Path::Field(at, "rules");
        if self.rules.len() != 1 {
            let is = self.rules.len();
            decoder.report(
                &rules_at,
                format_args!("must have one rule, as a stream says nothing to choose by; has {is}"),
            );
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let rule_at = Path::Index(&rules_at, index);
            if rule.backend_refs.is_empty() {
                decoder.report(&Path::Field(&rule_at, "backendRefs"), "must name at least one back end");
            }
            check_backends(&rule.backend_refs, OfBackends::Bytes, &rule_at, decoder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::testing::check;
    use crate::kind::Kind;

    #[test]
    fn there_is_one_rule_with_a_back_end() {
        check(Kind::TCPRoute, "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: a, port: 1}]}]}", &[]);
        check(Kind::TCPRoute, "{}", &["spec.parentRefs: must name", "spec.rules: must have one rule"]);
        check(
            Kind::TCPRoute,
            "{parentRefs: [{name: a}], rules: [{}, {backendRefs: [{name: a, port: 1, weight: 0}]}]}",
            &[
                "spec.rules: must have one rule, as a stream says nothing to choose by; has 2",
                "spec.rules[0].backendRefs: must name at least one back end",
                "spec.rules[1].backendRefs: must have one back end with a weight above 0",
            ],
        );
        check(
            Kind::TCPRoute,
            "{parentRefs: [{name: a}], rules: [{matches: [], backendRefs: [{name: a, port: 1}]}]}",
            &["spec.rules[0].matches: unknown field"],
        );
        check(
            Kind::TCPRoute,
            "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: a, port: 1, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}}}]}]}]}",
            &["spec.rules[0].backendRefs[0].filters: must be left out in a TCPRoute"],
        );
    }
}
