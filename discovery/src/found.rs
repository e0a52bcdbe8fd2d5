//! Pure. What a source says, in words that are the same for all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    name::Name,
    object::Labels,
    resource::{EndpointPort, Health, ServicePort},
};

/// All services of a source.
pub type Set = BTreeMap<FoundKey, Found>;

/// A service as its source names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundKey {
    /// Its namespace there, where there are such.
    pub namespace: Option<String>,
    /// Its name there.
    pub name: String,
}

/// A service of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// What it answers; none where its source only knows where instances listen.
    pub ports: Vec<ServicePort>,
    /// Labels of the Service.
    pub labels: Labels,
    /// What filters look at, for all of its instances.
    pub tags: BTreeSet<String>,
    /// Its instances, by what they are known by in it.
    pub instances: BTreeMap<String, Instance>,
}

/// A running instance of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Where it is dialled.
    pub address: IpAddr,
    /// Where it listens, if it listens at one port.
    pub port: Option<u16>,
    /// Where it listens for single ports of its service.
    pub ports: Vec<EndpointPort>,
    /// For subsets.
    pub labels: Labels,
    /// What filters look at.
    pub tags: BTreeSet<String>,
    /// The failure domain it stands in.
    pub zone: Option<Name>,
    /// Its share among its equals.
    pub weight: u32,
    /// Whether it should get traffic.
    pub health: Health,
}

impl Found {
    /// The port at which most of its instances listen, the lowest of several; `None` where none says one.
    pub fn usual_port(&self) -> Option<u16> {
        let mut counts = BTreeMap::<u16, usize>::new();
        for port in self.instances.values().filter_map(|instance| instance.port) {
            *counts.entry(port).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(port, count)| (*count, std::cmp::Reverse(*port)))
            .map(|(port, _)| port)
    }
}
