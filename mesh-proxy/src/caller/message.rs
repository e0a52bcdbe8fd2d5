//! Pure. What the kernel is asked about one TCP socket, and what it answers (linux/netlink.h, linux/sock_diag.h,
//! linux/inet_diag.h). All numbers are the host's, but for ports and addresses.

use std::net::{IpAddr, SocketAddr};

/// As much as an answer has: the message, its attributes; the kernel sends a page at the most.
pub(super) const ANSWER_BYTES_MAX: usize = 4_096;

const HEAD_BYTES: usize = 16;
const QUESTION_BYTES: usize = 72;
/// `struct inet_diag_msg`.
const FACTS_BYTES: usize = 72;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `INET_DIAG_CGROUP_ID`, since Linux 5.8.
const CGROUP_ID: u16 = 21;

/// What the kernel says of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// `tcp_states.h`.
    pub(super) state: u8,
    /// The user who made it.
    pub(super) uid: u32,
    /// 0 if no process has it open.
    pub(super) inode: u32,
    /// The cgroup of whoever made it.
    pub(super) cgroup: Option<u64>,
}

/// What an answer may be beside facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoFacts {
    /// The kernel's number of an error.
    Error(i32),
    /// The answer to an earlier question.
    Stale,
    /// It is no answer that we know.
    Odd,
}

/// Asks for the one socket whose own address is `own` and whose other end is at `other`, both of one family.
pub(super) fn question(sequence: u32, own: SocketAddr, other: SocketAddr) -> [u8; QUESTION_BYTES] {
    let mut bytes = [0; QUESTION_BYTES];
    bytes[..4].copy_from_slice(&(QUESTION_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let asked = &mut bytes[HEAD_BYTES..];
    asked[0] = if own.is_ipv4() { AF_INET } else { AF_INET6 };
    asked[1] = IPPROTO_TCP;
    // In any state: which one it is in is judged by whoever asks.
    asked[4..8].fill(0xff);
    asked[8..10].copy_from_slice(&own.port().to_be_bytes());
    asked[10..12].copy_from_slice(&other.port().to_be_bytes());
    put(&mut asked[12..28], own.ip());
    put(&mut asked[28..44], other.ip());
    // Whatever its cookie is.
    asked[48..56].fill(0xff);
    bytes
}

fn put(place: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => place[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
    }
}

/// Reads an answer.
pub(super) fn answer(bytes: &[u8], sequence: u32) -> Result<Facts, NoFacts> {
    let word = |at: usize| number(bytes, at).map(u32::from_ne_bytes).ok_or(NoFacts::Odd);
    if word(8)? != sequence {
        return Err(NoFacts::Stale);
    }
    match number(bytes, 4).map(u16::from_ne_bytes) {
        Some(NLMSG_ERROR) => Err(NoFacts::Error(word(HEAD_BYTES)?.cast_signed().saturating_neg())),
        Some(SOCK_DIAG_BY_FAMILY) => Ok(Facts {
            state: *bytes.get(HEAD_BYTES + 1).ok_or(NoFacts::Odd)?,
            uid: word(HEAD_BYTES + 64)?,
            inode: word(HEAD_BYTES + 68)?,
            cgroup: attribute(&bytes[HEAD_BYTES + FACTS_BYTES..], CGROUP_ID)
                .and_then(|value| number(value, 0))
                .map(u64::from_ne_bytes),
        }),
        _ => Err(NoFacts::Odd),
    }
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..at + BYTES)?.try_into().ok()
}

/// The value of an attribute: each has its length and its type before it, and begins at a multiple of four.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(number(bytes, 0)?));
        let kind = u16::from_ne_bytes(number(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as the kernel gives it, with these attributes.
    fn told(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES + FACTS_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[8..12].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[HEAD_BYTES + 1] = 1;
        bytes[HEAD_BYTES + 64..HEAD_BYTES + 68].copy_from_slice(&1_001_u32.to_ne_bytes());
        bytes[HEAD_BYTES + 68..].copy_from_slice(&77_u32.to_ne_bytes());
        for (kind, value) in attributes {
            bytes.extend(u16::try_from(value.len() + 4).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn an_answer_is_read_with_its_cgroup() {
        let facts = Facts { state: 1, uid: 1_001, inode: 77, cgroup: None };
        assert_eq!(answer(&told(20, &[]), 3), Ok(facts));
        let with = told(20, &[(8, &[1, 2, 3]), (21, &4_711_u64.to_ne_bytes()), (15, &[0; 4])]);
        assert_eq!(answer(&with, 3), Ok(Facts { cgroup: Some(4_711), ..facts }));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert_eq!(answer(&told(20, &[]), 4), Err(NoFacts::Stale));
        assert_eq!(answer(&told(3, &[]), 3), Err(NoFacts::Odd));
        let mut error = told(NLMSG_ERROR, &[]);
        error[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(answer(&error, 3), Err(NoFacts::Error(2)));
        let whole = told(20, &[(21, &4_711_u64.to_ne_bytes())]);
        for end in 0..HEAD_BYTES + FACTS_BYTES {
            assert_eq!(answer(&whole[..end], 3), Err(NoFacts::Odd), "{end} bytes");
        }
        // Attributes that do not add up are left out.
        let mut odd = whole.clone();
        odd[HEAD_BYTES + FACTS_BYTES] = 3;
        assert_eq!(answer(&odd, 3).map(|facts| facts.cgroup), Ok(None));
    }

    #[test]
    fn a_question_has_its_addresses_where_the_kernel_looks() {
        let asked = question(3, "127.0.0.1:4000".parse().expect("one"), "127.0.0.2:80".parse().expect("one"));
        assert_eq!(asked[16..18], [AF_INET, IPPROTO_TCP]);
        assert_eq!(asked[24..32], [0x0f, 0xa0, 0, 80, 127, 0, 0, 1]);
        assert_eq!(asked[44..48], [127, 0, 0, 2]);
        let asked = question(3, "[::1]:1".parse().expect("one"), "[::2]:2".parse().expect("one"));
        assert_eq!((asked[16], asked[43], asked[59]), (AF_INET6, 1, 2));
    }
}
