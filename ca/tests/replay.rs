//! An authority's slot, replayed from seeds: through months of random looks, slow verifiers and missed steps, what was
//! signed is always trusted, and nothing signs that somebody does not know. The seed is printed; `MESH_SEED=…` plays it
//! again.

use ca::slot::{Due, Slot, Tenure};

/// Worlds in CI, and with `MESH_FULL=1`.
const WORLDS: (u64, u64) = (200, 20_000);
const HOUR: u64 = 3_600;
/// An intermediate's life.
const LIFE: u64 = 30 * 24 * HOUR;
/// The longest leaf: `ca::profile::TTL_MAX`.
const LEAF: u64 = 7 * 24 * HOUR;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

/// How a double does a step otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Activates what not everybody knows.
    Hasty,
    /// Forgets the one before as soon as the next signs.
    Forgetful,
}

#[test]
fn what_was_signed_is_trusted_and_what_signs_is_known() {
    let seeds: Vec<u64> = match std::env::var("MESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("MESH_SEED is a number")],
        Err(_) if std::env::var_os("MESH_FULL").is_some() => (1..=WORLDS.1).collect(),
        Err(_) => (1..=WORLDS.0).collect(),
    };
    for seed in &seeds {
        play(*seed, Fault::None).unwrap_or_else(|breach| panic!("{breach}; again with MESH_SEED={seed}"));
    }
    println!("slots: {} worlds, seeds {} to {}", seeds.len(), seeds[0], seeds[seeds.len() - 1]);
}

#[test]
fn a_slot_that_hastens_or_forgets_is_found() {
    for fault in [Fault::Hasty, Fault::Forgetful] {
        assert!((1..=WORLDS.0).any(|seed| play(seed, fault).is_err()));
    }
}

/// A leaf: who signed it, and until when it is valid.
type Leaf = (u64, u64);

fn play(seed: u64, fault: Fault) -> Result<(), String> {
    let mut dice = Dice(seed);
    let tenure = |value: u64, now: u64| Tenure { value, not_before: now, not_after: now + LIFE };
    let (mut now, mut made) = (1_000_000, 1);
    let mut slot = Slot::new(tenure(1, now));
    // What verifiers trust: they follow what is published after a while.
    let (mut known, mut told, mut tells_at): (Vec<u64>, Vec<u64>, u64) = (vec![1], vec![1], 0);
    let mut leaves: Vec<Leaf> = Vec::new();
    for _ in 0..2_000 {
        now += 60 + dice.below(2 * HOUR);
        if now >= tells_at && known != told {
            known.clone_from(&told);
        }
        let all = fault == Fault::Hasty || known == told;
        match slot.due(now, all) {
            Due::Nothing => {}
            Due::Prepare => {
                made += 1;
                slot.prepare(tenure(made, now));
            }
            Due::Publish => slot.publish(),
            Due::Activate => {
                slot.activate(now);
                if fault == Fault::Forgetful {
                    slot.drop_previous();
                }
            }
            Due::Drop => slot.drop_previous(),
        }
        let trusted: Vec<u64> = slot.trusted().copied().collect();
        if trusted != told {
            (told, tells_at) = (trusted, now + dice.below(36 * HOUR));
            // What verifiers are to forget they may forget at once.
            known.retain(|one| told.contains(one));
        }
        leaves.retain(|(_, until)| *until > now);
        if dice.below(4) == 0 {
            leaves.push((*slot.current(), now + LEAF));
        }
        if let Some((signer, _)) = leaves.iter().find(|(signer, _)| !known.contains(signer)) {
            return Err(format!("at {now} a leaf of {signer} is not trusted; known are {known:?}"));
        }
    }
    Ok(())
}
