//! Pure. One match of a rule, compiled: what a request's head must be like, all of it.

use std::cmp::Reverse;

use model::{
    invalid::FieldError,
    name::ServiceGlob,
    object::Labels,
    resource::{GrpcRouteMatch, PathMatch, PathMatchType, RouteMatch, ValueMatchType},
    shape::Text,
};
use regex::bytes::Regex;

use super::{
    condition::Condition,
    precedence::{PathRank, Rank},
    value::{Value, whole},
};
use crate::{
    path::{Strictness, normalize},
    request::{Caller, RequestHead},
};

/// What a request must be like.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    path: Path,
    method: Option<String>,
    headers: Vec<(String, Value)>,
    query_params: Vec<(String, Value)>,
    cookies: Vec<(String, Value)>,
    /// Any of these calls; anyone where there are none.
    sources: Vec<ServiceGlob>,
    /// All of these stand in the caller's own file.
    source_labels: Labels,
}

/// A path, compared as routes and policies do.
#[derive(Debug, Default)]
pub(crate) enum Path {
    #[default]
    Any,
    Exact(String),
    /// Whole segments from the start; without a final `/`.
    Prefix(String),
    Whole(Regex),
    /// `/<service>/<method>`, each of which may be any.
    Call(Option<Value>, Option<Value>),
}

/// Matches of which one is enough; none at all is a match for everything.
#[derive(Debug)]
pub(crate) struct Matchers(Vec<Matcher>);

impl Matchers {
    /// Compiles the matches of what stands at `at`.
    pub(crate) fn new(matches: &[RouteMatch], at: &str, errors: &mut Vec<FieldError>) -> Self {
        let one = |(index, one)| Matcher::new(one, &format!("{at}.matches[{index}]"), errors);
        Self(matches.iter().enumerate().map(one).collect())
    }

    /// Whether a request is one of those.
    pub(crate) fn match_any(&self, head: &RequestHead<'_>, caller: Caller<'_>) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one.matches(head, caller))
    }
}

impl Matcher {
    /// Compiles a match that stands at `at` (`spec.rules[0].matches[1]`). What is wrong goes to `errors`, and what
    /// could not be compiled then matches nothing that it should not: the caller gives up.
    pub(super) fn new(one: &RouteMatch, at: &str, errors: &mut Vec<FieldError>) -> Self {
        let headers = one
            .headers
            .iter()
            .map(|header| (header.name.as_str().to_ascii_lowercase(), header.kind, header.value.as_str()));
        let params = one.query_params.iter();
        let params = params.map(|param| (param.name.as_str().to_owned(), param.kind, param.value.as_str()));
        let cookies = one.cookies.iter();
        let cookies =
            cookies.map(|cookie| (cookie.name.as_str().to_owned(), cookie.kind, cookie.value.as_str()));
        Self {
            path: one.path.as_ref().map_or(Path::Any, |path| Path::new(path, at, errors)),
            method: one.method.as_ref().map(|method| method.as_str().to_owned()),
            headers: values(headers, &format!("{at}.headers"), errors),
            query_params: values(params, &format!("{at}.queryParams"), errors),
            cookies: values(cookies, &format!("{at}.cookies"), errors),
            sources: one.sources.clone(),
            source_labels: one.source_labels.clone(),
        }
    }

    /// Compiles a match of a GRPCRoute, as above. gRPC's calls are requests for `/<service>/<method>`.
    pub(super) fn grpc(one: &GrpcRouteMatch, at: &str, errors: &mut Vec<FieldError>) -> Self {
        let headers = one
            .headers
            .iter()
            .map(|header| (header.name.as_str().to_ascii_lowercase(), header.kind, header.value.as_str()));
        let headers = values(headers, &format!("{at}.headers"), errors);
        let path = one.method.as_ref().map_or(Path::Any, |method| {
            let mut part = |text: &Option<Text<1024>>, field: &str| {
                let value = Value::new(method.kind, text.as_ref()?.as_str());
                let report =
                    |message| errors.push(FieldError { path: format!("{at}.method.{field}"), message });
                value.map_err(report).ok()
            };
            Path::Call(part(&method.service, "service"), part(&method.method, "method"))
        });
        let (sources, source_labels) = (one.sources.clone(), one.source_labels.clone());
        Self { path, headers, sources, source_labels, ..Self::default() }
    }

    pub(super) fn rank(&self) -> Rank {
        Rank {
            path: self.path.rank(),
            any_method: self.method.is_none(),
            headers: Reverse(self.headers.len()),
            query_params: Reverse(self.query_params.len()),
            cookies: Reverse(self.cookies.len()),
            any_source: self.sources.is_empty() && self.source_labels.is_empty(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The prefix of whole segments that its path is, without a final `/`.
    pub(super) fn prefix(&self) -> Option<&str> {
        match &self.path {
            Path::Any => Some(""),
            Path::Prefix(prefix) => Some(prefix),
            Path::Exact(_) | Path::Whole(_) | Path::Call(..) => None,
        }
    }

    pub(super) fn matches(&self, head: &RequestHead<'_>, caller: Caller<'_>) -> bool {
        self.conditions().all(|condition| condition.holds(head, caller))
    }

    /// All that it asks for, in the order in which that is looked at.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = Condition<'_>> {
        let sources = (!self.sources.is_empty()).then_some(Condition::Sources(&self.sources));
        let labels = (!self.source_labels.is_empty()).then_some(Condition::SourceLabels(&self.source_labels));
        std::iter::once(Condition::Path(&self.path))
            .chain(self.method.as_deref().map(Condition::Method))
            .chain(self.headers.iter().map(|(name, value)| Condition::Header(name, value)))
            .chain(self.query_params.iter().map(|(name, value)| Condition::QueryParam(name, value)))
            .chain(self.cookies.iter().map(|(name, value)| Condition::Cookie(name, value)))
            .chain(sources)
            .chain(labels)
    }
}

/// Of several with one name only the first counts (Gateway API, HTTPRouteMatch).
fn values<'a>(
    wanted: impl Iterator<Item = (String, ValueMatchType, &'a str)>,
    at: &str,
    errors: &mut Vec<FieldError>,
) -> Vec<(String, Value)> {
    let mut compiled: Vec<(String, Value)> = Vec::new();
    for (index, (name, kind, text)) in wanted.enumerate() {
        match Value::new(kind, text) {
            Ok(_) if compiled.iter().any(|(other, _)| *other == name) => {}
            Ok(value) => compiled.push((name, value)),
            Err(message) => errors.push(FieldError { path: format!("{at}[{index}].value"), message }),
        }
    }
    compiled
}

impl Path {
    fn new(path: &PathMatch, at: &str, errors: &mut Vec<FieldError>) -> Self {
        Self::compile(path, Strictness::Plain).unwrap_or_else(|message| {
            errors.push(FieldError { path: format!("{at}.path.value"), message });
            Self::Any
        })
    }

    /// A path to compare with those that are normal with this strictness.
    ///
    /// # Errors
    /// What is wrong with its value, for a person.
    pub(crate) fn compile(path: &PathMatch, strictness: Strictness) -> Result<Self, String> {
        let text = path.value.as_str();
        match path.kind {
            PathMatchType::RegularExpression => whole(text).map(Self::Whole),
            PathMatchType::Exact => normal(text, strictness).map(Self::Exact),
            PathMatchType::PathPrefix => {
                normal(text, strictness).map(|text| match text.trim_end_matches('/') {
                    "" => Self::Any,
                    prefix => Self::Prefix(prefix.to_owned()),
                })
            }
        }
    }

    fn rank(&self) -> PathRank {
        match self {
            Self::Any => PathRank::Any,
            Self::Exact(_) => PathRank::Exact,
            Self::Prefix(prefix) => PathRank::Prefix(Reverse(prefix.len())),
            Self::Whole(_) => PathRank::RegularExpression,
            Self::Call(service, method) => {
                let length = |part: &Option<Value>| part.as_ref().map_or(0, Value::length);
                PathRank::Call { service: Reverse(length(service)), method: Reverse(length(method)) }
            }
        }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(own) => own == path,
            Self::Prefix(own) => {
                path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Whole(regex) => regex.is_match(path.as_bytes()),
            Self::Call(service, method) => {
                let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
                parts.is_some_and(|(own_service, own_method)| {
                    let is = |want: &Option<Value>, own: &str| {
                        want.as_ref().is_none_or(|want| want.matches(own.as_bytes()))
                    };
                    is(service, own_service) && is(method, own_method)
                })
            }
        }
    }
}

/// The one form of a path to compare with. Requests are compared in that form, so another would never match.
pub(super) fn normal(text: &str, strictness: Strictness) -> Result<String, String> {
    if text.contains('?') {
        return Err("must be a path without a query: compare those with queryParams".to_owned());
    }
    let path = normalize(text, strictness).map_err(|refused| format!("must be a path: {refused}"))?;
    let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
    if dots || text.contains("//") {
        return Err("must be a path without empty segments, '.' and '..'".to_owned());
    }
    Ok(path.path().to_owned())
}
