//! The one way by which objects change: permission, admission, proposal, answer. PUT, PATCH, DELETE and apply all go
//! through here, as do their dry runs, which do the same to a copy of the state.

use model::{
    kind::Kind,
    object::{Key, Object, Parsed},
    resource::Verb,
};
use registry::{Change, Command, Credential, Entry, Expect, Outcome, Refusal, Reply, State, Write, Written};

use super::{Api, auth::Caller, conditions::Precondition, error::ApiError, status, tokens};
use crate::{admit, clock};

/// How often a write is tried anew whose ground was changed by another one meanwhile.
pub(super) const ATTEMPTS_MAX: usize = 5;

/// The largest object, in bytes of its JSON: each watcher, proxy and page has to take it whole.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;

/// An object that somebody wants to be so.
pub(super) struct Draft {
    /// The object.
    pub(super) parsed: Parsed,
    /// What must hold before.
    pub(super) precondition: Precondition,
}

/// What became of it.
pub(super) struct Done {
    /// As it is answered.
    pub(super) object: Object,
    /// What happened.
    pub(super) outcome: Outcome,
}

/// Refuses an object that is too large. Where a body is one object, its own length says as much.
pub(super) fn bounded(object: &Object) -> Result<(), ApiError> {
    let json = serde_json::to_vec(object).expect("objects are JSON, and memory takes it");
    of_bounded_length(&object.key(), json.len())
}

/// The same, where the length is known.
pub(super) fn of_bounded_length(key: &Key, bytes: usize) -> Result<(), ApiError> {
    if bytes <= OBJECT_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::TooLarge(format!(
        "{key} has {bytes} bytes of JSON, an object at most {OBJECT_BYTES_MAX} (OBJECT_BYTES_MAX)"
    )))
}

/// Writes all of the drafts or none.
pub(super) async fn put(
    api: &Api,
    caller: &Caller,
    drafts: &[Draft],
    dry_run: bool,
) -> Result<Vec<Done>, ApiError> {
    let several = drafts.len() > 1;
    for (index, draft) in drafts.iter().enumerate() {
        let key = draft.parsed.object.key();
        let required = caller.require(Verb::Write, key.kind, key.namespace.as_ref());
        required.map_err(|error| at(error, several, index))?;
    }
    for _ in 0..ATTEMPTS_MAX {
        let plan = Plan::make(api, caller, drafts, dry_run).await?;
        if dry_run {
            return Ok(plan.rehearsed(api));
        }
        match propose(api, caller, plan.changes()).await? {
            Ok(written) => return plan.done(api, written).await,
            // Another made the token between our look and our write: look again.
            Err(Refusal::Exists { key }) if plan.drew(&key) => {}
            Err(refusal) => return Err(plan.refused(refusal)),
        }
    }
    Err(ApiError::Conflict("the objects keep changing; try again".to_owned()))
}

/// The state as it would be after the drafts: judged as if they were to be written. The paths of what is wrong begin with
/// `items[N]`.
pub(super) async fn rehearsal(api: &Api, caller: &Caller, drafts: &[Draft]) -> Result<State, ApiError> {
    for (index, draft) in drafts.iter().enumerate() {
        let key = draft.parsed.object.key();
        caller
            .require(Verb::Write, key.kind, key.namespace.as_ref())
            .map_err(|error| at(error, true, index))?;
    }
    let mut state = (*api.registry.read().await?).clone();
    for (index, draft) in drafts.iter().enumerate() {
        Step::make(&mut state, caller, draft, true).map_err(|error| at(error, true, index))?;
    }
    Ok(state)
}

/// Removes an object, and answers it as it was.
pub(super) async fn delete(
    api: &Api,
    caller: &Caller,
    key: Key,
    precondition: Precondition,
    dry_run: bool,
) -> Result<Object, ApiError> {
    caller.require(Verb::Delete, key.kind, key.namespace.as_ref())?;
    let change = Change::Delete { key, expect: precondition.expect() };
    let shown = api.registry.applied();
    if dry_run {
        let mut rehearsal = (*api.registry.read().await?).clone();
        let written = rehearse(&mut rehearsal, caller, change)?;
        return Ok(api.show(&shown, &written.object));
    }
    let written = propose(api, caller, vec![change]).await??;
    let removed =
        written.first().ok_or_else(|| ApiError::Internal("a deletion without an answer".to_owned()))?;
    Ok(api.show(&shown, &removed.object))
}

/// The revision in which an object went that had `last` before; the present one where that is not kept any more.
pub(super) async fn deleted_at(api: &Api, key: &Key, last: u64) -> Result<u64, ApiError> {
    let state = api.registry.read().await?;
    let went = state.history_since(last).ok().and_then(|mut since| {
        let gone = |revision: &std::sync::Arc<registry::Revision>| {
            revision.changes.iter().any(|changed| changed.key == *key && changed.after.is_none())
        };
        since.find(gone)
    });
    Ok(went.map_or(state.revision(), |revision| revision.revision))
}

/// What is to be proposed, after everything that can be judged beforehand was.
struct Plan<'a> {
    drafts: &'a [Draft],
    steps: Vec<Step>,
    /// The state that the rehearsal left, where there was one.
    rehearsal: Option<State>,
}

struct Step {
    change: Change,
    /// The text of a token that this step makes.
    token: Option<String>,
    /// What the rehearsal made of it.
    rehearsed: Option<Written>,
}

impl<'a> Plan<'a> {
    /// Admits each draft as those before it leave the state. One draft of a kind that needs no look at the state is
    /// not rehearsed: that would cost a read from the leader, and the log judges it all the same.
    async fn make(api: &Api, caller: &Caller, drafts: &'a [Draft], dry_run: bool) -> Result<Self, ApiError> {
        let looks = |draft: &Draft| {
            admit::needs_state(draft.parsed.object.kind) || draft.precondition == Precondition::Exists
        };
        let rehearses = dry_run || drafts.len() > 1 || drafts.iter().any(looks);
        let state = if rehearses { api.registry.read().await? } else { api.registry.applied() };
        let mut plan = Self { drafts, steps: Vec::with_capacity(drafts.len()), rehearsal: None };
        let mut rehearsal = (*state).clone();
        for (index, draft) in drafts.iter().enumerate() {
            let step = Step::make(&mut rehearsal, caller, draft, rehearses);
            plan.steps.push(step.map_err(|error| at(error, drafts.len() > 1, index))?);
        }
        plan.rehearsal = rehearses.then_some(rehearsal);
        Ok(plan)
    }

    fn changes(&self) -> Vec<Change> {
        self.steps.iter().map(|step| step.change.clone()).collect()
    }

    /// Whether the plan is to make the token `key`, and its client did not ask that it be new.
    fn drew(&self, key: &Key) -> bool {
        let mut both = self.steps.iter().zip(self.drafts);
        both.any(|(step, draft)| {
            step.token.is_some()
                && draft.precondition != Precondition::Absent
                && draft.parsed.object.key() == *key
        })
    }

    fn rehearsed(self, api: &Api) -> Vec<Done> {
        let Some(state) = self.rehearsal else { return Vec::new() };
        let written = self.steps.into_iter().filter_map(|step| step.rehearsed);
        written
            .map(|written| Done { object: api.show(&state, &written.object), outcome: written.outcome })
            .collect()
    }

    async fn done(self, api: &Api, written: Vec<Written>) -> Result<Vec<Done>, ApiError> {
        let revision = written.iter().map(|written| written.object.metadata.revision).max().unwrap_or(0);
        let state = api.at_least(revision).await;
        let done = self.steps.into_iter().zip(written).map(|(step, written)| {
            let shown = api.show(&state, &written.object);
            let created = written.outcome == Outcome::Created;
            let object = match step.token.filter(|_| created) {
                Some(token) => status::with_token(shown, &token),
                None => shown,
            };
            Done { object, outcome: written.outcome }
        });
        Ok(done.collect())
    }

    /// The log refused what the rehearsal did not, or what was not rehearsed.
    fn refused(&self, refusal: Refusal) -> ApiError {
        let position = subject(&refusal)
            .and_then(|key| self.drafts.iter().position(|draft| draft.parsed.object.key() == *key));
        at(refusal.into(), self.drafts.len() > 1, position.unwrap_or(0))
    }
}

impl Step {
    fn make(state: &mut State, caller: &Caller, draft: &Draft, rehearses: bool) -> Result<Self, ApiError> {
        admit::admit(state, &caller.rights(), &draft.parsed)?;
        let object = draft.parsed.object.clone();
        let key = object.key();
        if draft.precondition == Precondition::Exists && state.get(&key).is_none() {
            return Err(ApiError::Precondition(format!("{key} does not exist")));
        }
        let secret = key.kind.has_secret() && state.get(&key).is_none();
        let drawn = if secret { Some(draw(state, key.kind)?) } else { None };
        let (token, credential) =
            drawn.map_or((None, None), |(text, credential)| (Some(text), Some(credential)));
        // A secret that is handed out must be that of the token which was made for it.
        let expect = if secret && draft.precondition == Precondition::None {
            Expect::Absent
        } else {
            draft.precondition.expect()
        };
        let change = Change::Put { object, expect, credential };
        let rehearsed = if rehearses { Some(rehearse(state, caller, change.clone())?) } else { None };
        Ok(Self { change, token, rehearsed })
    }
}

fn draw(state: &State, kind: Kind) -> Result<(String, Credential), ApiError> {
    let drawn = tokens::draw(state, kind, clock::random(), clock::random())?;
    Ok((drawn.text, drawn.credential))
}

/// Does one change to a copy of the state.
fn rehearse(state: &mut State, caller: &Caller, change: Change) -> Result<Written, ApiError> {
    let command = Command::Write(Write { actor: caller.actor(), changes: vec![change] });
    match state.apply(Entry { at: clock::wall(), command }) {
        Reply::Written(mut written) if written.len() == 1 => Ok(written.remove(0)),
        Reply::Refused(refusal) => Err(refusal.into()),
        other => Err(ApiError::Internal(format!("a write was answered with: {other}"))),
    }
}

async fn propose(
    api: &Api,
    caller: &Caller,
    changes: Vec<Change>,
) -> Result<Result<Vec<Written>, Refusal>, ApiError> {
    if changes.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let write = Write { actor: caller.actor(), changes };
    match api.registry.propose(Command::Write(write)).await? {
        Reply::Written(written) => Ok(Ok(written)),
        Reply::Refused(refusal) => Ok(Err(refusal)),
        other => Err(ApiError::Internal(format!("a write was answered with: {other}"))),
    }
}

/// The object that a refusal is about.
fn subject(refusal: &Refusal) -> Option<&Key> {
    match refusal {
        Refusal::NotFound { key }
        | Refusal::Exists { key }
        | Refusal::RevisionMismatch { key, .. }
        | Refusal::BuiltIn { key }
        | Refusal::Conflict { key, .. }
        | Refusal::Invalid { key, .. } => Some(key),
        _ => None,
    }
}

fn at(error: ApiError, several: bool, index: usize) -> ApiError {
    if several { error.below(format_args!("items[{index}]")) } else { error }
}
