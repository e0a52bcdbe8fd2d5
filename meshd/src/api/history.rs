//! `GET /v1/history`: the last revisions, newest first: when, who, and what became of which object.

use std::sync::Arc;

use axum::{Json, extract::State as Shared};
use model::{
    kind::Kind,
    name::Name,
    object::Object,
    resource::{Resource, Verb},
};
use registry::{Revision, State, state::Changed};
use serde_json::{Value, json};

use super::{Api, auth::Caller, error::ApiError, parameters::Parameters};

/// As many revisions as one answer has.
const HISTORY_ITEMS_MAX: u64 = 1_000;
/// Where no limit is named.
const HISTORY_ITEMS: u64 = 100;
/// An answer takes no further revision beyond this, in bytes: with their objects they can be large.
const HISTORY_ANSWER_BYTES: usize = 4 << 20;

/// What is asked for.
struct Query {
    kind: Option<Kind>,
    namespace: Option<Name>,
    name: Option<Name>,
    /// Revisions after this one.
    from: Option<u64>,
    /// Revisions up to this one.
    to: Option<u64>,
    limit: u64,
    /// Whether the objects themselves are answered, too.
    objects: bool,
}

/// Revisions after `from`, up to `to`, newest first; `continue` is the `to` of the next page, empty at the end.
pub(super) async fn history(
    Shared(api): Shared<Api>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(parameters)?;
    if let Some(kind) = query.kind {
        caller.require(Verb::List, kind, query.namespace.as_ref())?;
    }
    let state = api.registry.read().await?;
    query.answer(&state, &caller).map(Json)
}

impl Query {
    fn read(parameters: Parameters) -> Result<Self, ApiError> {
        let known = ["kind", "namespace", "name", "from", "to", "continue", "limit", "objects"];
        let parameters = parameters.only(&known)?;
        let number = |name| parameters.number(name, 0, u64::MAX);
        let kind = parameters.text("kind").map(|name| {
            let unknown = || ApiError::invalid("kind", format_args!("'{name}' is not a kind"));
            Kind::named(name).ok_or_else(unknown)
        });
        Ok(Self {
            kind: kind.transpose()?,
            namespace: parameters.parsed("namespace")?,
            name: parameters.parsed("name")?,
            from: number("from")?,
            to: number("continue")?.or(number("to")?),
            limit: parameters.number("limit", 1, HISTORY_ITEMS_MAX)?.unwrap_or(HISTORY_ITEMS),
            objects: parameters.flag("objects")?,
        })
    }

    fn answer(&self, state: &State, caller: &Caller) -> Result<Value, ApiError> {
        let oldest = state.history().oldest();
        let from = self.from.unwrap_or(oldest);
        let kept = state.history_since(from).map_err(|_| {
            ApiError::Gone(format!("revision {from} is no longer kept; the history goes back to {oldest}"))
        })?;
        let to = self.to.unwrap_or(u64::MAX);
        let (mut items, mut bytes, mut next) = (Vec::new(), 0, String::new());
        for revision in kept.rev().skip_while(|kept| kept.revision > to) {
            let Some(item) = self.item(&revision, caller) else { continue };
            if items.len() as u64 == self.limit || bytes > HISTORY_ANSWER_BYTES {
                next = revision.revision.to_string();
                break;
            }
            bytes += item.to_string().len();
            items.push(item);
        }
        Ok(json!({
            "items": items,
            "metadata": {"revision": state.revision(), "oldest": oldest, "continue": next},
        }))
    }

    /// One revision, with what the caller may see of it; nothing, if that is nothing.
    fn item(&self, revision: &Revision, caller: &Caller) -> Option<Value> {
        let wanted = |changed: &&Changed| {
            let key = &changed.key;
            self.kind.is_none_or(|kind| kind == key.kind)
                && (self.namespace.is_none() || self.namespace == key.namespace)
                && self.name.as_ref().is_none_or(|name| *name == key.name)
        };
        let may_see = |changed: &&Changed| {
            let key = &changed.key;
            caller.require(Verb::Get, key.kind, key.namespace.as_ref()).is_ok()
        };
        let changes: Vec<_> = revision
            .changes
            .iter()
            .filter(wanted)
            .filter(may_see)
            .map(|changed| self.change(changed))
            .collect();
        let item = || json!({"revision": revision.revision, "at": revision.at, "changes": changes});
        (!changes.is_empty()).then(item)
    }

    fn change(&self, changed: &Changed) -> Value {
        let Changed { key, before, after, .. } = changed;
        let word = match (before, after) {
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "replaced",
        };
        let mut change = json!({"kind": key.kind, "name": key.name, "change": word, "actor": actor(changed)});
        if let Some(namespace) = &key.namespace {
            change["namespace"] = json!(namespace);
        }
        if self.objects {
            change["before"] = json!(before);
            change["after"] = json!(after);
        }
        change
    }
}

/// Who did it: whoever wrote the object; an endpoint is its host's.
fn actor(changed: &Changed) -> Option<String> {
    if let Some(actor) = &changed.actor {
        return Some(actor.to_string());
    }
    let node = |object: &Arc<Object>| match object.resource() {
        Ok(Resource::Endpoint(spec)) => spec.node,
        _ => None,
    };
    changed.after.as_ref().or(changed.before.as_ref()).and_then(node).map(|node| format!("node/{node}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::testing::put, rights::Rights};

    fn admin() -> Caller {
        let rights = Rights::built_in("admin").expect("built in");
        Caller::Token { name: "a".parse().expect("a name"), id: String::new(), rights }
    }

    fn query(from: Option<u64>, to: Option<u64>, limit: u64) -> Query {
        Query { kind: None, namespace: None, name: None, from, to, limit, objects: false }
    }

    fn busy(history: usize, writes: u64) -> State {
        let mut state = State::with_history(history);
        for port in 1..=writes {
            put(&mut state, &format!(r#"Service default/a {{"ports":[{{"port":{port}}}]}}"#));
        }
        state
    }

    #[test]
    fn what_is_no_longer_kept_is_gone_and_the_oldest_is_named() {
        let state = busy(3, 9);
        let gone = query(Some(2), None, 10).answer(&state, &admin()).expect_err("compacted");
        assert!(matches!(&gone, ApiError::Gone(text) if text.contains("goes back to 6")), "{gone}");
        let kept = query(None, None, 10).answer(&state, &admin()).expect("what is kept");
        assert_eq!(
            (kept["items"].as_array().map(Vec::len), &kept["metadata"]["oldest"]),
            (Some(3), &json!(6))
        );
    }

    #[test]
    fn pages_give_each_revision_once_newest_first() {
        let state = busy(100, 9);
        let (mut seen, mut to) = (Vec::new(), None);
        loop {
            let page = query(None, to, 4).answer(&state, &admin()).expect("a page");
            let items = page["items"].as_array().expect("items");
            seen.extend(items.iter().filter_map(|item| item["revision"].as_u64()));
            match page["metadata"]["continue"].as_str().expect("a text").parse() {
                Ok(next) => to = Some(next),
                Err(_) => break,
            }
        }
        assert_eq!(seen, (1..=9).rev().collect::<Vec<_>>());
    }
}
