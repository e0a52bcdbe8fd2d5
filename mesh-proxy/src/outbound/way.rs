//! Where a request goes: an answer of the route's own, or a plan for other proxies. What that is, is decided in
//! `traffic`; here the request's head is written for it.

use std::time::Duration;

use http::{Response, request};
use hyper::body::Incoming;
use model::name::ServiceName;
use traffic::{
    path::{self, Strictness},
    request::RequestHead,
    route::{Reply, Routed},
    snapshot::Port,
};

use super::{Outbound, mirror::Copies, tries::Plan};
use crate::{
    body::{Answer, Kept},
    call::Call,
    clock,
    heads::{self, Seen, ToPeer},
    refused::Refused,
};

/// Where a request goes.
#[expect(
    clippy::large_enum_variant,
    reason = "each is taken apart at once; a box would be one for each request"
)]
pub(super) enum Way<'a> {
    /// Nowhere: its rule has the answer; held up for so long, if at all.
    Own(Response<Answer>, Option<Duration>),
    /// To another proxy, and copies of it to further ones; held up for so long, if at all.
    On(Plan<'a>, Copies, Option<Duration>),
}

impl Outbound {
    /// Decides where a request goes, and writes its head for there.
    pub(super) fn way<'a>(
        &self,
        call: &mut Call,
        source: ServiceName,
        port: &'a Port,
        head: &request::Parts,
        body: Incoming,
    ) -> Result<Way<'a>, Refused> {
        let path = path::normalize(heads::target(head), Strictness::Plain)?;
        let fields = Seen(&head.headers);
        let (method, authority) = (head.method.as_str(), heads::authority(head));
        let seen = RequestHead { method, path: &path, authority, fields: &fields };
        let routed = self.experience.dice(|dice| port.route(&seen, &source, dice));
        call.outcome.route = routed.rule.clone();
        let fault = self.experience.dice(|dice| routed.filters.fault(&seen, clock::wall(), dice));
        if let Some(reply) = fault.abort.or_else(|| routed.filters.reply(&seen)) {
            return Ok(Way::Own(own(&reply), fault.delay));
        }
        let backend = routed.backend.map_err(Clone::clone)?;
        call.outcome.destination = Some(backend.name.service.clone());
        let to = ToPeer {
            path: &routed.filters.path(&path),
            host: routed.filters.host(),
            hostname: &backend.hostname,
            port: backend.name.port,
            edits: routed.filters.on_request(),
        };
        let upload = (!hyper::body::Body::is_end_stream(&body)).then(|| Kept::new(body));
        call.upload = upload.clone();
        let plan = Plan {
            source,
            backend,
            retry: routed.retry,
            timeouts: routed.timeouts,
            head: heads::to_peer(head, &to)?,
            upgrade: heads::is_upgrade(head),
            upload,
            on_answer: routed.filters.on_answer(&seen),
        };
        let copies = self.copies(&routed, &plan);
        Ok(Way::On(plan, copies, fault.delay))
    }

    /// Who gets copies of a request.
    fn copies(&self, routed: &Routed<'_>, plan: &Plan<'_>) -> Copies {
        let drawn = self
            .experience
            .dice(|dice| routed.mirrors.iter().filter_map(|mirror| mirror.draw(dice).cloned()).collect());
        Copies::new(drawn, plan)
    }
}

fn own(reply: &Reply) -> Response<Answer> {
    let body = reply.body.as_bytes().to_vec();
    Response::from_parts(heads::own_answer(reply), Answer::text(body))
}
