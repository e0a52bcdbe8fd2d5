//! Where a request goes: an answer of the route's own, or a plan for other proxies. What that is, is decided in
//! `traffic`; here the request's head is written for it.

use std::{ptr, time::Duration};

use http::{Response, request};
use model::name::{Name, ServiceName};
use traffic::{
    deadline::{self, GRPC_TIMEOUT},
    path::{self, NormalPath, Strictness},
    request::RequestHead,
    route::{Copied, FieldsMut, Filters, Reply, Routed, Timeouts},
    snapshot::{Backend, Port},
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
pub(super) enum Way<'a> {
    /// Nowhere: its rule has the answer; held up for so long, if at all.
    Own(Response<Answer>, Option<Duration>),
    /// To another proxy, and copies of it to further ones; held up for so long, if at all.
    On(Box<Plan<'a>>, Copies, Option<Duration>),
}

impl Outbound {
    /// Decides where a request goes, and writes its head for there.
    pub(super) fn way<'a>(
        &self,
        call: &mut Call,
        source: ServiceName,
        (config, port): (&Config, &'a Port),
        head: request::Parts,
        body: Incoming,
    ) -> Result<Way<'a>, Refused> {
        // What the path is read from stays here when the head goes on.
        let target = head.uri.clone();
        let path = path::normalize(heads::path_of(&target), Strictness::Plain)?;
        let fields = Seen(&head.headers);
        let seen = seen(&head, &path, &fields);
        let (routed, fault) = self.experience.dice(|dice| {
            let routed = port.route(&seen, config.snapshot.caller(&source), dice);
            (routed, routed.filters.fault(&seen, clock::wall, dice))
        });
        call.outcome.route = routed.rule.clone();
        if let Some(reply) = fault.abort.or_else(|| routed.filters.reply(&seen)) {
            return Ok(Way::Own(own(&reply), fault.delay));
        }
        let node = config.snapshot.place.as_ref().map(|place| &place.node);
        let copied = routed.copied.iter().any(|copied| !copied.mirrors.is_empty()).then(|| head.clone());
        let plan = plan(call, (source, node), (head, &path), &routed, body)?;
        let copies = match copied {
            Some(head) => self.copies(&routed, &head, &path, &plan)?,
            None => Copies::none(),
        };
        Ok(Way::On(plan, copies, fault.delay))
    }

    /// Who gets copies of a request: the rule's as the rule's filters leave it, the back end's as it goes on.
    fn copies(
        &self,
        routed: &Routed<'_>,
        head: &request::Parts,
        path: &NormalPath<'_>,
        plan: &Plan<'_>,
    ) -> Result<Copies, Refused> {
        let mut copies = Copies::none();
        for Copied { mirrors, filters } in routed.copied.iter().filter(|copied| !copied.mirrors.is_empty()) {
            let drawn: Vec<_> = self
                .experience
                .dice(|dice| mirrors.iter().filter_map(|mirror| mirror.draw(dice).cloned()).collect());
            if drawn.is_empty() {
                continue;
            }
            if ptr::eq(*filters, routed.filters) {
                copies.add(drawn, &plan.head, plan);
            } else {
                copies.add(drawn, &next(head.clone(), path, filters, plan.backend, plan.grpc_timeout)?, plan);
            }
        }
        Ok(copies)
    }
}

/// The request as it goes on.
fn plan<'a>(
    call: &mut Call,
    (source, node): (ServiceName, Option<&Name>),
    (head, path): (request::Parts, &NormalPath<'_>),
    routed: &Routed<'a>,
    body: Incoming,
) -> Result<Box<Plan<'a>>, Refused> {
    let fields = Seen(&head.headers);
    let seen = &seen(&head, path, &fields);
    let (filters, backend) = (routed.filters, routed.backend.map_err(Clone::clone)?);
    call.outcome.destination = Some(backend.name.service.clone());
    call.outcome.mtls = !backend.plain;
    call.idle = backend.conduct.idle;
    let grpc = call.outcome.spoken == Spoken::Grpc;
    let timeouts = Timeouts { call: if grpc { deadline::said(seen) } else { None }, ..routed.timeouts };
    let grpc_timeout = deadline::forwarded(&timeouts).filter(|_| grpc);
    let upload = (!http_body::Body::is_end_stream(&body)).then(|| Kept::new(body));
    call.upload = upload.clone();
    let ask = backend.conduct.balancer.ask(seen, &source, node);
    let (on_answer, upgrade) = (filters.on_answer(seen), heads::is_upgrade(&head));
    Ok(Box::new(Plan {
        head: next(head, path, filters, backend, grpc_timeout)?,
        ask,
        grpc,
        grpc_timeout,
        source,
        backend,
        began: call.began(),
        retry: routed.retry,
        timeouts,
        upgrade,
        upload,
        on_answer,
    }))
}

/// A request's head, as the decisions look at it.
fn seen<'a>(head: &'a request::Parts, path: &'a NormalPath<'a>, fields: &'a Seen<'a>) -> RequestHead<'a> {
    RequestHead { method: head.method.as_str(), path, authority: heads::authority(head), fields }
}

/// A request's head for another proxy, as these filters leave it.
fn next(
    head: request::Parts,
    path: &NormalPath<'_>,
    filters: &Filters,
    backend: &Backend,
    grpc_timeout: Option<Duration>,
) -> Result<request::Parts, Refused> {
    let to = ToPeer {
        path: &filters.path(path),
        host: filters.host(),
        hostname: &backend.hostname,
        port: backend.name.port,
        edits: filters.on_request(),
    };
    let mut next = heads::to_peer(head, &to)?;
    if let Some(span) = grpc_timeout {
        Changed(&mut next.headers).set(GRPC_TIMEOUT, &deadline::value(span));
    }
    Ok(next)
}

fn own(reply: &Reply) -> Response<Answer> {
    let body = reply.body.as_bytes().to_vec();
    Response::from_parts(heads::own_answer(reply), Answer::text(body))
}
