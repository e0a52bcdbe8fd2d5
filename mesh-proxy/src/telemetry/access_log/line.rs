//! Pure. What the line of a call says, and in which order.

use model::name::ServiceName;
use traffic::policy::{Remark, RuleId};

use super::{
    Outcome,
    json::{Key, Object, key},
};

/// The longest path that a line shows, in bytes.
const PATH_BYTES_MAX: usize = 1_024;

/// Writes a call's line. `time` is now, as RFC 3339 has it.
pub(super) fn write(text: &mut Vec<u8>, time: &str, outcome: &Outcome) {
    let note = &outcome.note;
    let mut line = Object::begin(text);
    line.plain(key!("time"), &[time]);
    line.plain(key!("direction"), &[outcome.direction.as_str()]);
    service(&mut line, key!("source"), outcome.source.as_ref());
    service(&mut line, key!("destination"), outcome.destination.as_ref());
    line.text(key!("route"), outcome.route.as_str());
    line.some_text(key!("method"), note.method());
    line.some_text(key!("authority"), &note.authority());
    line.some_text(key!("path"), cut(note.path()));
    line.plain(key!("protocol"), &[outcome.spoken.as_str()]);
    line.number(key!("code"), outcome.code);
    if let Some(status) = outcome.grpc_status {
        line.number(key!("grpcStatus"), status);
    }
    line.flag(key!("mtls"), outcome.mtls);
    if note.tls {
        line.flag(key!("tls"), true);
    }
    line.millis(key!("durationMs"), outcome.took);
    line.number(key!("requestBytes"), outcome.request_bytes);
    line.number(key!("responseBytes"), outcome.response_bytes);
    if let Some(peer) = note.peer {
        line.address(key!("peer"), peer);
    }
    if let Some(endpoint) = note.endpoint {
        line.address(key!("endpoint"), endpoint);
    }
    line.number(key!("retries"), note.retries);
    line.some_text(key!("requestId"), &note.request_id());
    line.some_text(key!("traceparent"), &note.traceparent());
    line.some_text(key!("reason"), &note.reason);
    line.some_text(key!("rule"), outcome.judged.denied.as_ref().map_or("", RuleId::as_str));
    line.some_text(key!("refusal"), &note.refusal);
    line.texts(key!("remarks"), outcome.judged.remarks.iter().map(remark));
    line.end();
}

/// `<namespace>/<service>`, names of letters, digits and `-`; `null` where it is not known.
fn service(line: &mut Object<'_>, key: Key, service: Option<&ServiceName>) {
    match service {
        Some(ServiceName { namespace, name }) => line.plain(key, &[namespace.as_str(), "/", name.as_str()]),
        None => line.null(key),
    }
}

/// As much of a path as a line shows.
fn cut(path: &str) -> &str {
    let ends = |path: &str| path.char_indices().map(|(at, _)| at).find(|&at| at >= PATH_BYTES_MAX);
    let end = if path.len() > PATH_BYTES_MAX { ends(path) } else { None };
    &path[..end.unwrap_or(path.len())]
}

/// `would-deny default/orders/guests`.
fn remark(remark: &Remark) -> String {
    format!("{} {}", remark.kind.as_str(), remark.rule)
}

#[cfg(test)]
mod tests;
