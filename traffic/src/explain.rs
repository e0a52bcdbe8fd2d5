//! Pure. What would become of a call, and why. Nothing is decided here: the objects are compiled, and then the snapshot, its
//! routes, the balancer and the policies are asked as a proxy asks them. What proxies learn by themselves (which
//! endpoint answers badly, what is under way) is not known here.

use std::{net::Ipv4Addr, sync::Arc};

use imbl::OrdMap;
use model::{
    explain::{Explanation, OwnAnswer, PASSED_OVER_MAX, PassedOver, Port, Question, Request, Route, Source},
    name::ServiceName,
    object::{Key, Object},
    resource::{Protocol, Resource},
};

use crate::{
    compile::{Inputs, LocalApp, Nack, compile},
    path::{NormalPath, Strictness, normalize},
    request::RequestHead,
    route::{Mirror, Reply, Rule, Unroutable},
    snapshot::{self, Destination, Snapshot},
};

mod back_end;
mod endpoints;
mod head;

use back_end::Asking;
use head::Head;

/// Why there is no explanation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// Nobody of that name is called.
    #[error("there is no Service {0}")]
    NoService(ServiceName),
    /// It has no such port.
    #[error("Service {0} has no such port; it has {1}")]
    NoPort(ServiceName, String),
    /// What a proxy would refuse, too.
    #[error(transparent)]
    Nack(#[from] Nack),
}

/// What would become of a call. The objects of `inputs` are all that its caller's and its callee's proxies are told of it.
///
/// # Errors
/// If nothing could: [`Unexplained`].
pub fn explain(inputs: Inputs, question: &Question) -> Result<Explanation, Unexplained> {
    let inputs = Inputs { local: apps(&inputs.objects), ..inputs };
    let snapshot = compile(None, &inputs)?;
    let to = &question.to;
    let destination = snapshot.destination(to).ok_or_else(|| Unexplained::NoService(to.clone()))?;
    let port = port(destination, question)?;
    let asked = Asked { snapshot: &snapshot, port, question };
    let mut explanation = asked.nothing_yet();
    if asked.is_stream() {
        asked.stream(&mut explanation);
    } else {
        asked.request(&Head::of(question, port, destination.hostname()), &mut explanation);
    }
    Ok(explanation)
}

/// Every service as if it ran here: then the snapshot has its policies.
fn apps(objects: &OrdMap<Key, Arc<Object>>) -> Vec<LocalApp> {
    let mut apps = Vec::new();
    for object in objects.values() {
        let Some(namespace) = &object.metadata.namespace else { continue };
        let Ok(Resource::Service(spec)) = object.resource() else { continue };
        let service = ServiceName::new(namespace.clone(), object.metadata.name.clone());
        apps.extend(spec.ports.iter().map(|port| LocalApp {
            service: service.clone(),
            port: port.number(),
            protocol: port.protocol,
            target: (Ipv4Addr::LOCALHOST, port.number()).into(),
        }));
    }
    apps
}

fn port<'a>(destination: &'a Destination, question: &Question) -> Result<&'a snapshot::Port, Unexplained> {
    let found = match question.port {
        Some(number) => destination.port(number.value() as u16),
        None => destination.default_port(),
    };
    found.ok_or_else(|| {
        let numbers: Vec<_> = destination.ports().iter().map(|port| port.number().to_string()).collect();
        Unexplained::NoPort(destination.name().clone(), numbers.join(", "))
    })
}

/// A question, and what it is asked of.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    port: &'a snapshot::Port,
    question: &'a Question,
}

impl<'a> Asked<'a> {
    fn nothing_yet(&self) -> Explanation {
        let place = self.snapshot.place.as_ref();
        let (number, name, protocol) = (self.port.number(), self.port.name().cloned(), self.port.protocol());
        Explanation {
            revision: self.snapshot.revision,
            changed: self.question.change.is_some(),
            from: Source {
                service: self.question.from.clone(),
                node: place.map(|place| place.node.clone()),
                zone: place.and_then(|place| place.zone.clone()),
            },
            to: self.question.to.clone(),
            port: Port { number, name, protocol },
            request: None,
            route: None,
            answer: None,
            refused: None,
            backends: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What a port of protocol `auto` is asked shows what it is asked in.
    fn is_stream(&self) -> bool {
        match self.port.protocol() {
            Protocol::Tcp | Protocol::Tls => true,
            Protocol::Auto => !names_a_request(self.question),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => false,
        }
    }

    fn stream(&self, explanation: &mut Explanation) {
        let rule = self.port.stream.as_ref().unwrap_or(&self.port.default);
        explanation.route = Some(route(Some(rule), Vec::new(), Vec::new()));
        if names_a_request(self.question) {
            let protocol = self.port.protocol();
            let note = format!("the port speaks {protocol}: method, path and headers are seen by nobody");
            explanation.notes.push(note);
        }
        self.back_ends(rule, None, explanation);
    }

    fn request(&self, head: &Head, explanation: &mut Explanation) {
        let path = match normalize(&head.path, Strictness::Plain) {
            Ok(path) => path,
            Err(refused) => {
                explanation.request = Some(requested(head, &head.path));
                explanation.refused = Some(refused.to_string());
                return;
            }
        };
        explanation.request = Some(requested(head, path.path_and_query()));
        let seen = head.seen(&path);
        let (rule, route) = self.rule(&seen);
        explanation.route = Some(route);
        match rule {
            Some(rule) => self.ruled(rule, head, &path, explanation),
            None => explanation.refused = Some(Unroutable::NoRule.to_string()),
        }
    }

    /// The rule that takes a request, and why.
    fn rule(&self, seen: &RequestHead<'_>) -> (Option<&'a Rule>, Route) {
        let Some(routes) = &self.port.routes else {
            let because = vec!["no route is for the port".to_owned()];
            return (Some(&self.port.default), route(Some(&self.port.default), because, Vec::new()));
        };
        let caller = self.snapshot.caller(&self.question.from);
        let rule = routes.find(seen, caller);
        let (mut because, mut passed_over) = (Vec::new(), Vec::new());
        for (matcher, tried) in routes.tried() {
            let Some(lacks) = matcher.conditions().find(|condition| !condition.holds(seen, caller)) else {
                because = matcher.conditions().map(|condition| condition.to_string()).collect();
                break;
            };
            if passed_over.len() < PASSED_OVER_MAX {
                passed_over.push(PassedOver { rule: tried.name.to_string(), lacks: lacks.to_string() });
            }
        }
        (rule, route(rule, because, passed_over))
    }

    /// A request whose rule is known.
    fn ruled(&self, rule: &Rule, head: &Head, path: &NormalPath<'_>, explanation: &mut Explanation) {
        let seen = head.seen(path);
        let next = head.next(&rule.filters, path);
        if let Some(route) = &mut explanation.route {
            route.path = Some(next.path.clone()).filter(|next| next != path.path_and_query());
            route.authority = Some(next.authority.clone()).filter(|next| *next != head.authority);
        }
        match rule.filters.reply(&seen) {
            Some(reply) => explanation.answer = Some(own_answer(&reply)),
            None => self.back_ends(rule, Some(Asking { head, path, seen: &seen, next: &next }), explanation),
        }
    }
}

fn names_a_request(question: &Question) -> bool {
    question.method.is_some() || question.path.is_some() || !question.headers.is_empty()
}

fn requested(head: &Head, path: &str) -> Request {
    Request { method: head.method.clone(), path: path.to_owned(), authority: head.authority.clone() }
}

fn route(rule: Option<&Rule>, because: Vec<String>, passed_over: Vec<PassedOver>) -> Route {
    let mut filters = rule.map_or_else(Vec::new, |rule| rule.filters.words());
    filters.extend(rule.into_iter().flat_map(|rule| &rule.mirrors).map(Mirror::to_string));
    let rule = rule.map(|rule| rule.name.to_string());
    Route { rule, because, passed_over, filters, path: None, authority: None }
}

fn own_answer(reply: &Reply) -> OwnAnswer {
    let location = reply.fields.iter().find(|(name, _)| name == "location");
    OwnAnswer { status: reply.status, location: location.map(|(_, value)| value.clone()) }
}

#[cfg(test)]
mod tests;
