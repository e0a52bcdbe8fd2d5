//! The control: a bug on purpose, behind comparisons which blind guessing does not pass (1 in 2^32).
//! `cargo xtask test` demands that the fuzzer finds it: that shows that coverage guides it and that a crash turns the run red.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.first() == Some(&b'M') && data.get(1) == Some(&b'E') && data.get(2) == Some(&b'S') {
        assert!(data.get(3) != Some(&b'H'), "the planted bug");
    }
});
