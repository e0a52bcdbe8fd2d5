//! Pure. What a connection speaks, by its first bytes. Nothing is taken from them: they still belong to the stream.
//! A server that speaks first sends nothing to look at; the caller then takes it for [`Detected::Tcp`] after a while.

mod client_hello;

/// As many bytes are looked at: a longer first line is taken for what it looks like so far, a longer ClientHello for one
/// without a name. Held for each connection that has not said what it speaks.
pub const DETECT_BYTES_MAX: usize = 16 * 1024;
/// As long as a method may be to be taken for one, in bytes.
const METHOD_BYTES_MAX: usize = 32;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// TLS, with the name that the client asked for, in lower case.
    Tls {
        /// SNI (RFC 6066 §3), if there is one and it is a host name.
        server_name: Option<String>,
    },
    /// Something else.
    Tcp,
    /// It cannot be told yet: read more, at most [`DETECT_BYTES_MAX`] in all.
    NeedMore,
}

/// Tells what a connection speaks that begins with `bytes`.
pub fn detect(bytes: &[u8]) -> Detected {
    let full = bytes.len() >= DETECT_BYTES_MAX;
    let bytes = &bytes[..bytes.len().min(DETECT_BYTES_MAX)];
    let detected = match bytes {
        [] => Detected::NeedMore,
        [0x16, ..] => client_hello::detect(bytes),
        _ if bytes.starts_with(PREFACE) => Detected::Http2,
        _ if PREFACE.starts_with(bytes) => Detected::NeedMore,
        _ => request_line(bytes),
    };
    match detected {
        Detected::NeedMore if full => longest(bytes),
        detected => detected,
    }
}

/// What is still unclear after as many bytes as we look at.
fn longest(bytes: &[u8]) -> Detected {
    if bytes[0] == 0x16 { Detected::Tls { server_name: None } } else { Detected::Http1 }
}

/// A first line like `GET /a HTTP/1.1` (RFC 9112 §3), which may follow empty lines.
fn request_line(bytes: &[u8]) -> Detected {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len());
    let line = &bytes[start..];
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = line.iter().take_while(|byte| token(byte)).count();
    match line.get(method) {
        _ if method > METHOD_BYTES_MAX => Detected::Tcp,
        None => Detected::NeedMore,
        Some(b' ') if method > 0 => target(&line[method + 1..]),
        Some(_) => Detected::Tcp,
    }
}

/// What follows the method: printable bytes, then the version. That something else is among them is said whether the line
/// has ended or not: how the bytes are cut into packets must not matter.
fn target(rest: &[u8]) -> Detected {
    let end = rest.iter().position(|&byte| byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    if !line.iter().all(|&byte| byte >= b' ' && byte != 0x7f || byte == b'\r') {
        return Detected::Tcp;
    }
    if end.is_none() {
        return Detected::NeedMore;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Detected::Http1 } else { Detected::Tcp }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], want: Detected) {
        assert_eq!(detect(bytes), want, "{}", bytes.escape_ascii());
    }

    #[test]
    fn requests_of_http_1_are_known_by_their_first_line() {
        check(b"GET / HTTP/1.1\r\n", Detected::Http1);
        check(b"\r\nPURGE /a?b=c HTTP/1.0\nHost: a", Detected::Http1);
        check(b"CONNECT a:1 HTTP/1.1\r\n", Detected::Http1);
        for more in
            [&b""[..], b"G", b"GET", b"GET ", b"GET /a", b"GET /a HTTP/1.1", b"GET /a HTTP/1.1\r", b"\r\n"]
        {
            check(more, Detected::NeedMore);
        }
        let long = [b"GET /", &[b'a'; DETECT_BYTES_MAX][..]].concat();
        check(&long[..DETECT_BYTES_MAX - 1], Detected::NeedMore);
        check(&long, Detected::Http1);
    }

    #[test]
    fn http_2_is_known_by_its_preface() {
        check(PREFACE, Detected::Http2);
        check(&[PREFACE, b"\0\0\0"].concat(), Detected::Http2);
        for length in 0..PREFACE.len() {
            check(&PREFACE[..length], Detected::NeedMore);
        }
        check(b"PRI * HTTP/2.0\r\n\r\nXX", Detected::Tcp);
    }

    #[test]
    fn all_else_is_bytes() {
        for other in [
            &b"\0"[..],
            b"SSH-2.0-OpenSSH_9\r\n",
            b"EHLO host\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET /\r\n",
            b"GET \x01",
            b"GET /\x01 HTTP/1.1\r\n",
            b" / HTTP/1.1\r\n",
            &[b'A'; 40],
        ] {
            check(other, Detected::Tcp);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), tls: bool) {
            let bytes = if tls { [&[0x16, 3, 1, 0, 100, 1][..], &bytes].concat() } else { bytes };
            let _ = detect(&bytes);
        }

        #[test]
        fn more_bytes_never_change_the_answer(text in "(GET|P|PRI|\r\n)? ?[ -~\r\n]{0,40}( HTTP/1.1\r\n)?", cut in 0..64_usize) {
            let bytes = text.as_bytes();
            let early = detect(&bytes[..cut.min(bytes.len())]);
            prop_assert!(early == Detected::NeedMore || early == detect(bytes));
        }
    }
}
