//! Pure. The name in a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3). Every length is checked against what holds it.

use super::Detected;

/// A record's header: type, version, length (RFC 8446 §5.1).
const RECORD_HEADER_BYTES: usize = 5;
/// A record has at most so many bytes.
const RECORD_BYTES_MAX: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What a connection speaks that begins with the byte of a handshake record.
pub(super) fn detect(bytes: &[u8]) -> Detected {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((header, body)) = rest.split_at_checked(RECORD_HEADER_BYTES) else {
            return partial(rest, &handshake);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != 0x16 || header[1] != 3 || length == 0 || length > RECORD_BYTES_MAX {
            return Detected::Tcp;
        }
        // A hello may be spread over several records.
        handshake.extend_from_slice(&body[..length.min(body.len())]);
        match hello(&handshake) {
            Hello::Whole(server_name) => return Detected::Tls { server_name },
            Hello::Other => return Detected::Tcp,
            Hello::Cut if body.len() < length => return Detected::NeedMore,
            Hello::Cut => rest = &body[length..],
        }
    }
}

/// A record's header that is cut off.
fn partial(header: &[u8], handshake: &[u8]) -> Detected {
    let right = header.iter().zip([0x16, 3]).all(|(byte, want)| *byte == want);
    if right || (header.is_empty() && !handshake.is_empty()) { Detected::NeedMore } else { Detected::Tcp }
}

enum Hello {
    Whole(Option<String>),
    Cut,
    Other,
}

fn hello(handshake: &[u8]) -> Hello {
    match handshake {
        [] => Hello::Cut,
        [CLIENT_HELLO, a, b, c, rest @ ..] => {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            rest.get(..length).map_or(Hello::Cut, |body| Hello::Whole(server_name(body)))
        }
        [CLIENT_HELLO, ..] => Hello::Cut,
        _ => Hello::Other,
    }
}

/// The name in the hello's body; none if there is none or the body is malformed, which its server will say.
fn server_name(body: &[u8]) -> Option<String> {
    let rest = body.get(2 + 32..)?;
    let (_session, rest) = prefixed::<1>(rest)?;
    let (_ciphers, rest) = prefixed::<2>(rest)?;
    let (_compression, rest) = prefixed::<1>(rest)?;
    let (mut extensions, _) = prefixed::<2>(rest)?;
    while let [high, low, rest @ ..] = extensions {
        let (value, rest) = prefixed::<2>(rest)?;
        if u16::from_be_bytes([*high, *low]) == SERVER_NAME {
            return host_name(value);
        }
        extensions = rest;
    }
    None
}

fn host_name(extension: &[u8]) -> Option<String> {
    let (list, _) = prefixed::<2>(extension)?;
    let [HOST_NAME, rest @ ..] = list else { return None };
    let (name, _) = prefixed::<2>(rest)?;
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let right = (1..=253).contains(&name.len()) && name.iter().all(allowed);
    right.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// A vector with a length of `N` bytes, and what follows it.
fn prefixed<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(N)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - length_bytes..], content].concat()
    }

    /// The handshake message of a hello with these extensions.
    fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, value)| [kind.to_be_bytes().to_vec(), vector(2, value)].concat())
            .collect();
        let fixed = [&[3, 3][..], &[7; 32]].concat();
        let lists =
            [vector(1, &[9; 32]), vector(2, &[0x13, 1]), vector(1, &[0]), vector(2, &extensions)].concat();
        [vec![CLIENT_HELLO], vector(3, &[fixed, lists].concat())].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        let entry = [vec![HOST_NAME], vector(2, name)].concat();
        hello_with(&[(43, vec![2, 3, 4]), (SERVER_NAME, vector(2, &entry)), (10, vec![0])])
    }

    /// In records of `size` bytes.
    fn records(handshake: &[u8], size: usize) -> Vec<u8> {
        handshake.chunks(size).flat_map(|part| [vec![0x16, 3, 1], vector(2, part)].concat()).collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], want: Option<&str>) {
        assert_eq!(detect(bytes), Detected::Tls { server_name: want.map(str::to_owned) });
    }

    #[test]
    fn the_name_is_found_in_one_record_or_many() {
        let hello = named(b"Orders.default.mesh");
        for size in [1, 7, 100, 16_000] {
            check(&records(&hello, size), Some("orders.default.mesh"));
        }
        check(&records(&hello_with(&[(10, vec![0])]), 16_000), None);
    }

    #[test]
    fn names_that_no_host_has_are_none() {
        for wrong in [&b""[..], b"a b", b"a/b", b"\xff", &[b'a'; 254]] {
            check(&records(&named(wrong), 16_000), None);
        }
    }

    #[test]
    fn every_cut_needs_more() {
        for size in [50, 16_000] {
            let bytes = records(&named(b"a.b.mesh"), size);
            for length in 1..bytes.len() {
                assert_eq!(detect(&bytes[..length]), Detected::NeedMore, "{length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_give_no_name_and_no_panic() {
        let whole = named(b"a.b.mesh");
        for at in 4..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                assert!(matches!(detect(&records(&bytes, 16_000)), Detected::Tls { .. }));
            }
        }
    }

    #[test]
    fn other_handshakes_and_records_are_bytes() {
        for other in [&[0x16, 3, 1, 0, 1, 2][..], &[0x16, 2], &[0x16, 3, 1, 0, 0], &[0x16, 3, 1, 0xff, 0xff]]
        {
            assert_eq!(detect(other), Detected::Tcp, "{other:?}");
        }
    }
}
