//! Pure. What a rule does beside choosing a back end, in words for people.

use std::fmt;

use super::{Edits, Filters, Own, share::Share};

impl Filters {
    /// What it does, each in a line; nothing where there is nothing.
    pub(crate) fn words(&self) -> Vec<String> {
        let Self { request, answer, rewrite, cors, own, faults } = self;
        let edits = |of: &str, edits: &Edits| (!edits.is_empty()).then(|| format!("{of} headers: {edits}"));
        let said = |words: Option<&str>| words.map(str::to_owned);
        [
            edits("request", request),
            edits("answer", answer),
            said(rewrite.is_some().then_some("rewrites the path or the host")),
            said(cors.as_ref().map(|_| "answers browsers of other origins (CORS)")),
            said(own.as_ref().map(Own::words)),
            faults.as_ref().map(ToString::to_string),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Own {
    fn words(&self) -> &'static str {
        match self {
            Self::Redirect(_) => "redirects",
            Self::Direct(_) => "answers by itself",
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (numerator, denominator) = self.parts();
        if numerator >= denominator {
            return f.write_str("all");
        }
        write!(f, "{numerator} of {denominator}")
    }
}
