//! Pure. Role: a set of rights.

use super::Rules;
use crate::{
    kind::Kind,
    name::Name,
    object::Metadata,
    shape::{Decoder, Path, Text, choice, record},
};

choice! {
    /// What may be done.
    pub enum Verb {
        /// Read one object.
        Get = "get",
        /// Read all of a kind.
        List = "list",
        /// Follow changes.
        Watch = "watch",
        /// Create or change.
        Write = "write",
        /// Remove.
        Delete = "delete",
        /// Ask why a request would go where it goes.
        Explain = "explain",
        /// Look at live requests.
        Tap = "tap",
        /// Take an endpoint or host out of service.
        Drain = "drain",
        /// Let a rollout go on, or a host come back (on Node).
        Approve = "approve",
        /// Name an address that the control plane dials.
        ConnectOut = "connect-out",
        /// Cluster, certificate authority and server tokens.
        Admin = "admin",
        /// All of them.
        Any = "*",
    }
}

record! {
    /// A right: verbs on kinds in namespaces.
    pub struct RoleRule {
        /// Kinds by name, or `*`.
        "kinds" kinds: Vec<Text<64>>,
        /// What may be done.
        "verbs" verbs: Vec<Verb>,
        /// Namespaces by name, or `*`; left out for mesh-wide kinds.
        "namespaces" namespaces: Vec<Text<63>>,
    }
}

record! {
    /// A set of rights; any rule allows.
    pub struct RoleSpec {
        /// The rights.
        "rules" rules: Vec<RoleRule>,
    }
}

impl Rules for RoleSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        let rules_at = Path::Field(at, "rules");
        for (index, rule) in self.rules.iter().enumerate() {
            let at = Path::Index(&rules_at, index);
            let kinds_at = Path::Field(&at, "kinds");
            if rule.kinds.is_empty() {
                decoder.report(&kinds_at, "must name at least one kind, or \"*\"");
            }
            for (index, kind) in rule.kinds.iter().enumerate() {
                if kind.as_str() != "*" && !kind.as_str().chars().next().is_some_and(char::is_uppercase) {
                    decoder
                        .report(&Path::Index(&kinds_at, index), "must be a kind such as Service, or \"*\"");
                }
            }
            if rule.verbs.is_empty() {
                decoder.report(&Path::Field(&at, "verbs"), "must have at least one verb, or \"*\"");
            }
            check_namespaces(rule, &Path::Field(&at, "namespaces"), decoder);
        }
    }
}

fn check_namespaces(rule: &RoleRule, at: &Path<'_>, decoder: &mut Decoder) {
    for (index, namespace) in rule.namespaces.iter().enumerate() {
        if namespace.as_str() != "*" && namespace.as_str().parse::<Name>().is_err() {
            decoder.report(&Path::Index(at, index), "must be a namespace, or \"*\"");
        }
    }
}

impl RoleRule {
    /// Whether it allows `verb` on `kind` in `namespace` (`None` for mesh-wide kinds, which no namespace limits).
    pub fn allows(&self, verb: Verb, kind: Kind, namespace: Option<&Name>) -> bool {
        let verbs = self.verbs.iter().any(|allowed| *allowed == verb || *allowed == Verb::Any);
        let kinds =
            self.kinds.iter().any(|allowed| allowed.as_str() == "*" || allowed.as_str() == kind.as_str());
        let any = |namespace: &Text<63>| namespace.as_str() == "*";
        let namespaces = match namespace {
            None => self.namespaces.is_empty() || self.namespaces.iter().any(any),
            Some(name) => {
                self.namespaces.iter().any(|allowed| any(allowed) || allowed.as_str() == name.as_str())
            }
        };
        verbs && kinds && namespaces
    }
}
