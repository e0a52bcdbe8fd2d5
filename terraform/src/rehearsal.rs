//! A plan, rehearsed: the API judges what is planned without doing it. Objects that others are refused without, and that
//! the same plan makes, are rehearsed along.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LockResult, Mutex, MutexGuard, PoisonError},
};

use model::{
    client::ClientError,
    invalid::FieldError,
    kind::Kind,
    object::{Key, Object},
};
use serde_json::json;

use crate::control::Control;

/// As many objects of a plan are rehearsed along; what needs further ones is judged by `apply` alone.
const ALONG_MAX: usize = 256;

/// What this plan makes that others need.
#[derive(Debug, Default)]
pub(crate) struct Rehearsal {
    along: Mutex<BTreeMap<Key, Object>>,
    replaced: Mutex<BTreeSet<Key>>,
}

/// What the API says of a planned object.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It would be taken.
    Fine,
    /// It is to be made, and is there already.
    Exists,
    /// It would be refused as things stand; this plan may change how they stand.
    Conflict(ClientError),
    /// It would be refused.
    Refused(ClientError),
    /// Nobody could be asked.
    Unasked(ClientError),
}

impl Rehearsal {
    /// The object is removed before it is made anew: what is there now is no hindrance.
    pub(crate) fn replaces(&self, key: Key) {
        let mut replaced = sound(self.replaced.lock());
        if replaced.len() < ALONG_MAX {
            replaced.insert(key);
        }
    }

    /// The object is as planned: it need not be rehearsed along any more.
    pub(crate) fn done(&self, key: &Key) {
        sound(self.along.lock()).remove(key);
    }

    /// What the API would say of an object that is planned; `made` if there is none yet.
    pub(crate) async fn judge(&self, control: &Control, object: &Object, made: bool) -> Verdict {
        let key = object.key();
        if made && sound(self.replaced.lock()).contains(&key) {
            return Verdict::Fine;
        }
        let mut items = self.along(&key);
        items.push(object.clone());
        let manifest = json!({"items": items}).to_string();
        let asked = {
            let manifest = &manifest;
            control.ask_once(|client| async move { client.apply(manifest.clone(), true).await }).await
        };
        let verdict = match asked {
            Ok(applied) => match applied.results.last() {
                Some(result) if made && result.outcome != "created" => Verdict::Exists,
                _ => Verdict::Fine,
            },
            Err(error) => judged(error, items.len()),
        };
        if matches!(verdict, Verdict::Fine) {
            self.keep(key, object);
        }
        verdict
    }

    fn along(&self, key: &Key) -> Vec<Object> {
        let along = sound(self.along.lock());
        along.iter().filter(|(other, _)| *other != key).map(|(_, object)| object.clone()).collect()
    }

    /// Objects live in namespaces, and tokens have roles; whatever else they name may be missing.
    fn keep(&self, key: Key, object: &Object) {
        let mut along = sound(self.along.lock());
        if matches!(key.kind, Kind::Namespace | Kind::Role) && along.len() < ALONG_MAX {
            along.insert(key, object.clone());
        }
    }
}

/// What a refusal of several objects says of the last one.
fn judged(error: ClientError, count: usize) -> Verdict {
    let ClientError::Refused(mut problem) = error else { return Verdict::Unasked(error) };
    if count > 1 && !problem.errors.is_empty() {
        let own = format!("items[{}].", count - 1);
        problem.errors = problem.errors.iter().filter_map(|error| below(error, &own)).collect();
        // What is wrong with the others is said where they are planned.
        if problem.errors.is_empty() {
            return Verdict::Fine;
        }
    }
    match problem.status {
        409 | 412 => Verdict::Conflict(ClientError::Refused(problem)),
        429 | 500.. => Verdict::Unasked(ClientError::Refused(problem)),
        _ => Verdict::Refused(ClientError::Refused(problem)),
    }
}

fn below(error: &FieldError, prefix: &str) -> Option<FieldError> {
    let path = error.path.strip_prefix(prefix)?.to_owned();
    Some(FieldError { path, message: error.message.clone() })
}

/// A thread that panicked left sets of keys behind, which are whole at any time.
fn sound<'a, T>(lock: LockResult<MutexGuard<'a, T>>) -> MutexGuard<'a, T> {
    lock.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use model::problem::Problem;

    use super::*;

    fn refused(status: u16, paths: &[&str]) -> ClientError {
        let errors = paths.iter().map(|path| FieldError { path: (*path).to_owned(), message: String::new() });
        ClientError::Refused(Box::new(Problem::new(status, "", "").with_errors(errors.collect())))
    }

    #[track_caller]
    fn paths(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Refused(ClientError::Refused(problem)) => {
                problem.errors.into_iter().map(|error| error.path).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_several_objects_each_hears_of_itself() {
        let errors = ["items[0].spec.rules", "items[1].metadata.namespace", "items[1].spec.ports"];
        assert_eq!(paths(judged(refused(422, &errors), 2)), ["metadata.namespace", "spec.ports"]);
        assert!(matches!(judged(refused(422, &errors[..1]), 2), Verdict::Fine));
        assert_eq!(paths(judged(refused(422, &["spec.ports"]), 1)), ["spec.ports"]);
    }

    #[test]
    fn what_this_plan_may_change_is_no_refusal() {
        assert!(matches!(judged(refused(409, &[]), 1), Verdict::Conflict(_)));
        assert!(matches!(judged(refused(403, &[]), 1), Verdict::Refused(_)));
        assert!(matches!(judged(refused(503, &[]), 1), Verdict::Unasked(_)));
    }
}
