//! Whether a caller is still let in: policy is asked when a call begins, and again when it changes for as long as a
//! connection or stream lasts. What is over in a moment is not asked about twice.

use std::sync::Arc;

use http::{HeaderMap, Method, request};
use model::identity::SpiffeId;
use tokio::sync::watch;
use traffic::{
    path,
    policy::{self, Denied, Peer, admits_any, authorize},
    request::RequestHead,
    snapshot::OwnService,
};

use crate::{
    heads::{self, Seen},
    shared::Shared,
};

/// What a caller was let in for.
#[derive(Clone)]
pub struct Standing {
    caller: Arc<Caller>,
    changes: watch::Receiver<u64>,
    for_what: What,
}

/// Who calls whom: the same for all that is asked for on a connection.
struct Caller {
    shared: Arc<Shared>,
    /// The service that it called, by its host name.
    server_name: String,
    /// `None` came without an identity.
    id: Option<SpiffeId>,
}

#[derive(Clone)]
enum What {
    /// To ask for things on a connection.
    Anything,
    /// A stream to a port.
    Stream(u16),
    /// A request that became a stream.
    Request(u16, Arc<Asked>),
}

struct Asked {
    method: Method,
    /// In its normal form.
    path: String,
    authority: String,
    headers: HeaderMap,
}

impl Standing {
    /// Of a connection.
    pub fn new(shared: &Arc<Shared>, server_name: &str, id: Option<&SpiffeId>) -> Self {
        let (server_name, id) = (server_name.to_owned(), id.cloned());
        let caller = Arc::new(Caller { shared: shared.clone(), server_name, id });
        Self { caller, changes: shared.guard_changes(), for_what: What::Anything }
    }

    /// Of a stream on the connection.
    #[must_use]
    pub fn for_stream(&self, port: u16) -> Self {
        Self { for_what: What::Stream(port), ..self.clone() }
    }

    /// Of a request on the connection, as it was judged.
    #[must_use]
    pub fn for_request(&self, port: u16, head: &request::Parts, path: &str) -> Self {
        let asked = Asked {
            method: head.method.clone(),
            path: path.to_owned(),
            authority: heads::authority(head).to_owned(),
            headers: head.headers.clone(),
        };
        Self { for_what: What::Request(port, Arc::new(asked)), ..self.clone() }
    }

    /// Waits until it is not let in any more.
    pub async fn revoked(&mut self) -> Denied {
        loop {
            // Nobody is left who could change anything.
            if self.changes.changed().await.is_err() {
                std::future::pending().await
            }
            if let Err(denied) = self.judge() {
                return denied;
            }
        }
    }

    fn judge(&self) -> Result<(), Denied> {
        let config = self.caller.shared.config();
        // What does not run here any more ends by itself.
        let called = config.snapshot.inbound().by_server_name(&self.caller.server_name);
        let Some(own) = called else { return Ok(()) };
        match &self.for_what {
            What::Anything => admits_any(&own.policies, self.peer()),
            What::Stream(port) => self.ask(own, policy::Call { port: *port, request: None }),
            What::Request(port, asked) => {
                // By now a policy may decide by path, to which this one says more than one thing.
                let path = path::normalize(&asked.path, own.policies.strictness());
                let path = path.map_err(|_| Denied::NotAllowed)?;
                let (method, authority) = (asked.method.as_str(), asked.authority.as_str());
                let fields = Seen(&asked.headers);
                let head = RequestHead { method, path: &path, authority, fields: &fields };
                self.ask(own, policy::Call { port: *port, request: Some(&head) })
            }
        }
    }

    fn peer(&self) -> Peer<'_> {
        self.caller.id.as_ref().map_or(Peer::Unknown, Peer::Verified)
    }

    fn ask(&self, own: &OwnService, call: policy::Call<'_>) -> Result<(), Denied> {
        authorize(&own.policies, self.peer(), call, &mut Vec::new()).map(drop)
    }
}
