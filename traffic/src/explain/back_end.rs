//! Pure. What holds at each back end of a rule: the share, the endpoints, the traffic policy, and the called side's verdict.

use std::{sync::Arc, time::Duration};

use model::{
    explain::{BackEnd, Explanation, InForce, Reached, Verdict},
    identity::SpiffeId,
    name::ServiceName,
};

use super::{
    Asked,
    endpoints::{endpoints, percent},
    head::Head,
};
use crate::{
    path::{NormalPath, normalize},
    policy::{self, Denied, Peer, PolicySet, Remark, RemarkKind, authorize},
    request::RequestHead,
    route::{BackendName, Choice, Mirror, Routed, Rule, Unroutable},
    snapshot::Backend,
};

/// Of a back end of mode `Disabled`.
const PAST_THE_PROXY: &str = "is called in plaintext, past its host's proxy: policies hold only where that host turns connections aside";

/// Of a back end whose endpoints a discovery source brought.
const WITHOUT_A_PROXY: &str = "is called in plaintext: its endpoints come from a discovery source and have no proxy, so that no policy holds there";

/// Of one whose source says that they are called over TLS.
const OVER_TLS: &str = "is called over TLS, by which it does not know its callers: its endpoints come from a discovery source and have no proxy, so that no policy holds there";

/// What lets a call in there.
const NOBODY: &str = "no-proxy";

/// A request, as opposed to a stream.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) head: &'a Head,
    pub(super) path: &'a NormalPath<'a>,
    /// As its caller's proxy decides on it.
    pub(super) seen: &'a RequestHead<'a>,
    /// As its rule has it go on.
    pub(super) next: &'a Head,
}

/// A request as its caller's proxy decides on it, and as it comes to the back end; a stream is neither.
type Seen<'a> = Option<(&'a RequestHead<'a>, &'a Head)>;

impl Asked<'_> {
    /// Tells of the back ends of a rule.
    pub(super) fn back_ends(&self, rule: &Rule, asking: Option<Asking<'_>>, explanation: &mut Explanation) {
        let sum = rule.split.weights().map(|(weight, _)| weight).sum();
        for (weight, choice) in rule.split.weights() {
            if let Some(backend) = choice.backend.as_ref().ok().filter(|backend| backend.plain) {
                let over_tls = backend.endpoints().iter().any(|endpoint| backend.tls(endpoint).is_some());
                let what = match without_proxy(backend) {
                    true if over_tls => OVER_TLS,
                    true => WITHOUT_A_PROXY,
                    false => PAST_THE_PROXY,
                };
                explanation.notes.push(format!("{} {what}", backend.name));
            }
            let share = (weight, percent(weight, sum));
            explanation.backends.push(self.back_end(rule, choice, share, asking));
        }
        if explanation.backends.is_empty() {
            explanation.refused = Some(Unroutable::NoBackend.to_string());
        }
    }

    fn back_end(
        &self,
        rule: &Rule,
        choice: &Choice,
        (weight, percent): (u64, f64),
        asking: Option<Asking<'_>>,
    ) -> BackEnd {
        let routed = rule.to(Some(choice));
        // The rule's and its own, as both together are.
        let comes =
            choice.filters.as_ref().zip(asking).map(|(all, asking)| asking.head.next(all, asking.path));
        let comes = comes.as_ref();
        let next = comes.or(asking.map(|asking| asking.next));
        let (name, refused, reached) = match routed.backend {
            Ok(backend) => {
                let seen = asking.map(|asking| asking.seen).zip(next);
                (backend.name.to_string(), None, Some(self.reached(&routed, backend, seen)))
            }
            Err(Unroutable::Invalid(name, missing)) => (name.to_string(), Some(missing.to_string()), None),
            Err(other) => (String::new(), Some(other.to_string()), None),
        };
        let by_rule = asking.map(|asking| asking.next).zip(comes);
        let other = |of: fn(&Head) -> &String| {
            by_rule.filter(|(rule, own)| of(rule) != of(own)).map(|(_, own)| of(own).clone())
        };
        let (path, authority) = (other(|head| &head.path), other(|head| &head.authority));
        BackEnd { name, weight, percent, refused, filters: filters(rule, choice), path, authority, reached }
    }

    fn reached(&self, routed: &Routed<'_>, backend: &Arc<Backend>, seen: Seen<'_>) -> Reached {
        let place = self.snapshot.place.as_ref();
        let (from, node) = (&self.question.from, place.map(|place| &place.node));
        let ways = &backend.conduct.balancer;
        let ask = match seen {
            Some((head, _)) => ways.ask(head, from, node),
            None => ways.ask_of_stream(from, node),
        };
        let zone = place.and_then(|place| place.zone.as_ref()).filter(|_| ways.prefers_zones());
        let span = |span: Option<Duration>| span.map(|span| format!("{span:?}"));
        Reached {
            mtls: !backend.plain,
            traffic_policy: self.traffic_policy(&backend.name.service),
            timeout: span(routed.timeouts.request),
            try_timeout: span(routed.timeouts.backend_request),
            retries: routed.retry.attempts,
            endpoints: endpoints(&backend.pool, &ask, zone),
            endpoints_total: backend.endpoints().len(),
            verdict: self.verdict(backend, seen.map(|(_, next)| next)),
        }
    }

    fn traffic_policy(&self, service: &ServiceName) -> Option<InForce> {
        let object = self.snapshot.traffic_policy(service)?;
        let namespace = object.metadata.namespace.as_ref()?;
        Some(InForce { name: format!("{namespace}/{}", object.metadata.name), spec: object.spec.clone() })
    }

    /// Whether the called side lets the call in.
    fn verdict(&self, backend: &Backend, next: Option<&Head>) -> Verdict {
        let BackendName { service, port, .. } = &backend.name;
        let own = self.snapshot.inbound().service(service);
        let policies = &*own.expect("each service with a port runs here, by `apps`").policies;
        let id = SpiffeId::service(&self.snapshot.domain, &self.question.from);
        let peer = if backend.plain { Peer::Unknown } else { Peer::Verified(&id) };
        let mut remarks = Vec::new();
        let decided = decided(policies, peer, *port, next, &mut remarks);
        let (mode, mode_rule) = policies.mode_and_rule(*port);
        let of = |kind| {
            let of_kind = remarks.iter().filter(move |remark: &&Remark| remark.kind == kind);
            of_kind.map(|remark| remark.rule.to_string()).collect()
        };
        let (audited, would_deny, would_allow) =
            (of(RemarkKind::Audited), of(RemarkKind::WouldDeny), of(RemarkKind::WouldAllow));
        // Nobody is there who could refuse.
        let decided = if without_proxy(backend) { Ok(NOBODY.to_owned()) } else { decided };
        let (rule, reason) = match &decided {
            Ok(rule) => (Some(rule.clone()), None),
            Err((rule, reason)) => (rule.clone(), Some(reason.clone())),
        };
        let (allowed, mode_rule) = (decided.is_ok(), mode_rule.to_string());
        Verdict { allowed, rule, reason, mode, mode_rule, audited, would_deny, would_allow }
    }
}

/// What is done for one back end beyond what its rule does for all.
fn filters(rule: &Rule, choice: &Choice) -> Vec<String> {
    let (of_rule, all) =
        (rule.filters.words(), choice.filters.as_ref().map_or_else(Vec::new, |all| all.words()));
    let own = all.into_iter().filter(|words| !of_rule.contains(words));
    own.chain(choice.mirrors.iter().map(Mirror::to_string)).collect()
}

/// Whether there is nobody at its endpoints who holds policies.
fn without_proxy(backend: &Backend) -> bool {
    backend.endpoints().iter().any(|endpoint| !endpoint.has_proxy())
}

/// The rule that lets the call in; else the one that refuses it, if it is one, and why.
fn decided(
    policies: &PolicySet,
    peer: Peer<'_>,
    port: u16,
    next: Option<&Head>,
    remarks: &mut Vec<Remark>,
) -> Result<String, (Option<String>, String)> {
    let refused = |denied: Denied| (Some(denied.rule().to_string()), denied.to_string());
    let Some(next) = next else {
        let permit = authorize(policies, peer, policy::Call { port, request: None }, remarks);
        return permit.map(|permit| permit.rule().to_string()).map_err(refused);
    };
    let path = normalize(&next.path, policies.strictness()).map_err(|refused| (None, refused.to_string()))?;
    let head = next.seen(&path);
    let permit = authorize(policies, peer, policy::Call { port, request: Some(&head) }, remarks);
    permit.map(|permit| permit.rule().to_string()).map_err(refused)
}
