//! One service, looked up: the addresses of a host, or the ports and hosts that SRV names, by RFC 2782.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{Name, RData, RecordType, rdata::SRV};
use model::{object::Labels, resource::Health};
use tokio::task::JoinSet;

use super::ask::Resolvers;
use crate::{
    Failure,
    found::{Found, Instance},
};

/// As many hosts are taken from one SRV answer, in the order of their names.
pub const TARGETS_MAX: usize = 64;

/// Where a service is looked up.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A and AAAA, all at one port.
    Host(Name, u16),
    /// SRV.
    Ports(Name),
}

/// How it is, and for how long.
pub(super) async fn look_up(resolvers: &Arc<Resolvers>, place: &Place) -> Result<(Found, Duration), Failure> {
    match place {
        Place::Host(host, port) => {
            let (addresses, holds) = addresses(resolvers, host).await?;
            let instances = addresses.into_iter().map(|address| instance(address, *port, 1)).collect();
            Ok((Found { instances, ..Found::default() }, holds))
        }
        Place::Ports(name) => {
            let (records, mut holds) = resolvers.ask(name, RecordType::SRV).await?;
            let groups = groups(records);
            let mut found = Found::default();
            // The targets of the lowest priority number that have an address.
            for group in groups.values() {
                let hosts: BTreeSet<Name> = group.iter().map(|srv| srv.target.clone()).collect();
                let (known, shortest) = hosts_of(resolvers, hosts).await?;
                holds = holds.min(shortest.unwrap_or(holds));
                for srv in group {
                    let addresses = known.get(&srv.target).into_iter().flatten();
                    let weight = u32::from(srv.weight).max(1);
                    found.instances.extend(addresses.map(|address| instance(*address, srv.port, weight)));
                }
                if !found.instances.is_empty() {
                    break;
                }
            }
            Ok((found, holds))
        }
    }
}

/// By priority. `.` says that there decidedly is none; a port of 0 is none.
fn groups(records: Vec<RData>) -> BTreeMap<u16, Vec<SRV>> {
    let mut all: Vec<SRV> = records
        .into_iter()
        .filter_map(|data| match data {
            RData::SRV(srv) if !srv.target.is_root() && srv.port > 0 => Some(srv),
            _ => None,
        })
        .collect();
    all.sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
    let mut groups = BTreeMap::<u16, Vec<SRV>>::new();
    for srv in all.into_iter().take(TARGETS_MAX) {
        groups.entry(srv.priority).or_default().push(srv);
    }
    groups
}

/// The addresses of several hosts, and the shortest time that one holds.
async fn hosts_of(
    resolvers: &Arc<Resolvers>,
    hosts: BTreeSet<Name>,
) -> Result<(BTreeMap<Name, Vec<IpAddr>>, Option<Duration>), Failure> {
    let mut tasks = JoinSet::new();
    for host in hosts {
        let resolvers = resolvers.clone();
        tasks.spawn(async move { (addresses(&resolvers, &host).await, host) });
    }
    let (mut known, mut shortest) = (BTreeMap::new(), None::<Duration>);
    while let Some(asked) = tasks.join_next().await {
        let (found, host) = asked.map_err(|error| Failure::Source(error.to_string()))?;
        let (addresses, holds) = found?;
        shortest = Some(shortest.unwrap_or(holds).min(holds));
        known.insert(host, addresses);
    }
    Ok((known, shortest))
}

/// Both sorts: who knows one, and cannot say whether there is the other, has not said all. What there is not counts only
/// where there is nothing.
async fn addresses(resolvers: &Resolvers, host: &Name) -> Result<(Vec<IpAddr>, Duration), Failure> {
    let (four, six) = tokio::join!(resolvers.ask(host, RecordType::A), resolvers.ask(host, RecordType::AAAA));
    let (four, six) = (four?, six?);
    let holds = match (four.0.is_empty(), six.0.is_empty()) {
        (false, true) => four.1,
        (true, false) => six.1,
        _ => four.1.min(six.1),
    };
    let address = |data: RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    Ok((four.0.into_iter().chain(six.0).filter_map(address).collect(), holds))
}

/// It is the same one for as long as it listens at the same place.
fn instance(address: IpAddr, port: u16, weight: u32) -> (String, Instance) {
    let instance = Instance {
        address,
        port: Some(port),
        ports: Vec::new(),
        labels: Labels::default(),
        tags: BTreeSet::new(),
        zone: None,
        weight,
        health: Health::Healthy,
    };
    (format!("{address} {port}"), instance)
}
