//! Pure. Power of two choices: draw two by weight, take the one that costs less. Nearly as even as always taking the least
//! loaded, without all callers rushing to the same one.

use std::sync::Arc;

use model::resource::BalancerType;

use super::{Eligible, Experience, Known, Pick, Tier};
use crate::endpoint::{Endpoint, EndpointKey};

/// So many draws may fall on endpoints that are not eligible before all are looked through: enough that a tier with a
/// half of it ejected is nearly always served by draws, whatever its size.
const DRAWS_MAX: usize = 8;
/// Latencies below this, in microseconds, are alike: what differs there is the noise of schedulers.
const MICROS_MIN: u64 = 1_000;
/// Latencies are alike up to this factor: a choice between two that are nearly as fast is the load's.
const ALIKE: u64 = 2;

/// An endpoint, with what is known of it.
type Drawn<'a> = (&'a Arc<Endpoint>, Known);

impl<'a, E: Experience> Pick<'a, '_, E> {
    /// One of two that are drawn among the eligible members of a tier.
    pub(super) fn two_choices(
        &mut self,
        tier: &'a Tier,
        eligible: Eligible<'_>,
    ) -> Option<&'a Arc<Endpoint>> {
        let first = self.drawn(tier, eligible, None)?;
        if tier.members.len() == 1 {
            return Some(first.0);
        }
        let Some(second) = self.drawn(tier, eligible, Some(&first.0.key)) else { return Some(first.0) };
        let latency = self.pool.settings.kind == BalancerType::PeakEwma;
        Some(if costs_more(first, second, latency) { second.0 } else { first.0 })
    }

    /// One that is drawn by weight, another than `not`.
    pub(super) fn drawn(
        &mut self,
        tier: &'a Tier,
        eligible: Eligible<'_>,
        not: Option<&EndpointKey>,
    ) -> Option<Drawn<'a>> {
        for _ in 0..DRAWS_MAX {
            let member = &tier.members[tier.at(self.dice.roll())?];
            if not == Some(&member.key) {
                continue;
            }
            let known = self.experience.of(&member.key);
            if eligible.has(member, &known) && self.is_warm(known) {
                return Some((member, known));
            }
        }
        self.searched(tier, eligible, not)
    }

    /// The same among those that are found by looking through all, new ones as good as others.
    pub(super) fn searched(
        &mut self,
        tier: &'a Tier,
        eligible: Eligible<'_>,
        not: Option<&EndpointKey>,
    ) -> Option<Drawn<'a>> {
        let (mut sum, mut found) = (0_u64, Vec::new());
        for member in tier.members.iter().filter(|member| not != Some(&member.key)) {
            let known = self.experience.of(&member.key);
            if eligible.has(member, &known) {
                sum += u64::from(member.weight);
                found.push((sum, (member, known)));
            }
        }
        let ticket = self.dice.below(sum);
        found.into_iter().find(|(up_to, _)| ticket < *up_to).map(|(_, drawn)| drawn)
    }
}

/// Whether one costs more than another: by calls under way for its weight and, if asked for, by latency. A tie keeps the
/// first, so that without load the weights alone decide.
fn costs_more((first, one): Drawn<'_>, (second, other): Drawn<'_>, latency: bool) -> bool {
    let (slow, fast) = match (one.micros, other.micros) {
        (Some(one), Some(other)) if latency => (one.max(MICROS_MIN), other.max(MICROS_MIN)),
        // Of one that was not asked yet nothing is known: it is asked.
        _ => (1, 1),
    };
    let alike = slow.max(fast) <= slow.min(fast).saturating_mul(ALIKE);
    // One more than are under way: the one that is to come. a/w_a > b/w_b without dividing.
    let cost = |known: Known, micros: u64, other: &Endpoint| {
        let load = u128::from(known.in_flight) + u128::from(!alike);
        load * u128::from(if alike { 1 } else { micros }) * u128::from(other.weight)
    };
    cost(one, slow, second) > cost(other, fast, first)
}
