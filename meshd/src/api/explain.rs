//! `POST /v1/explain`: what would become of a call, now or after a change that is only rehearsed. It is worked out from the
//! state by what proxies decide with: `traffic::explain`.

use std::sync::Arc;

use axum::{Json as Answer, extract::State as Shared};
use model::{
    explain::{Explanation, Question},
    invalid::{FIELD_ERRORS_MAX, Invalid},
    kind::Kind,
    manifest,
    name::Name,
    object::Parsed,
    resource::Verb,
    shape::Shape,
};
use registry::State;
use serde_json::{Value, json};
use traffic::explain::Unexplained;

use super::{
    Api,
    auth::Caller,
    body::Json,
    conditions::Precondition,
    error::ApiError,
    parameters::Parameters,
    write::{self, Draft},
};
use crate::explain::Asked;

/// The kinds that an explanation tells of.
const TOLD: [Kind; 8] = [
    Kind::Service,
    Kind::Endpoint,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
    Kind::TCPRoute,
    Kind::TrafficPolicy,
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
];

/// Explains a call.
pub(super) async fn explain(
    Shared(api): Shared<Api>,
    caller: Caller,
    parameters: Parameters,
    Json(value): Json,
) -> Result<Answer<Explanation>, ApiError> {
    parameters.only(&[])?;
    let question = Question::read(&value)?;
    may_see(&caller, &question.from.namespace)?;
    may_see(&caller, &question.to.namespace)?;
    let state = match &question.change {
        None => api.registry.read().await?,
        Some(change) => Arc::new(changed(&api, &caller, &change.0).await?),
    };
    let asked = Asked::of(&question, &state, api.authority.domain());
    asked.reached.iter().try_for_each(|service| may_see(&caller, &service.namespace))?;
    explained(asked, question).await.map(Answer)
}

/// What is asked, for the API's description.
pub(super) fn body() -> Value {
    json!({
        "schema": Question::schema(),
        "example": {
            "from": "default/web", "to": "default/orders", "port": 80, "method": "GET", "path": "/api/x",
            "headers": {"x-user": "7"},
            "change": {"items": [{
                "kind": "AuthorizationPolicy",
                "metadata": {"namespace": "default", "name": "closed"},
                "spec": {"rules": []},
            }]},
        },
    })
}

/// Whoever may ask for explanations there, or read all that they are made of.
fn may_see(caller: &Caller, namespace: &Name) -> Result<(), ApiError> {
    TOLD.into_iter().try_for_each(|kind| {
        let may = |verb| caller.require(verb, kind, Some(namespace));
        may(Verb::Explain).or_else(|missing| may(Verb::Get).map_err(|_| missing))
    })
}

/// The state as it would be after a change.
async fn changed(api: &Api, caller: &Caller, change: &Value) -> Result<State, ApiError> {
    let drafts = drafts(change).map_err(|error| error.below("change"))?;
    write::rehearsal(api, caller, &drafts).await.map_err(|error| error.below("change"))
}

fn drafts(change: &Value) -> Result<Vec<Draft>, ApiError> {
    let (mut drafts, mut errors) = (Vec::new(), Vec::new());
    for (index, value) in manifest::values(&change.to_string())?.iter().enumerate() {
        match Parsed::from_input(value, None) {
            Ok(parsed) => {
                write::bounded(&parsed.object)?;
                drafts.push(Draft { parsed, precondition: Precondition::None });
            }
            Err(invalid) => errors.extend(invalid.below(format_args!("items[{index}]")).errors),
        }
    }
    errors.truncate(FIELD_ERRORS_MAX);
    if errors.is_empty() { Ok(drafts) } else { Err(Invalid { errors }.into()) }
}

/// Beside the threads that answer others: many routes and endpoints take their time.
async fn explained(asked: Asked, question: Question) -> Result<Explanation, ApiError> {
    let Asked { inputs, notes, .. } = asked;
    let worked_out =
        tokio::task::spawn_blocking(move || (traffic::explain::explain(inputs, &question), question));
    let (explained, question) =
        worked_out.await.map_err(|error| ApiError::Internal(format!("an explanation broke off: {error}")))?;
    let mut explanation = explained.map_err(|unexplained| match unexplained {
        Unexplained::NoService(_) => ApiError::invalid("to", unexplained),
        Unexplained::NoPort(..) => ApiError::invalid("port", unexplained),
        Unexplained::Nack(nack) if question.change.is_some() => ApiError::invalid("change", nack),
        Unexplained::Nack(nack) => ApiError::Conflict(format!("proxies cannot take what is there: {nack}")),
    })?;
    explanation.notes.extend(notes);
    Ok(explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_description_is_a_question() {
        let question = Question::read(&body()["example"]).expect("a question");
        assert_eq!(drafts(&question.change.expect("a change").0).expect("drafts").len(), 1);
    }
}
