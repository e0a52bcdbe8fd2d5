//! Pure. Who may call whom: from lists in which the most specific entry decides to policies, of which a Deny rule always
//! does. What cannot be said stays closed, and is told.

use std::collections::{BTreeMap, BTreeSet};

use model::name::{Name, ServiceName};
use serde_json::{Map, Value, json};

use super::{
    fields::At,
    plan::{label, object},
};

/// Whom an entry is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Called {
    Service(ServiceName),
    /// Every service of a namespace.
    All(Name),
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    Service(ServiceName),
    Anyone,
}

/// Calls of a kind: what stands beside `from` in a rule.
pub(crate) type Call = Map<String, Value>;

/// What a caller may: what an `allow` fits and no `deny`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Verdict {
    pub(crate) allow: Vec<Call>,
    pub(crate) deny: Vec<Call>,
}

/// One line of who may call whom.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) called: Called,
    pub(crate) caller: Caller,
    pub(crate) verdict: Verdict,
    pub(crate) at: At<'a>,
}

/// What is said for one `Called`.
#[derive(Debug, Default)]
struct Said<'a> {
    anyone: Option<(Verdict, At<'a>)>,
    named: BTreeMap<ServiceName, (Verdict, At<'a>)>,
}

impl Verdict {
    pub(crate) fn open() -> Self {
        Self { allow: vec![Call::new()], deny: Vec::new() }
    }

    pub(crate) fn closed() -> Self {
        Self::default()
    }

    fn is_open(&self) -> bool {
        self.allows_all() && self.deny.is_empty()
    }

    fn allows_all(&self) -> bool {
        self.allow.iter().any(Map::is_empty)
    }
}

/// The policies. `usual` holds where no entry does, in every namespace that entries are for. With `mesh_wide`, what is for
/// all stands in that namespace, and is for every other one as well.
pub(crate) fn policies(entries: Vec<Entry<'_>>, usual: &Verdict, mesh_wide: Option<&Name>) -> Vec<Value> {
    let mut said: BTreeMap<Name, (Said<'_>, BTreeMap<ServiceName, Said<'_>>)> = BTreeMap::new();
    for entry in entries {
        let namespace = match &entry.called {
            Called::Service(service) => service.namespace.clone(),
            Called::All(namespace) => namespace.clone(),
        };
        let namespace = mesh_wide.cloned().unwrap_or(namespace);
        let (all, single) = said.entry(namespace).or_default();
        match entry.called.clone() {
            Called::Service(service) => single.entry(service).or_default().add(entry),
            Called::All(_) if entry.verdict.is_open() || entry.verdict == Verdict::closed() => all.add(entry),
            Called::All(_) => entry.at.lost(
                "what is for all services can only be open or closed",
                "write an AuthorizationPolicy without targetRefs; until then it is closed",
            ),
        }
    }
    said.into_iter()
        .flat_map(|(namespace, (all, single))| of_namespace(&namespace, &all, &single, usual))
        .collect()
}

impl<'a> Said<'a> {
    /// Where two entries say different things of one caller it is closed: which of them counts is not for us to say.
    fn add(&mut self, entry: Entry<'a>) {
        let Entry { caller, verdict, at, .. } = entry;
        let before = match &caller {
            Caller::Anyone => self.anyone.as_mut(),
            Caller::Service(caller) => self.named.get_mut(caller),
        };
        match (before, caller) {
            (Some((before, _)), _) if *before == verdict => {}
            (Some((before, _)), _) => {
                at.lost(
                    "another entry says something else of this caller",
                    "write one; until then it is closed",
                );
                *before = Verdict::closed();
            }
            (None, Caller::Anyone) => self.anyone = Some((verdict, at)),
            (None, Caller::Service(caller)) => drop(self.named.insert(caller, (verdict, at))),
        }
    }
}

/// What the policies of a namespace say by themselves.
struct Wide<'s> {
    open: bool,
    allowed: BTreeSet<&'s ServiceName>,
    refused: BTreeSet<&'s ServiceName>,
}

fn of_namespace(
    namespace: &Name,
    all: &Said<'_>,
    single: &BTreeMap<ServiceName, Said<'_>>,
    usual: &Verdict,
) -> Vec<Value> {
    let anyone = all.anyone.as_ref().map_or(usual, |(verdict, _)| verdict);
    let (open, named) = (anyone.is_open(), &all.named);
    let of = |wanted: bool| {
        named.iter().filter(move |(_, said)| said.0.is_open() == wanted).map(|(caller, _)| caller)
    };
    let wide = Wide {
        open,
        allowed: if open { BTreeSet::new() } else { of(true).collect() },
        refused: if open { of(false).collect() } else { BTreeSet::new() },
    };
    let mut policies = Vec::new();
    let rule = |callers: &BTreeSet<&ServiceName>| match callers.is_empty() {
        true => Vec::new(),
        false => vec![from(callers.iter().copied(), &Call::new())],
    };
    if !open {
        policies.push(policy(namespace, None, "Allow", rule(&wide.allowed)));
    } else if !wide.refused.is_empty() {
        policies.push(policy(namespace, None, "Deny", rule(&wide.refused)));
    }
    for (service, said) in single {
        policies.extend(of_service(service, said, all, &wide, anyone));
    }
    policies
}

/// The policies of one service, beside those of its namespace.
fn of_service(
    service: &ServiceName,
    own: &Said<'_>,
    all: &Said<'_>,
    wide: &Wide<'_>,
    usual: &Verdict,
) -> Vec<Value> {
    let others = own.anyone.as_ref().map_or(usual, |(verdict, _)| verdict);
    let mut rules = Rules::default();
    rules.add(None, others);
    let mut callers: BTreeSet<&ServiceName> = own.named.keys().collect();
    if own.anyone.is_some() {
        callers.extend(wide.allowed.iter().chain(&wide.refused));
    } else {
        callers.extend(all.named.keys());
    }
    for caller in callers {
        let said = own.named.get(caller);
        let wider = if own.anyone.is_some() { None } else { all.named.get(caller) };
        let verdict = said.or(wider).map_or(others, |(verdict, _)| verdict);
        let told = said.or(own.anyone.as_ref()).map(|(_, at)| at);
        rules.of_caller(caller, verdict, others, wide, told);
    }
    let mut policies = Vec::new();
    if !others.is_open() || !wide.open {
        policies.push(policy(&service.namespace, Some(service), "Allow", rules.allow()));
    }
    let deny = rules.deny();
    if !deny.is_empty() {
        policies.push(policy(&service.namespace, Some(service), "Deny", deny));
    }
    policies
}

/// Rules as they add up; callers of whom the same is said share one.
#[derive(Default)]
struct Rules<'s> {
    allow: Vec<(Call, Option<Vec<&'s ServiceName>>)>,
    deny: Vec<(Call, Option<Vec<&'s ServiceName>>)>,
}

impl<'s> Rules<'s> {
    fn add(&mut self, caller: Option<&'s ServiceName>, verdict: &Verdict) {
        let both = [(&mut self.allow, &verdict.allow), (&mut self.deny, &verdict.deny)];
        for (rules, calls) in both {
            for call in calls {
                put(rules, caller, call);
            }
        }
    }

    /// What is said of one caller, where it is not what is said of all others.
    fn of_caller(
        &mut self,
        caller: &'s ServiceName,
        verdict: &Verdict,
        others: &Verdict,
        wide: &Wide<'_>,
        told: Option<&At<'_>>,
    ) {
        let lost = |why: &str| {
            if let Some(at) = told {
                at.lost(why, "write policies that say it without an exception; until then it is closed");
            }
        };
        if wide.refused.contains(caller) && !verdict.allow.is_empty() {
            lost("it is an exception from a refusal for all services, and no policy of ours lifts a Deny");
            return;
        }
        if !others.deny.is_empty() && verdict != others {
            lost(
                "it is an exception from what all other callers are refused, and no policy of ours lifts a Deny",
            );
        }
        let by_others = !others.allow.is_empty() && verdict != others;
        if (by_others || wide.allowed.contains(caller)) && !verdict.allows_all() {
            if !verdict.allow.is_empty() {
                lost("a policy lets in more than this already, and ours add up");
            }
            put(&mut self.deny, Some(caller), &Call::new());
        } else if verdict != others {
            self.add(Some(caller), verdict);
        }
    }

    fn allow(&self) -> Vec<Value> {
        self.allow.iter().map(|(call, callers)| rule(callers.as_deref(), call)).collect()
    }

    fn deny(&self) -> Vec<Value> {
        self.deny.iter().map(|(call, callers)| rule(callers.as_deref(), call)).collect()
    }
}

fn put<'s>(
    rules: &mut Vec<(Call, Option<Vec<&'s ServiceName>>)>,
    caller: Option<&'s ServiceName>,
    call: &Call,
) {
    let same = rules.iter_mut().find(|(own, callers)| own == call && callers.is_some() == caller.is_some());
    match (same, caller) {
        (Some((_, Some(callers))), Some(caller)) => callers.push(caller),
        (Some(_), _) => {}
        (None, caller) => rules.push((call.clone(), caller.map(|caller| vec![caller]))),
    }
}

fn rule(callers: Option<&[&ServiceName]>, call: &Call) -> Value {
    match callers {
        Some(callers) => from(callers.iter().copied(), call),
        None => Value::Object(call.clone()),
    }
}

fn from<'s>(callers: impl Iterator<Item = &'s ServiceName>, call: &Call) -> Value {
    let services: Vec<_> = callers.map(ToString::to_string).collect();
    let mut rule = Map::new();
    rule.insert("from".to_owned(), json!([{"services": services}]));
    rule.extend(call.clone());
    Value::Object(rule)
}

fn policy(namespace: &Name, service: Option<&ServiceName>, action: &str, rules: Vec<Value>) -> Value {
    let about = if action == "Allow" { "callers" } else { "refused" };
    let name = service.map_or("all", |service| service.name.as_str());
    let mut spec = Map::new();
    if let Some(service) = service {
        spec.insert("targetRefs".to_owned(), json!([{"kind": "Service", "name": service.name}]));
    }
    spec.insert("action".to_owned(), action.into());
    spec.insert("rules".to_owned(), rules.into());
    object("AuthorizationPolicy", namespace, &label(name, about), Value::Object(spec))
}
