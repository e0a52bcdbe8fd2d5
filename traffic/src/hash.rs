//! Pure. A hash that is the same in every proxy and every version: what is hashed for balancing must not move when a host
//! is upgraded. Nothing secret rests on it.

/// FNV-1a over 64 bits, mixed once more: FNV alone hardly moves the upper bits of short texts.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// Another number, as good as drawn (SplitMix64's last step).
pub(crate) const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes_and_short_texts_are_spread() {
        assert_eq!((hash(b""), hash(b"a")), (0xc381_7c01_6ba4_ff30, 0x5f29_c2aa_dd9b_8527));
        let mut buckets = [0_u32; 16];
        for n in 0..16_000 {
            buckets[(hash(format!("u{n}").as_bytes()) >> 60) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (850..1_150).contains(&count)), "{buckets:?}");
    }
}
