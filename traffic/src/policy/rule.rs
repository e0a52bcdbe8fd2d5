//! Pure. An AuthorizationPolicy, compiled: which calls each of its rules matches. What follows from a match is decided
//! in `policy`.

use std::fmt;

use model::{
    identity::SpiffeId,
    invalid::FieldError,
    name::{Name, ServiceName},
    object::Metadata,
    resource::{
        AuthorizationPolicySpec, Callers, NAMESPACE_OF_THE_MESH, PolicyAction, PolicyCondition, PolicyFrom,
        PolicyRule, PolicyTo,
    },
};

use super::RuleId;
use crate::{path::Strictness, request::RequestHead, route::PathMatcher};

/// As many paths as one policy may have, all rules together: a request may be compared with each of them, and each may
/// be a regular expression.
const POLICY_PATHS_MAX: usize = 1_024;

/// A compiled AuthorizationPolicy.
#[derive(Debug)]
pub struct AuthorizationPolicy {
    namespace: Name,
    /// Services of its namespace; `None` is all that it reaches.
    targets: Option<Vec<Name>>,
    pub(super) action: PolicyAction,
    pub(super) dry_run: bool,
    pub(super) rules: Vec<Rule>,
}

/// A rule of a policy.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: RuleId,
    pub(super) from: Option<Vec<PolicyFrom>>,
    to: Option<Vec<To>>,
    when: Option<Vec<Condition>>,
}

#[derive(Debug)]
struct To {
    ports: Option<Vec<u16>>,
    methods: Option<Vec<String>>,
    paths: Option<Vec<PathMatcher>>,
}

#[derive(Debug)]
struct Condition {
    /// In lower case; `None` is what this version cannot see, such as a claim.
    header: Option<String>,
    values: Vec<String>,
}

/// What is asked of a rule. What is `None` cannot be seen.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// `None` has no identity: that is known of it, and no doubt.
    pub(super) caller: Option<(&'a ServiceName, &'a SpiffeId)>,
    pub(super) port: Option<u16>,
    pub(super) request: Option<&'a RequestHead<'a>>,
    pub(super) doubt: Doubt,
}

/// What a rule makes of that which cannot be seen, or seen in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is as the rule says.
    Holds,
    /// It is not.
    Fails,
}

/// What of a policy the data plane could not compile or never see: for admission.
pub fn check(spec: &AuthorizationPolicySpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        Rule::new(RuleId::MeshPeers, rule, &at, &mut errors);
        for (index, condition) in rule.when.iter().flatten().enumerate() {
            if condition.claim.is_some() {
                let message =
                    "claims are not verified yet, so that no condition on one could hold: use header";
                let path = format!("{at}.when[{index}].claim");
                errors.push(FieldError { path, message: message.to_owned() });
            }
        }
    }
    let paths: usize = spec.rules.iter().flat_map(|rule| rule.to.iter().flatten()).map(paths_in).sum();
    if paths > POLICY_PATHS_MAX {
        let message = format!("must have at most {POLICY_PATHS_MAX} paths in all, has {paths}");
        errors.push(FieldError { path: "spec.rules".to_owned(), message });
    }
    errors
}

fn paths_in(to: &PolicyTo) -> usize {
    to.paths.as_ref().map_or(0, Vec::len)
}

// === impl AuthorizationPolicy ===

impl AuthorizationPolicy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// What cannot be compiled; never an empty list.
    pub fn compile(metadata: &Metadata, spec: &AuthorizationPolicySpec) -> Result<Self, Vec<FieldError>> {
        let Some(namespace) = &metadata.namespace else {
            let message = "is required: a policy lives in a namespace".to_owned();
            return Err(vec![FieldError { path: "metadata.namespace".to_owned(), message }]);
        };
        let mut errors = Vec::new();
        let rules = spec.rules.iter().enumerate().map(|(index, rule)| {
            let name: &dyn fmt::Display = match &rule.name {
                Some(name) => name,
                None => &index,
            };
            let name = RuleId::of(namespace, &metadata.name, name);
            Rule::new(name, rule, &format!("spec.rules[{index}]"), &mut errors)
        });
        let policy = Self {
            namespace: namespace.clone(),
            targets: spec
                .target_refs
                .as_ref()
                .map(|targets| targets.iter().map(|target| target.name.clone()).collect()),
            action: spec.action,
            dry_run: spec.dry_run,
            rules: rules.collect(),
        };
        if errors.is_empty() { Ok(policy) } else { Err(errors) }
    }

    /// Whether it is for a service.
    pub(crate) fn selects(&self, service: &ServiceName) -> bool {
        match &self.targets {
            Some(targets) => self.namespace == service.namespace && targets.contains(&service.name),
            None => self.namespace == service.namespace || self.namespace.as_str() == NAMESPACE_OF_THE_MESH,
        }
    }

    /// Whether calls go another way because of it.
    pub(super) fn decides(&self) -> bool {
        self.action != PolicyAction::Audit && !self.dry_run
    }

    /// Whether one of its rules looks at paths.
    pub(super) fn looks_at_paths(&self) -> bool {
        let targets = self.rules.iter().flat_map(|rule| rule.to.iter().flatten());
        targets.into_iter().any(|to| to.paths.is_some())
    }
}

// === impl Rule ===

impl Rule {
    /// Compiles a rule that stands at `at`. What is wrong goes to `errors`; the caller then gives up.
    fn new(name: RuleId, rule: &PolicyRule, at: &str, errors: &mut Vec<FieldError>) -> Self {
        let to = rule.to.as_ref().map(|targets| {
            let targets = targets.iter().enumerate();
            targets.map(|(index, to)| To::new(to, &format!("{at}.to[{index}]"), errors)).collect()
        });
        let when = rule.when.as_ref().map(|when| when.iter().map(Condition::new).collect());
        Self { name, from: rule.from.clone(), to, when }
    }

    /// Hands each path that it may be for to `each`; `None` is any path.
    pub(super) fn each_path<'a>(&'a self, mut each: impl FnMut(Option<&'a PathMatcher>)) {
        let Some(targets) = &self.to else { return each(None) };
        for to in targets {
            match &to.paths {
                Some(paths) => paths.iter().for_each(|path| each(Some(path))),
                None => each(None),
            }
        }
    }

    /// Whether it is about such a call.
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        any(&self.from, |from| is_from(from, asked))
            && any(&self.to, |to| to.matches(asked))
            && any(&self.when, |condition| condition.holds(asked))
    }
}

/// What is left out asks nothing; of a list one must hold.
fn any<T>(asked: &Option<Vec<T>>, holds: impl Fn(&T) -> bool) -> bool {
    asked.as_ref().is_none_or(|asked| asked.iter().any(holds))
}

/// The same for what may not be seen.
fn any_seen<T, S: Copy>(
    asked: &Option<Vec<T>>,
    seen: Option<S>,
    doubt: Doubt,
    holds: impl Fn(&T, S) -> bool,
) -> bool {
    any(asked, |one| seen.map_or(doubt == Doubt::Holds, |seen| holds(one, seen)))
}

fn is_from(from: &PolicyFrom, asked: &Asked<'_>) -> bool {
    let Some((caller, own)) = asked.caller else { return false };
    let is = |callers: &Callers| match callers {
        Callers::Service(service) => service == caller,
        Callers::Namespace(namespace) => *namespace == caller.namespace,
    };
    any(&from.services, is)
        && any(&from.namespaces, |namespace| *namespace == caller.namespace)
        && any(&from.principals, |id| id == own)
}

impl To {
    fn new(to: &PolicyTo, at: &str, errors: &mut Vec<FieldError>) -> Self {
        let mut compiled = Vec::new();
        for (index, path) in to.paths.iter().flatten().enumerate() {
            match PathMatcher::compile(path, Strictness::Strict) {
                Ok(path) => compiled.push(path),
                Err(message) => {
                    errors.push(FieldError { path: format!("{at}.paths[{index}].value"), message });
                }
            }
        }
        let texts =
            |methods: &Vec<_>| methods.iter().map(model::shape::Text::as_str).map(str::to_owned).collect();
        Self {
            ports: to.ports.as_ref().map(|ports| ports.iter().map(|port| port.value() as u16).collect()),
            methods: to.methods.as_ref().map(texts),
            paths: to.paths.as_ref().map(|_| compiled),
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        any_seen(&self.ports, asked.port, asked.doubt, |port, seen| *port == seen)
            && any_seen(&self.methods, asked.request, asked.doubt, |method, head| method == head.method)
            && any_seen(&self.paths, asked.request, asked.doubt, |path, head| path.matches(head.path.path()))
    }
}

impl Condition {
    fn new(condition: &PolicyCondition) -> Self {
        let values = condition.values.iter().flatten();
        Self {
            header: condition.header.as_ref().map(|name| name.as_str().to_ascii_lowercase()),
            values: values.map(|value| value.as_str().to_owned()).collect(),
        }
    }

    fn holds(&self, asked: &Asked<'_>) -> bool {
        let wanted = |value: &[u8]| self.values.iter().any(|own| own.as_bytes() == value);
        let Some((header, head)) = self.header.as_deref().zip(asked.request) else {
            return asked.doubt == Doubt::Holds && !self.values.is_empty();
        };
        if head.field_is(header, wanted) {
            return true;
        }
        // Of several lines of one name, applications may take any for the value.
        let mut one = false;
        head.fields.each(header, &mut |line| one |= wanted(line));
        one && asked.doubt == Doubt::Holds
    }
}
