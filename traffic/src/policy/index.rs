//! Pure. The rules of several policies by the callers and the paths that they are about: a call is compared with the rules
//! for its caller and those for anybody, and of these with those that may be for its path, however many there are for others.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use model::{
    identity::SpiffeId,
    name::{Name, ServiceName},
    resource::{Callers, PolicyFrom},
};

use super::{
    AuthorizationPolicy, RuleId,
    rule::{Asked, Rule},
};
use crate::route::{PathIndex, PathMatcher};

/// Rules of one action, in the order of their policies.
#[derive(Debug, Default)]
pub(super) struct Index {
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Each rule as its policy's place and its own.
    rules: Vec<(usize, usize)>,
    anybody: PathIndex,
    by_service: HashMap<ServiceName, PathIndex>,
    by_namespace: HashMap<Name, PathIndex>,
    by_principal: HashMap<SpiffeId, PathIndex>,
}

/// A rule with its number.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    number: usize,
    rule: &'a Rule,
}

impl Index {
    pub(super) fn new<'a>(policies: impl IntoIterator<Item = &'a Arc<AuthorizationPolicy>>) -> Self {
        let mut index = Self::default();
        for policy in policies {
            let place = index.policies.len();
            for (own, rule) in policy.rules.iter().enumerate() {
                index.enter(index.rules.len(), rule);
                index.rules.push((place, own));
            }
            index.policies.push(Arc::clone(policy));
        }
        index
    }

    /// Whether there is no policy; one without rules is one.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Enters a rule by what is narrowest of each of its sources: it has to match as a whole anyway.
    fn enter(&mut self, number: usize, rule: &Rule) {
        let one = Numbered { number, rule };
        let Some(sources) = &rule.from else { return one.enter(&mut self.anybody) };
        for source in sources {
            match source {
                PolicyFrom { principals: Some(ids), .. } => one.note_all(&mut self.by_principal, ids),
                PolicyFrom { services: Some(callers), .. } => {
                    for callers in callers {
                        match callers {
                            Callers::Service(service) => one.note(&mut self.by_service, service),
                            Callers::Namespace(name) => one.note(&mut self.by_namespace, name),
                        }
                    }
                }
                PolicyFrom { namespaces: Some(names), .. } => one.note_all(&mut self.by_namespace, names),
                PolicyFrom { .. } => one.enter(&mut self.anybody),
            }
        }
    }

    /// The rules that match, in no order, some perhaps twice.
    pub(super) fn matching<'a>(&'a self, asked: &Asked<'a>) -> impl Iterator<Item = (usize, &'a RuleId)> {
        let asked = *asked;
        self.about(asked).filter_map(move |number| {
            let (policy, rule) = self.rules[number];
            let rule = &self.policies[policy].rules[rule];
            rule.matches(&asked).then_some((number, &rule.name))
        })
    }

    /// The rules that a call has to be compared with. What shows no path is compared with all for its caller.
    pub(super) fn about<'a>(&'a self, asked: Asked<'a>) -> impl Iterator<Item = usize> {
        let known = asked.caller.map(|(caller, id)| {
            let place = self.by_namespace.get(&caller.namespace);
            [self.by_service.get(caller), place, self.by_principal.get(id)]
        });
        let indexes = std::iter::once(Some(&self.anybody)).chain(known.into_iter().flatten()).flatten();
        let path = asked.request.map(|head| head.path.path());
        indexes.flat_map(move |index| {
            let some = path.map(|path| index.perhaps_for(path));
            let all = path.is_none().then(|| index.all());
            some.into_iter().flatten().chain(all.into_iter().flatten())
        })
    }

    /// The first rule that matches.
    pub(super) fn first<'a>(&'a self, asked: &Asked<'a>) -> Option<&'a RuleId> {
        self.matching(asked).min_by_key(|(number, _)| *number).map(|(_, rule)| rule)
    }
}

impl Numbered<'_> {
    fn note<K: Hash + Eq + Clone>(self, by: &mut HashMap<K, PathIndex>, key: &K) {
        self.enter(by.entry(key.clone()).or_default());
    }

    fn note_all<K: Hash + Eq + Clone>(self, by: &mut HashMap<K, PathIndex>, keys: &[K]) {
        keys.iter().for_each(|key| self.note(by, key));
    }

    fn enter(self, index: &mut PathIndex) {
        self.rule.each_path(|path| index.enter(self.number, path.unwrap_or(&PathMatcher::Any)));
    }
}
