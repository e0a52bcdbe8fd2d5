//! Pure. What is written, in the one form that everybody reads alike.

/// What ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The first line of a request; a target that is a URI has its authority.
pub fn request_line(out: &mut Vec<u8>, method: &str, authority: Option<&str>, path: &str) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    if let Some(authority) = authority {
        out.extend_from_slice(b"http://");
        out.extend_from_slice(authority.as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// The first line of an answer.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One field.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// How long the body is.
pub fn content_length(out: &mut Vec<u8>, bytes: u64) {
    out.extend_from_slice(b"content-length: ");
    number(out, bytes);
    out.extend_from_slice(b"\r\n");
}

/// What stands before a chunk of so many bytes, at least one; CRLF stands behind it.
pub fn chunk_head(out: &mut Vec<u8>, bytes: usize) {
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4).max(1);
    let digit = |at: u32| char::from_digit(((bytes >> (4 * at)) & 0xf) as u32, 16).expect("four bits");
    out.extend((0..digits).rev().map(|at| digit(at) as u8));
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, number: u64) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
