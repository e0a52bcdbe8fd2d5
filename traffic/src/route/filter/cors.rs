//! Pure. Cross-origin requests of browsers: the answer to a preflight, and what is said beside an application's answer
//! (Gateway API, HTTPCORSFilter; Fetch standard, CORS protocol). Nobody is kept out by it: an origin that is not allowed
//! gets an answer that its browser does not show.

use std::sync::Arc;

use model::{resource, shape::Text};

use super::{Edits, Reply};
use crate::request::RequestHead;

#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    methods: Option<List>,
    headers: Option<List>,
    expose: Option<List>,
    max_age_secs: u64,
}

/// An origin that may ask.
#[derive(Debug)]
enum Origin {
    Any,
    /// Scheme, host (behind `*` where it begins so) and port, in lower case.
    Like {
        scheme: String,
        host: String,
        any_below: bool,
        port: u16,
    },
}

/// What a field of the answer lists.
#[derive(Debug)]
enum List {
    /// `*`.
    Any,
    /// Names, as the field has them.
    These(String),
}

impl Cors {
    pub(super) fn new(spec: &resource::Cors) -> Self {
        Self {
            origins: spec
                .allow_origins
                .iter()
                .filter_map(|origin| Origin::pattern(origin.as_str()))
                .collect(),
            credentials: spec.allow_credentials,
            methods: List::new(&spec.allow_methods),
            headers: List::new(&spec.allow_headers),
            expose: List::new(&spec.expose_headers),
            max_age_secs: spec.max_age.value(),
        }
    }

    /// The answer to a request that only asks whether another may be sent.
    pub(super) fn preflight(&self, head: &RequestHead<'_>) -> Option<Reply> {
        let asked = head.field_text("access-control-request-method")?;
        let origin = head.field_text("origin").filter(|_| head.method == "OPTIONS")?;
        let fields = match self.allowed(&origin) {
            None => Edits::default(),
            Some(allowed) => {
                let asked_headers = head.field_text("access-control-request-headers");
                let mut edits = self.shared(allowed);
                for (name, list, asked) in [
                    ("access-control-allow-methods", &self.methods, Some(asked)),
                    ("access-control-allow-headers", &self.headers, asked_headers),
                ] {
                    if let Some(text) = list.as_ref().and_then(|list| list.text(self.credentials, asked)) {
                        edits = edits.set(name, text);
                    }
                }
                edits.set("access-control-max-age", self.max_age_secs.to_string())
            }
        };
        Some(Reply { status: 204, fields: fields.into_fields(), body: Arc::default() })
    }

    /// What is said beside the answer to this request.
    pub(super) fn on_answer(&self, head: &RequestHead<'_>) -> Edits {
        let allowed = head.field_text("origin").and_then(|origin| self.allowed(&origin));
        let Some(allowed) = allowed else { return Edits::default() };
        let edits = self.shared(allowed);
        // Beside credentials a star would be a name (Fetch standard, §3.2.4): then nothing more is shown.
        match self.expose.as_ref().and_then(|list| list.text(self.credentials, None)) {
            Some(text) => edits.set("access-control-expose-headers", text),
            None => edits,
        }
    }

    /// How `access-control-allow-origin` names an origin that may ask.
    fn allowed(&self, origin: &str) -> Option<String> {
        let like = self.origins.iter().find(|own| own.is(origin))?;
        let star = matches!(like, Origin::Any) && !self.credentials;
        Some(if star { "*".to_owned() } else { origin.to_owned() })
    }

    fn shared(&self, allowed: String) -> Edits {
        // A cache must not hand one origin's answer to another.
        let edits = if allowed == "*" { Edits::default() } else { Edits::default().add("vary", "origin") };
        let edits = edits.set("access-control-allow-origin", allowed);
        if self.credentials { edits.set("access-control-allow-credentials", "true") } else { edits }
    }
}

impl Origin {
    fn pattern(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host, port) = parts(text)?;
        let below = host.strip_prefix('*').map(str::to_owned);
        Some(Self::Like { scheme, any_below: below.is_some(), host: below.unwrap_or(host), port })
    }

    fn is(&self, origin: &str) -> bool {
        let Self::Like { scheme, host, any_below, port } = self else { return true };
        parts(origin).is_some_and(|(its_scheme, its_host, its_port)| {
            let host_fits = if *any_below { its_host.ends_with(host.as_str()) } else { its_host == *host };
            its_scheme == *scheme && host_fits && its_port == *port
        })
    }
}

/// Scheme, host and port of an origin, in lower case; the port is the scheme's own where none is named.
fn parts(origin: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, port) = rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let port = match (port, scheme.as_str()) {
        (Some(port), _) => port.parse().ok()?,
        (None, "http") => 80,
        (None, "https") => 443,
        (None, _) => return None,
    };
    Some((scheme, host.to_ascii_lowercase(), port))
}

impl List {
    fn new<const MAX: usize>(names: &[Text<MAX>]) -> Option<Self> {
        match names {
            [] => None,
            [one] if one.as_str() == "*" => Some(Self::Any),
            _ => Some(Self::These(names.iter().map(Text::as_str).collect::<Vec<_>>().join(", "))),
        }
    }

    /// What the field says; where a star would be taken for a name, what was asked for.
    fn text(&self, credentials: bool, asked: Option<String>) -> Option<String> {
        match self {
            Self::These(names) => Some(names.clone()),
            Self::Any if credentials => asked,
            Self::Any => Some("*".to_owned()),
        }
    }
}
