//! Pure. The endpoints that share one load, sorted once into those that should get calls and those that could, with what
//! the way to pick looks things up in.

use std::{collections::HashMap, sync::Arc};

use model::{name::Name, resource::BalancerType};

use super::{Settings, maglev::Maglev, ring::Ring, turns::Turns};
use crate::endpoint::{Endpoint, Health};

/// The endpoints of one back end.
#[derive(Debug, Default)]
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    pub(super) settings: Settings,
    pub(super) healthy: Tier,
    pub(super) unhealthy: Tier,
    /// Both; empty where there is no panic.
    pub(super) all: Tier,
    pub(super) zones: Option<Zones>,
    /// By their ids, where requests have to come back.
    by_id: HashMap<u64, Arc<Endpoint>>,
}

/// The healthy ones by where they stand, seen from the own zone.
#[derive(Debug)]
pub(super) struct Zones {
    pub(super) own: Tier,
    pub(super) others: Tier,
    /// How many there are in the own zone, healthy or not.
    pub(super) own_count: usize,
    /// In percent.
    pub(super) spill_below: u32,
}

/// Endpoints by weight; none has weight 0.
#[derive(Debug, Default)]
pub(super) struct Tier {
    pub(super) members: Vec<Arc<Endpoint>>,
    /// For each member, the sum of the weights up to and with its own.
    sums: Vec<u64>,
    pub(super) lookup: Lookup,
}

/// What members are looked up in, beside their weights.
#[derive(Debug, Default)]
pub(super) enum Lookup {
    #[default]
    None,
    Turns(Turns),
    Ring(Ring),
    Maglev(Maglev),
}

impl Pool {
    /// A pool of these endpoints, seen from `zone`.
    pub fn new(
        endpoints: impl IntoIterator<Item = Arc<Endpoint>>,
        settings: Settings,
        zone: Option<&Name>,
    ) -> Self {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let of = |wanted: &dyn Fn(&Endpoint) -> bool| {
            Tier::new(endpoints.iter().filter(|endpoint| wanted(endpoint)), settings.kind)
        };
        let healthy = |endpoint: &Endpoint| endpoint.health == Health::Healthy;
        let by_id = settings.affinity.iter().flat_map(|_| &endpoints);
        Self {
            healthy: of(&healthy),
            unhealthy: of(&|endpoint| endpoint.health == Health::Unhealthy),
            all: of(&|endpoint| settings.panic_below > 0 && endpoint.health != Health::Draining),
            zones: zone.zip(settings.spill_below).and_then(|(zone, spill_below)| {
                let own = |endpoint: &Endpoint| endpoint.zone.as_ref() == Some(zone);
                let counted = |endpoint: &&Arc<Endpoint>| {
                    own(endpoint) && endpoint.weight > 0 && endpoint.health != Health::Draining
                };
                let own_count = endpoints.iter().filter(counted).count();
                let others = of(&|endpoint| healthy(endpoint) && !own(endpoint));
                (own_count > 0).then(|| Zones {
                    own: of(&|endpoint| healthy(endpoint) && own(endpoint)),
                    others,
                    own_count,
                    spill_below,
                })
            }),
            by_id: by_id
                .filter(|endpoint| healthy(endpoint) && endpoint.weight > 0)
                .map(|endpoint| (endpoint.key.id(), Arc::clone(endpoint)))
                .collect(),
            settings,
            endpoints,
        }
    }

    /// All of them, draining ones too.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Whether there is none that could be picked. Gateway API: 503.
    pub fn is_empty(&self) -> bool {
        self.healthy.members.is_empty() && self.unhealthy.members.is_empty()
    }

    /// The healthy one with that id.
    pub(super) fn with_id(&self, id: u64) -> Option<&Arc<Endpoint>> {
        self.by_id.get(&id)
    }
}

impl Tier {
    fn new<'a>(members: impl Iterator<Item = &'a Arc<Endpoint>>, kind: BalancerType) -> Self {
        let members: Vec<_> = members.filter(|endpoint| endpoint.weight > 0).cloned().collect();
        let mut sum = 0;
        let sums = members.iter().map(|endpoint| {
            sum += u64::from(endpoint.weight);
            sum
        });
        let hashed = || -> Vec<(u64, u64)> {
            members.iter().map(|member| (member.key.id(), u64::from(member.weight))).collect()
        };
        let weights = || -> Vec<u64> { members.iter().map(|member| u64::from(member.weight)).collect() };
        let lookup = match kind {
            BalancerType::RoundRobin => Lookup::Turns(Turns::new(&weights())),
            BalancerType::RingHash => Lookup::Ring(Ring::new(&hashed())),
            BalancerType::Maglev => Lookup::Maglev(Maglev::new(&hashed())),
            BalancerType::PeakEwma | BalancerType::LeastRequest | BalancerType::Random => Lookup::None,
        };
        Self { sums: sums.collect(), lookup, members }
    }

    /// The index of the member that `point`, out of all 64-bit numbers, falls on, by weight.
    pub(super) fn at(&self, point: u64) -> Option<usize> {
        let ticket = crate::dice::scale(point, *self.sums.last()?);
        Some(self.sums.partition_point(|&sum| sum <= ticket))
    }
}
