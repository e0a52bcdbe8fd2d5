//! A watcher that writes down what it sees: by lines, by server-sent events or by long polls. It goes on where it was when
//! its server is gone or it chooses another one, and starts anew when it is sent away.

use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use model::{
    kind::Kind,
    object::Object,
    problem::Problem,
    watch::{Event, parse_line},
};
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use tokio::sync::watch::Receiver;

use super::{Change, Entry, Journal, Scope};

/// Nothing that a watcher waits for takes as long: a stream has a line every 15 seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a long poll waits.
const WAIT: &str = "5s";
/// How long a watcher waits before it tries another server.
const PAUSE: Duration = Duration::from_millis(50);

/// How it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `GET /v1/watch`, a line of JSON each.
    Ndjson,
    /// The same as server-sent events.
    Sse,
    /// `GET /v1/{kinds}?from=&wait=`.
    Poll,
}

/// A watcher that is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name in reports.
    pub watcher: String,
    /// How it watches.
    pub form: Form,
    /// What it watches.
    pub scope: Scope,
    /// The servers, as `https://host:port`; it begins at the first.
    pub bases: Vec<String>,
    /// Whom to trust.
    pub http: Client,
    /// Who asks.
    pub token: String,
    /// From where; the present state if left out.
    pub from: Option<u64>,
    /// After so many events it leaves its stream for the next server, in the middle of whatever comes.
    pub hops_after: Option<usize>,
}

/// Watches until it was told everything up to the revision that `done` will have.
///
/// # Errors
/// If an answer makes no sense, or there is none for a long time.
pub async fn watch(plan: Plan, done: Receiver<Option<u64>>) -> anyhow::Result<Journal> {
    let journal = Journal { watcher: plan.watcher.clone(), scope: plan.scope.clone(), entries: Vec::new() };
    let place = plan.from;
    let mut watcher = Watcher { plan, journal, place, at: 0, until_hop: 0, done };
    while !watcher.is_done() {
        watcher.until_hop = watcher.plan.hops_after.unwrap_or(usize::MAX);
        match watcher.plan.form {
            Form::Poll => watcher.poll().await?,
            _ => watcher.stream().await?,
        }
    }
    Ok(watcher.journal)
}

struct Watcher {
    plan: Plan,
    journal: Journal,
    /// Where it would resume.
    place: Option<u64>,
    /// At which server it is.
    at: usize,
    until_hop: usize,
    done: Receiver<Option<u64>>,
}

/// What is read of a stream before it means anything.
#[derive(Default)]
struct Held(Vec<u8>);

impl Held {
    /// The next piece up to `end`, without it.
    fn next(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let at = self.0.windows(end.len()).position(|window| window == end)?;
        let rest = self.0.split_off(at + end.len());
        let mut piece = std::mem::replace(&mut self.0, rest);
        piece.truncate(at);
        Some(piece)
    }
}

impl Watcher {
    fn is_done(&self) -> bool {
        self.done.borrow().is_some_and(|end| self.place.is_some_and(|place| place >= end))
    }

    fn note(&mut self, entry: Entry) {
        self.journal.entries.push(entry);
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let base = &self.plan.bases[self.at % self.plan.bases.len()];
        let request = self.plan.http.get(format!("{base}{path}")).bearer_auth(&self.plan.token);
        let namespace = self.plan.scope.namespace.as_ref();
        request.query(&namespace.map(|namespace| ("namespace", namespace.as_str())).as_slice())
    }

    /// An answer with news; `None` where there is none, or the watcher was sent away or has to go elsewhere.
    async fn ask(&mut self, request: RequestBuilder) -> anyhow::Result<Option<Response>> {
        let asked = tokio::time::timeout(PATIENCE, request.send()).await;
        let Ok(response) = asked.context("no answer")? else { return self.elsewhere().await };
        match response.status() {
            StatusCode::OK | StatusCode::NOT_MODIFIED => Ok(Some(response)),
            StatusCode::GONE => {
                let problem: Problem = response.json().await?;
                self.gone(oldest(&problem.detail));
                Ok(None)
            }
            status if status.is_server_error() => self.elsewhere().await,
            status => anyhow::bail!("{status}: {}", response.text().await.unwrap_or_default()),
        }
    }

    async fn elsewhere(&mut self) -> anyhow::Result<Option<Response>> {
        self.at += 1;
        // Poll: a server that is down says nothing of when it is back.
        tokio::time::sleep(PAUSE).await;
        Ok(None)
    }

    fn gone(&mut self, oldest: u64) {
        self.note(Entry::Gone(oldest));
        self.place = None;
    }

    async fn stream(&mut self) -> anyhow::Result<()> {
        let kinds: Vec<_> = self.plan.scope.kinds.iter().map(|kind| kind.as_str()).collect();
        let mut request = self.get("/v1/watch").query(&[("kinds", kinds.join(","))]);
        let place = self.place.map(|place| place.to_string());
        if self.plan.form == Form::Sse {
            request = request.header("accept", "text/event-stream");
            request = place.iter().fold(request, |request, place| request.header("last-event-id", place));
        } else {
            request = request.query(&place.map(|place| ("from", place)).as_slice());
        }
        let Some(mut response) = self.ask(request).await? else { return Ok(()) };
        self.note(Entry::Opened(self.place));
        let (mut held, mut done) = (Held::default(), self.done.clone());
        loop {
            if !self.take(&mut held)? || self.is_done() {
                return Ok(());
            }
            let chunk = tokio::select! {
                chunk = tokio::time::timeout(PATIENCE, response.chunk()) => chunk.context("the stream is dead")?,
                changed = done.changed() => { changed?; continue }
            };
            match chunk {
                Ok(Some(bytes)) => held.0.extend_from_slice(&bytes),
                ended => {
                    self.note(Entry::Ended(ended.is_ok()));
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    /// Takes in all that is whole; whether the stream goes on.
    fn take(&mut self, held: &mut Held) -> anyhow::Result<bool> {
        let end: &[u8] = if self.plan.form == Form::Sse { b"\n\n" } else { b"\n" };
        while let Some(piece) = held.next(end) {
            let (event, id) = match self.plan.form {
                Form::Sse => match server_sent(&piece)? {
                    Some(read) => read,
                    None => continue,
                },
                _ => (parse_line(&piece)?, None),
            };
            if !self.event(event, id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn event(&mut self, event: Event, id: Option<u64>) -> bool {
        let place = match &event {
            // The id alone says where such a client resumes.
            _ if self.plan.form == Form::Sse => id,
            Event::Put { revision, last, .. } | Event::Delete { revision, last, .. } => {
                last.then_some(*revision)
            }
            Event::Bookmark { revision } => Some(*revision),
            Event::Error { .. } => None,
        };
        self.place = place.or(self.place);
        let (put, revision, last, object) = match event {
            Event::Put { revision, last, object } => (true, revision, last, object),
            Event::Delete { revision, last, object } => (false, revision, last, object),
            Event::Bookmark { revision } => {
                self.note(Entry::Bookmark(revision));
                return true;
            }
            Event::Error { oldest, .. } => {
                self.gone(oldest);
                return false;
            }
        };
        self.note(Entry::Event { revision, last, change: Change::of(&object, put) });
        self.until_hop -= 1;
        if self.until_hop == 0 {
            self.note(Entry::Ended(false));
            self.at += 1;
        }
        self.until_hop > 0
    }

    async fn poll(&mut self) -> anyhow::Result<()> {
        let kind: Kind = self.plan.scope.kinds[0];
        let mut request = self.get(&format!("/v1/{}", kind.plural()));
        if let Some(place) = self.place {
            request = request.query(&[("from", place.to_string().as_str()), ("wait", WAIT)]);
        }
        let Some(response) = self.ask(request).await? else { return Ok(()) };
        let revision =
            response.headers().get("mesh-revision").context("no Mesh-Revision")?.to_str()?.parse()?;
        if response.status() == StatusCode::NOT_MODIFIED {
            self.note(Entry::Unchanged(revision));
        } else {
            let Ok(text) = response.text().await else { return self.elsewhere().await.map(drop) };
            let list: List = serde_json::from_str(&text)?;
            let object = |object: &Object| (Change::of(object, true), object.metadata.revision);
            let objects = list.items.iter().map(object).collect();
            let revision = list.metadata.revision;
            self.note(Entry::List { revision, polled: self.place.is_some(), objects });
        }
        self.place = Some(if self.place.is_some() { revision } else { self.last_list() });
        if self.plan.hops_after.is_some() {
            self.at += 1;
        }
        Ok(())
    }

    /// A plain list's headers may speak of a later moment than the list.
    fn last_list(&self) -> u64 {
        match self.journal.entries.last() {
            Some(Entry::List { revision, .. }) => *revision,
            _ => 0,
        }
    }
}

#[derive(Deserialize)]
struct List {
    items: Vec<Object>,
    metadata: ListMetadata,
}

#[derive(Deserialize)]
struct ListMetadata {
    revision: u64,
}

/// A server-sent event: what it says, and its id. `None` for one without data.
fn server_sent(piece: &[u8]) -> anyhow::Result<Option<(Event, Option<u64>)>> {
    let text = std::str::from_utf8(piece)?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let Some(data) = field("data: ") else { return Ok(None) };
    Ok(Some((parse_line(data.as_bytes())?, field("id: ").map(str::parse).transpose()?)))
}

/// The oldest revision that is kept, as a refusal names it; the last there can be if it does not.
fn oldest(detail: &str) -> u64 {
    let number =
        detail.strip_prefix("revisions before ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or(u64::MAX)
}
