//! Reads what comes on a connection as a proxy does: with the codec, but for sockets.

use traffic::http1::{self, Decoder, HeadEnd, Length, Malformed, Next, Request};

/// What a connection brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// Whole requests: `METHOD target host body`.
    pub(crate) requests: Vec<Vec<u8>>,
    /// What ended it, if something did.
    pub(crate) refused: Option<Malformed>,
}

/// The largest head, in bytes, as the proxy has it.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// Reads pieces as they come; `fits` is what the proxy's type for targets says of one.
pub(crate) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, fits: fn(&str) -> bool) -> Read {
    let mut connection = Connection { pieces: pieces.into_iter(), ahead: Vec::new(), fits };
    let mut requests = Vec::new();
    let refused = loop {
        match connection.one() {
            Ok(Some((request, keep_alive))) => {
                requests.push(request);
                if !keep_alive {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(malformed) => break Some(malformed),
        }
    };
    Read { requests, refused }
}

struct Connection<I> {
    pieces: I,
    ahead: Vec<u8>,
    fits: fn(&str) -> bool,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Connection<I> {
    fn one(&mut self) -> Result<Option<(Vec<u8>, bool)>, Malformed> {
        let mut end = HeadEnd::default();
        let head = loop {
            match end.find(&self.ahead)? {
                Some(length) if length > HEAD_BYTES_MAX => return Err(Malformed::Fields(0)),
                Some(length) => break self.ahead.drain(..length).collect::<Vec<u8>>(),
                None if self.more() => {}
                None if self.ahead.is_empty() => return Ok(None),
                None => return Err(Malformed::CutOff),
            }
        };
        let mut spare = http1::spare();
        let request = Request::read(&head, &mut spare)?;
        if !(self.fits)(request.target) {
            return Err(Malformed::Target);
        }
        let mut seen = shown(&request);
        self.body(request.body, &mut seen)?;
        // What follows is no longer HTTP.
        let tunnel = request.method == "CONNECT";
        Ok(Some((seen, request.keep_alive && !tunnel)))
    }

    fn body(&mut self, length: Length, seen: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut decoder = Decoder::new(length);
        loop {
            match decoder.next(&self.ahead)? {
                Next::Data { at, length } => {
                    seen.extend_from_slice(&self.ahead[at..at + length]);
                    self.ahead.drain(..at + length);
                }
                Next::End { at } => {
                    self.ahead.drain(..at);
                    return Ok(());
                }
                Next::More => {
                    self.ahead.clear();
                    if !self.more() {
                        return decoder.cut();
                    }
                }
            }
        }
    }

    fn more(&mut self) -> bool {
        self.pieces.next().map(|piece| self.ahead.extend_from_slice(piece)).is_some()
    }
}

/// `METHOD target host `, the target without its authority, which is the host then.
fn shown(request: &Request<'_, '_>) -> Vec<u8> {
    let host = request.fields.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
    let host = host.map_or("", |host| std::str::from_utf8(host.value).expect("judged"));
    let (host, target) = match request.target.split_once("://").filter(|_| !request.target.starts_with('/')) {
        Some((_, rest)) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        None => (host, request.target),
    };
    let slash = if target.is_empty() || target.starts_with('?') { "/" } else { "" };
    format!("{} {slash}{target} {host} ", request.method).into_bytes()
}
