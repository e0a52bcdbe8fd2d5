//! Pure. A request as its caller sends it, and as it comes to the called side.

use model::{explain::Question, resource::Protocol};

use crate::{
    headers::{self, Leg},
    path::NormalPath,
    request::{Fields, RequestHead},
    route::Filters,
    snapshot::Port,
};

/// A request's head.
pub(super) struct Head {
    pub(super) method: String,
    /// As it came: not brought into its one form yet.
    pub(super) path: String,
    pub(super) authority: String,
    fields: Lines,
}

/// Fields as pairs, names in lower case.
struct Lines(Vec<(String, String)>);

impl Fields for Lines {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        let named = self.0.iter().filter(|(own, _)| own == name);
        named.for_each(|(_, value)| each(value.as_bytes()));
    }
}

impl Head {
    /// That of a question, with what is usual where it says nothing.
    pub(super) fn of(question: &Question, port: &Port, hostname: &str) -> Self {
        let usual = if port.protocol() == Protocol::Grpc { "POST" } else { "GET" };
        let text = |said: Option<&str>, usual: &str| said.unwrap_or(usual).to_owned();
        let lines = question.header_lines().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            method: text(question.method.as_ref().map(|method| method.as_str()), usual),
            path: text(question.path.as_ref().map(|path| path.as_str()), "/"),
            authority: text(question.authority.as_ref().map(|authority| authority.as_str()), hostname),
            fields: Lines(lines.collect()),
        }
    }

    /// As decisions see it.
    pub(super) fn seen<'a>(&'a self, path: &'a NormalPath<'a>) -> RequestHead<'a> {
        let Self { method, path: _, authority, fields } = self;
        RequestHead { method, path, authority, fields }
    }

    /// As it comes to the called side.
    pub(super) fn next(&self, filters: &Filters, path: &NormalPath<'_>) -> Self {
        let connection = self.fields.0.iter().filter(|(name, _)| name == "connection");
        let named: Vec<&str> =
            headers::named_by_connection(connection.map(|(_, value)| value.as_bytes())).collect();
        let stays_behind = |(name, value): &&(String, String)| {
            named.iter().any(|named| named.eq_ignore_ascii_case(name) && name != "te")
                || headers::is_dropped(Leg::RequestOut, name, value.as_bytes())
        };
        let mut fields: Vec<_> = self.fields.0.iter().filter(|line| !stays_behind(line)).cloned().collect();
        filters.on_request().apply(&mut fields);
        Self {
            method: self.method.clone(),
            path: filters.path(path).into_owned(),
            authority: filters.host().unwrap_or(&self.authority).to_owned(),
            fields: Lines(fields),
        }
    }
}
