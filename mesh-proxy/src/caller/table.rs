//! Pure. Which service a process speaks for: what the files of this host bind to which processes.

use std::collections::{BTreeMap, BTreeSet};

use model::name::ServiceName;

use super::{NotBound, Owner};
use crate::settings::Binding;

/// What the files of this host say of who speaks for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    bound: BTreeMap<ServiceName, Vec<Binding>>,
    shared: BTreeSet<ServiceName>,
    default: Option<ServiceName>,
}

impl Table {
    /// A service with what binds it; several files may do so, and an empty binding is none.
    pub fn bind(&mut self, service: &ServiceName, binding: &Binding) {
        if !binding.is_empty() {
            self.bound.entry(service.clone()).or_default().push(binding.clone());
        }
    }

    /// Whoever reaches this service's own listeners speaks for it.
    pub fn share(&mut self, service: &ServiceName) {
        self.shared.insert(service.clone());
    }

    /// Who is bound to no service speaks for this one.
    pub fn set_default(&mut self, service: Option<ServiceName>) {
        self.default = service;
    }

    /// Whether anything is bound: without that, whoever reaches a listener speaks for its service, as on a host of one.
    pub fn enforces(&self) -> bool {
        !self.bound.is_empty()
    }

    /// Whether a process's cgroup has to be known.
    pub fn asks_for_cgroups(&self) -> bool {
        self.bindings().any(|(_, binding)| binding.asks_for_cgroup())
    }

    /// Whether a bound service may stand at or below this cgroup.
    pub fn leads(&self, path: &str) -> bool {
        self.bindings().any(|(_, binding)| binding.leads(path))
    }

    /// The services with what binds them.
    pub fn bindings(&self) -> impl Iterator<Item = (&ServiceName, &Binding)> {
        self.bound
            .iter()
            .flat_map(|(service, bindings)| bindings.iter().map(move |binding| (service, binding)))
    }

    /// Whether anybody may speak for a service.
    pub fn has(&self, service: &ServiceName) -> bool {
        self.bound.contains_key(service)
            || self.shared.contains(service)
            || self.default.as_ref() == Some(service)
    }

    /// The services for which anybody speaks.
    pub fn shared(&self) -> &BTreeSet<ServiceName> {
        &self.shared
    }

    /// For which service those speak who are bound to none.
    pub fn default_identity(&self) -> Option<&ServiceName> {
        self.default.as_ref()
    }

    /// For which service a process speaks where the listener does not say it: the one that is bound to it most narrowly.
    pub fn speaks_for(&self, owner: &Owner, cgroup: Option<&str>) -> Result<ServiceName, NotBound> {
        let fits =
            self.bindings().filter_map(|(service, binding)| Some((binding.fit(owner.uid, cgroup)?, service)));
        let fits: Vec<_> = fits.collect();
        let Some(best) = fits.iter().map(|(fit, _)| *fit).max() else {
            return self.default.clone().ok_or(NotBound::Nobody(*owner));
        };
        let mut best = fits.into_iter().filter(|(fit, _)| *fit == best).map(|(_, service)| service);
        let service = best.next().expect("the best of them is one of them");
        match best.all(|other| other == service) {
            true => Ok(service.clone()),
            false => Err(NotBound::Several(*owner)),
        }
    }

    /// Whether a process may speak for this service.
    pub fn admits(&self, service: &ServiceName, owner: &Owner, cgroup: Option<&str>) -> Result<(), NotBound> {
        let fits = |binding: &Binding| binding.fit(owner.uid, cgroup).is_some();
        let own = self.bound.get(service).is_some_and(|bindings| bindings.iter().any(fits));
        let by_default =
            || self.default.as_ref() == Some(service) && !self.bindings().any(|(_, binding)| fits(binding));
        match own || by_default() {
            true => Ok(()),
            false => Err(NotBound::Other { service: service.clone(), owner: *owner }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(service: &str) -> ServiceName {
        format!("default/{service}").parse().expect("a name")
    }

    fn user(uid: u32) -> Binding {
        Binding { uid: Some(uid), ..Binding::default() }
    }

    fn unit(name: &str) -> Binding {
        let text = format!("[service]\nname = \"x\"\nunit = \"{name}\"");
        crate::settings::parse_service(&text, "x.toml", |_| Ok(0)).expect("valid").binding
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.bind(&name("a"), &user(1));
        table.bind(&name("b"), &unit("b.service"));
        table.bind(&name("c"), &user(3));
        table.bind(&name("d"), &user(3));
        table
    }

    /// `1 /system.slice/b.service`: the service that it speaks for, or why none.
    #[track_caller]
    fn check(table: &Table, uid: u32, cgroup: Option<&str>, want: Result<&str, &str>) {
        let said = table.speaks_for(&Owner { uid, cgroup: None }, cgroup);
        let said = said.map(|service| service.name.to_string()).map_err(|why| why.kind().to_owned());
        assert_eq!(said, want.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn the_narrowest_binding_counts_and_two_alike_refuse() {
        let (table, b) = (table(), Some("/system.slice/b.service"));
        check(&table, 1, None, Ok("a"));
        check(&table, 1, Some("/system.slice/other.service"), Ok("a"));
        check(&table, 1, b, Ok("b"));
        check(&table, 2, b, Ok("b"));
        check(&table, 2, None, Err("unbound"));
        check(&table, 3, None, Err("several"));
        check(&Table::default(), 1, None, Err("unbound"));
    }

    #[test]
    fn the_default_is_for_who_is_bound_to_nothing() {
        let mut table = table();
        table.set_default(Some(name("e")));
        check(&table, 9, None, Ok("e"));
        check(&table, 3, None, Err("several"));
        let admits = |table: &Table, service: &str, uid: u32| {
            table.admits(&name(service), &Owner { uid, cgroup: None }, None).is_ok()
        };
        assert!(admits(&table, "e", 9) && !admits(&table, "e", 1) && !admits(&table, "a", 9));
        assert!(admits(&table, "a", 1) && admits(&table, "c", 3) && admits(&table, "d", 3));
        assert!(!admits(&table, "b", 1), "its cgroup is not known");
    }

    #[test]
    fn without_a_binding_nothing_is_enforced() {
        let mut table = Table::default();
        table.bind(&name("a"), &Binding::default());
        table.share(&name("b"));
        assert!(!table.enforces() && !table.asks_for_cgroups());
        table.bind(&name("a"), &user(1));
        assert!(table.enforces() && !table.asks_for_cgroups());
        table.bind(&name("a"), &unit("a.service"));
        assert!(table.asks_for_cgroups() && table.leads("/system.slice") && !table.leads("/system.slice/x"));
    }
}
