//! Pure. Looks streams up by their numbers: several times for each frame, for which hashes that are made for texts take
//! longer than all else. Seeded, as the other side chooses the numbers.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use crate::hash::mix;

/// Makes hashes of numbers.
#[derive(Debug, Clone)]
pub struct ByNumber(u64);

/// A number's hash.
pub struct Numbered(u64);

impl Default for ByNumber {
    /// With a seed of its own.
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u8))
    }
}

impl BuildHasher for ByNumber {
    type Hasher = Numbered;

    fn build_hasher(&self) -> Numbered {
        Numbered(self.0)
    }
}

impl Hasher for Numbered {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = mix(self.0 ^ u64::from(number));
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    #[test]
    fn numbers_are_spread_and_no_two_maps_spread_them_alike() {
        let (one, other) = (ByNumber::default(), ByNumber::default());
        let places =
            |by: &ByNumber| -> BTreeSet<u64> { (0..4_096_u32).map(|n| by.hash_one(n) >> 50).collect() };
        assert!(places(&one).len() > 3_200, "of 16,384 places");
        assert_ne!(
            (one.hash_one(1_u32), one.hash_one(2_u32)),
            (other.hash_one(1_u32), other.hash_one(2_u32))
        );
        let mut map = HashMap::with_hasher(one);
        map.extend((0..1_000_u32).map(|n| (n, n)));
        assert!((0..1_000).all(|n| map.get(&n) == Some(&n)));
    }
}
