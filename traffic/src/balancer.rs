//! Pure. Picks an endpoint of a pool for one try. The caller brings what it knows of each endpoint by its own experience,
//! what the request carries, and the dice. Why an endpoint is not to be used is `endpoint`'s matter; how one is picked among
//! those that are, is the conduct's: `p2c`, `turns`, `ring`, `maglev`.
//!
//! A request that has to come back to its endpoint goes there while it is well. Others are taken from the first of these
//! groups that is not empty, those already tried left out; if nothing is left then, the tried ones are taken again:
//! 1. healthy by the registry, and fine by our own experience; those of the own zone before, as far as they are enough;
//! 2. healthy, but ejected: our own view of the network may be what is wrong;
//! 3. unhealthy by their own host's checks: a try at worst fails as no try would.
//!
//! Where too few are well for the load of all, all are taken (panic): a few that get everything would be the next to fall.
//! Draining ones and those of weight 0 are never taken. Stale ones (their host's session is lost, and so are many others')
//! count as what they last were: our own experience says more about them.

use std::sync::Arc;

use model::{name::ServiceName, resource::BalancerType};

use crate::{
    Dice,
    endpoint::{Endpoint, EndpointKey, Standing},
};

mod maglev;
mod p2c;
mod pool;
mod ring;
mod settings;
mod turns;

pub use pool::Pool;
use pool::{Lookup, Tier};
pub use settings::{Ask, Cookie, Settings};

/// What the caller knows of endpoints by its own experience: run-time state, kept outside the snapshot.
pub trait Experience {
    /// What is known of one.
    fn of(&mut self, endpoint: &EndpointKey) -> Known;

    /// How many of a service's endpoints may be ejected, at most.
    fn ejected(&self, service: &ServiceName) -> usize;
}

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Calls and connections that are under way to it.
    pub in_flight: u32,
    /// Whether calls reach it.
    pub standing: Standing,
    /// How long it takes to answer, in microseconds, where that was measured.
    pub micros: Option<u64>,
    /// Its share of what its weight says, out of [`WARM`]: less where it is new.
    pub warmth: u32,
}

/// An endpoint that gets its whole share.
pub const WARM: u32 = 1_024;

impl Default for Known {
    fn default() -> Self {
        Self { in_flight: 0, standing: Standing::Fine, micros: None, warmth: WARM }
    }
}

/// One pick.
struct Pick<'a, 'e, E> {
    pool: &'a Pool,
    ask: &'e Ask,
    experience: &'e mut E,
    dice: &'e mut Dice,
}

/// Who may be picked.
#[derive(Clone, Copy)]
struct Eligible<'t> {
    /// Those that are left out.
    tried: &'t [EndpointKey],
    /// Whether ejected ones are.
    fine: bool,
}

/// Picks an endpoint for the next try of a call that `tried` some before.
pub fn pick<'a>(
    pool: &'a Pool,
    ask: &Ask,
    experience: &mut impl Experience,
    tried: &[EndpointKey],
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let mut pick = Pick { pool, ask, experience, dice };
    let (fine, fresh) = (Eligible { tried, fine: true }, Eligible { tried, fine: false });
    let any = Eligible { tried: &[], fine: false };
    if let Some(kept) = pick.kept(fine) {
        return Some(kept);
    }
    if pick.panics() {
        let all = &pool.all;
        return pick.among(all, fresh).or_else(|| pick.among(all, any));
    }
    let near = pick.zone();
    near.and_then(|near| pick.among(near, fine))
        .or_else(|| pick.among(&pool.healthy, fine))
        .or_else(|| pick.among(&pool.healthy, fresh))
        .or_else(|| pick.among(&pool.unhealthy, fresh))
        .or_else(|| pick.among(&pool.healthy, any))
        .or_else(|| pick.among(&pool.unhealthy, any))
}

impl<'a, E: Experience> Pick<'a, '_, E> {
    /// The endpoint that the request has to come back to, if it is well.
    fn kept(&mut self, eligible: Eligible<'_>) -> Option<&'a Arc<Endpoint>> {
        let kept = self.pool.with_id(self.ask.kept?)?;
        eligible.has(kept, &self.experience.of(&kept.key)).then_some(kept)
    }

    /// Whether too few are well.
    fn panics(&mut self) -> bool {
        let below = self.pool.settings.panic_below as usize;
        let all = self.pool.healthy.members.len() + self.pool.unhealthy.members.len();
        below > 0 && self.well(&self.pool.healthy) * 100 < all * below
    }

    /// Where to look first: in the own zone with the chance that what is well there can carry, else in the others.
    fn zone(&mut self) -> Option<&'a Tier> {
        let zones = self.pool.zones.as_ref()?;
        let well = self.well(&zones.own) as u64 * 100;
        let wanted = zones.own_count as u64 * u64::from(zones.spill_below);
        let stays = well >= wanted || self.dice.below(wanted) < well;
        Some(if stays { &zones.own } else { &zones.others })
    }

    /// How many of a tier are not ejected. They are only looked through where some of the service's are.
    fn well(&mut self, tier: &Tier) -> usize {
        let ejected = match tier.members.first() {
            Some(first) => self.experience.ejected(first.key.service()),
            None => 0,
        };
        if ejected == 0 {
            return tier.members.len();
        }
        let members = tier.members.iter();
        members.filter(|member| self.experience.of(&member.key).standing != Standing::Ejected).count()
    }

    /// One of a tier, by the pool's way to pick.
    fn among(&mut self, tier: &'a Tier, eligible: Eligible<'_>) -> Option<&'a Arc<Endpoint>> {
        // One that carries nothing goes anywhere.
        let key = |dice: &mut Dice| self.ask.hash.unwrap_or_else(|| dice.roll());
        match &tier.lookup {
            Lookup::Turns(turns) => self.first(tier, turns.walk(self.ask.turn), eligible),
            Lookup::Ring(ring) => {
                let walk = ring.walk(key(self.dice));
                self.first(tier, walk, eligible)
            }
            Lookup::Maglev(maglev) => {
                let walk = maglev.walk(key(self.dice));
                self.first(tier, walk, eligible)
            }
            Lookup::None if self.pool.settings.kind == BalancerType::Random => {
                self.drawn(tier, eligible, None).map(|(drawn, _)| drawn)
            }
            Lookup::None => self.two_choices(tier, eligible),
        }
    }

    /// The first that is eligible of those that come in an order, or any.
    fn first(
        &mut self,
        tier: &'a Tier,
        order: impl Iterator<Item = usize>,
        eligible: Eligible<'_>,
    ) -> Option<&'a Arc<Endpoint>> {
        for member in order.take(STEPS_MAX).map(|index| &tier.members[index]) {
            let known = self.experience.of(&member.key);
            if eligible.has(member, &known) && self.is_warm(known) {
                return Some(member);
            }
        }
        self.searched(tier, eligible, None).map(|(found, _)| found)
    }

    /// An endpoint that is new gets but a part of what comes to it.
    fn is_warm(&mut self, known: Known) -> bool {
        known.warmth >= WARM || self.dice.below(u64::from(WARM)) < u64::from(known.warmth)
    }
}

/// So many of an order are looked at before all are looked through: enough that a tier with a half of it ejected is
/// nearly always served by its order.
const STEPS_MAX: usize = 32;

impl Eligible<'_> {
    fn has(&self, endpoint: &Endpoint, known: &Known) -> bool {
        let left_alone = self.fine && known.standing == Standing::Ejected;
        !left_alone && !self.tried.contains(&endpoint.key)
    }
}

#[cfg(test)]
mod tests;
