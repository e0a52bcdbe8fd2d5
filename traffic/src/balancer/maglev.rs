//! Pure. A table in which each endpoint has nearly its exact share, filled by the endpoints in turn, each by an order of
//! its own (Maglev, Eisenbud et al. 2016, §3.4). Shares are more even than a ring's; when an endpoint comes or goes a few
//! keys of others move, too.

use crate::hash::mix;

/// The sizes of tables, primes; one has a hundred entries for each endpoint if it can. An entry has 4 bytes: 256 KiB at most.
const SIZES: [u64; 4] = [1_021, 4_093, 16_381, 65_537];
/// Entries for each endpoint that are wanted: with so many, shares are right to about a hundredth.
const ENTRIES_EACH: u64 = 100;
/// As many endpoints in a table; further ones have no entry.
const MEMBERS_MAX: usize = 65_536;

/// For each entry the index of its endpoint.
#[derive(Debug)]
pub(super) struct Maglev(Vec<u32>);

/// An endpoint that fills the table.
struct Filler {
    next: u64,
    skip: u64,
    weight: u64,
    /// What it has saved for its next turn.
    credit: u64,
}

impl Maglev {
    /// Of endpoints by hash and weight; none has weight 0.
    pub(super) fn new(members: &[(u64, u64)]) -> Self {
        let members = &members[..members.len().min(MEMBERS_MAX)];
        let Some(greatest) = members.iter().map(|(_, weight)| *weight).max() else { return Self(Vec::new()) };
        let wanted = members.len() as u64 * ENTRIES_EACH;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        let filler = |(hash, weight): &(u64, u64)| Filler {
            next: hash % size,
            skip: mix(*hash) % (size - 1) + 1,
            weight: *weight,
            credit: 0,
        };
        let mut fillers: Vec<Filler> = members.iter().map(filler).collect();
        let mut table = vec![None; size as usize];
        let mut free = table.len();
        while free > 0 {
            for (index, filler) in (0..).zip(&mut fillers) {
                filler.credit += filler.weight;
                if filler.credit >= greatest && free > 0 {
                    filler.credit -= greatest;
                    *filler.free_entry(&mut table) = Some(index);
                    free -= 1;
                }
            }
        }
        Self(table.into_iter().flatten().collect())
    }

    /// The endpoint of `key`, then those of other keys that follow from it: what one endpoint had is spread over all.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        let keys = std::iter::successors(Some(key), |key| Some(mix(*key)));
        let size = self.0.len() as u64;
        keys.take(self.0.len()).map(move |key| self.0[(key % size) as usize] as usize)
    }
}

impl Filler {
    /// The next entry in its own order that is free. There is one: the size is prime, so that it comes by all of them.
    fn free_entry<'a>(&mut self, table: &'a mut [Option<u32>]) -> &'a mut Option<u32> {
        let size = table.len() as u64;
        while table[self.next as usize].is_some() {
            self.next = (self.next + self.skip) % size;
        }
        &mut table[self.next as usize]
    }
}
