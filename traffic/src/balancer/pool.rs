//! Pure. The endpoints that share one load, sorted once into those that should get calls and those that could.

use std::sync::Arc;

use crate::endpoint::{Endpoint, Health};

/// The endpoints of one back end.
#[derive(Debug, Default)]
pub struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    pub(super) healthy: Tier,
    pub(super) unhealthy: Tier,
}

/// Endpoints by weight; none has weight 0.
#[derive(Debug, Default)]
pub(super) struct Tier {
    pub(super) members: Vec<Arc<Endpoint>>,
    /// For each member, the sum of the weights up to and with its own.
    sums: Vec<u64>,
}

impl Pool {
    /// A pool of these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let of = |health| Tier::new(endpoints.iter().filter(|endpoint| endpoint.health == health));
        Self { healthy: of(Health::Healthy), unhealthy: of(Health::Unhealthy), endpoints }
    }

    /// All of them, draining ones too.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Whether there is none that could be picked. Gateway API: 503.
    pub fn is_empty(&self) -> bool {
        self.healthy.members.is_empty() && self.unhealthy.members.is_empty()
    }
}

impl Tier {
    fn new<'a>(members: impl Iterator<Item = &'a Arc<Endpoint>>) -> Self {
        let members: Vec<_> = members.filter(|endpoint| endpoint.weight > 0).cloned().collect();
        let mut sum = 0;
        let sums = members.iter().map(|endpoint| {
            sum += u64::from(endpoint.weight);
            sum
        });
        Self { sums: sums.collect(), members }
    }

    /// The index of the member that `point`, out of all 64-bit numbers, falls on, by weight.
    pub(super) fn at(&self, point: u64) -> Option<usize> {
        let ticket = crate::dice::scale(point, *self.sums.last()?);
        Some(self.sums.partition_point(|&sum| sum <= ticket))
    }
}
