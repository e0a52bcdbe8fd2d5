//! A snapshot's bytes, a member's or a saved one: the file as it is found, a body of the input's choice under a sound checksum, and the state
//! within it by itself. Where only the hash of that state does not fit, it is made to fit, for what comes after it.
//! Nothing panics, and a state that was read is written and read to the same.
#![no_main]

use aws_lc_rs::digest::{SHA256, digest};
use registry::{
    State,
    raft::{self, snapshot},
    state::{Image, ImageError},
};

/// Revisions that the history keeps here.
const HISTORY: usize = 16;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 5 {
        0 => drop(snapshot::inspect(rest)),
        1 => drop(snapshot::inspect(&enveloped(rest))),
        2 => drop(raft::read_saved(rest)),
        3 => drop(raft::read_saved(&[rest, digest(&SHA256, rest).as_ref()].concat())),
        _ => image(rest),
    }
});

/// Magic, version 1, length, SHA-256, body.
fn enveloped(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u64).to_le_bytes();
    [b"MESHSNAP", &1_u16.to_le_bytes()[..], &length, digest(&SHA256, body).as_ref(), body].concat()
}

fn image(bytes: &[u8]) {
    let Ok(mut image) = rmp_serde::from_slice::<Image>(bytes) else { return };
    let state = match State::from_image(&image, HISTORY) {
        Err(ImageError::Hash { actual, .. }) => {
            image.sum.hash = actual.to_le_bytes();
            State::from_image(&image, HISTORY).expect("the hash was all that was wrong")
        }
        Err(error) => return assert!(!error.to_string().is_empty()),
        Ok(state) => state,
    };
    let _ = state.check();
    let again = State::from_image(&state.image(), HISTORY).expect("reads what it wrote");
    assert_eq!(again.hash(), state.hash());
    assert_eq!(again.revision(), state.revision());
}
