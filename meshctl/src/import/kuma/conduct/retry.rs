//! Pure. Kuma's retries.

use serde_json::{Map, Value};

use super::{
    super::super::{
        fields::{At, Fields},
        plan::set,
    },
    set_span, set_whole,
};

pub(super) fn read(mut fields: Fields<'_>, treated: &mut Map<String, Value>) {
    fields.lost(
        "tcp",
        "a stream goes on to the next endpoint as long as nothing was sent, always",
        "leave it out",
    );
    if fields.has("http") && fields.has("grpc") {
        fields.at.differs(
            "attempts and times are said once, of requests and of calls of gRPC",
            "those of grpc are taken",
        );
    }
    for name in ["http", "grpc"] {
        let Some(mut own) = fields.take(name).and_then(|at| at.fields()) else { continue };
        set_whole(&mut own, "numRetries", (0, 10), treated, "retry.attempts");
        set_span(&mut own, "perTryTimeout", treated, "retry.perTryTimeout");
        if let Some(mut waits) = own.take("backOff").and_then(|at| at.fields()) {
            set_span(&mut waits, "baseInterval", treated, "retry.backoff");
            waits.lost("maxInterval", "a wait is 10 s at most, always", "leave it out");
            waits.finish();
        }
        own.lost("rateLimitedBackOff", "Retry-After is heeded, always", "leave it out");
        for name in [
            "retriableResponseHeaders",
            "retriableRequestHeaders",
            "hostSelection",
            "hostSelectionMaxAttempts",
        ] {
            own.lost(
                name,
                "a retry goes to another endpoint if there is one, and depends on no headers",
                "leave it out",
            );
        }
        on(own.take("retryOn"), name == "grpc", treated);
        own.finish();
    }
    fields.finish();
}

fn on(list: Option<At<'_>>, grpc: bool, treated: &mut Map<String, Value>) {
    let (mut conditions, mut codes, mut grpc_codes) =
        (Vec::<Value>::new(), Vec::<Value>::new(), Vec::<Value>::new());
    for at in list.map_or_else(Vec::new, |at| at.list()) {
        let Some(text) = at.text() else { continue };
        let word: String =
            text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        match (word.as_str(), grpc) {
            ("CANCELED", true) => grpc_codes.push("Cancelled".into()),
            ("DEADLINEEXCEEDED", true) => grpc_codes.push("DeadlineExceeded".into()),
            ("INTERNAL", true) => grpc_codes.push("Internal".into()),
            ("RESOURCEEXHAUSTED", true) => grpc_codes.push("ResourceExhausted".into()),
            ("UNAVAILABLE", true) => grpc_codes.push("Unavailable".into()),
            ("5XX", false) => {
                conditions.extend(["ServerError", "Reset", "ConnectFailure", "Refused"].map(Value::from))
            }
            ("GATEWAYERROR", false) => conditions.push("GatewayError".into()),
            ("RESET", false) => conditions.push("Reset".into()),
            ("RETRIABLE4XX", false) => conditions.push("Retriable4xx".into()),
            ("CONNECTFAILURE", false) => conditions.push("ConnectFailure".into()),
            ("REFUSEDSTREAM", false) => conditions.push("Refused".into()),
            (code, false) if code.parse().is_ok_and(|code: u16| (400..600).contains(&code)) => {
                codes.push(code.parse::<u16>().unwrap_or_default().into());
            }
            _ => at.lost("no condition of ours is that", "see docs/guide/traffic.md#retries"),
        }
    }
    for (path, list) in
        [("retry.conditions", conditions), ("retry.codes", codes), ("retry.grpcCodes", grpc_codes)]
    {
        let mut list = list;
        list.dedup();
        if !list.is_empty() {
            set(treated, path, list);
        }
    }
}
