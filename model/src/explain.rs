//! Pure. `POST /v1/explain`: what would become of a call, and why. Here are the question and the answer as they travel; the
//! answer is worked out in `traffic`, by what proxies decide with.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    invalid::Invalid,
    name::{Name, ServiceName},
    resource::{Health, PeerAuthenticationMode, Protocol},
    shape::{Decoder, Int, Mode, Path, Shape, Text, decode, describe, record},
};

/// Headers that a question may name: more than requests have, few enough to compare with every rule.
pub const HEADERS_MAX: usize = 100;
/// The longest name of a header, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 256;
/// Rules that were looked at before the one that took the call, and are told with the reason.
pub const PASSED_OVER_MAX: usize = 20;
/// Endpoints of one back end that are told one by one; further ones are only counted.
pub const ENDPOINTS_TOLD_MAX: usize = 100;

record! {
    /// A call that might be made.
    pub struct Question {
        /// The service that calls.
        "from" from: ServiceName,
        /// The service that is called.
        "to" to: ServiceName,
        /// The port that is dialled; the one for callers who name none if left out.
        "port" port: Option<Int<1, 65_535>>,
        /// The method; GET, or POST for gRPC, if left out.
        "method" method: Option<Text<64>>,
        /// Path and query; `/` if left out.
        "path" path: Option<Text<8_192>>,
        /// The Host; the service's own host name if left out.
        "authority" authority: Option<Text<512>>,
        /// The headers by their names, each with its value or a list of them.
        "headers" headers: BTreeMap<HeaderName, HeaderValues>,
        /// The host from which it is called; the only one that runs the caller if left out.
        "node" node: Option<Name>,
        /// Objects as they might be applied before the call.
        "change" change: Option<Change>,
    }
}

/// A header's name, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct HeaderName(String);

/// The values of a header, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HeaderValues(Vec<Text<8_192>>);

/// A manifest as JSON: one object, a list, or `{"items": […]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Change(pub Value);

/// What would become of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The revision of the registry that this is about.
    pub revision: u64,
    /// Whether it is about that revision with the change.
    pub changed: bool,
    /// Who calls.
    pub from: Source,
    /// Who is called.
    pub to: ServiceName,
    /// At which port.
    pub port: Port,
    /// What is asked for; a stream shows none of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// By which rule it goes where it goes; there is none where its path is refused before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The answer that the rule has by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<OwnAnswer>,
    /// Why it goes nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where it goes, each with its share.
    pub backends: Vec<BackEnd>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The service.
    pub service: ServiceName,
    /// From which host, where that matters and is known.
    pub node: Option<Name>,
    /// In which zone.
    pub zone: Option<Name>,
}

/// The port that is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: Option<Name>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path and query as they are decided on; as they came, where they are refused.
    pub path: String,
    /// The Host.
    pub authority: String,
}

/// The rule that takes the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its name, `<namespace>/<route>/<rule>`, or `default`; none where no rule of the port's routes takes the call.
    pub rule: Option<String>,
    /// What it asks for, all of which the call has.
    pub because: Vec<String>,
    /// The rules that were tried before, each with what the call lacks.
    pub passed_over: Vec<PassedOver>,
    /// What it does beside choosing a back end.
    pub filters: Vec<String>,
    /// The path and query that go on, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The Host that goes on, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// A rule that does not take the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its name.
    pub rule: String,
    /// The first thing that it asks for and the call lacks.
    pub lacks: String,
}

/// An answer without a back end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnAnswer {
    /// Its status.
    pub status: u16,
    /// Where it sends the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// A back end of the rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackEnd {
    /// As routes name it: `default/orders:80 subset v2`.
    pub name: String,
    /// Its weight.
    pub weight: u64,
    /// Its share of the calls.
    pub percent: f64,
    /// Why its share of the calls fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What is done for it alone: where it changes what the rule does, too, all that is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// The path that it sees, where it is not the one that the rule makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The host that it sees, where it is not the one that the rule makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// What holds there.
    #[serde(flatten)]
    pub reached: Option<Reached>,
}

/// What holds at a back end that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Whether it is called by mutual TLS.
    pub mtls: bool,
    /// The traffic policy that counts for it.
    pub traffic_policy: Option<InForce>,
    /// How long all tries may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How long one may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub try_timeout: Option<String>,
    /// How often it is tried anew, at most.
    pub retries: u32,
    /// Its endpoints, at most [`ENDPOINTS_TOLD_MAX`] of them, those that are picked first.
    pub endpoints: Vec<Endpoint>,
    /// How many it has.
    pub endpoints_total: usize,
    /// Whether the called side lets the call in.
    pub verdict: Verdict,
}

/// A traffic policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    /// `<namespace>/<name>`.
    pub name: String,
    /// What it sets.
    pub spec: Map<String, Value>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The Endpoint's name.
    pub name: Name,
    /// Its host; none where a discovery source brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Its zone.
    pub zone: Option<Name>,
    /// Where its proxy is reached.
    pub address: String,
    /// Its weight among its equals.
    pub weight: u32,
    /// Its health, by its own host.
    pub health: Health,
    /// Whether its host's session is lost.
    pub stale: bool,
    /// Its share of first tries, about; by what the registry knows, not by what callers learned.
    pub percent: f64,
    /// Why it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What the called side says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the call is let in.
    pub allowed: bool,
    /// The rule that decides; there is none where the path is refused before.
    pub rule: Option<String>,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether callers must show who they are.
    pub mode: PeerAuthenticationMode,
    /// What says so.
    pub mode_rule: String,
    /// Rules of action Audit that match.
    pub audited: Vec<String>,
    /// Rehearsed rules that would refuse it.
    pub would_deny: Vec<String>,
    /// Rehearsed rules that would let it in.
    pub would_allow: Vec<String>,
}

// === impl Question ===

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// Every wrong field.
    pub fn read(value: &Value) -> Result<Self, Invalid> {
        let question: Self = decode(value, Mode::Strict)?;
        let headers = question.header_lines().count();
        if headers > HEADERS_MAX {
            let message = format_args!("must have at most {HEADERS_MAX} values in all, has {headers}");
            return Err(Invalid::one("headers", message));
        }
        Ok(question)
    }

    /// The headers, a pair for each line.
    pub fn header_lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .flat_map(|(name, values)| values.0.iter().map(|value| (name.0.as_str(), value.as_str())))
    }
}

// === impl HeaderName ===

impl FromStr for HeaderName {
    type Err = &'static str;

    /// A token (RFC 9110 §5.6.2).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || text.len() > HEADER_NAME_BYTES_MAX || !text.bytes().all(token) {
            return Err("must be the name of a header, of at most 256 bytes");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Shape for HeaderValues {
    fn schema() -> Value {
        let text = Text::<8_192>::schema();
        json!({"anyOf": [text, {"type": "array", "items": text}]})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        match value {
            Value::Array(_) => Vec::decode(value, at, decoder).map(Self),
            one => Text::decode(one, at, decoder).map(|one| Self(vec![one])),
        }
    }
}

impl Shape for Change {
    fn schema() -> Value {
        json!({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]})
    }

    fn decode(value: &Value, at: &Path<'_>, decoder: &mut Decoder) -> Option<Self> {
        if value.is_object() || value.is_array() {
            return Some(Self(value.clone()));
        }
        decoder.report(at, format_args!("must be an object or a list, is {}", describe(value)));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a question that has this beside who calls whom.
    #[track_caller]
    fn check(more: Value, want: &str) {
        let mut value = json!({"from": "default/web", "to": "default/orders"});
        value.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("fields"));
        let got = Question::read(&value).map_or_else(|invalid| invalid.to_string(), |_| "fine".to_owned());
        assert!(got.starts_with(want), "{value}: {got}");
    }

    #[test]
    fn each_wrong_field_is_named() {
        check(json!({"port": 80, "headers": {"X-User": "7", "accept": ["a", "b"]}}), "fine");
        check(json!({"change": {"items": []}}), "fine");
        check(json!({"from": "web"}), "from: must be <namespace>/<name>");
        check(json!({"to": null}), "to: is required");
        check(json!({"port": 0}), "port: must be a whole number from 1 to 65535");
        check(json!({"headers": {"x y": "7"}}), "headers.x y: must be the name of a header");
        check(json!({"headers": {"x": 7}}), "headers.x: must be a text");
        check(json!({"change": "x"}), "change: must be an object or a list");
        check(json!({"colour": "red"}), "colour: unknown field");
        check(json!({"headers": {"x": vec!["v"; 101]}}), "headers: must have at most 100 values in all");
    }

    #[test]
    fn header_names_are_in_lower_case() {
        let value = json!({"from": "a/b", "to": "a/c", "headers": {"X-User": ["7", "8"]}});
        let question = Question::read(&value).expect("a question");
        assert_eq!(question.header_lines().collect::<Vec<_>>(), [("x-user", "7"), ("x-user", "8")]);
    }
}
