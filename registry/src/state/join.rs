//! Pure. A join token's use: the decision is the model's (`model::join`), what follows from it is here.

use model::{
    join::{JoinRefused, JoinRole},
    kind::Kind,
    name::Name,
    object::{Key, Object},
    resource::{JoinTokenSpec, Resource},
};
use serde_json::{Map, Value, json};

use super::{State, catalog::resource};
use crate::command::{Joined, RedeemJoin, Refusal, Reply};

impl State {
    pub(super) fn redeem(&mut self, join: RedeemJoin) -> Result<Reply, Refusal> {
        let attempt = &join.attempt;
        let node = Key::mesh_wide(Kind::Node, attempt.node.clone());
        let exists = attempt.role == JoinRole::Host && self.objects.get(&node).is_some();
        let mut record = self
            .joins
            .get(&join.token)
            .map(|record| (**record).clone())
            .ok_or(Refusal::Join(JoinRefused::Secret))?;
        let granted = record.decide(attempt, exists, self.time.0).map_err(Refusal::Join)?;
        if granted.first {
            record.bind(attempt, self.time.0);
            self.joins.insert(join.token.clone(), record);
            self.touched = true;
        }
        let mut joined = Joined { granted, node: None, member: None, revision: 0 };
        match attempt.role {
            JoinRole::Server => joined.member = Some(self.admit(join.server.ok_or(Refusal::NoAdmission)?)?),
            JoinRole::Host if !exists => {
                let token = self.token_of(&join.token)?;
                self.store(new_node(node.clone(), &token));
            }
            JoinRole::Host => {}
        }
        joined.node = self.objects.get(&node).filter(|_| attempt.role == JoinRole::Host).cloned();
        joined.revision = if self.touched { self.pending_revision() } else { self.revision };
        Ok(Reply::Joined(joined))
    }

    fn token_of(&self, id: &str) -> Result<JoinTokenSpec, Refusal> {
        let held = self.credentials.get(id).ok_or(Refusal::Join(JoinRefused::Secret))?;
        let object =
            self.objects.get(&held.key).ok_or_else(|| Refusal::NotFound { key: held.key.clone() })?;
        match resource(object)? {
            Resource::JoinToken(spec) => Ok(spec),
            _ => Err(Refusal::Join(JoinRefused::Secret)),
        }
    }
}

/// The Node that a host gets: what its token grants. The label `zone` says where it stands.
fn new_node(key: Key, token: &JoinTokenSpec) -> Object {
    let mut spec = Map::new();
    if !token.services.is_empty() {
        spec.insert("services".to_owned(), json!(token.services));
    }
    let zone = token
        .node_labels
        .iter()
        .find(|(label, _)| label.as_str() == "zone")
        .map(|(_, zone)| zone.as_str().to_owned());
    if let Some(zone) = zone.filter(|zone| zone.parse::<Name>().is_ok()) {
        spec.insert("zone".to_owned(), Value::String(zone));
    }
    let mut node = Object::new(key, spec);
    node.metadata.labels = token.node_labels.clone();
    node
}
