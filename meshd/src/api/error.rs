//! Why a request failed, and which status says so: the only file of this crate with status codes. Every answer that is
//! no success is a [`Problem`] (RFC 9457), whose `detail` names the way out.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use model::{
    invalid::{FieldError, Invalid},
    manifest::ManifestError,
    problem::{MEDIA_TYPE, Problem},
};
use registry::{Compacted, MembershipError, ProposeError, ReadError, Refusal, RestoreError, SnapshotError};

use super::tokens::TokenFault;
use crate::{
    admit::NotAdmitted,
    load::{Reason, Refused},
};

/// When a client should ask again after a 503, in seconds: an election takes about one.
const RETRY_AFTER_SECONDS: &str = "1";
/// When a client should ask again after a 429, in seconds.
const RETRY_LATER_SECONDS: &str = "10";

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be read: syntax, encoding, a header or path that makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// Nobody, or a token that is not valid, where somebody is needed.
    #[error("{0}")]
    Unauthenticated(String),
    /// The caller may not. Names what is missing.
    #[error("{0}")]
    Forbidden(String),
    /// No such path, kind or object.
    #[error("{0}")]
    NotFound(String),
    /// The path takes other methods; which, comma-separated.
    #[error("{detail}")]
    Method {
        /// For the header `Allow`.
        allow: &'static str,
        /// What to do instead.
        detail: String,
    },
    /// No answer of the media type that was asked for.
    #[error("{0}")]
    NotAcceptable(String),
    /// The request's body did not come in time.
    #[error("{0}")]
    TooSlow(String),
    /// It does not go together with what is there.
    #[error("{0}")]
    Conflict(String),
    /// It was there once: compacted history, a session, another epoch.
    #[error("{0}")]
    Gone(String),
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("{0}")]
    Precondition(String),
    /// The body is too large.
    #[error("{0}")]
    TooLarge(String),
    /// The body's media type is not taken here.
    #[error("{0}")]
    MediaType(String),
    /// Readable, and wrong: every wrong field.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// Over a limit that passes.
    #[error("{0}")]
    TooMany(String),
    /// Held back for a while.
    #[error("{detail}")]
    Held {
        /// Why.
        detail: String,
        /// When to ask again, in seconds.
        after_seconds: u64,
    },
    /// No leader, or not the one that was thought: ask again.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours; the text is for the log too.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The status of a [`ApiError::Conflict`], by which one server knows another's refusal.
    pub const CONFLICT: u16 = StatusCode::CONFLICT.as_u16();
    /// The status of a [`ApiError::Forbidden`].
    pub const FORBIDDEN: u16 = StatusCode::FORBIDDEN.as_u16();

    /// One wrong field or query parameter.
    pub fn invalid(path: impl std::fmt::Display, message: impl std::fmt::Display) -> Self {
        Self::Invalid(Invalid::one(path, message))
    }

    /// The same, with the paths of its fields below `prefix` (`items[3]`); its text too.
    #[must_use]
    pub fn below(self, prefix: impl std::fmt::Display) -> Self {
        match self {
            Self::Invalid(invalid) => Self::Invalid(invalid.below(prefix)),
            Self::Forbidden(detail) => Self::Forbidden(format!("{prefix}: {detail}")),
            Self::Conflict(detail) => Self::Conflict(format!("{prefix}: {detail}")),
            other => other,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Gone(_) => StatusCode::GONE,
            Self::Precondition(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany(_) | Self::Held { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed request",
            Self::Unauthenticated(_) => "Who are you?",
            Self::Forbidden(_) => "Permission missing",
            Self::NotFound(_) => "Not found",
            Self::Method { .. } => "Method not allowed",
            Self::NotAcceptable(_) => "Not acceptable",
            Self::TooSlow(_) => "Request timed out",
            Self::Conflict(_) => "Conflict",
            Self::Gone(_) => "Gone",
            Self::Precondition(_) => "Precondition failed",
            Self::TooLarge(_) => "Too large",
            Self::MediaType(_) => "Unsupported media type",
            Self::Invalid(_) => "Invalid",
            Self::TooMany(_) | Self::Held { .. } => "Too many",
            Self::Unavailable(_) => "Unavailable",
            Self::Internal(_) => "Internal error",
        }
    }

    /// As it is answered.
    pub fn problem(&self) -> Problem {
        let (detail, errors): (_, &[FieldError]) = match self {
            Self::Invalid(invalid) => (summary(&invalid.errors), &invalid.errors),
            // What went wrong inside is for the log.
            Self::Internal(_) => ("see the server's log".to_owned(), &[]),
            other => (other.to_string(), &[]),
        };
        Problem::new(self.status().as_u16(), self.title(), detail).with_errors(errors.to_vec())
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated(_) => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mesh\"")))
            }
            Self::Method { allow, .. } => Some((header::ALLOW, HeaderValue::from_static(allow))),
            Self::Unavailable(_) => {
                Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS)))
            }
            Self::TooMany(_) => Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_LATER_SECONDS))),
            Self::Held { after_seconds, .. } => {
                Some((header::RETRY_AFTER, HeaderValue::from(*after_seconds)))
            }
            _ => None,
        }
    }
}

/// Whether an answer is a failure that nobody has put into words: axum's own.
pub(super) fn wordless(response: &Response) -> Option<ApiError> {
    let worded = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
    let status = response.status();
    if worded || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let detail = status.canonical_reason().unwrap_or("the request was refused").to_owned();
    Some(match status {
        StatusCode::NOT_FOUND => ApiError::NotFound(detail),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(detail),
        status if status.is_server_error() => ApiError::Internal(detail),
        _ => ApiError::Malformed(detail),
    })
}

/// Whether an object was made (201) or changed (200).
pub(super) fn written(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

/// What a long poll is answered where nothing changed.
pub(super) const UNCHANGED: StatusCode = StatusCode::NOT_MODIFIED;
/// The status of an `error` line that ends a watch whose place in history is gone.
pub(super) const WATCH_GONE: u16 = 410;
/// The status of an `error` line that ends a watch whose caller may no longer watch.
pub(super) const WATCH_DENIED: u16 = 403;

fn summary(errors: &[FieldError]) -> String {
    match errors {
        [one] if one.path.is_empty() => one.message.clone(),
        [one] => format!("{}: {}", one.path, one.message),
        several => format!("{} fields are wrong", several.len()),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(what) = &self {
            tracing::error!(%what, "a request failed by a fault of ours");
        }
        let body = serde_json::to_vec(&self.problem()).expect("a problem is made of texts and a number");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Syntax(_) => Self::Malformed(error.to_string()),
            ManifestError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            ManifestError::Invalid(invalid) => Self::Invalid(invalid),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotFound { .. } | Refusal::UnknownMember { .. } | Refusal::NoRequest { .. } => {
                Self::NotFound(text)
            }
            Refusal::Exists { .. } | Refusal::RevisionMismatch { .. } => Self::Precondition(text),
            Refusal::UnknownNamespace { .. } => Self::invalid("metadata.namespace", text),
            Refusal::Invalid { message, .. } => Self::invalid("spec", message),
            Refusal::NoAdmission => Self::invalid("server", text),
            Refusal::NamespaceNotEmpty { .. }
            | Refusal::BuiltIn { .. }
            | Refusal::Conflict { .. }
            | Refusal::StaleMember { .. }
            | Refusal::Founded { .. }
            | Refusal::RequestDenied { .. }
            | Refusal::Restore { .. } => Self::Conflict(text),
            Refusal::SessionGone { .. } | Refusal::RequestExpired { .. } => Self::Gone(text),
            Refusal::Restless { retry_after_seconds, .. } => {
                Self::Held { detail: text, after_seconds: retry_after_seconds }
            }
            Refusal::NotGranted { .. } | Refusal::Disabled { .. } | Refusal::Join(_) => Self::Forbidden(text),
            Refusal::Crowded { .. } => Self::TooMany(text),
            Refusal::TooLarge { .. } => Self::invalid("", text),
        }
    }
}

impl From<Compacted> for ApiError {
    fn from(compacted: Compacted) -> Self {
        Self::Gone(format!("{compacted}; start again without `from` or `continue`"))
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            ProposeError::NoLeader { .. }
            | ProposeError::Unknown
            | ProposeError::Busy
            | ProposeError::DiskFull(_)
            | ProposeError::Version
            | ProposeError::Stopped(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Unknown(_) => Self::NotFound(error.to_string()),
            MembershipError::Refused(_) => Self::Conflict(error.to_string()),
            MembershipError::NotLeader { .. } | MembershipError::Timeout(_) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Invalid(_) => Self::Malformed(error.to_string()),
            SnapshotError::Io(ref io) if io.kind() == std::io::ErrorKind::StorageFull => {
                Self::Unavailable(format!("the disk of this server is full: {error}"))
            }
            SnapshotError::Io(_) | SnapshotError::Engine(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<RestoreError> for ApiError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Propose(error) => error.into(),
            RestoreError::Refused(refusal) => refusal.into(),
            RestoreError::Read(error) => error.into(),
        }
    }
}

impl From<NotAdmitted> for ApiError {
    fn from(error: NotAdmitted) -> Self {
        match error {
            NotAdmitted::Missing { .. } | NotAdmitted::NotYours(_) => Self::Forbidden(error.to_string()),
            NotAdmitted::Invalid(invalid) => Self::Invalid(invalid),
            NotAdmitted::Conflict(text) => Self::Conflict(text),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let Refused { class, reason, limit, after } = refused;
        let class = class.as_str();
        let detail = match reason {
            Reason::Rate => format!(
                "you ask for more than {limit} requests a second of this server (limits.per_second in its meshd.toml)"
            ),
            Reason::OwnPlaces => format!(
                "you have {limit} requests under way at this server, the most that one may have of class {class} (half of \
                 the class's part of limits.requests in its meshd.toml)"
            ),
            Reason::OwnBytes => format!(
                "your requests and answers hold {limit} bytes at this server, the most that one may hold in class {class} \
                 (half of the class's part of limits.held_mib in its meshd.toml)"
            ),
            Reason::OwnStreams => {
                format!("you have {limit} streams open at this server, the most that one may have")
            }
            Reason::Places => format!(
                "this server is overloaded: it has {limit} requests under way, and takes more only of a more important \
                 class than {class} (limits.requests in its meshd.toml)"
            ),
            Reason::Bytes => format!(
                "this server is overloaded: requests and answers hold {limit} bytes, the most for class {class} \
                 (limits.held_mib in its meshd.toml)"
            ),
        };
        if reason.own() {
            // Rounded up: who comes then is let in.
            Self::Held { detail, after_seconds: after.as_secs() + u64::from(after.subsec_nanos() > 0) }
        } else {
            Self::Unavailable(detail)
        }
    }
}

impl From<TokenFault> for ApiError {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Text(_) | TokenFault::Unknown | TokenFault::Expired(_) => {
                Self::Unauthenticated(fault.to_string())
            }
            TokenFault::NoRoot => Self::Conflict(fault.to_string()),
            TokenFault::Root(_) => Self::Internal(fault.to_string()),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_problems_with_the_way_out() {
        let problem = ApiError::invalid("spec.ports[0].port", "must be a whole number").problem();
        assert_eq!((problem.status, problem.title.as_str()), (422, "Invalid"));
        assert_eq!(problem.errors[0].path, "spec.ports[0].port");
        assert!(problem.detail.contains("spec.ports[0].port"));
        assert!(!ApiError::Internal("secret path".to_owned()).problem().detail.contains("secret"));
    }

    #[test]
    fn headers_that_the_status_asks_for_are_there() {
        let header = |error: ApiError, name| error.into_response().headers().get(name).is_some();
        assert!(header(ApiError::Unavailable(String::new()), header::RETRY_AFTER));
        assert!(header(ApiError::Unauthenticated(String::new()), header::WWW_AUTHENTICATE));
        assert!(header(ApiError::Method { allow: "GET", detail: String::new() }, header::ALLOW));
    }

    #[track_caller]
    fn check(error: impl Into<ApiError>, status: u16) {
        let error = error.into();
        assert_eq!(error.problem().status, status, "{error}");
    }

    /// §9 of the design: each cause has its status.
    #[test]
    fn each_cause_has_its_status() {
        let key = || crate::api::testing::object("Service default/a").key();
        check(ProposeError::NoLeader { retry_after: std::time::Duration::from_secs(1) }, 503);
        check(ReadError::NoLeader { retry_after: std::time::Duration::from_secs(1) }, 503);
        check(ProposeError::Unknown, 503);
        check(ProposeError::TooLarge { actual: 2, limit: 1 }, 413);
        check(Refusal::NotFound { key: key() }, 404);
        check(Refusal::Exists { key: key() }, 412);
        check(Refusal::RevisionMismatch { key: key(), expected: 1, actual: 2 }, 412);
        check(Refusal::BuiltIn { key: key() }, 409);
        check(Refusal::Conflict { key: key(), with: None, message: String::new() }, 409);
        check(Refusal::UnknownNamespace { namespace: "a".parse().expect("a name") }, 422);
        check(Refusal::SessionGone { node: "a".parse().expect("a name") }, 410);
        check(Refusal::Restless { node: "a".parse().expect("a name"), retry_after_seconds: 20 }, 429);
        check(Refusal::Join(model::join::JoinRefused::Expired), 403);
        let (id, node) = (|| "r1".to_owned(), || "a".parse().expect("a name"));
        check(Refusal::NoRequest { id: id() }, 404);
        check(Refusal::RequestExpired { id: id(), node: node(), at: Default::default() }, 410);
        check(Refusal::RequestDenied { id: id(), node: node() }, 409);
        check(Refusal::Crowded { what: String::new(), limit: 1 }, 429);
        check(Compacted { oldest: 7 }, 410);
        check(TokenFault::Unknown, 401);
        check(ManifestError::Syntax(String::new()), 400);
        check(MembershipError::NotLeader { leader: None }, 503);
        check(SnapshotError::Invalid(String::new()), 400);
        check(Refusal::Restore { reason: String::new() }, 409);
        check(RestoreError::Propose(ProposeError::Version), 503);
    }

    #[test]
    fn items_stand_before_the_path() {
        let error = ApiError::invalid("spec", "is wrong").below("items[2]");
        assert_eq!(error.problem().errors[0].path, "items[2].spec");
        let error = ApiError::Forbidden("needs write".to_owned()).below("items[0]");
        assert_eq!(error.to_string(), "items[0]: needs write");
    }
}
