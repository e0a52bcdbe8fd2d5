//! Pure. What a caller may do: the rules of its roles, built-in ones among them. A check names what is missing; nothing
//! here knows how the caller proved who it is.

use std::fmt;

use model::{
    kind::Kind,
    name::{Name, ServiceGlob},
    resource::{RoleRule, RoleSpec, Verb},
    shape::Text,
};

/// The roles that always exist; no Role may be named so.
pub const BUILT_IN: [&str; 3] = ["admin", "operator", "viewer"];

/// A union of rules; any of them allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rights {
    rules: Vec<RoleRule>,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In one namespace.
    Namespace(&'a Name),
    /// In all of them, also those to come.
    Everywhere,
    /// On an object that has no namespace.
    MeshWide,
}

/// A permission that a caller lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("needs {verb} on {kinds}{place}")]
pub struct Missing {
    verb: String,
    kinds: String,
    place: String,
}

impl Rights {
    /// Those of no one.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of a built-in role.
    pub fn built_in(role: &str) -> Option<Self> {
        use Verb::{Any, Approve, Delete, Drain, Explain, Get, List, Tap, Watch, Write};
        let rules = match role {
            "admin" => vec![rule(&["*"], &[Any])],
            // The kinds that describe the mesh; who may do what (roles, access tokens) is the admin's, and whom the servers
            // call (discovery sources).
            "operator" => vec![
                rule(&["*"], &[Get, List, Watch, Explain, Tap, Drain, Approve]),
                rule(
                    &[
                        "Namespace",
                        "Node",
                        "Service",
                        "HTTPRoute",
                        "GRPCRoute",
                        "TCPRoute",
                        "AuthorizationPolicy",
                        "PeerAuthentication",
                        "TrafficPolicy",
                        "JoinToken",
                    ],
                    &[Write, Delete],
                ),
            ],
            "viewer" => vec![rule(&["*"], &[Get, List, Watch, Explain])],
            _ => return None,
        };
        Some(Self { rules })
    }

    /// With those of a Role.
    #[must_use]
    pub fn with(mut self, role: &RoleSpec) -> Self {
        self.rules.extend(role.rules.iter().cloned());
        self
    }

    /// Those of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// Whether they allow `verb` on objects of `kind` there.
    ///
    /// # Errors
    /// The permission that is missing.
    pub fn check(&self, verb: Verb, kind: Kind, place: Place<'_>) -> Result<(), Missing> {
        let allows = |rule: &RoleRule| match place {
            Place::Namespace(namespace) => rule.allows(verb, kind, Some(namespace)),
            Place::MeshWide => rule.allows(verb, kind, None),
            Place::Everywhere => in_all_namespaces(rule) && rule.allows(verb, kind, None),
        };
        if self.rules.iter().any(allows) {
            return Ok(());
        }
        let place = match place {
            Place::Namespace(namespace) => format!(" in namespace {namespace}"),
            Place::Everywhere => " in all namespaces".to_owned(),
            Place::MeshWide => String::new(),
        };
        Err(Missing { verb: verb.to_string(), kinds: kind.to_string(), place })
    }

    /// Whether they allow what the cluster, its certificate authority and its servers need.
    ///
    /// # Errors
    /// The permission that is missing.
    pub fn check_admin(&self) -> Result<(), Missing> {
        let admin = |rule: &RoleRule| {
            let verb = rule.verbs.iter().any(|verb| matches!(verb, Verb::Admin | Verb::Any));
            verb && all_kinds(rule) && (rule.namespaces.is_empty() || in_all_namespaces(rule))
        };
        if self.rules.iter().any(admin) {
            return Ok(());
        }
        Err(Missing { verb: Verb::Admin.to_string(), kinds: "all kinds".to_owned(), place: String::new() })
    }

    /// Whether they allow all that `others` do: nobody hands on more than they have. A rule of `others` must be covered
    /// kind by kind, verb by verb, place by place, each by one rule of these; `*` only by `*`.
    ///
    /// # Errors
    /// The first permission that is missing.
    pub fn check_covers(&self, others: &Self) -> Result<(), Missing> {
        others.rules.iter().try_for_each(|rule| self.check_covers_rule(rule))
    }

    fn check_covers_rule(&self, rule: &RoleRule) -> Result<(), Missing> {
        // A rule without namespaces is about kinds that have none.
        let mesh_wide = [None];
        let named: Vec<_> = rule.namespaces.iter().map(Some).collect();
        let places = if named.is_empty() { &mesh_wide[..] } else { &named[..] };
        for kind in &rule.kinds {
            for &verb in &rule.verbs {
                for &place in places {
                    if !self.rules.iter().any(|own| covers(own, kind, verb, place)) {
                        return Err(Missing {
                            verb: verb.to_string(),
                            kinds: if kind.as_str() == "*" {
                                "all kinds".to_owned()
                            } else {
                                kind.as_str().to_owned()
                            },
                            place: place.map_or_else(String::new, in_place),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether they allow to say which host runs the services that fit: who may write a Service may also say who
    /// runs it.
    ///
    /// # Errors
    /// The permission that is missing.
    pub fn check_grants(&self, services: &[ServiceGlob]) -> Result<(), Missing> {
        for glob in services {
            let text = glob.to_string();
            let namespace = text.split_once('/').map_or("*", |(namespace, _)| namespace);
            match namespace.parse::<Name>() {
                Ok(namespace) => self.check(Verb::Write, Kind::Service, Place::Namespace(&namespace))?,
                Err(_) => self.check(Verb::Write, Kind::Service, Place::Everywhere)?,
            }
        }
        Ok(())
    }
}

fn rule(kinds: &[&str], verbs: &[Verb]) -> RoleRule {
    RoleRule {
        kinds: kinds.iter().map(|kind| Text::new(kind).expect("kinds' names are short")).collect(),
        verbs: verbs.to_vec(),
        namespaces: vec![Text::new("*").expect("one byte")],
    }
}

fn covers(own: &RoleRule, kind: &Text<64>, verb: Verb, namespace: Option<&Text<63>>) -> bool {
    let kinds = all_kinds(own) || own.kinds.contains(kind);
    let verbs = own.verbs.contains(&Verb::Any) || own.verbs.contains(&verb);
    let namespaces = in_all_namespaces(own)
        || match namespace {
            None => own.namespaces.is_empty(),
            Some(namespace) => own.namespaces.contains(namespace),
        };
    kinds && verbs && namespaces
}

fn all_kinds(rule: &RoleRule) -> bool {
    rule.kinds.iter().any(|kind| kind.as_str() == "*")
}

fn in_all_namespaces(rule: &RoleRule) -> bool {
    rule.namespaces.iter().any(|namespace| namespace.as_str() == "*")
}

fn in_place(namespace: &Text<63>) -> String {
    match namespace.as_str() {
        "*" => " in all namespaces".to_owned(),
        name => format!(" in namespace {name}"),
    }
}

/// The place where objects of `kind` are, given the namespace of a path or query.
pub fn place<'a>(kind: Kind, namespace: Option<&'a Name>) -> Place<'a> {
    match (kind.namespaced(), namespace) {
        (false, _) => Place::MeshWide,
        (true, Some(namespace)) => Place::Namespace(namespace),
        (true, None) => Place::Everywhere,
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Everywhere => f.write_str("all namespaces"),
            Self::MeshWide => f.write_str("the mesh"),
        }
    }
}

#[cfg(test)]
mod tests;
