//! Pure. The rules of several policies by the callers that they are about: a call is compared with the rules for its
//! caller and those for anybody, however many there are for others.

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

/// Rules of one action, in the order of their policies.
#[derive(Debug, Default)]
pub(super) struct Index {
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Each rule as its policy's place and its own.
    rules: Vec<(usize, usize)>,
    anybody: Vec<usize>,
    by_service: HashMap<ServiceName, Vec<usize>>,
    by_namespace: HashMap<Name, Vec<usize>>,
    by_principal: HashMap<SpiffeId, Vec<usize>>,
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
        let Some(sources) = &rule.from else { return self.anybody.push(number) };
        for source in sources {
            match source {
                PolicyFrom { principals: Some(ids), .. } => note_all(&mut self.by_principal, ids, number),
                PolicyFrom { services: Some(callers), .. } => {
                    for callers in callers {
                        match callers {
                            Callers::Service(service) => note(&mut self.by_service, service, number),
                            Callers::Namespace(name) => note(&mut self.by_namespace, name, number),
                        }
                    }
                }
                PolicyFrom { namespaces: Some(names), .. } => note_all(&mut self.by_namespace, names, number),
                PolicyFrom { .. } => self.anybody.push(number),
            }
        }
    }

    /// The rules that match, in no order, some perhaps twice.
    pub(super) fn matching<'a>(&'a self, asked: &Asked<'a>) -> impl Iterator<Item = (usize, &'a RuleId)> {
        let asked = *asked;
        self.about(asked.caller).filter_map(move |number| {
            let (policy, rule) = self.rules[number];
            let rule = &self.policies[policy].rules[rule];
            rule.matches(&asked).then_some((number, &rule.name))
        })
    }

    /// The rules that a caller has to be compared with.
    pub(super) fn about(&self, caller: Option<(&ServiceName, &SpiffeId)>) -> impl Iterator<Item = usize> {
        let known = caller.map(|(caller, id)| {
            let place = self.by_namespace.get(&caller.namespace);
            [self.by_service.get(caller), place, self.by_principal.get(id)]
        });
        let lists = std::iter::once(Some(&self.anybody)).chain(known.into_iter().flatten());
        lists.into_iter().flatten().flatten().copied()
    }

    /// The first rule that matches.
    pub(super) fn first<'a>(&'a self, asked: &Asked<'a>) -> Option<&'a RuleId> {
        self.matching(asked).min_by_key(|(number, _)| *number).map(|(_, rule)| rule)
    }
}

fn note<K: Hash + Eq + Clone>(by: &mut HashMap<K, Vec<usize>>, key: &K, number: usize) {
    by.entry(key.clone()).or_default().push(number);
}

fn note_all<K: Hash + Eq + Clone>(by: &mut HashMap<K, Vec<usize>>, keys: &[K], number: usize) {
    keys.iter().for_each(|key| note(by, key, number));
}
