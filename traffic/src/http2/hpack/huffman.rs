//! Pure. Huffman's code of HPACK (RFC 7541 §5.2, appendix B). It is canonical: codes of one length follow each other in the order of
//! their symbols, and longer ones follow shorter ones. The lengths of the codes say all of it.

use super::Malformed;

/// The length of each symbol's code, in bits; the last one is the end of the string, which never stands in it.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
/// The longest code, in bits.
const LONGEST: usize = 30;

/// All codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// The first of them.
    code: u32,
    /// How many there are.
    count: u32,
    /// Where the symbol of the first stands in [`SYMBOLS`].
    symbol: usize,
}

/// The symbols in the order of their codes.
const SYMBOLS: [u16; 257] = symbols();
const ROWS: [Row; LONGEST + 1] = rows();
/// For each byte that may come next, the symbol whose code it begins with, and the length of that, if it has no more than
/// eight bits; 0 if it has.
static NEXT: [(u8, u8); 256] = next();

const fn symbols() -> [u16; 257] {
    let (mut symbols, mut count, mut length) = ([0; 257], 0, 1);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol as usize] as usize == length {
                symbols[count] = symbol;
                count += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

const fn rows() -> [Row; LONGEST + 1] {
    let (mut rows, mut code, mut symbol, mut length) =
        ([Row { code: 0, count: 0, symbol: 0 }; LONGEST + 1], 0_u32, 0_usize, 1);
    while length <= LONGEST {
        code <<= 1;
        let mut count = 0;
        while symbol + (count as usize) < 257
            && LENGTHS[SYMBOLS[symbol + count as usize] as usize] as usize == length
        {
            count += 1;
        }
        rows[length] = Row { code, count, symbol };
        code += count;
        symbol += count as usize;
        length += 1;
    }
    rows
}

const fn next() -> [(u8, u8); 256] {
    let (mut next, mut length) = ([(0, 0); 256], 1);
    while length <= 8 {
        let mut n = 0;
        while n < ROWS[length].count {
            let (symbol, code) = (SYMBOLS[ROWS[length].symbol + n as usize], ROWS[length].code + n);
            let mut rest = 0;
            while rest < 1 << (8 - length) {
                next[((code as usize) << (8 - length)) + rest] = (symbol as u8, length as u8);
                rest += 1;
            }
            n += 1;
        }
        length += 1;
    }
    next
}

/// Appends what `code` stands for.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // The next bits, first ones first, and how many they are.
    let (mut bits, mut have, mut rest) = (0_u64, 0_usize, code);
    loop {
        while have <= 56
            && let Some((byte, after)) = rest.split_first()
        {
            bits |= u64::from(*byte) << (56 - have);
            (have, rest) = (have + 8, after);
        }
        let (symbol, length) = match NEXT[(bits >> 56) as usize] {
            (symbol, 0) => long(bits).unwrap_or((u16::from(symbol), LONGEST)),
            (symbol, length) => (u16::from(symbol), usize::from(length)),
        };
        if length > have {
            // What is left fills the last byte up with the first bits of the end (§5.2): ones.
            let padding =
                have < 8 && bits >> (64 - have.max(1)) == if have == 0 { 0 } else { (1 << have) - 1 };
            return if padding { Ok(()) } else { Err(Malformed("Huffman's code ends within a symbol")) };
        }
        let symbol = u8::try_from(symbol).map_err(|_| Malformed("Huffman's code has an end within"))?;
        out.push(symbol);
        bits <<= length;
        have -= length;
    }
}

/// The symbol of a code of more than eight bits; those that begin with nothing but ones are none, or the end.
fn long(bits: u64) -> Option<(u16, usize)> {
    (9..=LONGEST).find_map(|length| {
        let (row, code) = (ROWS[length], (bits >> (64 - length)) as u32);
        let n = code.checked_sub(row.code).filter(|n| *n < row.count)?;
        Some((SYMBOLS[row.symbol + n as usize], length))
    })
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for byte in text {
        let length = usize::from(LENGTHS[usize::from(*byte)]);
        let at = SYMBOLS.iter().position(|symbol| *symbol == u16::from(*byte)).expect("each has one");
        let code = ROWS[length].code + u32::try_from(at - ROWS[length].symbol).expect("few");
        bits.push_str(&format!("{code:0length$b}"));
    }
    bits.push_str(&"1".repeat(bits.len().next_multiple_of(8) - bits.len()));
    let byte =
        |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).expect("digits"), 2).expect("a byte");
    bits.as_bytes().chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(code: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(code, &mut out).map(|()| out)
    }

    /// RFC 7541, appendix C.4 and C.6.
    #[test]
    fn the_papers_strings_are_read() {
        let strings: [(&str, &[u8]); 5] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
        ];
        for (text, code) in strings {
            assert_eq!(decoded(code).expect("a string"), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), code);
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let ends = [0xff, 0xff, 0xff, 0xff];
        for bad in [&[0xff][..], &ends, &[0x64, 0x02, 0xff], &[0x18]] {
            assert!(decoded(bad).is_err(), "{bad:x?}");
        }
        assert_eq!(decoded(&[]).expect("nothing"), b"");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)).expect("a string"), text);
        }
    }
}
