//! Pure. Where a service's traffic ends: splitters and resolvers, followed to their ends.

use std::collections::{BTreeMap, BTreeSet};

use model::name::{Name, ServiceName};
use serde_json::{Map, Value, json};

use super::{
    super::{
        fields::{At, Fields},
        plan::Plan,
    },
    matches, target,
};

/// So many splitters and redirects one after the other; Consul itself refuses loops.
const DEPTH_MAX: usize = 8;
/// What the weights of all ends come to together: a hundredth of a per cent is still a whole number.
const PARTS: f64 = 1_000_000.0;

/// A service, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) service: ServiceName,
    pub(crate) subset: Option<String>,
}

/// A splitter's line, as far as it is read.
#[derive(Debug)]
pub(crate) struct Leg<'a> {
    /// In per cent.
    pub(crate) weight: f64,
    pub(crate) fields: Fields<'a>,
    pub(crate) at: At<'a>,
}

/// A splitter's line.
#[derive(Debug)]
struct Split<'a> {
    share: f64,
    target: Target,
    filters: Vec<Value>,
    at: At<'a>,
}

/// What is known of where traffic ends.
#[derive(Debug, Default)]
pub(crate) struct Chains<'a> {
    splits: BTreeMap<ServiceName, Vec<Split<'a>>>,
    pub(crate) default_subsets: BTreeMap<ServiceName, String>,
    pub(crate) redirects: BTreeMap<ServiceName, Target>,
    pub(crate) spoken: BTreeMap<ServiceName, String>,
    pub(crate) usually_spoken: Option<String>,
}

struct End {
    share: f64,
    target: Target,
    filters: Vec<Value>,
}

impl Target {
    pub(crate) fn whole(service: ServiceName) -> Self {
        Self { service, subset: None }
    }
}

impl<'a> Chains<'a> {
    /// Takes a splitter.
    pub(crate) fn split(&mut self, service: ServiceName, (legs, at): (Vec<Leg<'a>>, At<'a>)) {
        let mut splits = Vec::new();
        for Leg { weight, mut fields, at } in legs {
            let filters = matches::header_filters(&mut fields);
            let target = target(&service, &mut fields);
            fields.finish();
            if let Some(target) = target {
                splits.push(Split { share: weight / 100.0, target, filters, at });
            }
        }
        let whole: f64 = splits.iter().map(|split| split.share).sum();
        if (whole - 1.0).abs() > 0.000_5 {
            at.differs(
                &format!("the weights that came over add up to {:.2}, not 100", whole * 100.0),
                "they are shares of that sum now: correct them",
            );
        }
        if splits.iter().any(|split| split.share > 0.0) {
            self.splits.insert(service, splits);
        } else {
            at.lost("no split has a weight and a service", "write an HTTPRoute");
        }
    }

    /// All services of which something is said here.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let all: BTreeSet<_> =
            self.splits.keys().chain(self.redirects.keys()).chain(self.default_subsets.keys()).collect();
        all.into_iter()
    }

    /// Whether its traffic goes elsewhere than to all of its endpoints.
    pub(crate) fn is_routed(&self, service: &ServiceName) -> bool {
        self.services().any(|own| own == service)
    }

    pub(crate) fn speaks_http(&self, service: &ServiceName) -> bool {
        let spoken = self.spoken.get(service).or(self.usually_spoken.as_ref());
        self.splits.contains_key(service) || spoken.is_some_and(|protocol| protocol != "tcp")
    }

    /// Puts down what the services speak of which there is an object anyway, or of which it is said.
    pub(crate) fn protocols(&self, plan: &mut Plan) {
        for (service, protocol) in &self.spoken {
            plan.draft(service).protocol = Some(protocol.clone());
        }
        for draft in plan.services.values_mut().filter(|draft| draft.protocol.is_none()) {
            let http = !draft.rules.is_empty();
            let said = self.usually_spoken.clone().filter(|said| !(http && said == "tcp"));
            let known = said.or_else(|| http.then(|| "http".to_owned()));
            if http || !draft.subsets.is_empty() {
                draft.protocol = known;
            }
        }
    }

    /// The back ends that traffic to `target` ends at, for a route of `namespace`.
    pub(crate) fn backends(&self, plan: &Plan, namespace: &Name, target: &Target) -> Vec<Value> {
        let mut ends: Vec<End> = Vec::new();
        self.follow(target, 1.0, &[], 0, &mut ends);
        let weights = weights(&ends);
        let one = |(end, weight): (End, u64)| {
            let Target { service, subset } = &end.target;
            let mut backend = plan.backend(namespace, service, subset.as_deref(), None);
            if weight != 1 {
                backend.insert("weight".to_owned(), weight.into());
            }
            if !end.filters.is_empty() {
                backend.insert("filters".to_owned(), end.filters.into());
            }
            Value::Object(backend)
        };
        ends.into_iter().zip(weights).map(one).collect()
    }

    fn follow(&self, target: &Target, share: f64, filters: &[Value], depth: usize, ends: &mut Vec<End>) {
        let splits =
            self.splits.get(&target.service).filter(|_| target.subset.is_none() && depth < DEPTH_MAX);
        let Some(splits) = splits else {
            let end = End { share, target: self.resolved(target, 0), filters: filters.to_vec() };
            ends.push(end);
            return;
        };
        for split in splits {
            let further = [filters, &split.filters].concat();
            let filters = if one_of_each(&further) { &further } else { filters };
            if filters.len() < further.len() {
                split.at.lost(
                    "the splitter before it changes headers, too, and a back end has one filter of a type",
                    "write the changes into one split",
                );
            }
            if split.target.service == target.service {
                let resolved = self.resolved(&split.target, 0);
                ends.push(End { share: share * split.share, target: resolved, filters: filters.to_vec() });
            } else {
                self.follow(&split.target, share * split.share, filters, depth + 1, ends);
            }
        }
    }

    fn resolved(&self, target: &Target, depth: usize) -> Target {
        if let Some(other) = self.redirects.get(&target.service).filter(|_| depth < DEPTH_MAX) {
            return self.resolved(other, depth + 1);
        }
        let subset = target.subset.clone().or_else(|| self.default_subsets.get(&target.service).cloned());
        Target { service: target.service.clone(), subset }
    }
}

fn one_of_each(filters: &[Value]) -> bool {
    let types: BTreeSet<_> = filters.iter().map(|filter| filter["type"].as_str()).collect();
    types.len() == filters.len()
}

/// Whole numbers in the shares' proportion: per cent where that is enough.
fn weights(ends: &[End]) -> Vec<u64> {
    if let [_] = ends {
        return vec![1];
    }
    let whole: Vec<_> = ends.iter().map(|end| (end.share * PARTS).round() as u64).collect();
    let step = whole.iter().fold(0, |step, part| gcd(step, *part));
    let percent = (PARTS / 100.0) as u64;
    let step = if step.is_multiple_of(percent) { percent } else { step.max(1) };
    whole.into_iter().map(|part| part / step).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A filter that changes headers.
pub(crate) fn modifier(kind: &str, set: Vec<Value>, add: Vec<Value>, remove: Vec<String>) -> Option<Value> {
    let mut changes = Map::new();
    let lists = [("set", Value::from(set)), ("add", Value::from(add)), ("remove", Value::from(remove))];
    for (name, list) in lists {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            changes.insert(name.to_owned(), list);
        }
    }
    let field =
        if kind == "RequestHeaderModifier" { "requestHeaderModifier" } else { "responseHeaderModifier" };
    (!changes.is_empty()).then(|| json!({"type": kind, field: changes}))
}
