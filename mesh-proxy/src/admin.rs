//! The admin listener: health, metrics, and the configuration without secrets. It changes nothing.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::name::ServiceName;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use traffic::endpoint::EndpointKey;

use crate::{
    clock,
    config::watch::Ack,
    identity::Identity,
    listener,
    register::Standing,
    services::Services,
    settings::Binding,
    shared::Shared,
    telemetry::{Counts, Facts, Outlets},
};

/// How long the head of a request may take.
const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the admin listener shows.
pub struct Admin {
    /// Identities and trust.
    pub identity: Arc<Identity>,
    /// The configuration in force.
    pub shared: Arc<Shared>,
    /// What this host runs.
    pub services: watch::Receiver<Arc<Services>>,
    /// How registration stands.
    pub standing: watch::Receiver<Standing>,
    /// What is in force.
    pub acks: watch::Receiver<Ack>,
    /// What each runtime thread counted.
    pub counts: Vec<Arc<Counts>>,
    /// The log of calls, for what it lost.
    pub outlets: Outlets,
}

/// Serves a socket until `stop`.
///
/// # Errors
/// If the socket cannot be used.
pub async fn serve(
    admin: Arc<Admin>,
    socket: std::net::TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    listener::accept(listener, stop, move |stream, _| {
        let admin = admin.clone();
        let service = service_fn(move |request| {
            let answer = admin.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        async move {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "an admin connection ended");
            }
        }
    })
    .await;
    Ok(())
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "read-only\n".to_owned());
        }
        match request.uri().path() {
            "/healthz" => self.health(),
            "/metrics" => {
                let metrics = Counts::text(self.counts.iter(), &self.facts());
                text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics)
            }
            "/config" => text(StatusCode::OK, "application/json", format!("{:#}\n", self.config())),
            _ => text(StatusCode::NOT_FOUND, "text/plain", "/healthz, /metrics, /config\n".to_owned()),
        }
    }

    /// Ready: calls can be carried. A control plane that does not answer is no reason not to be, if the disk holds
    /// what is needed.
    fn health(&self) -> Response<Full<Bytes>> {
        let mut lacks = Vec::new();
        let nameless = |service: &&model::name::ServiceName| self.identity.services().slot(service).is_none();
        lacks.extend(
            self.services
                .borrow()
                .names()
                .iter()
                .filter(nameless)
                .map(|service| format!("no certificate for {service}")),
        );
        if self.acks.borrow().revision == 0 {
            lacks.push("no configuration yet".to_owned());
        }
        let standing = self.standing.borrow().clone();
        if !standing.registered && standing.tries == 0 {
            lacks.push("not registered yet".to_owned());
        }
        let status = if lacks.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = json!({
            "ready": lacks.is_empty(),
            "lacks": lacks,
            "registered": standing.registered,
            "draining": self.shared.draining.is_cancelled() || standing.draining,
            "problem": standing.problem,
            "shutOut": self.identity.shut_out().map(|reason| format!("{reason}: {}", reason.remedy())),
        });
        text(status, "application/json", format!("{body}\n"))
    }

    fn facts(&self) -> Facts {
        let (ack, now) = (self.acks.borrow().clone(), clock::unix().as_secs());
        let identities = self.identity.services();
        let left = |id: String, not_after: u64| {
            let left = not_after.saturating_sub(now);
            let help = "Seconds that a certificate has left.";
            ("mesh_certificate_seconds_left", help, format!("{{identity=\"{id}\"}}"), left as f64)
        };
        let span = |end: &str, count: &AtomicU64| {
            let help = "Spans, by what became of them.";
            ("mesh_spans_total", help, format!("{{end=\"{end}\"}}"), count.load(Ordering::Relaxed) as f64)
        };
        let node = self.identity.slot().load();
        let mut gauges = vec![
            ("mesh_config_revision", "The revision that is in force.", String::new(), ack.revision as f64),
            (
                "mesh_config_refused",
                "Whether the last revision could not be compiled.",
                String::new(),
                f64::from(u8::from(ack.nack.is_some())),
            ),
            (
                "mesh_registered",
                "Whether the registry knows what this host runs.",
                String::new(),
                f64::from(u8::from(self.standing.borrow().registered)),
            ),
            (
                "mesh_service_files_refused",
                "Files of services.d that cannot be used as they are.",
                String::new(),
                self.services.borrow().problems().len() as f64,
            ),
            ("mesh_in_flight", "Calls that are under way.", String::new(), self.shared.in_flight() as f64),
            (
                "mesh_access_log_dropped_total",
                "Lines of the log of calls that were lost.",
                String::new(),
                self.outlets.log.dropped() as f64,
            ),
            span("sent", &self.outlets.spans.counts().sent),
            span("dropped", &self.outlets.spans.counts().dropped),
            left(node.id.to_string(), node.not_after.as_secs()),
        ];
        self.endpoints(&mut gauges);
        for slot in identities.services().iter().filter_map(|service| identities.slot(service)) {
            let svid = slot.load();
            gauges.push(left(svid.id.to_string(), svid.not_after.as_secs()));
        }
        Facts { gauges }
    }

    /// Why an endpoint is left alone, if it is; for how long, where that is known.
    fn left_alone(&self, key: &EndpointKey) -> Option<Value> {
        let left = self.shared.lore.left_alone(key)?;
        let seconds = left.left.map(|span| span.as_secs());
        Some(json!({"reason": left.reason, "times": left.times, "seconds": seconds}))
    }

    fn endpoints(&self, gauges: &mut Vec<(&'static str, &'static str, String, f64)>) {
        let help = "Times that an endpoint was ejected, by cause.";
        for ((service, cause), count) in self.shared.lore.ejections() {
            let labels = format!("{{destination=\"{service}\",cause=\"{cause}\"}}");
            gauges.push(("mesh_ejections_total", help, labels, count as f64));
        }
        let mut left: BTreeMap<ServiceName, usize> = BTreeMap::new();
        for (key, _) in self.shared.lore.all_left_alone() {
            *left.entry(key.service().clone()).or_default() += 1;
        }
        let help = "Endpoints that are left alone because of what they answer, or by checks.";
        for (service, count) in left {
            let labels = format!("{{destination=\"{service}\"}}");
            gauges.push(("mesh_endpoints_left_alone", help, labels, count as f64));
        }
    }

    /// Who speaks for which service.
    fn callers(&self) -> Value {
        let bindings = self.shared.bindings();
        let table = bindings.table();
        let bound = |(service, binding): (&ServiceName, &Binding)| {
            let (unit, cgroup) = (&binding.unit, &binding.cgroup);
            json!({"service": service, "uid": binding.uid, "unit": unit.as_ref().map(ToString::to_string),
                "cgroup": cgroup.as_ref().map(ToString::to_string)})
        };
        json!({"enforced": table.enforces(), "bound": table.bindings().map(bound).collect::<Vec<_>>(),
            "shared": table.shared(), "default": table.default_identity()})
    }

    fn config(&self) -> Value {
        let (config, ack, trust) =
            (self.shared.config(), self.acks.borrow().clone(), self.identity.trust().load());
        let mut destinations: Vec<_> = config.snapshot.destinations().collect();
        destinations.sort_by(|a, b| a.name().cmp(b.name()));
        let destination = |destination: &&Arc<traffic::snapshot::Destination>| {
            let port = |port: &traffic::snapshot::Port| {
                let endpoint = |endpoint: &Arc<traffic::endpoint::Endpoint>| {
                    json!({"name": endpoint.key.name(), "address": endpoint.key.address(), "node": endpoint.node,
                        "zone": endpoint.zone, "health": format!("{:?}", endpoint.health), "stale": endpoint.stale,
                        "weight": endpoint.weight, "leftAlone": self.left_alone(&endpoint.key)})
                };
                let endpoints: Vec<_> = port.backend().endpoints().iter().map(endpoint).collect();
                json!({"port": port.number(), "protocol": port.protocol(), "endpoints": endpoints})
            };
            let subscribed = config.has(destination.name());
            let ports: Vec<_> = destination.ports().iter().map(port).collect();
            let ips = destination.virtual_ips();
            json!({"service": destination.name(), "virtualIPs": ips, "subscribed": subscribed, "ports": ports})
        };
        let node = self.identity.node();
        json!({
            "node": node.node,
            "trustDomain": node.trust_domain,
            "revision": config.snapshot.revision,
            "acknowledged": ack.revision,
            "nack": ack.nack,
            "trust": {"generation": trust.generation(), "roots": trust.roots().len(), "distrusted": trust.distrusted()},
            "services": self.services.borrow().instances(&node.node).iter().map(|instance| json!({
                "service": instance.service, "port": instance.number(), "app": instance.address(), "endpoint": instance.name,
            })).collect::<Vec<_>>(),
            "problems": self.services.borrow().problems(),
            "routerIdentity": config.router_identity,
            "callers": self.callers(),
            "destinations": destinations.iter().map(destination).collect::<Vec<_>>(),
        })
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
