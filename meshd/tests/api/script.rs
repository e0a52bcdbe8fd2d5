//! The language of these tests. A request is a line `METHOD path`; what follows until the next one belongs to it:
//!
//! ```text
//! > name: value        a header of the request; `> token: T` speaks as T, `> token: -` as nobody
//! | text               its body, line by line
//! = 201                the status
//! .spec.ports[0] {…}   JSON at a place of the answer; `.x -` where there is none
//! ~ text               somewhere in the answer
//! < name: value        a header of the answer
//! $name .place         keeps a text or number of the answer for later lines, which name it `$name`
//! ```

use std::{collections::BTreeMap, net::SocketAddr};

use meshd::dev::{self, Dev};
use reqwest::{Certificate, Client, Method};
use serde_json::Value;

/// A server with a client that may do everything.
pub(crate) struct World {
    pub(crate) dev: Dev,
    pub(crate) client: Client,
    names: BTreeMap<String, String>,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

#[derive(Default)]
struct Step {
    request: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    wants: Vec<String>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dev = dev::start(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.expect("a server");
        // As `meshd --dev` waits before it prints where it is: it has stood for election.
        assert!(dev.server.ready().await, "it leads itself");
        let client = client(&dev, |builder| builder);
        Self { dev, client, names: BTreeMap::new() }
    }

    /// What a name stands for.
    pub(crate) fn name(&self, name: &str) -> &str {
        self.names.get(name).unwrap_or_else(|| panic!("${name} was never kept"))
    }

    /// Makes a name stand for a text.
    pub(crate) fn keep(&mut self, name: &str, text: &str) {
        self.names.insert(name.to_owned(), text.to_owned());
    }

    /// Plays a transcript.
    pub(crate) async fn play(&mut self, script: &str) {
        for step in steps(script) {
            let answer = self.send(&step).await;
            for want in &step.wants {
                self.judge(&step.request, &answer, want);
            }
        }
    }

    async fn send(&self, step: &Step) -> Answer {
        let request = self.named(&step.request);
        let (method, path) = request.split_once(' ').expect("METHOD path");
        let method: Method = method.parse().expect("a method");
        let mut builder = self.client.request(method, format!("{}{path}", self.dev.address));
        let mut token = Some(self.dev.token.clone());
        for (name, value) in &step.headers {
            let value = self.named(value);
            match name.as_str() {
                "token" => token = (value != "-").then_some(value),
                _ => builder = builder.header(name, value),
            }
        }
        if let Some(token) = token {
            builder = builder.bearer_auth(token);
        }
        if let Some(body) = &step.body {
            builder = builder.body(self.named(body));
        }
        answer(builder.send().await.expect("an answer")).await
    }

    fn judge(&mut self, request: &str, answer: &Answer, want: &str) {
        let Answer { status, headers, body } = answer;
        let told = format!("{request}\nanswered {status} {headers:?}\n{body}\nwanted {want}");
        let (kind, rest) = want.split_at(1);
        let (place, value) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
        match kind {
            "=" => assert_eq!(status.to_string(), rest.trim(), "{told}"),
            "~" => assert!(body.contains(&self.named(rest.trim())), "{told}"),
            "<" => {
                let (name, value) = rest.split_once(':').expect("name: value");
                let is = headers.get(name.trim()).map(|value| value.to_str().expect("a text"));
                assert_eq!(is, Some(self.named(value.trim()).as_str()), "{told}");
            }
            "." => {
                let is = at(body, place);
                if value.trim() == "-" {
                    return assert_eq!(is, None, "{told}");
                }
                let value: Value = serde_json::from_str(&self.named(value)).expect("JSON is wanted");
                assert_eq!(is.as_ref(), Some(&value), "{told}");
            }
            "$" => {
                let is = at(body, value.trim_start_matches('.'))
                    .unwrap_or_else(|| panic!("nothing to keep: {told}"));
                let text = is.as_str().map_or_else(|| is.to_string(), str::to_owned);
                self.keep(place, &text);
            }
            _ => panic!("no such line: {want}"),
        }
    }

    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // Longer names first: `$token2` is not `$token` and a 2.
        for (name, value) in self.names.iter().rev() {
            text = text.replace(&format!("${name}"), value);
        }
        text
    }
}

/// A client that trusts the server's root, and nothing else.
pub(crate) fn client(
    dev: &Dev,
    with: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Client {
    let root = std::fs::read(&dev.root_file).expect("the root's file");
    let root = Certificate::from_pem(&root).expect("a certificate");
    with(Client::builder().tls_certs_only([root])).build().expect("a client")
}

/// An answer, read to its end.
pub(crate) async fn answer(response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.expect("a text") }
}

/// The JSON at `a.b[0].c`.
pub(crate) fn at(body: &str, place: &str) -> Option<Value> {
    let json: Value = serde_json::from_str(body).ok()?;
    let mut value = &json;
    for part in place.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        value = match value {
            Value::Array(elements) => elements.get(part.parse::<usize>().ok()?)?,
            other => other.get(part)?,
        };
    }
    Some(value.clone())
}

fn steps(script: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with(|first: char| first.is_ascii_uppercase()) {
            steps.push(Step { request: line.to_owned(), ..Step::default() });
            continue;
        }
        let step = steps.last_mut().expect("a request comes first");
        match line.split_at(1) {
            (">", header) => {
                let (name, value) = header.split_once(':').expect("name: value");
                step.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            ("|", text) => {
                let body = step.body.get_or_insert_default();
                body.push_str(text.strip_prefix(' ').unwrap_or(text));
                body.push('\n');
            }
            _ => step.wants.push(line.to_owned()),
        }
    }
    steps
}
