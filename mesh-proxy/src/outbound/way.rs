//! Where a request goes: an answer of the route's own, or a plan for other proxies. What that is, is decided in
//! `traffic`; here the request's head is written for it.

use std::time::Duration;

use http::{Response, request};
use model::name::{Name, ServiceName};
use traffic::{
    deadline::{self, GRPC_TIMEOUT},
    path::{self, Strictness},
    request::RequestHead,
    route::{FieldsMut, Reply, Routed, Timeouts},
    snapshot::Port,
};

use super::{Outbound, mirror::Copies, tries::Plan};
use crate::{
    body::{Answer, Incoming, Kept},
    call::Call,
    clock,
    heads::{self, Changed, Seen, ToPeer},
    refused::Refused,
    shared::Config,
    telemetry::Spoken,
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
        (config, port): (&Config, &'a Port),
        head: &request::Parts,
        body: Incoming,
    ) -> Result<Way<'a>, Refused> {
        let path = path::normalize(heads::target(head), Strictness::Plain)?;
        let fields = Seen(&head.headers);
        let (method, authority) = (head.method.as_str(), heads::authority(head));
        let seen = RequestHead { method, path: &path, authority, fields: &fields };
        let (routed, fault) = self.experience.dice(|dice| {
            let routed = port.route(&seen, config.snapshot.caller(&source), dice);
            (routed, routed.filters.fault(&seen, clock::wall(), dice))
        });
        call.outcome.route = routed.rule.clone();
        if let Some(reply) = fault.abort.or_else(|| routed.filters.reply(&seen)) {
            return Ok(Way::Own(own(&reply), fault.delay));
        }
        let node = config.snapshot.place.as_ref().map(|place| &place.node);
        let plan = plan(call, (source, node), head, &seen, &routed, body)?;
        let copies = self.copies(&routed, &plan);
        Ok(Way::On(plan, copies, fault.delay))
    }

    /// Who gets copies of a request.
    fn copies(&self, routed: &Routed<'_>, plan: &Plan<'_>) -> Copies {
        if routed.mirrors.is_empty() {
            return Copies::none();
        }
        let drawn = self
            .experience
            .dice(|dice| routed.mirrors.iter().filter_map(|mirror| mirror.draw(dice).cloned()).collect());
        Copies::new(drawn, plan)
    }
}

/// The request as it goes on.
fn plan<'a>(
    call: &mut Call,
    (source, node): (ServiceName, Option<&Name>),
    head: &request::Parts,
    seen: &RequestHead<'_>,
    routed: &Routed<'a>,
    body: Incoming,
) -> Result<Plan<'a>, Refused> {
    let (filters, backend) = (routed.filters, routed.backend.map_err(Clone::clone)?);
    call.outcome.destination = Some(backend.name.service.clone());
    call.outcome.mtls = !backend.plain;
    call.idle = backend.conduct.idle;
    let to = ToPeer {
        path: &filters.path(seen.path),
        host: filters.host(),
        hostname: &backend.hostname,
        port: backend.name.port,
        edits: filters.on_request(),
    };
    let mut next = heads::to_peer(head, &to)?;
    let grpc = call.outcome.spoken == Spoken::Grpc;
    let timeouts = Timeouts { call: deadline::said(seen).filter(|_| grpc), ..routed.timeouts };
    if let Some(span) = deadline::forwarded(&timeouts).filter(|_| grpc) {
        Changed(&mut next.headers).set(GRPC_TIMEOUT, &deadline::value(span));
    }
    let upload = (!http_body::Body::is_end_stream(&body)).then(|| Kept::new(body));
    call.upload = upload.clone();
    Ok(Plan {
        ask: backend.conduct.balancer.ask(seen, &source, node),
        grpc,
        source,
        backend,
        began: call.began(),
        retry: routed.retry,
        timeouts,
        head: next,
        upgrade: heads::is_upgrade(head),
        upload,
        on_answer: filters.on_answer(seen),
    })
}

fn own(reply: &Reply) -> Response<Answer> {
    let body = reply.body.as_bytes().to_vec();
    Response::from_parts(heads::own_answer(reply), Answer::text(body))
}
