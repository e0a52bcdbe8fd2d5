//! The pure cores, replayed from seeds: each world is made of its seed alone, so that what was found once is found again
//! by `MESH_SEED=…`. Beside each property stand doubles with a planted fault, which the property must find.

mod dice;
mod feed;
mod sessions;
mod state;

/// Worlds in CI, and how many times as many with `MESH_FULL=1`.
const WORLDS: (u64, u64) = (1_000, 30);

/// Plays many worlds; the first that breaks its property ends the test with its seed.
fn worlds(what: &str, worlds: u64, play: impl Fn(u64) -> Result<(), String>) {
    let seeds: Vec<u64> = match std::env::var("MESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("MESH_SEED is a number")],
        Err(_) if std::env::var_os("MESH_FULL").is_some() => (1..=worlds * WORLDS.1).collect(),
        Err(_) => (1..=worlds).collect(),
    };
    for seed in &seeds {
        if let Err(breach) = play(*seed) {
            panic!("{what}: {breach}; again with MESH_SEED={seed}");
        }
    }
    eprintln!("{what}: {} worlds, seeds {} to {}", seeds.len(), seeds[0], seeds[seeds.len() - 1]);
}

/// A planted fault must be found within these worlds; answers the seed that found it.
#[track_caller]
fn found(what: &str, play: impl Fn(u64) -> Result<(), String>) -> u64 {
    let first = (1..=WORLDS.0).find_map(|seed| Some((seed, play(seed).err()?)));
    let (seed, breach) = first.unwrap_or_else(|| panic!("{what}: not found in {} worlds", WORLDS.0));
    assert_eq!(play(seed).err(), Some(breach.clone()), "{what}: a seed says it all");
    eprintln!("{what}: found with seed {seed}: {breach}");
    seed
}
