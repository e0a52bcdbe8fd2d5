//! Copies of requests for services that only look on. Nothing waits for a copy and nobody hears what becomes of it: it
//! is sent once, its answer is thrown away, and it is counted.

use std::{sync::Arc, time::Duration};

use http::request;
use http_body_util::BodyExt;
use model::name::ServiceName;
use tokio::time::timeout;
use traffic::{admission::Bounded, balancer::Ask, snapshot::Backend};

use super::{Outbound, step::Step, tries::Plan};
use crate::{
    body::{self, Kept},
    heads,
    telemetry::Mirrored,
};

/// Copies that are under way on one runtime thread, each with a body of up to 64 KiB; what would be more is not sent.
pub const MIRRORS_MAX: usize = 256;
/// How long a copy may take, from the request's head to the end of its answer: a service that only looks on must not
/// hold what others need.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

/// The copies of one request.
pub(super) struct Copies(Vec<Copied>);

struct Copied {
    backend: Arc<Backend>,
    source: ServiceName,
    head: request::Parts,
    upload: Option<Kept>,
}

impl Copies {
    /// Of a request that nobody looks on at.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds copies for `backends` of what `plan` sends, under `head`. A request that leaves HTTP has none.
    pub(super) fn add(&mut self, backends: Vec<Arc<Backend>>, head: &request::Parts, plan: &Plan<'_>) {
        if plan.upgrade || backends.is_empty() {
            return;
        }
        if let Some(upload) = &plan.upload {
            upload.will_be_copied();
        }
        let copy = |backend: Arc<Backend>| {
            let mut head = head.clone();
            heads::set_port(&mut head, backend.name.port);
            Copied { backend, source: plan.source.clone(), head, upload: plan.upload.clone() }
        };
        self.0.extend(backends.into_iter().map(copy));
    }
}

impl Outbound {
    /// Sends copies on their way.
    pub(super) fn mirror(self: &Arc<Self>, copies: Copies) {
        for copy in copies.0 {
            let Ok(place) = self.mirrors.clone().try_acquire_owned() else {
                self.telemetry.mirrored(Mirrored::Full);
                continue;
            };
            let outbound = self.clone();
            tokio::spawn(async move {
                let end = timeout(MIRROR_TIMEOUT, outbound.copied(copy)).await;
                outbound.telemetry.mirrored(end.unwrap_or(Mirrored::Failed));
                drop(place);
            });
        }
    }

    async fn copied(&self, copy: Copied) -> Mirrored {
        let Copied { backend, source, head, upload } = copy;
        let body = match upload {
            None => body::Request::Empty,
            Some(upload) => match upload.copy().await {
                Some(copy) => body::Request::Copy(copy),
                None => return Mirrored::Large,
            },
        };
        let Ok(admitted) = self.experience.admit(&backend, &source, Bounded::Requests) else {
            return Mirrored::Full;
        };
        let Some((endpoint, on_its_way)) = self.experience.pick(&backend, &Ask::default(), &[]) else {
            return Mirrored::Failed;
        };
        let step = Step { source: &source, backend: &backend, endpoint: &endpoint };
        let sent = self.step(&admitted, &step, &head, body).await;
        let Ok(answer) = sent else {
            self.experience.missed(&on_its_way);
            return Mirrored::Failed;
        };
        let unsent = heads::unsent(answer.headers()).is_some();
        let mut body = answer.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        if unsent { Mirrored::Failed } else { Mirrored::Sent }
    }
}
