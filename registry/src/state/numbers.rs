//! Pure. Which service has which virtual IPs. Numbers are given in turn, so that one that was let go comes to another service
//! only after all others, and not within a day. A service that comes back within that time has its own again.

use imbl::{OrdMap, OrdSet};
use model::{
    duration::{Millis, Timespan},
    kind::Kind,
    name::ServiceName,
    object::Object,
    virtualip::{NUMBER_MAX, VirtualIps},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{State, Unreadable, catalog::service_name, table::Table};
use crate::command::Reply;

/// The command version since which Services have virtual IPs.
pub const VIRTUAL_IPS_SINCE: u32 = 3;
/// Services that one command gives virtual IPs to: as many as a watcher of Services has to take at once.
pub const NUMBERED_MAX: usize = 256;
/// So long no other service gets a number that was let go, in log time: far longer than anybody remembers a name's
/// address.
pub const KEPT_BACK: Timespan = Timespan::from_secs(24 * 60 * 60);
/// The most numbers that are kept back for their former services, so that services that come and go by the thousand fill no memory.
/// Of more than these the oldest are forgotten: then their turn alone keeps them, which comes after 16 million others.
pub const KEPT_BACK_MAX: usize = 65_536;
/// Where a Service's status has them.
const VIRTUAL_IPS: &str = "virtualIPs";

/// Whose a number is, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The service.
    pub service: ServiceName,
    /// Since when it is gone, in log time, if it is.
    #[serde(default)]
    pub gone_at: Option<Millis>,
}

/// The numbers.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) holders: Table<u32, Holder>,
    /// The one that was given last.
    pub(super) last: Table<(), u32>,
    by_service: OrdMap<ServiceName, u32>,
    /// Those whose services are gone, the longest first.
    gone: OrdSet<(Millis, u32)>,
}

impl Numbers {
    pub(super) fn new() -> Self {
        let (holders, last) = (Table::new(10), Table::new(11));
        Self { holders, last, by_service: OrdMap::new(), gone: OrdSet::new() }
    }

    /// Those of a service that is there.
    pub(super) fn of(&self, service: &ServiceName) -> Option<VirtualIps> {
        let number = self.by_service.get(service)?;
        let holder = self.holders.get(number).filter(|holder| holder.gone_at.is_none());
        holder.and_then(|_| VirtualIps::new(*number))
    }

    /// The services that are there, with theirs.
    pub(super) fn given(&self) -> impl Iterator<Item = (&ServiceName, VirtualIps)> {
        let there = self.holders.iter().filter(|(_, holder)| holder.gone_at.is_none());
        there.filter_map(|(number, holder)| Some((&holder.service, VirtualIps::new(*number)?)))
    }

    /// Gives a service its own, or the next ones; none where all are taken.
    fn give(&mut self, service: &ServiceName, now: Millis) -> Option<VirtualIps> {
        if let Some(own) = self.of(service) {
            return Some(own);
        }
        self.forget(now);
        let number = match self.by_service.get(service) {
            Some(own) => *own,
            None => self.next()?,
        };
        self.put(number, Holder { service: service.clone(), gone_at: None });
        VirtualIps::new(number)
    }

    /// The service is gone.
    fn let_go(&mut self, service: &ServiceName, now: Millis) {
        if let Some(number) = self.by_service.get(service).copied() {
            self.put(number, Holder { service: service.clone(), gone_at: Some(now) });
            self.forget(now);
        }
    }

    /// Keeps for services that are not there the numbers that they had, as far as these are free.
    fn recall(&mut self, before: &Self, now: Millis) {
        for (number, holder) in before.holders.iter().filter(|(_, holder)| holder.gone_at.is_none()) {
            if self.holders.get(number).is_none() && !self.by_service.contains_key(&holder.service) {
                self.put(*number, Holder { service: holder.service.clone(), gone_at: Some(now) });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        let (number, holder) = self.holders.read(key, value)?;
        self.put(number, holder);
        Ok(())
    }

    /// Whether the indexes say what the holders say, and nobody has two.
    pub(super) fn indexed(&self) -> bool {
        let mut again = Self::new();
        self.holders.iter().for_each(|(number, holder)| again.put(*number, (**holder).clone()));
        let each_one = again.by_service.len() == self.holders.len();
        let valid = self.holders.iter().all(|(number, _)| VirtualIps::new(*number).is_some());
        each_one && valid && (again.by_service, again.gone) == (self.by_service.clone(), self.gone.clone())
    }

    fn put(&mut self, number: u32, holder: Holder) {
        let (service, gone_at) = (holder.service.clone(), holder.gone_at);
        let before = self.holders.insert(number, holder);
        before.and_then(|before| before.gone_at).map(|since| self.gone.remove(&(since, number)));
        gone_at.map(|since| self.gone.insert((since, number)));
        self.by_service.insert(service, number);
    }

    /// Forgets whose those were that were kept back long enough, and the oldest of too many.
    fn forget(&mut self, now: Millis) {
        while let Some((since, number)) = self.gone.get_min().copied() {
            let over = now.0.saturating_sub(since.0) >= KEPT_BACK.duration().as_millis() as u64;
            if !over && self.gone.len() <= KEPT_BACK_MAX {
                return;
            }
            self.gone.remove(&(since, number));
            if let Some(holder) = self.holders.remove(&number) {
                self.by_service.remove(&holder.service);
            }
        }
    }

    /// The next that is free, from the last one on.
    fn next(&mut self) -> Option<u32> {
        let last = self.last.get(&()).map_or(0, |last| **last);
        let mut turn = (last + 1..=NUMBER_MAX).chain(1..=last);
        let next = turn.find(|number| self.holders.get(number).is_none())?;
        self.last.insert((), next);
        Some(next)
    }
}

impl State {
    /// The virtual IPs of a service.
    pub fn virtual_ips(&self, service: &ServiceName) -> Option<VirtualIps> {
        self.numbers.of(service)
    }

    /// The Services that have none: those that are older than virtual IPs are.
    pub fn without_virtual_ips(&self) -> impl Iterator<Item = ServiceName> {
        let services = self.list(Kind::Service, None).filter_map(|object| service_name(&object.key()));
        services.filter(|service| self.numbers.of(service).is_none())
    }

    /// Gives Services that are older than virtual IPs theirs. Those that come from now on have them from the start.
    pub(super) fn number(&mut self, services: &[ServiceName]) -> Reply {
        self.note_version(VIRTUAL_IPS_SINCE);
        for service in services {
            let key = super::session::service_key(service);
            let none = self.numbers.of(service).is_none();
            if let Some(object) = self.objects.get(&key).filter(|_| none) {
                self.stamp((**object).clone());
            }
        }
        Reply::Nothing
    }

    /// A Service that is about to be stored says which its virtual IPs are, once all members know of them.
    pub(super) fn say_virtual_ips(&mut self, object: &mut Object) {
        let named = service_name(&object.key()).filter(|_| object.kind == Kind::Service);
        let Some(service) = named.filter(|_| self.members.used() >= VIRTUAL_IPS_SINCE) else { return };
        let Some(ips) = self.numbers.give(&service, self.time) else { return };
        let status = object.status.get_or_insert_with(|| json!({}));
        if let Value::Object(status) = status {
            status.insert(VIRTUAL_IPS.to_owned(), json!(ips.all()));
        }
    }

    /// A Service is gone.
    pub(super) fn let_virtual_ips_go(&mut self, service: &ServiceName) {
        self.numbers.let_go(service, self.time);
    }

    /// What comes back has the virtual IPs that it had, as far as nobody else has them.
    pub(super) fn recall_virtual_ips(&mut self, saved: &Self) {
        self.numbers.recall(&saved.numbers, self.time);
    }

    /// What does not hold of a Service and its number.
    pub(super) fn misnumbered(&self) -> Option<String> {
        let ghost = self
            .numbers
            .given()
            .find(|(service, _)| self.objects.get(&super::session::service_key(service)).is_none());
        let unlike = self.list(Kind::Service, None).find(|object| {
            let own = service_name(&object.key()).and_then(|service| self.numbers.of(&service));
            said(object) != own.map(|own| json!(own.all())).as_ref()
        });
        let ghost = ghost.map(|(service, _)| format!("the virtual IPs of {service} outlived it"));
        let unlike = unlike.map(|object| format!("{} does not say its virtual IPs", object.key()));
        let index = (!self.numbers.indexed()).then(|| "whose a number is, is not indexed".to_owned());
        ghost.or(unlike).or(index)
    }
}

/// The virtual IPs that a Service says it has.
fn said(service: &Object) -> Option<&Value> {
    service.status.as_ref().and_then(|status| status.get(VIRTUAL_IPS))
}

#[cfg(test)]
mod tests;
