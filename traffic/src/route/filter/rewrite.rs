//! Pure. Another path or host: a replacement of the whole path, or of the prefix that the rule's match names. The query
//! stays. What comes out is in the one form that paths have.

use std::borrow::Cow;

use model::{
    invalid::FieldError,
    resource::{PathModifier, PathModifierType, UrlRewrite},
};

use crate::{
    path::{NormalPath, Strictness},
    route::matcher,
};

/// What of a request's target becomes something else.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    host: Option<String>,
    path: Option<Replace>,
}

/// How a path is replaced.
#[derive(Debug)]
pub(super) enum Replace {
    Whole(String),
    /// The first bytes, which are the matched prefix, by others; neither ends in `/`.
    Prefix {
        bytes: usize,
        with: String,
    },
}

impl Rewrite {
    pub(super) fn new(
        spec: &UrlRewrite,
        prefix: Option<&str>,
        at: &str,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        let path = spec.path.as_ref().map(|path| Replace::new(path, prefix, at, errors));
        Self { host: spec.hostname.as_ref().map(|host| host.as_str().to_owned()), path }
    }

    /// What `later` says, and this where that says nothing.
    pub(super) fn before(self, later: Self) -> Self {
        Self { host: later.host.or(self.host), path: later.path.or(self.path) }
    }

    pub(super) fn is_some(&self) -> bool {
        self.host.is_some() || self.path.is_some()
    }

    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(super) fn path<'a>(&self, path: &'a NormalPath<'_>) -> Cow<'a, str> {
        match &self.path {
            None => Cow::Borrowed(path.path_and_query()),
            Some(replace) => Cow::Owned(replace.target(path)),
        }
    }
}

impl Replace {
    pub(super) fn new(
        path: &PathModifier,
        prefix: Option<&str>,
        at: &str,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        let (text, field) = match path.kind {
            PathModifierType::ReplaceFullPath => (path.replacement(), "replaceFullPath"),
            PathModifierType::ReplacePrefixMatch => (path.replacement(), "replacePrefixMatch"),
        };
        let normal =
            if text.is_empty() { Ok(String::new()) } else { matcher::normal(text, Strictness::Plain) };
        let normal = normal.unwrap_or_else(|message| {
            errors.push(FieldError { path: format!("{at}.path.{field}"), message });
            String::new()
        });
        match path.kind {
            PathModifierType::ReplaceFullPath => Self::Whole(normal),
            PathModifierType::ReplacePrefixMatch => {
                // Without a prefix admission has refused it; then the prefix is `/`, of which nothing is replaced.
                let bytes = prefix.map_or(0, str::len);
                Self::Prefix { bytes, with: normal.trim_end_matches('/').to_owned() }
            }
        }
    }

    /// The new path, with the query of the old one.
    pub(super) fn target(&self, old: &NormalPath<'_>) -> String {
        let mut target = match self {
            Self::Whole(path) => path.clone(),
            Self::Prefix { bytes, with } => match old.path().get(*bytes..).unwrap_or_default() {
                // The `*` of OPTIONS has no prefix.
                "*" => "*".to_owned(),
                rest => format!("{with}{rest}"),
            },
        };
        if target.is_empty() {
            target.push('/');
        }
        if let Some(query) = old.query() {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}
