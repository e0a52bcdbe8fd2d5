//! How callers look after the endpoints that they use, where a traffic policy says so: each is checked from here, once for
//! all threads, by a call of a service that called it of late. What is not called is not checked.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use http::{Request, header};
use http_body_util::BodyExt;
use model::{name::ServiceName, resource::Protocol};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::interval,
};
use traffic::{
    admission::{Bounded, Gate},
    conduct::Conduct,
    endpoint::{AppAddress, EndpointKey},
    route::Edits,
    snapshot::{Backend, Destination, Snapshot},
};

use crate::{
    body, checker,
    experience::Lore,
    heads::{self, ToPeer},
    shared::Shared,
    transport::{Hop, Transport},
};

/// How often it is looked whom to check.
const BEAT: Duration = Duration::from_secs(1);
/// Endpoints that are checked, each in a task of its own with a request every few seconds; further ones are not.
pub const CHECKED_MAX: usize = 4_096;

/// Who is checked, and how.
#[derive(Clone, PartialEq)]
struct Subject {
    hop: Hop,
    /// Where it has no proxy: itself, and what it speaks.
    app: Option<(AppAddress, Protocol)>,
    port: u16,
    hostname: Arc<str>,
    conduct: Arc<Conduct>,
}

/// Checks what is used, for as long as `transport` is there.
pub(super) async fn run(shared: Arc<Shared>, transport: Weak<Transport>) {
    let (mut beat, mut tasks) = (interval(BEAT), JoinSet::new());
    let mut running: HashMap<EndpointKey, (Subject, AbortHandle)> = HashMap::new();
    loop {
        beat.tick().await;
        let Some(transport) = transport.upgrade() else { return };
        let config = shared.config();
        // Who checks an endpoint goes on to, whoever called last.
        let checks = |key: &EndpointKey| running.get(key).map(|(subject, _)| subject.hop.source.clone());
        let mut wanted = subjects(&config.snapshot, &shared.lore, checks);
        running.retain(|key, (subject, task)| {
            let stays = wanted.remove(key).is_some_and(|wanted| wanted == *subject);
            if !stays {
                task.abort();
                shared.lore.checked(key, Ok(()));
            }
            stays
        });
        for (key, subject) in wanted.into_iter().take(CHECKED_MAX - running.len().min(CHECKED_MAX)) {
            let task = tasks.spawn(watch(subject.clone(), shared.lore.clone(), Arc::downgrade(&transport)));
            running.insert(key, (subject, task));
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// All endpoints that are to be checked.
fn subjects(
    snapshot: &Snapshot,
    lore: &Lore,
    checks: impl Fn(&EndpointKey) -> Option<ServiceName>,
) -> HashMap<EndpointKey, Subject> {
    let mut subjects = HashMap::new();
    for destination in snapshot.destinations() {
        let Some((backend, conduct)) = checked(destination) else { continue };
        let Some(caller) = lore.last_caller(destination.name()) else { continue };
        for endpoint in backend.endpoints() {
            let source = checks(&endpoint.key).unwrap_or_else(|| caller.clone());
            let hop = Hop { source, endpoint: endpoint.key.clone(), id: endpoint.id.clone() };
            let (port, hostname, conduct) = (backend.name.port, backend.hostname.clone(), conduct.clone());
            let app = (!endpoint.has_proxy()).then(|| backend.app(endpoint)).flatten();
            let app = app.map(|app| (app, backend.protocol));
            subjects.insert(endpoint.key.clone(), Subject { hop, app, port, hostname, conduct });
        }
    }
    subjects
}

/// At which port a service is checked, if it is.
fn checked(destination: &Destination) -> Option<(&Arc<Backend>, &Arc<Conduct>)> {
    let conduct = &destination.ports().first()?.backend().conduct;
    let check = conduct.check.as_ref()?;
    let fits = |protocol: Protocol| match &check.path {
        Some(_) => protocol.is_http() || protocol == Protocol::Auto,
        None => !protocol.is_http(),
    };
    let port = match check.port {
        Some(number) => destination.ports().iter().find(|port| port.number() == number),
        None => destination.ports().iter().find(|port| fits(port.protocol())),
    };
    Some((port?.backend(), conduct))
}

async fn watch(subject: Subject, lore: Arc<Lore>, transport: Weak<Transport>) {
    let Some(plan) = subject.conduct.check.as_ref().map(|check| check.plan) else { return };
    let look = || {
        let (subject, transport) = (subject.clone(), transport.clone());
        async move {
            let transport = transport.upgrade().ok_or("the proxy ends")?;
            look(&subject, &transport).await
        }
    };
    let tell = |result: Result<(), String>| {
        let reason = result.as_ref().err().map_or("", String::as_str);
        let (endpoint, well) = (&subject.hop.endpoint, result.is_ok());
        tracing::info!(%endpoint, well, reason, "the check of an endpoint says");
        lore.checked(endpoint, result);
    };
    checker::watch(plan, look, tell).await;
}

/// One check; the step function says when it has taken too long.
async fn look(subject: &Subject, transport: &Transport) -> Result<(), String> {
    let path = subject.conduct.check.as_ref().and_then(|check| check.path.as_deref());
    // A gate of its own: a check is no call, and must get through when calls do not.
    let admitted = Gate::new().admit(Bounded::Requests, &subject.conduct).map_err(|full| full.to_string())?;
    let Some(path) = path else {
        let tunnel = match &subject.app {
            Some((app, _)) => transport.plain_tunnel(&admitted, app).await,
            None => transport.tunnel(&admitted, &subject.hop, subject.port).await,
        };
        return tunnel.map(drop).map_err(|error| error.to_string());
    };
    let asked = Request::get(path)
        .header(header::HOST, &*subject.hostname)
        .header(header::USER_AGENT, concat!("mesh-proxy/", env!("CARGO_PKG_VERSION"), " check"))
        .body(())
        .map_err(|error| error.to_string())?;
    let edits = Edits::default();
    let to = ToPeer { path, host: None, hostname: &subject.hostname, port: subject.port, edits: &edits };
    let head = heads::to_peer(asked.into_parts().0, &to).map_err(|error| error.to_string())?;
    let sent = match &subject.app {
        Some((app, protocol)) => {
            let head = heads::to_plain(head, *protocol).map_err(|error| error.to_string())?;
            transport.plain_request(&admitted, app, head, body::Request::Empty).await
        }
        None => transport.request(&admitted, &subject.hop, &head, body::Request::Empty).await,
    };
    let answer = sent.map_err(|error| error.to_string())?;
    // Whatever an application says, only proxies can say that it got nothing.
    if let Some(reason) = heads::unsent(answer.headers()).filter(|_| subject.app.is_none()) {
        return Err(reason);
    }
    let status = answer.status();
    // Read to its end, so that its connection can carry the next one.
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {status}")) }
}
