//! Who calls on a connection, what it may ask for, and what it says of itself.

use std::net::SocketAddr;

use http::request;
use model::{identity::SpiffeId, name::ServiceName};
use traffic::{
    path,
    policy::{self, Peer, Permit, authorize},
    request::RequestHead,
    snapshot::{App, OwnService},
};

use super::plain::Plain;
use crate::{
    call::Call,
    clock,
    heads::{self, Labels, Seen},
    refused::Refused,
    shared::Config,
    standing::Standing,
    telemetry::trace,
    transport::life::Life,
};

/// A connection of a caller.
pub(super) struct Connection {
    /// The service that it is for: by its SNI, or by where it was on its way to.
    pub(super) server_name: String,
    /// Who calls, by its certificate.
    pub(super) id: Option<SpiffeId>,
    /// The service that calls.
    pub(super) caller: Option<ServiceName>,
    pub(super) address: SocketAddr,
    /// That of its certificate.
    pub(super) life: Option<Life>,
    pub(super) standing: Standing,
    /// Where it was on its way to, if not to this proxy.
    pub(super) plain: Option<Plain>,
}

impl Connection {
    /// What the request says of itself; of a caller that is no proxy nothing is taken.
    pub(super) fn labels(&self, head: &request::Parts) -> Labels {
        match &self.plain {
            None => heads::labels(&head.headers),
            Some(plain) => Labels {
                port: Some(plain.port),
                spoke_http2: head.version == http::Version::HTTP_2,
                ..Labels::default()
            },
        }
    }

    fn peer(&self) -> Peer<'_> {
        self.id.as_ref().map_or(Peer::Unknown, Peer::Verified)
    }

    /// The own service that was called, and its application at that port.
    pub(super) fn called<'a>(
        &self,
        config: &'a Config,
        port: u16,
    ) -> Result<(&'a OwnService, &'a App), Refused> {
        let own = config.snapshot.inbound().by_server_name(&self.server_name);
        let app = own.and_then(|own| Some((own, own.app(port)?)));
        app.ok_or_else(|| Refused::NotHere(self.server_name.clone(), port))
    }

    pub(super) fn authorize(
        &self,
        call: &mut Call,
        own: &OwnService,
        port: u16,
        request: Option<(&request::Parts, &path::NormalPath<'_>)>,
    ) -> Result<Permit, Refused> {
        let fields = request.map(|(head, _)| Seen(&head.headers));
        let head = request.zip(fields.as_ref()).map(|((head, path), fields)| RequestHead {
            method: head.method.as_str(),
            path,
            authority: heads::authority(head),
            fields,
        });
        let asked = policy::Call { port, request: head.as_ref() };
        let (peer, remarks) = (self.peer(), &mut call.outcome.judged.remarks);
        authorize(&own.policies, peer, asked, remarks).map_err(|denied| {
            let id = trace::id(clock::dice);
            call.denied(&denied, id.clone());
            Refused::Denied { denied, id }
        })
    }
}
