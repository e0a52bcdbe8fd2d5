//! Pure. How calls fail, as the description says it: by status, and which of them a call may be answered. Every failure is a
//! problem (`api::error`); what no call foresees, a fault of ours, is its `default`.

use serde_json::{Map, Value, json};

use super::operations::{Access, NAMED};

/// By status: what the description calls it, and what it means.
const WORDS: &[(&str, &str, &str)] = &[
    ("400", "Malformed", "It cannot be read: syntax, encoding, a header or a path that makes no sense."),
    ("401", "Unauthenticated", "Nobody, or a token that is not valid, where somebody is needed."),
    ("403", "Forbidden", "The caller may not; it says what is missing."),
    ("404", "NotFound", "There is no such object."),
    ("408", "TooSlow", "The body did not come in time."),
    ("409", "Conflict", "It does not go together with what is there."),
    ("410", "Gone", "It was there once: history, a session, another epoch. Start anew."),
    ("412", "Precondition", "`If-Match`, `If-None-Match` or an expected revision does not hold."),
    ("413", "TooLarge", "The body is too large."),
    ("415", "MediaType", "The body's media type is not taken here."),
    ("422", "Invalid", "It can be read, and is wrong: every wrong field."),
    ("429", "TooMany", "Over a limit that passes: ask again after `Retry-After`."),
    ("503", "Unavailable", "No leader, or too much under way: ask again after `Retry-After`."),
];

/// What a call is like, as far as it says how it may fail.
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) access: Access,
    /// Whether it takes query parameters.
    pub(super) query: bool,
    pub(super) body: bool,
}

impl Call<'_> {
    /// The answers of failure, by status; `default` stands for all others.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (String, Value)> + '_ {
        let foreseen = WORDS.iter().filter(|(status, ..)| self.may(status));
        let named = foreseen.map(|(status, name, _)| ((*status).to_owned(), refer(name)));
        named.chain([("default".to_owned(), refer("Problem"))])
    }

    fn may(&self, status: &str) -> bool {
        let changes = self.method != "get";
        match status {
            "401" => self.access != Access::Open,
            "403" => self.access != Access::Open || changes,
            "404" => self.path.contains('{') || changes,
            "409" => changes,
            "412" => changes && self.expects(),
            "408" | "413" | "415" => self.body,
            "422" => self.body || self.query,
            _ => true,
        }
    }

    /// Whether it may be asked for only while what it changes is still of a revision.
    fn expects(&self) -> bool {
        self.path.ends_with(NAMED) || ["/v1/apply", "/v1/rollback"].contains(&self.path)
    }
}

/// What [`Call::refusals`] refers to.
pub(super) fn components() -> Value {
    let any = ("Problem", "Why not (RFC 9457), with every wrong field.");
    let all = WORDS.iter().map(|(_, name, about)| (*name, *about)).chain([any]);
    let response = |(name, about): (&str, &str)| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        (
            name.to_owned(),
            json!({"description": about, "content": {model::problem::MEDIA_TYPE: {"schema": schema}}}),
        )
    };
    Value::Object(all.map(response).collect::<Map<_, _>>())
}

fn refer(name: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{name}")})
}
