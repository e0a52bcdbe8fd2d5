//! Pure. Kuma's circuit breakers: limits, and endpoints that are left alone.

use serde_json::{Map, Value};

use super::{
    super::super::{fields::Fields, plan::set},
    MAX, set_span, set_whole,
};

pub(super) fn read(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    if let Some(mut limits) = fields.take("connectionLimits").and_then(|at| at.fields()) {
        for (name, least) in
            [("maxConnections", 1), ("maxPendingRequests", 1), ("maxRequests", 1), ("maxRetries", 0)]
        {
            set_whole(&mut limits, name, (least, MAX), treated, &format!("limits.{name}"));
        }
        limits.lost("maxConnectionPools", "connections between proxies are shared", "leave it out");
        limits.finish();
    }
    if let Some(outliers) = fields.take("outlierDetection").and_then(|at| at.fields()) {
        detection(outliers, treated);
    }
    fields.finish();
}

fn detection(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    let at = fields.at.clone();
    let disabled = fields.take("disabled").is_some();
    // Without a detector of its own none of ours is on: consecutiveErrors is 5 if left out.
    let mut found = Map::from_iter([("consecutiveErrors".to_owned(), Value::from(0))]);
    set_span(&mut fields, "interval", &mut found, "interval");
    set_span(&mut fields, "baseEjectionTime", &mut found, "baseEjectionTime");
    set_whole(&mut fields, "maxEjectionPercent", (0, 100), &mut found, "maxEjectionPercent");
    fields.lost("splitExternalAndLocalErrors", "an answer and the lack of one count alike", "leave it out");
    if let Some(percent) = fields.take("healthyPanicThreshold").and_then(|at| at.whole(0, 100)) {
        set(treated, "loadBalancer.panicThreshold", percent);
    }
    if let Some(detectors) = fields.take("detectors").and_then(|at| at.fields()) {
        by(detectors, &mut found);
    }
    fields.finish();
    if disabled {
        return;
    }
    let base = found.get("baseEjectionTime").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let usual = model::duration::Timespan::from_secs(300);
    if let Some(base) = base.filter(|base: &model::duration::Timespan| *base > usual) {
        at.differs(
            "an endpoint is left alone longer each time, up to maxEjectionTime",
            "it is baseEjectionTime now",
        );
        found.insert("maxEjectionTime".to_owned(), base.to_string().into());
    }
    treated.insert("outlierDetection".to_owned(), Value::Object(found));
}

fn by(mut fields: Fields<'_>, found: &mut Map<String, Value>) {
    for (name, ours) in
        [("totalFailures", "consecutiveErrors"), ("gatewayFailures", "consecutiveGatewayErrors")]
    {
        if let Some(mut own) = fields.take_given(name).and_then(|at| at.fields()) {
            found.insert(ours.to_owned(), 5.into());
            set_whole(&mut own, "consecutive", (0, 1_000), found, ours);
            own.finish();
        }
    }
    if let Some(mut own) = fields.take("failurePercentage").and_then(|at| at.fields()) {
        own.lost("minimumHosts", "each endpoint is judged by itself", "leave it out");
        set_whole(&mut own, "requestVolume", (1, MAX), found, "minRequests");
        if let Some(failing) = own.take("threshold").and_then(|at| at.whole(0, 99)) {
            found.insert("successRate".to_owned(), (100 - failing).into());
        }
        own.finish();
    }
    fields.lost("localOriginFailures", "an answer and the lack of one count alike", "set consecutiveErrors");
    fields.lost(
        "successRate",
        "endpoints are not compared by standard deviations",
        "set outlierDetection.successRate, in per cent",
    );
    fields.finish();
}
