use std::time::Duration;

use http::{HeaderValue, Method};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use traffic::policy::RemarkKind;

use super::*;
use crate::telemetry::{Direction, Judged, Note, Spoken};

const NOW: &str = "2026-11-27T18:50:01.007Z";

fn read(outcome: &Outcome) -> Value {
    let mut text = b"before\n".to_vec();
    write(&mut text, NOW, outcome);
    let line = text.strip_prefix(b"before\n").expect("what stood there stays");
    assert!(!line.contains(&b'\n'), "it is one line");
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
}

#[test]
fn what_is_not_known_is_left_out() {
    let want = json!({
        "time": NOW, "direction": "inbound", "source": null, "destination": null, "route": "default",
        "protocol": "tcp", "code": 0, "mtls": false, "durationMs": 0.0, "requestBytes": 0, "responseBytes": 0,
        "retries": 0,
    });
    assert_eq!(read(&Outcome::of(Direction::Inbound, Spoken::Tcp)), want);
}

#[test]
fn all_that_is_known_of_a_call_stands_in_its_line() {
    let value = |text: &str| Some(HeaderValue::from_bytes(text.as_bytes()).expect("a value"));
    let remark = |kind| Remark { kind, rule: RuleId::Policy("default/orders/\"guests\"".into()) };
    let outcome = Outcome {
        direction: Direction::Outbound,
        source: Some("default/web".parse().expect("a service")),
        destination: Some("shop-2/orders".parse().expect("a service")),
        code: 503,
        grpc_status: Some(14),
        spoken: Spoken::Grpc,
        mtls: true,
        took: Duration::from_nanos(1_234_567_499),
        request_bytes: u64::MAX,
        response_bytes: 7,
        judged: Judged {
            denied: Some(RuleId::Policy("default/orders/0".into())),
            remarks: vec![remark(RemarkKind::WouldDeny), remark(RemarkKind::Audited)],
        },
        note: Note {
            method: Some(Method::POST),
            target: "/a/b?c=%22".parse().expect("a target"),
            host: value("orders.default.mesh"),
            peer: Some("10.0.200.3:65535".parse().expect("an address")),
            endpoint: Some("[2001:db8::1]:80".parse().expect("an address")),
            tls: true,
            retries: 2,
            request_id: value("\"\\é"),
            traceparent: value("00-1-2-01"),
            span: None,
            reason: "a\nb\u{7f}\u{2028}".to_owned(),
            refusal: "r1".to_owned(),
        },
        ..Outcome::of(Direction::Inbound, Spoken::Tcp)
    };
    let want = json!({
        "time": NOW, "direction": "outbound", "source": "default/web", "destination": "shop-2/orders",
        "route": "default", "method": "POST", "authority": "orders.default.mesh", "path": "/a/b?c=%22",
        "protocol": "grpc", "code": 503, "grpcStatus": 14, "mtls": true, "tls": true, "durationMs": 1_234.567,
        "requestBytes": u64::MAX, "responseBytes": 7, "peer": "10.0.200.3:65535", "endpoint": "[2001:db8::1]:80",
        "retries": 2, "requestId": "\"\\é", "traceparent": "00-1-2-01", "reason": "a\nb\u{7f}\u{2028}",
        "rule": "default/orders/0", "refusal": "r1",
        "remarks": ["would-deny default/orders/\"guests\"", "audited default/orders/\"guests\""],
    });
    assert_eq!(read(&outcome), want);
}

#[test]
fn durations_are_rounded_to_microseconds() {
    for (nanos, want) in
        [(499, 0.0), (500, 0.001), (50_000, 0.05), (999_999_500, 1_000.0), (60_000_010_000, 60_000.01)]
    {
        let outcome =
            Outcome { took: Duration::from_nanos(nanos), ..Outcome::of(Direction::Inbound, Spoken::Tcp) };
        assert_eq!(read(&outcome)["durationMs"], json!(want), "{nanos}");
    }
}

#[test]
fn long_paths_are_cut_between_characters() {
    let path = format!("/{}", "é".repeat(PATH_BYTES_MAX));
    assert_eq!(cut(&path).len(), PATH_BYTES_MAX + 1);
    assert_eq!(cut(&path[..PATH_BYTES_MAX - 1]).len(), PATH_BYTES_MAX - 1);
}

proptest! {
    /// Whatever a caller sends, a line is one JSON object that says what he sent.
    #[test]
    fn any_text_is_read_back(texts in prop::array::uniform4(".{0,40}|(?s).{0,12}|[\\x00-\\x7f]{0,40}"), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let [reason, refusal, rule, remark] = texts;
        let host = HeaderValue::from_bytes(&bytes).ok();
        let said = host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).unwrap_or_default();
        let outcome = Outcome {
            judged: Judged {
                denied: Some(RuleId::Policy(rule.as_str().into())),
                remarks: vec![Remark { kind: RemarkKind::Audited, rule: RuleId::Policy(remark.as_str().into()) }],
            },
            note: Note { host, reason: reason.clone(), refusal: refusal.clone(), ..Note::default() },
            ..Outcome::of(Direction::Inbound, Spoken::Tcp)
        };
        let mut want = Map::new();
        for (key, text) in [("authority", said), ("reason", reason), ("refusal", refusal), ("rule", rule)] {
            if !text.is_empty() {
                want.insert(key.to_owned(), json!(text));
            }
        }
        want.insert("remarks".to_owned(), json!([format!("audited {remark}")]));
        let Value::Object(mut line) = read(&outcome) else { panic!("an object") };
        line.retain(|key, _| ["authority", "reason", "refusal", "rule", "remarks"].contains(&key.as_str()));
        prop_assert_eq!(line, want);
    }
}
