//! Pure. One thing that a match asks of a request: whether it is there, and the words for it.

use std::fmt;

use model::{name::ServiceGlob, object::Labels};

use super::{
    matcher::Path,
    value::{Value, written},
};
use crate::request::{Caller, RequestHead};

/// One thing that a match asks of a request.
#[derive(Clone, Copy)]
pub(crate) enum Condition<'a> {
    Path(&'a Path),
    Method(&'a str),
    Header(&'a str, &'a Value),
    QueryParam(&'a str, &'a Value),
    Cookie(&'a str, &'a Value),
    /// Any of these calls.
    Sources(&'a [ServiceGlob]),
    /// All of these stand in the caller's own file.
    SourceLabels(&'a Labels),
}

impl Condition<'_> {
    pub(crate) fn holds(self, head: &RequestHead<'_>, caller: Caller<'_>) -> bool {
        match self {
            Self::Path(path) => path.matches(head.path.path()),
            Self::Method(method) => method == head.method,
            Self::Header(name, value) => head.field_is(name, |got| value.matches(got)),
            Self::QueryParam(name, value) => head.param_is(name, |got| value.matches(got)),
            Self::Cookie(name, value) => head.cookie_is(name, |got| value.matches(got)),
            Self::Sources(sources) => {
                caller.service.is_some_and(|service| sources.iter().any(|own| own.matches(service)))
            }
            Self::SourceLabels(labels) => caller.has(labels),
        }
    }
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Method(method) => write!(f, "method {method}"),
            Self::Header(name, value) => write!(f, "header {name} {value}"),
            Self::QueryParam(name, value) => write!(f, "query parameter {name} {value}"),
            Self::Cookie(name, value) => write!(f, "cookie {name} {value}"),
            Self::Sources(sources) => {
                let names: Vec<_> = sources.iter().map(ToString::to_string).collect();
                write!(f, "called by {}", names.join(" or "))
            }
            Self::SourceLabels(labels) => {
                let pairs = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str()));
                write!(f, "the caller's labels {}", pairs.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |value: &Option<Value>| value.as_ref().map_or("any".to_owned(), Value::to_string);
        match self {
            Self::Any => f.write_str("any path"),
            Self::Exact(path) => write!(f, "path {path}"),
            Self::Prefix(prefix) => write!(f, "path below {prefix}"),
            Self::Whole(regex) => write!(f, "path like {}", written(regex)),
            Self::Call(service, method) => {
                write!(f, "gRPC service {}, method {}", part(service), part(method))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Whole(regex) => write!(f, "like {}", written(regex)),
        }
    }
}
