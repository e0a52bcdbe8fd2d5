//! Pure. Endpoints on a ring of all 64-bit numbers, each at many points by its weight: a key goes to the next point. An
//! endpoint that comes or goes moves the keys next to its points, and no others.

use crate::hash::mix;

/// Points of an endpoint of middling weight: with so many, shares are right to about a tenth.
const POINTS_EACH: u64 = 128;
/// As many points as one ring has, of 12 bytes each: 768 KiB.
const RING_POINTS_MAX: u64 = 65_536;

/// The points in their order, each with the index of its endpoint.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// Of endpoints by hash and weight.
    pub(super) fn new(members: &[(u64, u64)]) -> Self {
        let sum: u64 = members.iter().map(|(_, weight)| weight).sum();
        let size = (members.len() as u64).saturating_mul(POINTS_EACH).min(RING_POINTS_MAX);
        let mut points = Vec::new();
        for (index, (hash, weight)) in (0..).zip(members) {
            let share = (u128::from(size) * u128::from(*weight)).div_ceil(u128::from(sum.max(1)));
            points.extend((0..share as u64).map(|n| (mix(hash ^ mix(n)), index)));
        }
        points.sort_unstable();
        Self(points)
    }

    /// The endpoints from `key` on, some of them several times.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}
