//! Pure. gRPC's own health check (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>): its two messages,
//! which are so small that they are written and read by hand.

/// What is called.
pub(super) const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The answer that means health: `SERVING`.
const SERVING: u64 = 1;
/// What stands before a message: whether it is compressed, and its length (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

/// A `HealthCheckRequest` for a service; the empty name is the server as a whole.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a text.
        message.push(0x0a);
        varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

/// What an answer's body says: a `HealthCheckResponse`.
///
/// # Errors
/// If it is anything but `SERVING`.
pub(super) fn answer(body: &[u8]) -> Result<(), String> {
    let message = body.get(PREFIX_BYTES..).ok_or("its answer is no message")?;
    let mut rest = message;
    let mut status = 0;
    while let Some((&tag, behind)) = rest.split_first() {
        // Whatever else a later version of it says is not for us.
        if tag != 0x08 {
            break;
        }
        (status, rest) = number(behind).ok_or("its answer is no message")?;
    }
    match status {
        SERVING => Ok(()),
        0 => Err("its status is UNKNOWN".to_owned()),
        2 => Err("its status is NOT_SERVING".to_owned()),
        3 => Err("it knows no such service".to_owned()),
        other => Err(format!("its status is {other}")),
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_service_or_none() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = request(&"x".repeat(200));
        assert_eq!((&long[..8], long.len()), (&[0, 0, 0, 0, 203, 0x0a, 0xc8, 1][..], 208));
    }

    #[test]
    fn serving_alone_is_health() {
        for (body, want) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Ok(())),
            (&[0, 0, 0, 0, 5, 8, 1, 0x12, 1, b'x'], Ok(())),
            (&[0, 0, 0, 0, 2, 8, 2], Err("its status is NOT_SERVING")),
            (&[0, 0, 0, 0, 2, 8, 3], Err("it knows no such service")),
            (&[0, 0, 0, 0, 3, 8, 0x80, 1], Err("its status is 128")),
            (&[0, 0, 0, 0, 0], Err("its status is UNKNOWN")),
            (&[0, 0, 0, 0, 2, 8, 0x80], Err("its answer is no message")),
            (&[0, 0], Err("its answer is no message")),
            (&[], Err("its answer is no message")),
        ] {
            assert_eq!(answer(body), want.map_err(str::to_owned), "{body:?}");
        }
    }
}
