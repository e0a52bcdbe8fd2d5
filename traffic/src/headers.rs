//! Pure. Which fields of a request or an answer go on, and which are only for the next hop or say who someone is. It is
//! the one place where those of the second kind are named; whoever carries messages asks here for each field.

use model::identity::SpiffeId;

/// Says who called, towards applications: `URI=<SPIFFE id>`.
pub const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";
/// Between proxies: the service's port that a request is for (decimal).
pub const PORT: &str = "x-mesh-port";
/// Between proxies, in an answer: the request did not reach the application, so that it may be tried elsewhere whatever
/// its method. Its value is the reason, for logs.
pub const UNSENT: &str = "x-mesh-unsent";
/// Between proxies: how many milliseconds the caller still waits for the answer's head (decimal).
pub const DEADLINE: &str = "x-mesh-deadline";
/// The prefix of all fields that proxies tell each other.
const MESH_PREFIX: &str = "x-mesh-";

/// Fields for the next hop only (RFC 9110 §7.6.1), beside those that Connection names.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Fields on which it hangs where a message ends, or whether its body comes.
const FRAMING: [&str; 3] = ["content-length", "trailer", "expect"];

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// A request of an application, at its own proxy: it may not pretend to be a proxy.
    RequestOut,
    /// A request of another proxy, on to the application: nobody but us says who called.
    RequestIn,
    /// An answer of an application, at its own proxy.
    AnswerOut,
    /// An answer of another proxy, on to the application that asked.
    AnswerIn,
}

/// Whether a field (its name in lower case) stays behind on a leg, and is set anew where it is needed. `value` is looked
/// at for `te`, of which `trailers` goes on: gRPC asks for it.
pub fn is_dropped(leg: Leg, name: &str, value: &[u8]) -> bool {
    // Short as names are, a plain look at each byte is quicker than a search made for long texts.
    let underscored = || name.bytes().any(|byte| byte == b'_');
    is_hop_by_hop(name, value) || is_ours(leg, name) || underscored() && is_lookalike(leg, name)
}

/// Whether a field with an underscore is one of those above to an application that reads fields as CGI has them, where
/// `_` and `-` are the same.
fn is_lookalike(leg: Leg, name: &str) -> bool {
    let name = name.replace('_', "-");
    HOP_BY_HOP.contains(&name.as_str()) || FRAMING.contains(&name.as_str()) || is_ours(leg, &name)
}

fn is_hop_by_hop(name: &str, value: &[u8]) -> bool {
    // By their lengths most fields are told from all of these at once.
    matches!(name.len(), 2 | 7 | 10 | 16 | 17)
        && HOP_BY_HOP.contains(&name)
        && !(name == "te" && value.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Fields that say who someone is, or that proxies tell each other.
fn is_ours(leg: Leg, name: &str) -> bool {
    match leg {
        Leg::RequestOut | Leg::AnswerOut | Leg::AnswerIn => {
            name.starts_with(MESH_PREFIX) || name == FORWARDED_CLIENT_CERT
        }
        Leg::RequestIn => is_identity(name),
    }
}

/// Whether a field (its name in lower case) says who called or from where.
pub fn is_identity(name: &str) -> bool {
    name.starts_with(MESH_PREFIX) || name == "forwarded" || name.starts_with("x-forwarded-")
}

/// Whether a trailer (its name in lower case) is kept (RFC 9110 §6.5.1): none says where a message ends, where it goes,
/// or who sends it, as those who add trailers to the head would take it for one.
pub fn is_trailer(name: &str) -> bool {
    let others = [
        "host",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "content-type",
        "content-encoding",
    ];
    !(HOP_BY_HOP.contains(&name) || FRAMING.contains(&name) || is_identity(name) || others.contains(&name))
}

/// Why a route may not touch a field (its name in lower case), if it may not.
pub fn reserved(name: &str) -> Option<&'static str> {
    if HOP_BY_HOP.contains(&name) {
        Some("it is for the next hop only, and set by the proxies")
    } else if is_identity(name) {
        Some("it says who called, which the proxies alone may say")
    } else if FRAMING.contains(&name) {
        Some("it says where the message ends, which the proxies know")
    } else if name == "host" {
        Some("the host is changed by a URLRewrite")
    } else {
        None
    }
}

/// The fields that the values of Connection name (RFC 9110 §7.6.1): they stay behind too. In the case in which they
/// stand there.
pub fn named_by_connection<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    let texts = values.filter_map(|value| std::str::from_utf8(value).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// What [`FORWARDED_CLIENT_CERT`] says of a verified caller.
pub fn client_cert(caller: &SpiffeId) -> String {
    ["URI=spiffe://", caller.domain().as_str(), caller.path()].concat()
}

/// The port that [`PORT`] says.
pub fn port(value: &[u8]) -> Option<u16> {
    let digits = value.iter().all(u8::is_ascii_digit) && value.len() <= 5;
    let number = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten();
    number.filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `fields` (`name: value` separated by `|`), those that go on.
    #[track_caller]
    fn check(leg: Leg, fields: &str, want: &str) {
        let pairs = fields.split('|').map(|field| field.split_once(": ").expect("a field"));
        let kept: Vec<&str> = pairs
            .filter(|(name, value)| !is_dropped(leg, name, value.as_bytes()))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(kept.join(" "), want, "{leg:?}");
    }

    const LEGS: [Leg; 4] = [Leg::RequestOut, Leg::RequestIn, Leg::AnswerOut, Leg::AnswerIn];

    #[test]
    fn fields_for_the_next_hop_stay_behind_on_every_leg() {
        assert!(HOP_BY_HOP.iter().all(|name| is_hop_by_hop(name, b"")));
        for leg in LEGS {
            check(
                leg,
                "connection: x|keep-alive: 5|proxy-connection: x|transfer-encoding: chunked|upgrade: h2c",
                "",
            );
            check(
                leg,
                "te: trailers|trailer: x|host: a|content-length: 1|cookie: a",
                "te trailer host content-length cookie",
            );
            check(leg, "te:  Trailers |te: gzip|te: trailers, deflate", "te");
        }
    }

    #[test]
    fn who_called_is_said_by_us_alone() {
        let fields = "x-forwarded-client-cert: URI=x|x-forwarded-for: 1|forwarded: for=x|x-forwarded-proto: https|x-mesh-port: 1|x-real: 1";
        check(Leg::RequestIn, fields, "x-real");
        check(Leg::RequestOut, fields, "x-forwarded-for forwarded x-forwarded-proto x-real");
        for leg in [Leg::AnswerOut, Leg::AnswerIn] {
            check(leg, "x-mesh-unsent: no|server: x", "server");
        }
        for leg in [Leg::RequestOut, Leg::RequestIn] {
            let fields = "x_forwarded_client_cert: a|x-forwarded_client-cert: a|x_mesh_port: 1|content_length: 5|transfer_encoding: chunked|x_real: 1";
            check(leg, fields, "x_real");
        }
        assert!(is_identity(FORWARDED_CLIENT_CERT) && is_identity(PORT) && is_identity(UNSENT));
        let id: SpiffeId = "spiffe://mesh.internal/ns/default/svc/web".parse().expect("an id");
        assert_eq!(client_cert(&id), "URI=spiffe://mesh.internal/ns/default/svc/web");
    }

    #[test]
    fn routes_may_not_touch_what_the_proxies_say() {
        let own = "connection te upgrade transfer-encoding x-forwarded-for x-forwarded-client-cert forwarded x-mesh-port content-length trailer expect host";
        for name in own.split(' ') {
            assert!(reserved(name).is_some(), "{name}");
        }
        for name in ["x-tenant", "cookie", "authorization", "server", "x-forward", "traceparent"] {
            assert_eq!(reserved(name), None, "{name}");
        }
    }

    #[test]
    fn trailers_do_not_say_what_heads_do() {
        for name in ["x-checksum", "grpc-status", "server-timing", "etag"] {
            assert!(is_trailer(name), "{name}");
        }
        let heads = "host content-length transfer-encoding connection trailer te x-mesh-port x-forwarded-client-cert forwarded cookie authorization content-type";
        for name in heads.split(' ') {
            assert!(!is_trailer(name), "{name}");
        }
    }

    #[test]
    fn connection_names_more() {
        let values: [&[u8]; 3] = [b"close, X-Hop", b"", b" x-other ,,\xff"];
        assert_eq!(named_by_connection(values.into_iter()).collect::<Vec<_>>(), ["close", "X-Hop"]);
        assert_eq!(named_by_connection([&b"a,b"[..]].into_iter()).count(), 2);
    }

    #[test]
    fn ports_are_numbers_from_1_to_65535() {
        assert_eq!((port(b"80"), port(b"65535")), (Some(80), Some(65_535)));
        for wrong in [&b""[..], b"0", b"65536", b"+80", b" 80", b"000080", b"8o"] {
            assert_eq!(port(wrong), None, "{wrong:?}");
        }
    }
}
