//! `wait_for_applied`: `apply` ends when the proxies run what was written. Of Terraform alone: no object has it. The write
//! stands before anything is waited for, so that a lost answer costs another question, not another write.

use model::{
    client::{ClientError, Expected},
    duration::Timespan,
    kind::Kind,
    object::Object,
    rollout::{Rollout, Waiting},
};
use serde_json::json;

use crate::{
    control::Control,
    diagnostic::error,
    place,
    schema::{Field, Given, Type},
    value::Value,
    wire::Diagnostic,
};

/// The attribute.
pub(crate) const WAIT: &str = "wait_for_applied";
const QUORUM: &str = "quorum";
const TIMEOUT: &str = "timeout";
/// What counts where it is left out, as for the API.
const QUORUM_DEFAULT: u64 = 100;
const TIMEOUT_DEFAULT: Timespan = Timespan::from_secs(30);
/// The API waits no longer (`ROLLOUT_TIMEOUT_MAX`).
const TIMEOUT_MAX: Timespan = Timespan::from_secs(300);
/// Proxies are told of no object of these.
const UNTOLD: [Kind; 5] =
    [Kind::Namespace, Kind::Role, Kind::AccessToken, Kind::JoinToken, Kind::DiscoverySource];

/// The attribute of a kind whose objects proxies are told of.
pub(crate) fn field(kind: Kind) -> Option<Field> {
    if UNTOLD.contains(&kind) {
        return None;
    }
    let part = |name: &str, about: &str, bounds: &str, default, of| Field {
        about: about.to_owned(),
        bounds: bounds.to_owned(),
        default: Some(default),
        ..Field::computed(name, of, Given::Optional)
    };
    let quorum = part(
        QUORUM,
        "So many of a hundred proxies that it concerns must run it.",
        "A whole number from 1 to 100.",
        json!(QUORUM_DEFAULT),
        Type::Number,
    );
    let timeout = part(
        TIMEOUT,
        "It does not wait longer than this.",
        "A duration of at most `300s`, as `30s`.",
        json!(TIMEOUT_DEFAULT),
        Type::Text,
    );
    let about = "Where it is written, even as `{}`, `apply` ends when the proxies run what it wrote, or says which do not: \
                 an error after a change or a removal, a warning after it was made, as Terraform makes anew what an \
                 error made. What was written stands either way.";
    let of = Type::Record(vec![quorum, timeout]);
    Some(Field { about: about.to_owned(), ..Field::computed(WAIT, of, Given::Optional) })
}

/// How long a resource's write waits; not at all without the attribute.
///
/// # Errors
/// What is wrong with it, at its place. What is not known yet is not wrong.
pub(crate) fn waiting(resource: &Value) -> Result<Option<Waiting>, Diagnostic> {
    let written = resource.attribute(WAIT);
    if matches!(written, Value::Null | Value::Unknown(..)) {
        return Ok(None);
    }
    let wrong = |part: &str, must: &str| {
        error("Invalid wait_for_applied", format!("{part}: must be {must}")).at(place::attribute(WAIT))
    };
    let quorum = match written.attribute(QUORUM) {
        Value::Number(number) => number.as_u64().filter(|quorum| (1..=100).contains(quorum)),
        _ => Some(QUORUM_DEFAULT),
    };
    let timeout = match written.attribute(TIMEOUT) {
        Value::Text(text) => {
            text.parse().ok().filter(|timeout: &Timespan| timeout.duration() <= TIMEOUT_MAX.duration())
        }
        _ => Some(TIMEOUT_DEFAULT),
    };
    let quorum = quorum.ok_or_else(|| wrong(QUORUM, "a whole number from 1 to 100"))?;
    let timeout = timeout.ok_or_else(|| wrong(TIMEOUT, "a duration of at most 300s, as 30s"))?;
    Ok(Some(Waiting { quorum, timeout }))
}

/// How far a write has come, once enough proxies run it or the time is over. Asked by a write that changes nothing.
///
/// # Errors
/// [`ClientError`]; 412 where somebody wrote the object since.
pub(crate) async fn rollout(
    control: &Control,
    object: &Object,
    revision: u64,
    waiting: &Waiting,
) -> Result<Rollout, ClientError> {
    let expected = Expected::Revision(revision);
    control.ask(|client| async move { client.put_and_wait(object, expected, waiting).await }).await.answer
}

/// What is told of how far it came; nothing where that is far enough.
pub(crate) fn told(
    what: &str,
    waiting: &Waiting,
    rollout: Result<Rollout, ClientError>,
) -> Option<Diagnostic> {
    let detail = match rollout {
        Ok(rollout) if rollout.has_reached(waiting.quorum) => return None,
        Ok(rollout) => format!("It stands, but within {} {rollout}.", waiting.timeout),
        Err(failed) => format!("It stands; how many proxies run it could not be told: {failed}."),
    };
    Some(error(format!("{what}, and not enough proxies run it"), detail).at(place::attribute(WAIT)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::problem::Problem;

    use super::*;

    fn resource(parts: &[(&str, Value)]) -> Value {
        let parts = parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Value::Object(BTreeMap::from([(WAIT.to_owned(), Value::Object(parts))]))
    }

    #[test]
    fn what_is_left_out_is_as_the_api_has_it() {
        assert_eq!(waiting(&Value::Object(BTreeMap::new())), Ok(None));
        assert_eq!(waiting(&Value::Object(BTreeMap::from([(WAIT.to_owned(), Value::unknown())]))), Ok(None));
        let waits = |quorum, timeout| Waiting { quorum, timeout: Timespan::from_secs(timeout) };
        assert_eq!(waiting(&resource(&[])), Ok(Some(waits(100, 30))));
        let both = [(QUORUM, Value::Number(50.into())), (TIMEOUT, Value::text("5m"))];
        assert_eq!(waiting(&resource(&both)), Ok(Some(waits(50, 300))));
    }

    #[test]
    fn what_the_api_would_refuse_is_told_before() {
        let wrong = |name, value| waiting(&resource(&[(name, value)])).expect_err("refused").detail;
        for quorum in [0, 101] {
            let told = wrong(QUORUM, Value::Number(quorum.into()));
            assert_eq!(told, "quorum: must be a whole number from 1 to 100");
        }
        for timeout in ["301s", "soon"] {
            let told = wrong(TIMEOUT, Value::text(timeout));
            assert_eq!(told, "timeout: must be a duration of at most 300s, as 30s");
        }
    }

    #[test]
    fn laggards_are_named() {
        let waiting = waiting(&resource(&[])).expect("right").expect("it waits");
        let rollout = |acked| Rollout {
            revision: 7,
            concerned: 2,
            acked,
            nacked: Vec::new(),
            lagging: vec!["b".parse().expect("a name")],
        };
        assert_eq!(told("It was changed", &waiting, Ok(rollout(2))), None);
        let lagging = told("It was changed", &waiting, Ok(rollout(1))).expect("told");
        assert_eq!(lagging.summary, "It was changed, and not enough proxies run it");
        assert_eq!(lagging.detail, "It stands, but within 30s 1 of 2 proxies run revision 7; not yet: b.");
        let unknown = ClientError::Refused(Box::new(Problem::new(412, "Precondition failed", "")));
        assert!(told("", &waiting, Err(unknown)).expect("told").detail.contains("could not be told"));
    }

    #[test]
    fn only_what_proxies_are_told_of_can_be_waited_for() {
        assert!(field(Kind::HTTPRoute).is_some() && field(Kind::Role).is_none());
    }
}
