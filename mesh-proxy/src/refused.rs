//! Why a call is not carried, and what its caller is answered: the only file of the data path with status codes.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use model::{
    name::ServiceName,
    problem::{self, Problem},
};
use traffic::{
    admission::{self, Bounded},
    http1::Malformed,
    path,
    policy::Denied,
    retry,
    route::Unroutable,
};

use crate::{
    body::Answer,
    caller::NotBound,
    heads::{self, BadHost},
    http1::Broke,
    outbound::BadHello,
    rates::TooOften,
    telemetry::Spoken,
    transport::SendError,
};

/// What a caller is told whom policy refuses.
const FORBIDDEN: &str = "the policies of the service do not let this call in";
/// What a caller is told who may not call in anybody's name here. Who may is for the log only.
const NOT_BOUND: &str = "this process may not call in the name of a service of this host";

/// Why a call is not carried.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The path has no one form.
    #[error(transparent)]
    Path(#[from] path::Refused),
    /// The host cannot be written.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// Nobody can be told to be the caller.
    #[error("several local services could be the caller: set host_router_identity in proxy.toml")]
    NoCaller,
    /// The caller speaks for no service of this host.
    #[error("{why}")]
    NotBound {
        /// Why.
        why: NotBound,
        /// What the caller is told instead: by it the log is searched.
        id: String,
    },
    /// The host names no service of the mesh.
    #[error("'{0}' is no service of the mesh: hosts look like orders.default.mesh")]
    NoService(String),
    /// The registry has no such service.
    #[error("there is no service {0}")]
    UnknownService(ServiceName),
    /// The service has no such port.
    #[error("service {0} has no port {1}")]
    NoPort(ServiceName, u16),
    /// The service has no port at all that fits.
    #[error("service {0} has no port for this")]
    NoPorts(ServiceName),
    /// The endpoints of the service did not come in time.
    #[error("the endpoints of {0} are not known yet")]
    NotYet(ServiceName),
    /// A stream that must begin with a ClientHello does not, or it names nobody.
    #[error(transparent)]
    Hello(#[from] BadHello),
    /// No route takes it.
    #[error(transparent)]
    Unroutable(#[from] Unroutable),
    /// It comes too often.
    #[error(transparent)]
    TooOften(#[from] TooOften),
    /// Too much is under way.
    #[error(transparent)]
    Full(#[from] admission::Full),
    /// The service has no endpoint that could be tried.
    #[error("{0} has no endpoint")]
    NoEndpoint(String),
    /// The last try failed, and no other follows.
    #[error("{failed} ({reason})")]
    Failed {
        /// How.
        failed: SendError,
        /// Why no other try follows.
        reason: retry::Reason,
    },
    /// The time is over.
    #[error("no answer in time")]
    Late,
    /// Nothing of the request came for too long, and no answer.
    #[error("nothing moved on it for {0:?}")]
    Idle(Duration),
    /// The other proxy says so: this host runs no such service, or not at this port.
    #[error("{0} does not run here at port {1}")]
    NotHere(String, u16),
    /// A stream for a port that takes requests: in it nobody would see who says to be whom.
    #[error("{0} speaks HTTP at port {1}: calls to it are requests, not streams")]
    NoStream(String, u16),
    /// Policy.
    #[error("{denied}")]
    Denied {
        /// Why.
        denied: Denied,
        /// What the caller is told instead: by it the log is searched.
        id: String,
    },
    /// The local application was not reached: the caller's proxy may take another endpoint.
    #[error("the application was not reached: {0}")]
    AppUnreached(SendError),
    /// The local application broke off.
    #[error("the application: {0}")]
    AppBroke(SendError),
    /// The proxy's own peer did not say what proxies say.
    #[error("the request does not say what proxies say")]
    NotFromProxy,
}

impl Refused {
    /// What the caller is answered.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) | Self::Host(_) | Self::NotFromProxy | Self::NoStream(..) | Self::Hello(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::NoCaller | Self::NotBound { .. } | Self::Denied { .. } => StatusCode::FORBIDDEN,
            Self::NoService(_) | Self::UnknownService(_) | Self::NoPort(..) | Self::NoPorts(_) => {
                StatusCode::NOT_FOUND
            }
            Self::Unroutable(Unroutable::NoRule) => StatusCode::NOT_FOUND,
            Self::Unroutable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotYet(_) | Self::Full(_) | Self::NoEndpoint(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed { failed: SendError::Caller(_), .. } | Self::AppBroke(SendError::Caller(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::Failed { failed: SendError::Broken(_), .. } | Self::AppBroke(_) => StatusCode::BAD_GATEWAY,
            Self::Failed { .. } | Self::NotHere(..) | Self::AppUnreached(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Late | Self::Idle(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The limit of the destination's policy that it is over.
    pub fn limit(&self) -> Option<Bounded> {
        match self {
            Self::Full(full) => Some(full.what),
            _ => None,
        }
    }

    /// Whether another endpoint may be tried whatever the method.
    fn unsent(&self) -> bool {
        matches!(self, Self::NotHere(..) | Self::AppUnreached(_))
    }

    /// What the caller is told. Which rule refuses it is for the log only: it would tell a stranger how to get in.
    pub fn told(&self) -> String {
        match self {
            Self::Denied { id, .. } => format!("{FORBIDDEN} (refusal {id})"),
            Self::NotBound { id, .. } => format!("{NOT_BOUND} (refusal {id})"),
            refused => refused.to_string(),
        }
    }

    /// The answer to a local application.
    pub fn answer(&self) -> Response<Answer> {
        let (kind, text) = match self {
            Self::Denied { id, .. } => (problem::MEDIA_TYPE, forbidden(FORBIDDEN, id)),
            Self::NotBound { id, .. } => (problem::MEDIA_TYPE, forbidden(NOT_BOUND, id)),
            refused => ("text/plain; charset=utf-8", format!("mesh: {refused}\n")),
        };
        let mut response = Response::new(Answer::text(text));
        *response.status_mut() = self.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self.say_when(response.headers_mut());
        response
    }

    /// The answer to a local application that speaks gRPC: a status without a message, in one head ("Trailers-Only" in gRPC
    /// over HTTP2). An HTTP status would be read as `UNAVAILABLE` where the call's own deadline has passed.
    pub fn answer_in_grpc(&self) -> Response<Answer> {
        let mut response = Response::new(Answer::text(""));
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(heads::GRPC_STATUS, HeaderValue::from(grpc_status(self.status())));
        let message = HeaderValue::try_from(grpc_message(&self.told()));
        fields.insert(heads::GRPC_MESSAGE, message.expect("printable ASCII"));
        self.say_when(fields);
        response
    }

    /// When to come again, for whom that is said.
    fn say_when(&self, fields: &mut HeaderMap) {
        if let Self::TooOften(TooOften { told, retry_secs, .. }) = self {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(*retry_secs));
            heads::tell_rate(fields, told);
        }
    }

    /// The answer to another proxy. A rate limit is told as the caller speaks: of HTTP's statuses gRPC would read that nobody
    /// is there.
    pub fn answer_to_peer(&self, spoken: Spoken) -> Response<Answer> {
        let mut response = match (self, spoken) {
            (Self::TooOften(_), Spoken::Grpc) => self.answer_in_grpc(),
            _ => self.answer(),
        };
        if self.unsent() {
            heads::mark_unsent(response.headers_mut(), &self.to_string());
        }
        response
    }
}

/// What a caller is told who sends something that is no request; nothing if it is gone.
pub fn malformed(broke: &Broke) -> Option<StatusCode> {
    match broke {
        Broke::Io(_) | Broke::OtherLength | Broke::Malformed(Malformed::CutOff) => None,
        Broke::TooLarge | Broke::Malformed(Malformed::Fields(_)) => {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        Broke::Malformed(Malformed::Expectation) => Some(StatusCode::EXPECTATION_FAILED),
        Broke::Malformed(_) => Some(StatusCode::BAD_REQUEST),
    }
}

/// What gRPC calls a status of HTTP ("HTTP to gRPC Status Code Mapping"); but a time that is over is gRPC's own.
fn grpc_status(status: StatusCode) -> u16 {
    match status {
        StatusCode::GATEWAY_TIMEOUT => 4,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::BAD_REQUEST => 13,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
        _ => 2,
    }
}

/// A text as `grpc-message` has it: what is not printable ASCII, and the percent sign, as percent and two digits.
fn grpc_message(text: &str) -> String {
    let mut message = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            _ => message += &format!("%{byte:02X}"),
        }
    }
    message
}

/// RFC 9457, with the refusal's id.
fn forbidden(detail: &str, id: &str) -> String {
    let problem = Problem::new(StatusCode::FORBIDDEN.as_u16(), "Forbidden", detail);
    let mut problem = serde_json::to_value(problem).expect("texts and a number");
    problem["id"] = id.into();
    format!("{problem}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_grpc_is_refused_in_grpc() {
        let check = |refused: Refused, status: &str, message: &str| {
            let answer = refused.answer_in_grpc();
            assert_eq!(answer.status(), StatusCode::OK, "{message}");
            assert_eq!(answer.headers()[heads::GRPC_STATUS], status, "{message}");
            assert_eq!(answer.headers()[heads::GRPC_MESSAGE], message);
        };
        check(Refused::Late, "4", "no answer in time");
        check(Refused::NoEndpoint("default/ledger".to_owned()), "14", "default/ledger has no endpoint");
        let odd = "'50% für' is no service of the mesh: hosts look like orders.default.mesh";
        let odd = odd.replace('%', "%25").replace('ü', "%C3%BC");
        check(Refused::NoService("50% für".to_owned()), "12", &odd);
        let unroutable = Refused::Unroutable(Unroutable::NoRule);
        check(unroutable, "12", &Refused::Unroutable(Unroutable::NoRule).to_string());
    }
}
