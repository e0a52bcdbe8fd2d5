//! A proxy that writes down what it is told, and goes on at another server where its stream ends or it chooses to.

use std::time::Duration;

use anyhow::Context as _;
use model::{
    client::Client,
    kind::Kind,
    object::{Key, Object},
    proxy,
};
use reqwest::{RequestBuilder, StatusCode};
use tokio::sync::watch::Receiver;

use super::{proxy::Line, value, watcher::PATIENCE, writer};

/// How long it waits before it tries another server.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows until a `sync` at or after the revision that `done` will have. `open` makes the request to the nth server, from
/// a revision; after every `hops_after`th sync it goes to the next one.
///
/// # Errors
/// If an answer makes no sense, or there is none for a long time.
pub async fn follow(
    open: impl Fn(usize, Option<u64>) -> RequestBuilder,
    hops_after: usize,
    mut done: Receiver<Option<u64>>,
) -> anyhow::Result<Vec<Line>> {
    let (mut lines, mut synced, mut at) = (Vec::new(), None, 0);
    while !is_done(&done, synced) {
        let answer = tokio::time::timeout(PATIENCE, open(at, synced).send()).await.context("no answer")?;
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => {
                lines.push(Line::Opened(synced));
                read(answer, hops_after, &mut lines, &mut synced, &mut done).await?;
            }
            Ok(answer) if answer.status() == StatusCode::GONE => synced = None,
            // Poll: a server that is down says nothing of when it is back.
            _ => tokio::time::sleep(PAUSE).await,
        }
        at += 1;
    }
    Ok(lines)
}

fn is_done(done: &Receiver<Option<u64>>, synced: Option<u64>) -> bool {
    done.borrow().is_some_and(|end| synced.is_some_and(|synced| synced >= end))
}

async fn read(
    mut answer: reqwest::Response,
    hops_after: usize,
    lines: &mut Vec<Line>,
    synced: &mut Option<u64>,
    done: &mut Receiver<Option<u64>>,
) -> anyhow::Result<()> {
    let (mut held, mut syncs) = (Vec::new(), 0);
    while syncs < hops_after && !is_done(done, *synced) {
        let chunk = tokio::select! {
            chunk = tokio::time::timeout(PATIENCE, answer.chunk()) => chunk.context("the stream is dead")?,
            changed = done.changed() => { changed?; continue }
        };
        let Ok(Some(chunk)) = chunk else { return Ok(()) };
        held.extend_from_slice(&chunk);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            match proxy::parse_line(&line)? {
                proxy::Line::Put { object } => lines.push(Line::Put(object.key(), value(&object))),
                proxy::Line::Delete { object } => lines.push(Line::Delete(object.key())),
                proxy::Line::Trust { .. } => {}
                proxy::Line::Sync { revision } => {
                    lines.push(Line::Sync(revision));
                    *synced = Some(revision);
                    syncs += 1;
                }
                proxy::Line::Error { .. } => {
                    *synced = None;
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Whether a proxy that subscribed to [`writer::SUBSCRIBED`] must know an object.
pub fn concerns(key: &Key) -> bool {
    key.kind == Kind::Service || (key.kind == Kind::HTTPRoute && writer::is_of_subscribed(key))
}

/// What stands now: the values of all objects that are written, and the revision, read linearizably.
///
/// # Errors
/// If nobody answers.
pub async fn present(client: &Client) -> anyhow::Result<std::collections::BTreeMap<Key, String>> {
    let mut objects: Vec<Object> = Vec::new();
    for kind in [Kind::Service, Kind::HTTPRoute] {
        objects.extend(client.list(kind, &model::client::Selection::default()).await?.items);
    }
    Ok(objects.iter().map(|object| (object.key(), value(object))).collect())
}
