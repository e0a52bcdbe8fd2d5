//! The typed client of the REST API, for `meshctl` and for programs. It asks and decodes; it retries nothing and keeps
//! nothing, so that a caller always knows what was sent.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    kind::Kind,
    name::Name,
    object::{Key, Object},
    problem::Problem,
    read::Freshness,
    rollout::{Rollout, Waiting},
};

mod conditional;
mod lines;

pub use conditional::Expected;
pub use lines::{Events, Lines};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; watches have no such limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a large body and its answer may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(900);
/// As many objects as one page of a list brings.
const PAGE_OBJECTS: usize = 500;

/// Where the API is, and who asks.
#[derive(Clone, Default)]
pub struct Settings {
    /// `https://meshd:8443` (`MESH_ADDR`).
    pub address: String,
    /// The bearer token (`MESH_TOKEN`).
    pub token: Option<String>,
    /// The root certificates to trust, as PEM (the text of the file that `MESH_CACERT` names).
    pub roots: Option<String>,
}

/// A client of one control plane. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: String,
    token: Option<String>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The settings make no client.
    #[error("{0}")]
    Settings(String),
    /// The API could not be reached, or its answer broke off.
    #[error("{address}: {cause}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// Why it failed.
        cause: String,
    },
    /// The API refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The answer is not what the API promises.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

/// A list, whole: every page of it at one revision.
#[derive(Debug, Clone)]
pub struct List {
    /// The objects.
    pub items: Vec<Object>,
    /// The revision at which they were listed.
    pub revision: u64,
}

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only of this namespace.
    pub namespace: Option<Name>,
    /// Only with these labels (`app=web,tier!=db`).
    pub labels: Option<String>,
}

/// What `POST /v1/apply` did.
#[derive(Debug, Clone, Deserialize)]
pub struct Applied {
    /// The objects as they stand now.
    pub items: Vec<Object>,
    /// What happened to each, in the order of the manifest.
    pub results: Vec<ApplyResult>,
    /// How far it has come, where that was waited for.
    #[serde(default)]
    status: Option<AppliedStatus>,
}

#[derive(Debug, Clone, Deserialize)]
struct AppliedStatus {
    rollout: Rollout,
}

impl Applied {
    /// How far it has come among the proxies; `None` where that was not waited for.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.status.as_ref().map(|status| &status.rollout)
    }
}

/// What happened to one object of a manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct ApplyResult {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// `created`, `configured` or `unchanged`.
    pub outcome: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Object>,
    metadata: PageMetadata,
}

#[derive(Deserialize)]
struct PageMetadata {
    revision: u64,
    #[serde(default, rename = "continue")]
    next: String,
}

impl Client {
    /// A client by these settings. Nothing is dialled yet.
    ///
    /// # Errors
    /// If the address is not https, or the roots are no PEM.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let address = settings.address.trim_end_matches('/').to_owned();
        if !address.starts_with("https://") {
            let message =
                format!("the address must be https://HOST:PORT, is {address:?}; set MESH_ADDR or --addr");
            return Err(ClientError::Settings(message));
        }
        let mut builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).user_agent("mesh-client");
        if let Some(roots) = &settings.roots {
            let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes()).unwrap_or_default();
            if roots.is_empty() {
                return Err(ClientError::Settings(
                    "the file of root certificates (MESH_CACERT) holds none".to_owned(),
                ));
            }
            builder = builder.tls_certs_only(roots);
        }
        let http = builder.build().map_err(|error| ClientError::Settings(cause(&error)))?;
        Ok(Self { http, address, token: settings.token })
    }

    /// One object.
    ///
    /// # Errors
    /// [`ClientError`]; 404 where there is none.
    pub async fn get(&self, key: &Key) -> Result<Object, ClientError> {
        self.read(key, Freshness::default()).await
    }

    /// One object, as fresh as is asked for.
    ///
    /// # Errors
    /// [`ClientError`]; 404 where there is none, 503 where no server can promise it now.
    pub async fn read(&self, key: &Key, freshness: Freshness) -> Result<Object, ClientError> {
        let query: Vec<_> = freshness.query().collect();
        let request = self.request(Method::GET, &key.path()).query(&query).timeout(ANSWER_TIMEOUT);
        decode(self.send(request).await?).await
    }

    /// All objects of a kind that the selection takes, page by page at one revision.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self, kind: Kind, selection: &Selection) -> Result<List, ClientError> {
        self.read_list(kind, selection, Freshness::default()).await
    }

    /// The same, as fresh as is asked for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read_list(
        &self,
        kind: Kind,
        selection: &Selection,
        freshness: Freshness,
    ) -> Result<List, ClientError> {
        let freshness: Vec<_> = freshness.query().collect();
        let mut list = List { items: Vec::new(), revision: 0 };
        let mut next = String::new();
        loop {
            let limit = PAGE_OBJECTS.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(selection.query());
            query.extend(freshness.iter().map(|(name, value)| (*name, value.as_str())));
            if !next.is_empty() {
                query.push(("continue", &next));
            }
            let request = self.request(Method::GET, &format!("/v1/{}", kind.plural())).query(&query);
            let page: Page = decode(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await?;
            list.items.extend(page.items);
            list.revision = page.metadata.revision;
            if page.metadata.next.is_empty() {
                return Ok(list);
            }
            next = page.metadata.next;
        }
    }

    /// Creates or replaces one object; whether it was created.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&self, object: &Object) -> Result<(Object, bool), ClientError> {
        let request = self.request(Method::PUT, &object.key().path()).json(object).timeout(ANSWER_TIMEOUT);
        let response = self.send(request).await?;
        let created = response.status() == StatusCode::CREATED;
        Ok((decode(response).await?, created))
    }

    /// Removes one object and returns it as it was.
    ///
    /// # Errors
    /// [`ClientError`]; 404 where there is none.
    pub async fn delete(&self, key: &Key) -> Result<Object, ClientError> {
        self.json(Method::DELETE, &key.path(), None).await
    }

    /// Applies a manifest (JSON or YAML), all or nothing.
    ///
    /// # Errors
    /// [`ClientError`]; the paths of its field errors start with `items[N]`.
    pub async fn apply(&self, manifest: String, dry_run: bool) -> Result<Applied, ClientError> {
        let request = self.request(Method::POST, "/v1/apply").query(&[("dryRun", dry_run)]);
        let request = request.header(header::CONTENT_TYPE, "application/yaml").body(manifest);
        decode(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    /// Applies a manifest and waits until the proxies that it concerns run it; [`Applied::rollout`] says how far they are.
    ///
    /// # Errors
    /// As [`Self::apply`]. That not enough of the proxies run it in time is none: the write stands.
    pub async fn apply_and_wait(&self, manifest: String, waiting: &Waiting) -> Result<Applied, ClientError> {
        let request = self.request(Method::POST, "/v1/apply").query(&waiting.query());
        let request = request.header(header::CONTENT_TYPE, "application/yaml").body(manifest);
        let patience = ANSWER_TIMEOUT + waiting.timeout.duration();
        decode(self.send(request.timeout(patience)).await?).await
    }

    /// Follows the changes of some kinds: after revision `from`, or current state first.
    ///
    /// # Errors
    /// [`ClientError`]; 410 where `from` is compacted.
    pub async fn watch(
        &self,
        kinds: &[Kind],
        selection: &Selection,
        from: Option<u64>,
    ) -> Result<Events, ClientError> {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        let (kinds, from) = (kinds.join(","), from.map(|from| from.to_string()));
        let mut query = vec![("kinds", kinds.as_str())];
        query.extend(selection.query());
        query.extend(from.iter().map(|from| ("from", from.as_str())));
        let response = self.send(self.request(Method::GET, "/v1/watch").query(&query)).await?;
        Ok(Events::new(Lines::new(response, &self.address)))
    }

    /// Any other call that answers JSON: `/v1/cluster`, `/v1/ca`, `/v1/proxies`…
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(method, path).timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        decode(self.send(request).await?).await
    }

    /// A call whose answer is bytes, piece by piece: `/v1/snapshot`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn download(&self, path: &str) -> Result<Response, ClientError> {
        self.send(self.request(Method::GET, path)).await
    }

    /// A call whose body is bytes, however many: `POST /v1/snapshot`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload<T: DeserializeOwned>(&self, path: &str, bytes: Vec<u8>) -> Result<T, ClientError> {
        let request = self.request(Method::POST, path).timeout(UPLOAD_TIMEOUT);
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream").body(bytes);
        decode(self.send(request).await?).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable = |error: reqwest::Error| ClientError::Unreachable {
            address: self.address.clone(),
            cause: cause(&error),
        };
        let response = request.send().await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        let title = status.canonical_reason().unwrap_or("error");
        let unread = || {
            Problem::new(
                status.as_u16(),
                title,
                String::from_utf8_lossy(&body).chars().take(200).collect::<String>(),
            )
        };
        Err(ClientError::Refused(Box::new(serde_json::from_slice(&body).unwrap_or_else(|_| unread()))))
    }
}

impl Selection {
    fn query(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let namespace = self.namespace.as_ref().map(|namespace| ("namespace", namespace.as_str()));
        namespace.into_iter().chain(self.labels.as_deref().map(|labels| ("labelSelector", labels)))
    }
}

impl ClientError {
    /// The HTTP status, where the API refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            _ => None,
        }
    }
}

async fn decode<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let body = response.bytes().await.map_err(|error| ClientError::Answer(cause(&error)))?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))
}

/// The innermost cause: «connection refused» rather than «error sending request».
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Without the token.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}
