//! Pure. Picks an endpoint of a pool for one try. The caller brings what it knows of each endpoint by its own experience,
//! and the dice. Why an endpoint is not to be used is `endpoint`'s matter; how two are compared is `p2c`'s.
//!
//! Endpoints are taken from the first of these groups that is not empty, those already tried left out; if nothing is left
//! then, the tried ones are taken again:
//! 1. healthy by the registry, and fine by our own experience;
//! 2. healthy, but ejected: our own view of the network may be what is wrong;
//! 3. unhealthy by their own host's checks: a try at worst fails as no try would.
//!
//! Draining ones and those of weight 0 are never taken. Stale ones (their host's session is lost, and so are many others')
//! count as what they last were: our own experience says more about them.

use std::sync::Arc;

use crate::{
    Dice,
    endpoint::{Endpoint, EndpointKey, Standing},
};

mod p2c;
mod pool;

pub use pool::Pool;

/// What the caller knows of endpoints by its own experience: run-time state, kept outside the snapshot.
pub trait Experience {
    /// Calls and connections that are under way to it.
    fn in_flight(&self, endpoint: &EndpointKey) -> u32;

    /// Whether calls reach it.
    fn standing(&self, endpoint: &EndpointKey) -> Standing;
}

/// Picks an endpoint for the next try of a call that `tried` some before.
pub fn pick<'a>(
    pool: &'a Pool,
    experience: &impl Experience,
    tried: &[EndpointKey],
    dice: &mut Dice,
) -> Option<&'a Arc<Endpoint>> {
    let fine = |endpoint: &Endpoint| experience.standing(&endpoint.key) != Standing::Ejected;
    let fresh = |endpoint: &Endpoint| !tried.contains(&endpoint.key);
    let load = |endpoint: &Endpoint| experience.in_flight(&endpoint.key);
    let (healthy, unhealthy) = (&pool.healthy, &pool.unhealthy);
    p2c::pick(healthy, |endpoint| fresh(endpoint) && fine(endpoint), load, dice)
        .or_else(|| p2c::pick(healthy, fresh, load, dice))
        .or_else(|| p2c::pick(unhealthy, fresh, load, dice))
        .or_else(|| p2c::pick(healthy, |_| true, load, dice))
        .or_else(|| p2c::pick(unhealthy, |_| true, load, dice))
}

#[cfg(test)]
mod tests;
