//! Who calls, and whether they may. A bearer token is looked up in the state, a client certificate was verified by the
//! listener; every path but the open ones (see `openapi::OPERATIONS`) needs one of both.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header, request::Parts};
use model::{identity::Identity, kind::Kind, name::Name, resource::Verb, token::AccessToken};

use super::{
    Api,
    error::ApiError,
    openapi,
    tokens::{self, Bearer, TokenFault},
};
use crate::{
    clock,
    rights::{Missing, Place, Rights, place},
};

/// What a connection's handshake proved. The listener puts it into each request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Where it comes from.
    pub remote: std::net::SocketAddr,
    /// Who the client's certificate says it is.
    pub peer: Option<Arc<svid::Peer>>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Caller {
    /// The bearer of an access token.
    Token {
        /// The AccessToken's name.
        name: Name,
        /// The public half of its secret.
        id: String,
        /// What it may do.
        rights: Rights,
    },
    /// A host's proxy, by its certificate.
    Node(Name),
    /// A member of the control plane, by its certificate.
    Member(u64),
    /// Nobody that we know; only on open paths.
    Anonymous,
}

impl Caller {
    /// Who it is, for the audit.
    pub fn actor(&self) -> String {
        match self {
            Self::Token { name, .. } => format!("token/{name}"),
            Self::Node(node) => format!("node/{node}"),
            Self::Member(id) => format!("meshd/{id}"),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }

    /// Whether it may do this to objects of `kind` in `namespace` (`None`: in all, or a kind that has none).
    ///
    /// # Errors
    /// 403 naming the permission that is missing, 401 for nobody.
    pub fn require(&self, verb: Verb, kind: Kind, namespace: Option<&Name>) -> Result<(), ApiError> {
        self.check(|rights| rights.check(verb, kind, place(kind, namespace)))
    }

    /// As [`Self::require`], in a place of any form.
    ///
    /// # Errors
    /// As there.
    pub fn require_at(&self, verb: Verb, kind: Kind, place: Place<'_>) -> Result<(), ApiError> {
        self.check(|rights| rights.check(verb, kind, place))
    }

    /// Whether it may steer the cluster and its certificate authority.
    ///
    /// # Errors
    /// 403 naming the permission that is missing, 401 for nobody.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        self.check(Rights::check_admin)
    }

    /// The host whose proxy this is.
    ///
    /// # Errors
    /// It is no host's proxy.
    pub fn require_node(&self) -> Result<Name, ApiError> {
        match self {
            Self::Node(node) => Ok(node.clone()),
            Self::Anonymous => Err(nobody("a node's client certificate")),
            _ => Err(ApiError::Forbidden("needs a node's client certificate".to_owned())),
        }
    }

    /// The member of the control plane that this is.
    ///
    /// # Errors
    /// It is none.
    pub fn require_member(&self) -> Result<u64, ApiError> {
        match self {
            Self::Member(id) => Ok(*id),
            Self::Anonymous => Err(nobody("a member's client certificate")),
            _ => Err(ApiError::Forbidden(
                "needs the client certificate of a member of the control plane".to_owned(),
            )),
        }
    }

    /// What it may do: what a token's roles say; a certificate gives none of these rights.
    pub fn rights(&self) -> Rights {
        match self {
            Self::Token { rights, .. } => rights.clone(),
            _ => Rights::none(),
        }
    }

    fn check(&self, check: impl FnOnce(&Rights) -> Result<(), Missing>) -> Result<(), ApiError> {
        match self {
            Self::Token { name, rights, .. } => check(rights)
                .map_err(|missing| ApiError::Forbidden(format!("{missing}; token {name} does not have it"))),
            Self::Node(node) => Err(ApiError::Forbidden(format!(
                "{}; node {node} has no rights here, only a token has",
                check(&Rights::none()).err().map_or_else(String::new, |missing| missing.to_string()),
            ))),
            Self::Member(id) => {
                Err(ApiError::Forbidden(format!("meshd {id} has no rights here, only a token has")))
            }
            Self::Anonymous => Err(nobody("a bearer token")),
        }
    }
}

fn nobody(needs: &str) -> ApiError {
    ApiError::Unauthenticated(format!(
        "needs {needs} (Authorization: Bearer mesha1.…, or a client certificate)"
    ))
}

/// Finds out who calls, before any handler runs. Whoever is nobody gets no further than the open paths; and so does
/// everybody at a member that was let in and has not been told the history yet: it knows of nothing, and must not say that
/// there is nothing.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let open = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|path| openapi::is_open(request.method(), path.as_str()));
    if !open && api.registry.applied().epoch().is_none() {
        let detail = "this server has not been told the cluster's history yet; ask another one".to_owned();
        return ApiError::Unavailable(detail).into_response();
    }
    let caller = match identify(&api, request.headers(), request.extensions().get()).await {
        Ok(Caller::Anonymous) if !open => return nobody("a bearer token").into_response(),
        Ok(caller) => caller,
        Err(_) if open => Caller::Anonymous,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// A token speaks for its bearer, whatever certificate there is beside it.
async fn identify(
    api: &Api,
    headers: &HeaderMap,
    connection: Option<&Connection>,
) -> Result<Caller, ApiError> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let text = authorization.to_str().unwrap_or_default();
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(ApiError::Unauthenticated("Authorization must be 'Bearer <token>'".to_owned()));
        };
        return Ok(bearer(api, token).await?.into());
    }
    let peer = connection.and_then(|connection| connection.peer.as_deref());
    Ok(match peer.map(|peer| peer.id.identity()) {
        Some(Identity::Node(node)) => Caller::Node(node.clone()),
        Some(Identity::Meshd(id)) => Caller::Member(*id),
        _ => Caller::Anonymous,
    })
}

/// A token that this member has not heard of may have been made a moment ago at another one.
async fn bearer(api: &Api, token: &str) -> Result<Bearer, ApiError> {
    let now = clock::wall();
    let state = api.registry.applied();
    let known = |token: &AccessToken| state.credential(&token.id).is_some();
    match tokens::bearer(&state, token, now) {
        Err(TokenFault::Unknown) if !token.parse().is_ok_and(|token| known(&token)) => {}
        other => return Ok(other?),
    }
    // Strangers must not make this member ask the leader without end.
    let Ok(_permit) = api.lookups.try_acquire() else { return Err(TokenFault::Unknown.into()) };
    Ok(tokens::bearer(&*api.registry.read().await?, token, now)?)
}

/// Whether a caller is still who it was: what a stream asks from time to time.
pub(super) fn again(api: &Api, caller: &Caller) -> Result<Caller, TokenFault> {
    match caller {
        Caller::Token { id, .. } => {
            tokens::current(&api.registry.applied(), id, clock::wall()).map(Caller::from)
        }
        // A connection ends with its certificate, and its streams with it.
        other => Ok(other.clone()),
    }
}

impl From<Bearer> for Caller {
    fn from(Bearer { name, id, rights }: Bearer) -> Self {
        Self::Token { name, id, rights }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, ApiError>> + Send {
        let caller = parts.extensions.get::<Self>().cloned();
        // Without the middleware nobody is anybody.
        std::future::ready(Ok(caller.unwrap_or(Self::Anonymous)))
    }
}
