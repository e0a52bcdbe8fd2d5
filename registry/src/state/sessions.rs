//! Pure. The sessions by node, with the index of who claims a service: a change of one is judged by those, not by all.
//! Puts and removes; never judges.

use std::{collections::BTreeSet, sync::Arc};

use imbl::{OrdMap, OrdSet};
use model::name::{Name, ServiceName};

use super::{Session, Unreadable, objects::mark, table::Table};

/// The sessions.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    by_node: Table<Name, Session>,
    /// The nodes whose sessions claim a service.
    claimants: OrdMap<ServiceName, OrdSet<Name>>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { by_node: Table::new(2), claimants: OrdMap::new() }
    }

    pub(super) fn get(&self, node: &Name) -> Option<&Arc<Session>> {
        self.by_node.get(node)
    }

    /// All of them, by node.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&Name, &Arc<Session>)> {
        self.by_node.iter()
    }

    /// Those that claim a service, by node.
    pub(super) fn claiming(&self, service: &ServiceName) -> impl Iterator<Item = (&Name, &Arc<Session>)> {
        let nodes = self.claimants.get(service).into_iter().flatten();
        nodes.filter_map(|node| Some((node, self.by_node.get(node)?)))
    }

    pub(super) fn table(&self) -> &Table<Name, Session> {
        &self.by_node
    }

    /// Whether the index says what the sessions say.
    pub(super) fn indexed(&self) -> bool {
        let mut again = OrdMap::new();
        for (node, session) in self.by_node.iter() {
            claimed(Some(session)).into_iter().for_each(|service| mark(&mut again, service, node, true));
        }
        again == self.claimants
    }

    pub(super) fn insert(&mut self, node: Name, session: Session) {
        let now = claimed(Some(&session));
        let before = self.by_node.insert(node.clone(), session);
        self.index(&node, &claimed(before.as_deref()), &now);
    }

    pub(super) fn remove(&mut self, node: &Name) -> Option<Arc<Session>> {
        let session = self.by_node.remove(node)?;
        self.index(node, &claimed(Some(&session)), &BTreeSet::new());
        Some(session)
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        let (node, session) = self.by_node.read(key, value)?;
        self.insert(node, session);
        Ok(())
    }

    fn index(&mut self, node: &Name, before: &BTreeSet<ServiceName>, now: &BTreeSet<ServiceName>) {
        before.difference(now).for_each(|gone| mark(&mut self.claimants, gone.clone(), node, false));
        now.difference(before).for_each(|new| mark(&mut self.claimants, new.clone(), node, true));
    }
}

fn claimed(session: Option<&Session>) -> BTreeSet<ServiceName> {
    session.into_iter().flat_map(|session| &session.claims).map(|claim| claim.service.clone()).collect()
}
