//! Pure. Which endpoints a call would go to: the balancer picks again and again, and the picks are counted.

use std::collections::HashMap;

use model::{
    explain::{ENDPOINTS_TOLD_MAX, Endpoint},
    name::{Name, ServiceName},
    resource::Health,
};

use crate::{
    Dice,
    balancer::{Ask, Experience, Known, Pool, pick},
    endpoint::{self, EndpointKey},
};

/// As many picks are made for each endpoint: enough that one that is picked at all nearly surely is.
const PICKS_PER_ENDPOINT: usize = 64;
/// As many picks are made where there are few endpoints: shares then are right within a percent.
const PICKS_MIN: usize = 16_384;
/// As many picks are made in all.
const PICKS_MAX: usize = 262_144;

/// A caller that called nobody yet.
struct Nobody;

impl Experience for Nobody {
    fn of(&mut self, _: &EndpointKey) -> Known {
        Known::default()
    }

    fn ejected(&self, _: &ServiceName) -> usize {
        0
    }
}

/// The endpoints of a pool, those that are picked most before the others, each with its share of first tries in percent.
pub(super) fn endpoints(pool: &Pool, ask: &Ask, zone: Option<&Name>) -> Vec<Endpoint> {
    let all = pool.endpoints();
    let picks = (all.len() * PICKS_PER_ENDPOINT).clamp(PICKS_MIN, PICKS_MAX);
    let counts = counts(pool, ask, picks);
    let told = |endpoint: &endpoint::Endpoint| {
        let count = counts.get(&endpoint.key).copied().unwrap_or(0);
        Endpoint {
            name: endpoint.key.name().clone(),
            node: endpoint.node.clone(),
            zone: endpoint.zone.clone(),
            address: endpoint.key.address().to_string(),
            weight: endpoint.weight,
            health: endpoint.health,
            stale: endpoint.stale,
            percent: percent(count, picks as u64),
            because: (count == 0).then(|| unpicked(endpoint, zone).to_owned()),
        }
    };
    let mut told: Vec<_> = all.iter().map(|endpoint| told(endpoint)).collect();
    told.sort_by(|one, other| other.percent.total_cmp(&one.percent).then_with(|| one.name.cmp(&other.name)));
    told.truncate(ENDPOINTS_TOLD_MAX);
    told
}

fn counts<'a>(pool: &'a Pool, ask: &Ask, picks: usize) -> HashMap<&'a EndpointKey, u64> {
    // The same question has the same answer.
    let (mut dice, mut counts) = (Dice::seeded(1), HashMap::new());
    for turn in 0..picks as u64 {
        let Some(picked) = pick(pool, &ask.at_turn(turn), &mut Nobody, &[], &mut dice) else { break };
        *counts.entry(&picked.key).or_default() += 1;
    }
    counts
}

/// Why an endpoint gets nothing.
fn unpicked(endpoint: &endpoint::Endpoint, zone: Option<&Name>) -> &'static str {
    match endpoint.health {
        Health::Draining => "it is draining",
        _ if endpoint.weight == 0 => "its weight is 0",
        Health::Unhealthy => "its own host finds it unwell, and others are well",
        Health::Healthy if zone.is_some() && endpoint.zone.as_ref() != zone => {
            "it stands in another zone than the caller"
        }
        Health::Healthy => "what the call carries leads to another one",
    }
}

/// In percent, to a tenth.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64 * 1_000.0).round() / 10.0
}
