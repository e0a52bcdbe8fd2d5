//! What becomes of requests that two readers could read in two ways, by the codec alone; `mesh-proxy/tests/smuggling.rs`
//! sends them through proxies.

#[path = "http1/corpus.rs"]
mod corpus;
#[path = "http1/reader.rs"]
mod reader;

use std::collections::HashSet;

use proptest::prelude::*;
use reader::read;
use traffic::http1::{self, Answer, Decoder, HeadEnd, Length, Malformed, Next};

/// Whatever the codec lets pass.
const ANY: fn(&str) -> bool = |_| true;

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_all_else_goes_on_exactly_so() {
    let cases = corpus::cases();
    assert!(cases.len() >= 500, "{} cases", cases.len());
    for case in &cases {
        let got = read([&case.bytes[..]], ANY);
        let requests: Vec<String> =
            got.requests.iter().map(|seen| String::from_utf8_lossy(seen).into_owned()).collect();
        assert_eq!(requests, case.forwarded, "{}: {}", case.name, case.bytes.escape_ascii());
        assert_eq!(got.refused.is_some(), case.refused, "{}: {:?}", case.name, got.refused);
    }
    let distinct: HashSet<&[u8]> = cases.iter().map(|case| &case.bytes[..]).collect();
    assert!(distinct.len() >= 500, "{} of them are distinct", distinct.len());
}

#[test]
fn it_does_not_matter_in_which_pieces_a_request_comes() {
    for case in corpus::cases().iter().filter(|case| case.bytes.len() < 10_000) {
        let whole = read([&case.bytes[..]], ANY);
        for step in [1, 2, 3, 7, 31] {
            assert_eq!(read(case.bytes.chunks(step), ANY), whole, "{} in pieces of {step}", case.name);
        }
    }
}

/// How long the body of an answer to `method` is, and whether another request may follow.
#[track_caller]
fn check_answer(method: &str, head: &str, want: Result<(Length, bool), Malformed>) {
    let head = head.replace('\n', "\r\n") + "\r\n\r\n";
    let length = HeadEnd::default().find(head.as_bytes());
    assert_eq!(length, Ok(Some(head.len())), "{head}");
    let mut spare = http1::spare();
    let got =
        Answer::read(head.as_bytes(), method, &mut spare).map(|answer| (answer.body, answer.keep_alive));
    assert_eq!(got, want, "{method}: {head}");
}

#[test]
fn an_answer_is_as_long_as_the_rules_say() {
    use Length::{Chunked, Exactly, UntilClose};
    check_answer("GET", "HTTP/1.1 200 OK\nContent-Length: 5", Ok((Exactly(5), true)));
    check_answer("GET", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", Ok((Chunked, true)));
    check_answer("GET", "HTTP/1.1 200 OK", Ok((UntilClose, false)));
    check_answer("GET", "HTTP/1.1 200", Ok((UntilClose, false)));
    check_answer("GET", "HTTP/1.0 200 OK\nContent-Length: 5", Ok((Exactly(5), false)));
    check_answer("GET", "HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive", Ok((Exactly(5), true)));
    check_answer("GET", "HTTP/1.1 200 OK\nContent-Length: 5\nConnection: close", Ok((Exactly(5), false)));
    for bodiless in
        ["204 No Content", "304 Not Modified", "101 Switching Protocols", "100 Continue", "103 Early Hints"]
    {
        check_answer("GET", &format!("HTTP/1.1 {bodiless}\nContent-Length: 5"), Ok((Exactly(0), true)));
        check_answer("GET", &format!("HTTP/1.1 {bodiless}"), Ok((Exactly(0), true)));
    }
    check_answer("HEAD", "HTTP/1.1 200 OK\nContent-Length: 5", Ok((Exactly(0), true)));
    check_answer("HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", Ok((Exactly(0), true)));
    check_answer("HEAD", "HTTP/1.1 200 OK", Ok((Exactly(0), true)));
}

#[test]
fn an_answer_that_could_be_read_in_two_ways_is_refused() {
    for (fields, want) in [
        ("Content-Length: 5\nContent-Length: 5", Malformed::Length),
        ("Content-Length: 5, 5", Malformed::Length),
        ("Content-Length: +5", Malformed::Length),
        ("Content-Length: 5\nTransfer-Encoding: chunked", Malformed::LengthAndCoding),
        ("Transfer-Encoding: gzip, chunked", Malformed::Coding),
        ("Transfer-Encoding: identity", Malformed::Coding),
        ("Transfer_Encoding: chunked", Malformed::Lookalike),
        ("Connection: \u{80}, close", Malformed::Connection),
    ] {
        check_answer("GET", &format!("HTTP/1.1 200 OK\n{fields}"), Err(want));
    }
    check_answer("GET", "HTTP/1.0 200 OK\nTransfer-Encoding: chunked", Err(Malformed::CodingInHttp10));
    check_answer("GET", "HTTP/1.1 099 Odd", Err(Malformed::Status(99)));
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection_and_no_other_does() {
    let mut decoder = Decoder::new(Length::UntilClose);
    assert_eq!(decoder.next(b"ab"), Ok(Next::Data { at: 0, length: 2 }));
    assert!(!decoder.is_over());
    assert_eq!((decoder.cut(), decoder.is_over()), (Ok(()), true));
    for length in [Length::Exactly(3), Length::Chunked] {
        let mut decoder = Decoder::new(length);
        assert!(decoder.next(b"1").is_ok());
        assert_eq!(decoder.cut(), Err(Malformed::CutOff));
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let mut out = Vec::new();
    http1::request_line(&mut out, "POST", Some("b:81"), "/x?y");
    http1::field(&mut out, "host", b"b:81");
    http1::content_length(&mut out, 0);
    out.extend_from_slice(b"\r\n");
    assert_eq!(out, b"POST http://b:81/x?y HTTP/1.1\r\nhost: b:81\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(read([&out[..]], ANY).requests, [b"POST /x?y b:81 ".to_vec()]);
    let mut out = Vec::new();
    http1::status_line(&mut out, 200, "OK");
    http1::content_length(&mut out, 18_446_744_073_709_551_615);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n");
}

proptest! {
    /// Any pieces, written as chunks, are read as the same bytes.
    #[test]
    fn chunks_that_are_written_are_read_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8)) {
        let mut out = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in &pieces {
            http1::chunk_head(&mut out, piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(http1::LAST_CHUNK);
        let want = [b"POST /x a ", &pieces.concat()[..]].concat();
        prop_assert_eq!(read([&out[..]], ANY).requests, [want]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), body: bool) {
        let before: &[u8] = if body { b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
        let whole = [before, &bytes].concat();
        prop_assert_eq!(read([&whole[..]], ANY), read(whole.chunks(1), ANY));
    }
}
