//! Pure. Kuma's faults, as a filter of the called service's route.

use model::name::ServiceName;
use serde_json::{Map, Value, json};

use super::super::super::{
    fields::{At, Fields},
    span,
};

/// The filter that a list of faults comes to.
pub(super) fn read(mut fields: Fields<'_>) -> Option<Value> {
    let list = fields.take("http").map_or_else(Vec::new, |at| at.list());
    fields.finish();
    let mut found = Map::new();
    for at in list {
        let Some(mut one) = at.fields() else { continue };
        one.lost("responseBandwidth", "no fault of ours slows an answer down", "delay it");
        for name in ["delay", "abort"] {
            let Some(at) = one.take(name) else { continue };
            let fault = if name == "delay" { delay(&at) } else { abort(&at) };
            match fault {
                Some(_) if found.contains_key(name) => {
                    at.lost("a rule has one fault of a kind", "leave one out")
                }
                Some(fault) => drop(found.insert(name.to_owned(), fault)),
                None => {}
            }
        }
        one.finish();
    }
    (!found.is_empty()).then(|| json!({"type": "FaultInjection", "faultInjection": found}))
}

fn delay(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    let span = fields.take("value").and_then(|at| span::of(&at));
    let share = fields.take("percentage").and_then(|at| share(&at));
    fields.finish();
    let mut delay = Map::from_iter([("duration".to_owned(), span?.into())]);
    delay.extend(share.map(|(name, value)| (name.to_owned(), value)));
    Some(Value::Object(delay))
}

fn abort(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    let status = fields.take("httpStatus").and_then(|at| at.whole(400, 599));
    let share = fields.take("percentage").and_then(|at| share(&at));
    fields.finish();
    let mut abort = Map::from_iter([("status".to_owned(), status?.into())]);
    abort.extend(share.map(|(name, value)| (name.to_owned(), value)));
    Some(Value::Object(abort))
}

/// A share in per cent, as a field of ours; to a hundredth of a per cent.
pub(super) fn share(at: &At<'_>) -> Option<(&'static str, Value)> {
    let percent = at.number()?.clamp(0.0, 100.0);
    if percent.fract() == 0.0 {
        return Some(("percent", json!(percent as u64)));
    }
    Some(("fraction", json!({"numerator": (percent * 100.0).round() as u64, "denominator": 10_000})))
}

/// Rules with the faults on them: those for all callers on each rule, those for one on a copy of each, for that caller.
pub(super) fn on(rules: Vec<Value>, faults: &[(Option<ServiceName>, Value)]) -> Vec<Value> {
    let with = |rule: &Value, fault: &Value| {
        let mut rule = rule.clone();
        let filters = rule["filters"].as_array().cloned().unwrap_or_default();
        rule["filters"] = filters.into_iter().chain([fault.clone()]).collect();
        rule
    };
    let of_all = faults.iter().find(|(caller, _)| caller.is_none());
    let mut found = Vec::new();
    for rule in rules {
        for (caller, fault) in faults {
            let Some(caller) = caller else { continue };
            let mut copy = with(&rule, fault);
            let matches = copy["matches"].as_array().cloned().unwrap_or_else(|| vec![json!({})]);
            // A rule that is for some callers already is for others than this one, or is the more special one.
            let own = matches.into_iter().filter(|one| one["sources"].is_null());
            let own: Vec<_> = own
                .map(|mut one| {
                    one["sources"] = json!([caller.to_string()]);
                    one
                })
                .collect();
            if !own.is_empty() {
                copy["matches"] = own.into();
                found.push(copy);
            }
        }
        found.push(of_all.map_or_else(|| rule.clone(), |(_, fault)| with(&rule, fault)));
    }
    found
}
