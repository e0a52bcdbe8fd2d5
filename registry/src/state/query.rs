//! Pure. Questions to the state; none changes it.

use std::sync::Arc;

use model::{
    duration::Millis,
    join::JoinRecord,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
};
use uuid::Uuid;

use super::{Compacted, Held, History, Member, Objects, Revision, Session, State, Trust, table::digest};
use crate::command::{COMMAND_VERSION, MemberId};

impl State {
    /// How many entries changed anything so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Log time: the greatest that any entry carried.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// The cluster's history; `None` before its founding.
    pub fn epoch(&self) -> Option<Uuid> {
        self.trust().map(|trust| trust.epoch)
    }

    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All of a kind, those of one namespace if it is named, by namespace and name.
    pub fn list<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.objects.list(kind, namespace)
    }

    /// All objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// A service's endpoints, by name.
    pub fn endpoints_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.endpoints_of(service)
    }

    /// The routes of all kinds that belong to a service, by kind and name.
    pub fn routes_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.routes_of(service)
    }

    /// Whether the mesh has this node.
    pub fn has_node(&self, node: &Name) -> bool {
        self.get(&Key::mesh_wide(Kind::Node, node.clone())).is_some()
    }

    /// A node's session.
    pub fn session(&self, node: &Name) -> Option<&Arc<Session>> {
        self.sessions.get(node)
    }

    /// All sessions, by node.
    pub fn sessions(&self) -> impl Iterator<Item = (&Name, &Arc<Session>)> {
        self.sessions.iter()
    }

    /// The hashed secret with that public half. Expired ones are held until their token is deleted: ask
    /// [`Held::valid_at`].
    pub fn credential(&self, id: &str) -> Option<&Arc<Held>> {
        self.credentials.get(id)
    }

    /// The public half of a token's secret, with what is held of it. Tokens are few: a walk costs less than an index.
    pub fn held_of(&self, token: &Key) -> Option<(&str, &Arc<Held>)> {
        self.credentials.iter().find(|(_, held)| held.key == *token).map(|(id, held)| (id.as_str(), held))
    }

    /// What a join token still allows.
    pub fn join_record(&self, id: &str) -> Option<&Arc<JoinRecord>> {
        self.joins.get(id)
    }

    /// What is trusted; `None` before the mesh was founded.
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.get(&())
    }

    /// A member of the control plane.
    pub fn member(&self, id: MemberId) -> Option<&Arc<Member>> {
        self.members.by_id.get(&id)
    }

    /// Whether the log gave that id to a member, present or gone.
    pub fn id_was_given(&self, id: MemberId) -> bool {
        id < self.members.next()
    }

    /// The id that the next member gets.
    pub fn next_member(&self) -> MemberId {
        self.members.next()
    }

    /// The members, by id.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.by_id.iter().map(|(_, member)| member)
    }

    /// The commands that every member understands. Never less than was used: who understands less is refused.
    pub fn command_version(&self) -> u32 {
        if self.members.by_id.is_empty() {
            // A cluster that is being founded has nobody who could misunderstand.
            return COMMAND_VERSION;
        }
        let understood = self.members().map(|member| member.command_version).filter(|version| *version > 0);
        understood.min().unwrap_or(1).max(self.members.used())
    }

    /// The highest version of a command that the log held so far: a member must understand it.
    pub fn version_used(&self) -> u32 {
        self.members.used()
    }

    /// The kept history.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What changed after `revision`, oldest first.
    ///
    /// # Errors
    /// That is no longer kept.
    pub fn history_since(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = Arc<Revision>> + use<'_>, Compacted> {
        self.history.since(revision)
    }

    /// The hash of all that the log made, but for the history. Two members that applied the same entries have the same.
    pub fn hash(&self) -> u128 {
        let scalars = [self.revision, self.time.0].map(u64::to_le_bytes).concat();
        [
            self.objects.table().hash(),
            self.sessions.table().hash(),
            self.credentials.hash(),
            self.joins.hash(),
            self.trust.hash(),
            self.members.by_id.hash(),
            self.members.next.hash(),
            self.members.used.hash(),
            self.staged.hash(),
            self.numbers.holders.hash(),
            self.numbers.last.hash(),
            self.requests.hash(),
            digest(b"scalars", &scalars),
        ]
        .into_iter()
        .fold(0, u128::wrapping_add)
    }
}
