//! Pure. What discovery sources bring. Whose an object is, is decided here, as it is written: a Service or Endpoint that
//! another wrote stays as it is, whatever a source says.

use std::sync::Arc;

use model::{
    duration::Millis,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{DiscoverySourceStatus, DiscoveryState, EndpointStatus, Source, status_error},
};
use serde_json::{Value, json};

use super::{State, catalog::service_name, objects::brought_by};
use crate::command::{Discovery, Refusal, Reply, Said};

/// The command version since which services come from elsewhere.
pub const DISCOVERY_SINCE: u32 = 5;
/// The most objects that one entry brings or takes away: a follower applies an entry in one go.
pub const DISCOVERED_MAX: usize = 1_000;

impl State {
    /// The keys of the Services and Endpoints that a source brought.
    pub fn brought_by(&self, source: &Name) -> impl Iterator<Item = &Key> {
        self.objects.brought_by(source)
    }

    /// A batch of a source.
    pub(super) fn discover(&mut self, discovery: Discovery) -> Result<Reply, Refusal> {
        let Discovery { source, created_at, said, puts, gone } = discovery;
        let (actual, limit) = ((puts.len() + gone.len()) as u64, DISCOVERED_MAX as u64);
        if actual > limit {
            return Err(Refusal::TooLarge { what: "objects of a batch".to_owned(), actual, limit });
        }
        let key = Key::mesh_wide(Kind::DiscoverySource, source.clone());
        let object = self.objects.get(&key).filter(|object| object.metadata.created_at == created_at);
        let object = object.cloned().ok_or(Refusal::NotFound { key })?;
        if let Some(said) = said {
            self.say(&source, &object, &said);
        }
        for object in puts {
            self.bring(&source, object)?;
        }
        for key in gone {
            self.take_away(&source, &key);
        }
        Ok(Reply::Nothing)
    }

    /// A DiscoverySource was deleted, or is lost: nothing that it brought is left.
    pub(super) fn forget_source(&mut self, source: &Name) {
        for key in self.objects.brought_by(source).cloned().collect::<Vec<_>>() {
            self.take_away(source, &key);
        }
    }

    fn say(&mut self, source: &Name, object: &Arc<Object>, said: &Said) {
        match said.state {
            DiscoveryState::Pending => {}
            DiscoveryState::Synced => self.mark_brought(source, false),
            DiscoveryState::Stale => self.mark_brought(source, true),
            DiscoveryState::Lost => self.forget_source(source),
        }
        let before = object.status.as_ref().and_then(|status| model::object::status(status).ok());
        let status = json!(status(before, said, self.time));
        if object.status.as_ref() != Some(&status) {
            let mut object = (**object).clone();
            object.status = Some(status);
            self.stamp(object);
        }
    }

    fn mark_brought(&mut self, source: &Name, stale: bool) {
        let endpoints = self.objects.brought_by(source).filter(|key| key.kind == Kind::Endpoint);
        for key in endpoints.cloned().collect::<Vec<_>>() {
            let Some(object) = self.objects.get(&key) else { continue };
            let known = object.status.as_ref().and_then(|status| model::object::status(status).ok());
            if known.is_some_and(|known: EndpointStatus| known.stale) == stale {
                continue;
            }
            let mut object = (**object).clone();
            let mut status =
                object.status.take().and_then(|status| status.as_object().cloned()).unwrap_or_default();
            status.remove("stale");
            status.extend(stale.then(|| ("stale".to_owned(), Value::Bool(true))));
            object.status = Some(Value::Object(status));
            self.stamp(object);
        }
    }

    /// Stores what a source brings, unless it is another's.
    fn bring(&mut self, source: &Name, object: Object) -> Result<(), Refusal> {
        let key = object.key();
        if brought_by(&object).as_ref() != Some(source) {
            let message = format!("is no Service or Endpoint of discovery source {source}");
            return Err(Refusal::Invalid { key, message });
        }
        if let Some(namespace) = &key.namespace {
            self.namespace_exists(namespace)?;
        }
        let before = self.objects.get(&key);
        let another = before.is_some_and(|before| brought_by(before).as_ref() != Some(source));
        let status = |before: &Object| key.kind == Kind::Service || before.status == object.status;
        if another || before.is_some_and(|before| before.same_input(&object) && status(before)) {
            return Ok(());
        }
        self.actors.insert(key.clone(), Source::Discovery(source.clone()).to_string().into());
        self.store(object);
        if let Some(service) = service_name(&key).filter(|_| key.kind == Kind::Service) {
            self.judge_claims(&service);
        }
        Ok(())
    }

    /// Removes what a source brought. A Service that hosts run as well becomes what registration makes of it.
    fn take_away(&mut self, source: &Name, key: &Key) {
        if self.objects.get(key).and_then(|object| brought_by(object)).as_ref() != Some(source) {
            return;
        }
        self.actors.insert(key.clone(), Source::Discovery(source.clone()).to_string().into());
        let service = service_name(key).filter(|_| key.kind == Kind::Service);
        let claims = service.map_or_else(Vec::new, |service| self.claims_of(&service));
        if claims.is_empty() {
            self.discard(key);
        } else {
            self.registered_instead(key, &claims);
        }
    }

    fn claims_of(&self, service: &ServiceName) -> Vec<crate::command::Claim> {
        let sessions = self.sessions.claiming(service);
        let claims = sessions.flat_map(|(_, session)| session.claims.iter());
        claims.filter(|claim| claim.service == *service).cloned().collect()
    }
}

/// A status that says no more than what became another: it is not written at each time that a source is heard.
fn status(before: Option<DiscoverySourceStatus>, said: &Said, now: Millis) -> DiscoverySourceStatus {
    let same = before.as_ref().filter(|before| before.state == said.state);
    DiscoverySourceStatus {
        state: said.state,
        since: same.and_then(|same| same.since).or(Some(now)),
        last_sync: said.heard.or(before.and_then(|before| before.last_sync)),
        error: status_error(&said.error),
    }
}
