//! The text language of the routing suite, for whoever runs its cases: the decisions by themselves, or real proxies.
//!
//! ```text
//! == exact-path                                     a case: a Service of that name with port 80, and after it
//! kind: HTTPRoute                                   manifests
//! …
//! GET /one?a=1 [x: 1 | y: 2] -> v1                  a request with fields, and the back end that gets it
//! GET /one -> v1 GET /two [x-new: 1 | !x-old]       … with what the back end sees: fields that are, and one that is not
//! GET /one -> v1 -> 200 [x-answer: 1]               … and the answer
//! GET /two -> 302 [location: http://a.example/]     an answer that no back end gave
//! ```
//!
//! A request's field `x-echo-answer: a=1, b=2` asks the back end for an answer with these fields. `== name grpc` makes
//! the port one for gRPC.

#![allow(dead_code, unreachable_pub, reason = "each runner uses its part of the language")]

use std::fmt::Write;

/// A service with its routes, and what becomes of requests to it.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub protocol: String,
    pub manifests: String,
    pub exchanges: Vec<Exchange>,
}

/// A request and what becomes of it.
#[derive(Debug)]
pub struct Exchange {
    pub text: String,
    pub request: Head,
    seen: Option<Seen>,
    answer: Option<Wanted>,
}

/// A request's head.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
}

#[derive(Debug)]
struct Seen {
    backend: String,
    line: Option<(String, String)>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Wanted {
    status: u16,
    fields: Vec<Field>,
}

#[derive(Debug)]
enum Field {
    Is(String, String),
    Not(String),
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The back end that got it, and what it saw.
    pub seen: Option<(String, Head)>,
    pub status: u16,
    pub fields: Vec<(String, String)>,
}

/// All cases of a text.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            let (name, protocol) = title.split_once(' ').unwrap_or((title, "http"));
            let (name, protocol) = (name.to_owned(), protocol.to_owned());
            cases.push(Case { name, protocol, manifests: String::new(), exchanges: Vec::new() });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        if line.starts_with(|c: char| c.is_ascii_uppercase()) && line.contains(" -> ") {
            case.exchanges.push(exchange(line));
        } else {
            writeln!(case.manifests, "{line}").expect("a String takes everything");
        }
    }
    assert!(!cases.is_empty() && cases.iter().all(|case| !case.exchanges.is_empty()), "a case asks nothing");
    cases
}

fn exchange(text: &str) -> Exchange {
    let mut parts = text.split(" -> ").map(str::trim);
    let request = head(parts.next().expect("a request"));
    let (mut seen, mut answer) = (None, None);
    for part in parts {
        if part.starts_with(|c: char| c.is_ascii_digit()) {
            let (status, list) = listed(part);
            answer = Some(Wanted { status: status.parse().expect("a status"), fields: wanted(list) });
        } else {
            let (words, list) = listed(part);
            let mut words = words.split_whitespace().map(str::to_owned);
            let backend = words.next().expect("a back end");
            seen = Some(Seen { backend, line: words.next().zip(words.next()), fields: wanted(list) });
        }
    }
    Exchange { text: text.to_owned(), request, seen, answer }
}

fn head(text: &str) -> Head {
    let (line, list) = listed(text);
    let (method, target) = line.split_once(' ').expect("a method and a target");
    let fields = list.into_iter().map(|field| field.split_once(": ").expect("a field"));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Head { method: method.to_owned(), target: target.trim().to_owned(), fields }
}

fn listed(text: &str) -> (&str, Vec<&str>) {
    match text.split_once('[') {
        Some((line, list)) => {
            (line.trim(), list.trim_end().trim_end_matches(']').split(" | ").map(str::trim).collect())
        }
        None => (text, Vec::new()),
    }
}

fn wanted(list: Vec<&str>) -> Vec<Field> {
    let field = |field: &str| match (field.strip_prefix('!'), field.split_once(": ")) {
        (Some(name), _) => Field::Not(name.to_owned()),
        (None, Some((name, value))) => Field::Is(name.to_owned(), value.to_owned()),
        (None, None) => Field::Is(field.trim_end_matches(':').to_owned(), String::new()),
    };
    list.into_iter().map(field).collect()
}

impl Exchange {
    /// Fails where something else became of it than the suite says.
    pub fn check(&self, case: &Case, got: &Outcome) {
        let place = format!("{}: {}\ngot {got:#?}", case.name, self.text);
        let backend = got.seen.as_ref().map(|(backend, _)| backend.as_str());
        assert_eq!(backend, self.seen.as_ref().map(|seen| seen.backend.as_str()), "{place}");
        if let (Some(want), Some((_, head))) = (&self.seen, &got.seen) {
            if let Some((method, target)) = &want.line {
                assert_eq!((&head.method, &head.target), (method, target), "{place}");
            }
            compare(&want.fields, &head.fields, &place);
        }
        let status = self.answer.as_ref().map_or(200, |answer| answer.status);
        assert_eq!(got.status, status, "{place}");
        if let Some(answer) = &self.answer {
            compare(&answer.fields, &got.fields, &place);
        }
    }
}

fn compare(want: &[Field], got: &[(String, String)], place: &str) {
    for field in want {
        let (Field::Is(name, _) | Field::Not(name)) = field;
        let values: Vec<_> = got.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).collect();
        let joined = values.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(",");
        match field {
            Field::Is(_, value) => {
                assert!(
                    !values.is_empty() && joined == *value,
                    "{name} is {joined:?}, not {value:?}\n{place}"
                );
            }
            Field::Not(_) => assert!(values.is_empty(), "{name} is there\n{place}"),
        }
    }
}

/// The fields that a back end answers with, as the request asks for them.
pub fn echoed(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(", ").filter_map(|pair| pair.split_once('='))
}
