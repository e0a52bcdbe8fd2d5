//! Pure. Power of two choices: draw two by weight, take the one with fewer calls under way for its weight. Nearly as even
//! as always taking the least loaded, without all callers rushing to the same one.

use std::sync::Arc;

use super::pool::Tier;
use crate::{Dice, endpoint::Endpoint};

/// So many draws may fall on endpoints that are not eligible before all are looked through: enough that a tier with a
/// half of it ejected is nearly always served by draws, whatever its size.
const DRAWS_MAX: usize = 8;

/// Picks among the members of a tier that are eligible.
pub(super) fn pick<'a>(
    tier: &'a Tier,
    eligible: impl Fn(&Endpoint) -> bool,
    load: impl Fn(&Endpoint) -> u32,
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let first = draw(tier, &eligible, dice).or_else(|| search(tier, &eligible, dice))?;
    if tier.members.len() == 1 {
        return Some(first);
    }
    let other = |endpoint: &Endpoint| endpoint.key != first.key && eligible(endpoint);
    let second = draw(tier, other, dice).or_else(|| search(tier, other, dice)).unwrap_or(first);
    // a/w_a <= b/w_b without dividing. A tie keeps the first, so that without load the weights alone decide.
    let cost = |one: &Endpoint, other: &Endpoint| u64::from(load(one)) * u64::from(other.weight);
    Some(if cost(first, second) <= cost(second, first) { first } else { second })
}

fn draw<'a>(
    tier: &'a Tier,
    eligible: impl Fn(&Endpoint) -> bool,
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let draws = std::iter::repeat_with(|| tier.at(dice.roll()).map(|index| &tier.members[index]));
    draws.take(DRAWS_MAX).flatten().find(|endpoint| eligible(endpoint))
}

/// By weight among those that are eligible.
fn search<'a>(
    tier: &'a Tier,
    eligible: impl Fn(&Endpoint) -> bool,
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let all = || tier.members.iter().filter(|endpoint| eligible(endpoint));
    let mut ticket = dice.below(all().map(|endpoint| u64::from(endpoint.weight)).sum());
    let mut all = all();
    all.find(|endpoint| match ticket.checked_sub(u64::from(endpoint.weight)) {
        Some(left) => {
            ticket = left;
            false
        }
        None => true,
    })
}
