//! Pure. What a rule does beside choosing a back end, compiled from its filters: to a request's fields, path and host,
//! to its answer's fields, by an answer of its own, and by copies. It acts on plain heads; whoever carries messages
//! lends their fields by [`FieldsMut`].

use std::{borrow::Cow, sync::Arc};

use model::{
    duration::Millis,
    invalid::FieldError,
    resource::{DirectResponse, HeaderModifier, HeaderPair, RouteFilter},
    shape::{Lines, Text},
};

use crate::{Dice, headers, path::NormalPath, request::RequestHead};

mod cors;
mod edits;
mod fault;
mod mirror;
mod redirect;
mod rewrite;
mod share;
mod words;

pub use edits::{Edits, FieldsMut};
pub use fault::Fault;
pub use mirror::Mirror;

pub(super) use mirror::UnboundMirror;

use cors::Cors;
use fault::Faults;
use redirect::Redirect;
use rewrite::Rewrite;

/// What a rule does to its requests and their answers.
#[derive(Debug, Default)]
pub struct Filters {
    request: Edits,
    answer: Arc<Edits>,
    rewrite: Rewrite,
    cors: Option<Cors>,
    own: Option<Own>,
    faults: Option<Faults>,
}

/// The answer that a rule has by itself.
#[derive(Debug)]
enum Own {
    Redirect(Redirect),
    Direct(Arc<Reply>),
}

/// An answer that no application gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Arc<str>,
}

/// What is to be done to the fields of a request's answer.
#[derive(Debug, Clone, Default)]
pub struct OnAnswer {
    cors: Edits,
    rule: Arc<Edits>,
}

impl Filters {
    /// Compiles the filters of the rule at `at`, whose one match has `prefix`, if there is one. What is wrong goes to
    /// `errors`: the caller gives up.
    pub(super) fn new(
        filters: &[RouteFilter],
        prefix: Option<&str>,
        at: &str,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        Self::default().then(filters, prefix, at, errors)
    }

    /// These and after them `filters`, which stand at `at`. Where both replace the path or the host, the later ones do.
    pub(super) fn then(
        mut self,
        filters: &[RouteFilter],
        prefix: Option<&str>,
        at: &str,
        errors: &mut Vec<FieldError>,
    ) -> Self {
        for (index, filter) in filters.iter().enumerate() {
            self.add(filter, prefix, &format!("{at}.filters[{index}]"), errors);
        }
        self
    }

    fn add(&mut self, filter: &RouteFilter, prefix: Option<&str>, at: &str, errors: &mut Vec<FieldError>) {
        let RouteFilter { request_header_modifier, response_header_modifier, .. } = filter;
        if let Some(modifier) = request_header_modifier {
            let edits = edits(modifier, &format!("{at}.requestHeaderModifier"), errors);
            self.request = std::mem::take(&mut self.request).then(edits);
        }
        if let Some(modifier) = response_header_modifier {
            let edits = edits(modifier, &format!("{at}.responseHeaderModifier"), errors);
            self.answer = Arc::new(Edits::clone(&self.answer).then(edits));
        }
        if let Some(redirect) = &filter.request_redirect {
            let at = format!("{at}.requestRedirect");
            self.own = Some(Own::Redirect(Redirect::new(redirect, prefix, &at, errors)));
        }
        if let Some(rewrite) = &filter.url_rewrite {
            let rewrite = Rewrite::new(rewrite, prefix, &format!("{at}.urlRewrite"), errors);
            self.rewrite = std::mem::take(&mut self.rewrite).before(rewrite);
        }
        if let Some(cors) = &filter.cors {
            self.cors = Some(Cors::new(cors));
        }
        if let Some(fault) = &filter.fault_injection {
            self.faults = Some(Faults::new(fault));
        }
        if let Some(direct) = &filter.direct_response {
            refuse_reserved(names(&direct.headers), &format!("{at}.directResponse.headers"), ".name", errors);
            self.own = Some(Own::Direct(Arc::new(Reply::direct(direct))));
        }
    }

    /// The answer that the rule has by itself, without a back end: a redirect, a response of its own, or what a
    /// browser's preflight asks for.
    pub fn reply(&self, head: &RequestHead<'_>) -> Option<Reply> {
        if let Some(preflight) = self.cors.as_ref().and_then(|cors| cors.preflight(head)) {
            return Some(preflight);
        }
        let mut reply = match self.own.as_ref()? {
            Own::Redirect(redirect) => redirect.reply(head),
            Own::Direct(reply) => Reply::clone(reply),
        };
        self.on_answer(head).apply(&mut reply.fields);
        Some(reply)
    }

    /// What is done to the request on purpose.
    pub fn fault(&self, head: &RequestHead<'_>, now: impl FnOnce() -> Millis, dice: &mut Dice) -> Fault {
        self.faults.as_ref().map(|faults| faults.draw(head, now(), dice)).unwrap_or_default()
    }

    /// The path and query to forward.
    pub fn path<'a>(&self, path: &'a NormalPath<'_>) -> Cow<'a, str> {
        self.rewrite.path(path)
    }

    /// The host to forward, where it is not the request's.
    pub fn host(&self) -> Option<&str> {
        self.rewrite.host()
    }

    /// What is to be done to the request's fields.
    pub fn on_request(&self) -> &Edits {
        &self.request
    }

    /// What is to be done to the fields of the answer to this request.
    pub fn on_answer(&self, head: &RequestHead<'_>) -> OnAnswer {
        let cors = self.cors.as_ref().map(|cors| cors.on_answer(head)).unwrap_or_default();
        OnAnswer { cors, rule: Arc::clone(&self.answer) }
    }
}

impl OnAnswer {
    /// Does it.
    pub fn apply(&self, fields: &mut dyn FieldsMut) {
        self.cors.apply(fields);
        self.rule.apply(fields);
    }
}

impl Reply {
    fn direct(direct: &DirectResponse) -> Self {
        let pairs = direct.headers.iter();
        let mut fields: Vec<_> = pairs
            .map(|pair| (pair.name.as_str().to_ascii_lowercase(), pair.value.as_str().to_owned()))
            .collect();
        if direct.body.is_some() && !fields.iter().any(|(name, _)| name == "content-type") {
            fields.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
        }
        let body = direct.body.as_ref().map_or("", Lines::as_str);
        Self { status: direct.status.value() as u16, fields, body: body.into() }
    }
}

fn edits(modifier: &HeaderModifier, at: &str, errors: &mut Vec<FieldError>) -> Edits {
    refuse_reserved(names(&modifier.set), &format!("{at}.set"), ".name", errors);
    refuse_reserved(names(&modifier.add), &format!("{at}.add"), ".name", errors);
    let removed = modifier.remove.iter().map(Text::as_str);
    refuse_reserved(removed, &format!("{at}.remove"), "", errors);
    Edits::new(modifier)
}

fn names(pairs: &[HeaderPair]) -> impl Iterator<Item = &str> {
    pairs.iter().map(|pair| pair.name.as_str())
}

/// Routes may not touch what frames a message, or says who someone is.
fn refuse_reserved<'a>(
    names: impl Iterator<Item = &'a str>,
    at: &str,
    field: &str,
    errors: &mut Vec<FieldError>,
) {
    for (index, name) in names.enumerate() {
        let name = name.to_ascii_lowercase();
        let Some(why) = headers::reserved(&name) else { continue };
        let message = format!("must not be {name}: {why}");
        errors.push(FieldError { path: format!("{at}[{index}]{field}"), message });
    }
}

#[cfg(test)]
mod tests;
