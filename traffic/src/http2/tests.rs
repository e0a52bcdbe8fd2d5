//! A connection against what a server may say.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{
    connection::Patience,
    frame::{self, Header},
    *,
};
use crate::{Moment, Outgoing};

/// A frame as a test says it.
type Said = (u8, u8, StreamId, Vec<u8>);

fn bytes(frames: &[Said]) -> BytesMut {
    let mut out = Vec::new();
    frames.iter().for_each(|(kind, flags, id, payload)| frame::short(&mut out, *kind, *flags, *id, payload));
    BytesMut::from(&out[..])
}

fn sent(connection: &mut Connection) -> Vec<u8> {
    let mut out = Outgoing::default();
    connection.transmit(&mut out, usize::MAX);
    out.to_vec()
}

/// The frames that go out now.
fn frames(connection: &mut Connection) -> Vec<Said> {
    let bytes = sent(connection);
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let Some(header) = Header::read(rest) {
        let (whole, after) = rest.split_at(frame::HEADER_BYTES + header.length);
        frames.push((header.kind, header.flags, header.stream, whole[frame::HEADER_BYTES..].to_vec()));
        rest = after;
    }
    assert!(rest.is_empty(), "whole frames");
    frames
}

/// One whose other side has said its settings.
fn greeted() -> Connection {
    let mut connection = Connection::new(Side::Asking, None, Moment::default());
    assert!(sent(&mut connection).starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x18\x04"));
    hear(&mut connection, &[(frame::SETTINGS, 0, 0, vec![])]).expect("settings");
    assert_eq!(frames(&mut connection), [(frame::SETTINGS, frame::ACK, 0, vec![])]);
    connection
}

fn hear(connection: &mut Connection, said: &[Said]) -> Result<(), Fault> {
    connection.receive(Moment::default(), &mut bytes(said))
}

fn ask(connection: &mut Connection, whole: bool) -> StreamId {
    let opened = connection.open(whole, false, |writer| writer.request("POST", "http", "orders", "/"));
    opened.expect("there is room")
}

fn head(id: StreamId, ends: bool, fields: &[(&str, &str)]) -> Said {
    let mut writer = Writer::default();
    fields.iter().for_each(|(name, value)| writer.field(name, value.as_bytes(), false));
    let section = writer.into_bytes();
    let ends = if ends { frame::END_STREAM } else { 0 };
    (frame::HEADERS, frame::END_HEADERS | ends, id, section)
}

fn data(id: StreamId, ends: bool, payload: &[u8]) -> Said {
    (frame::DATA, u8::from(ends), id, payload.to_vec())
}

fn setting(name: u16, value: u32) -> Said {
    (frame::SETTINGS, 0, 0, [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn update(id: StreamId, more: u32) -> Said {
    (frame::WINDOW_UPDATE, 0, id, more.to_be_bytes().to_vec())
}

const OK: [(&str, &str); 1] = [(":status", "200")];

#[test]
fn a_request_goes_out_and_its_answer_comes_in() {
    let mut connection = greeted();
    let id = ask(&mut connection, false);
    let mut body = Bytes::from_static(b"ask");
    assert_eq!(connection.give(id, &mut body), Ok(3));
    connection.finish(id, None);
    let out = frames(&mut connection);
    assert_eq!((out[0].0, out[0].1, out[0].2), (frame::HEADERS, frame::END_HEADERS, 1));
    assert_eq!(out[1..], [data(1, true, b"ask")]);
    assert_eq!(connection.head(id), Ok(None));
    let trailers = head(1, true, &[("grpc-status", "0")]);
    hear(&mut connection, &[head(1, false, &OK), data(1, false, b"answer"), trailers]).expect("by the rules");
    assert_eq!(connection.next_event(), Some(Event::Read(1)));
    let (answer, whole) = connection.head(id).expect("unbroken").expect("it came");
    assert_eq!((answer.status, whole), (200, false));
    assert_eq!(connection.take(id), Ok(Piece::Data(Bytes::from_static(b"answer"))));
    let Ok(Piece::Trailers(trailers)) = connection.take(id) else { panic!("trailers") };
    assert_eq!(trailers[0].value, "0");
    assert_eq!((connection.take(id), connection.streams()), (Ok(Piece::End), 0));
    connection.release_writer(id);
    connection.release_reader(id);
    assert!(!connection.knows(id) && frames(&mut connection).is_empty(), "nobody is told anything");
}

#[test]
fn what_is_let_go_of_before_its_end_is_reset_once() {
    for (writer_first, came) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut connection = greeted();
        let id = ask(&mut connection, false);
        frames(&mut connection);
        if came {
            hear(&mut connection, &[head(1, false, &OK), data(1, false, b"some")]).expect("by the rules");
        }
        if writer_first {
            connection.release_writer(id);
        }
        connection.release_reader(id);
        connection.release_writer(id);
        assert_eq!(frames(&mut connection), [(frame::RST_STREAM, 0, 1, 8_u32.to_be_bytes().to_vec())]);
        assert!(!connection.knows(id) && connection.streams() == 0);
        hear(&mut connection, &[data(1, true, b"late")]).expect("it was on its way");
    }
}

/// RFC 9113 §8.1: an answer may be whole before its request is, and then says that no more is wanted.
#[test]
fn an_answer_that_is_whole_is_read_though_its_request_is_reset() {
    let mut connection = greeted();
    let id = ask(&mut connection, false);
    frames(&mut connection);
    let reset = (frame::RST_STREAM, 0, 1, vec![0; 4]);
    let said = [head(1, false, &[(":status", "413")]), data(1, true, b"too large"), reset];
    hear(&mut connection, &said).expect("by the rules");
    assert_eq!(connection.head(id).expect("unbroken").expect("it came").0.status, 413);
    assert_eq!(connection.take(id), Ok(Piece::Data(Bytes::from_static(b"too large"))));
    assert_eq!(connection.take(id), Ok(Piece::End));
    assert!(connection.give(id, &mut Bytes::from_static(b"more")).is_err(), "nobody takes it");
    connection.release_reader(id);
    connection.release_writer(id);
    assert!(frames(&mut connection).is_empty());
}

#[test]
fn what_broke_off_says_whether_it_was_seen() {
    let went_away = |last: u32| (frame::GOAWAY, 0, 0, [last.to_be_bytes(), [0; 4]].concat());
    let reset = |code: u32| (frame::RST_STREAM, 0, 3, code.to_be_bytes().to_vec());
    for (said, want) in [
        (reset(7), Broken::Unseen),
        (reset(8), Broken::Reset(Code::CANCEL)),
        (went_away(1), Broken::Unseen),
        (head(3, false, &[("x", "1")]), Broken::Malformed("it has no status of three digits")),
    ] {
        let mut connection = greeted();
        let (first, second) = (ask(&mut connection, true), ask(&mut connection, true));
        assert_eq!((connection.head(first), connection.head(second)), (Ok(None), Ok(None)));
        hear(&mut connection, &[said]).expect("by the rules");
        let told: Vec<Event> = std::iter::from_fn(|| connection.next_event()).collect();
        assert!(told.contains(&Event::Read(3)) && !told.contains(&Event::Read(1)), "{told:?}");
        assert_eq!(connection.head(second), Err(want));
        assert_eq!(connection.head(first), Ok(None), "the other goes on");
    }
    let mut connection = greeted();
    let id = ask(&mut connection, true);
    frames(&mut connection);
    let unsent = ask(&mut connection, true);
    connection.close("gone");
    assert_eq!(connection.head(id), Err(Broken::Lost("gone".to_owned())));
    assert_eq!(connection.head(unsent), Err(Broken::Unseen), "its head had not gone out");
    assert!(!connection.is_usable());
}

#[test]
fn nothing_is_sent_beyond_a_window_and_all_of_it_within() {
    let mut connection = greeted();
    let (one, other) = (ask(&mut connection, false), ask(&mut connection, false));
    frames(&mut connection);
    let mut sent = 0;
    let body = |length: usize| Bytes::from(vec![7; length]);
    let mut left = body(100_000);
    let count = |connection: &mut Connection| -> usize {
        let data = frames(connection);
        assert!(data.iter().all(|frame| frame.0 == frame::DATA && frame.3.len() <= TURN_BYTES));
        data.iter().map(|frame| frame.3.len()).sum()
    };
    while connection.give(one, &mut left) != Ok(0) {
        sent += count(&mut connection);
    }
    assert_eq!(sent, 65_535, "the stream's window, and the connection's");
    assert_eq!(connection.give(other, &mut body(10)), Ok(10));
    hear(&mut connection, &[update(1, 1_000)]).expect("by the rules");
    assert_eq!(count(&mut connection), 0, "the connection's is used up");
    hear(&mut connection, &[update(0, 500)]).expect("by the rules");
    assert_eq!(count(&mut connection), 500, "each in its turn");
    hear(&mut connection, &[update(0, 100_000), setting(frame::INITIAL_WINDOW_SIZE, 70_000)])
        .expect("by the rules");
    while connection.give(one, &mut left) != Ok(0) {}
    let all: usize = frames(&mut connection)
        .iter()
        .filter(|frame| frame.0 == frame::DATA)
        .map(|frame| frame.3.len())
        .sum();
    assert_eq!(sent + 500 + all, 70_000 + 1_000 + 10, "streams' windows grow with what new ones have");
}

/// A stream's window may become less than nothing (§6.9.2).
#[test]
fn a_window_that_shrinks_is_waited_for() {
    let mut connection = greeted();
    let id = ask(&mut connection, false);
    connection.give(id, &mut Bytes::from(vec![0; 1_000])).expect("there is room");
    frames(&mut connection);
    hear(&mut connection, &[setting(frame::INITIAL_WINDOW_SIZE, 0)]).expect("by the rules");
    connection.give(id, &mut Bytes::from_static(b"x")).expect("there is room");
    connection.finish(id, None);
    let data = |connection: &mut Connection| frames(connection).iter().any(|frame| frame.0 == frame::DATA);
    assert!(!data(&mut connection));
    hear(&mut connection, &[update(1, 1_000)]).expect("by the rules");
    assert!(!data(&mut connection), "it only makes up for what was sent");
    hear(&mut connection, &[update(1, 1)]).expect("by the rules");
    assert!(data(&mut connection));
}

#[test]
fn what_is_read_is_given_back_and_no_more_than_the_window_is_taken() {
    let mut connection = greeted();
    let id = ask(&mut connection, true);
    frames(&mut connection);
    hear(&mut connection, &[head(1, false, &OK)]).expect("by the rules");
    connection.head(id).expect("unbroken").expect("it came");
    let piece = vec![0; FRAME_BYTES as usize];
    for _ in 0..16 {
        hear(&mut connection, &[data(1, false, &piece)]).expect("within the window");
    }
    assert!(frames(&mut connection).is_empty(), "nothing was read");
    for _ in 0..4 {
        assert!(matches!(connection.take(id), Ok(Piece::Data(_))));
    }
    assert_eq!(frames(&mut connection), [update(1, 4 * FRAME_BYTES)]);
    for _ in 0..4 {
        hear(&mut connection, &[data(1, false, &piece)]).expect("within the window");
    }
    hear(&mut connection, &[data(1, false, b"x")]).expect("the stream's fault alone");
    assert_eq!(connection.take(id), Err(Broken::Malformed("it sends more than the stream's window")));
    let out = frames(&mut connection);
    assert!(out.contains(&(frame::RST_STREAM, 0, 1, 3_u32.to_be_bytes().to_vec())), "{out:?}");
    assert!(
        out.iter().any(|frame| frame.0 == frame::WINDOW_UPDATE && frame.2 == 0),
        "what it held is given back"
    );
}

#[test]
fn as_many_are_opened_as_the_other_side_takes() {
    let mut connection = Connection::new(Side::Asking, None, Moment::default());
    let opened = |connection: &mut Connection| {
        (0..1_000).take_while(|_| connection.open(true, false, |_| ()).is_ok()).count()
    };
    assert_eq!(opened(&mut connection), STREAMS_AT_FIRST as usize);
    hear(&mut connection, &[setting(frame::MAX_CONCURRENT_STREAMS, 102)]).expect("settings");
    assert_eq!(connection.next_event(), Some(Event::Room));
    assert_eq!(opened(&mut connection), 2);
    hear(&mut connection, &[head(1, true, &OK)]).expect("by the rules");
    assert_eq!(connection.next_event(), Some(Event::Room), "whoever waits is told");
    assert_eq!(opened(&mut connection), 1);
    connection.drain();
    assert_eq!(connection.open(true, false, |_| ()), Err(Unopened::Closed));
}

#[test]
fn a_body_is_as_long_as_its_head_says() {
    let long = [(":status", "200"), ("content-length", "3")];
    for (said, bodiless, good) in [
        (vec![head(1, false, &long), data(1, true, b"abc")], false, true),
        (vec![head(1, false, &long), data(1, false, b"abc"), data(1, true, b"")], false, true),
        (vec![head(1, false, &long), data(1, true, b"ab")], false, false),
        (vec![head(1, false, &long), data(1, false, b"abcd")], false, false),
        (vec![head(1, true, &long)], false, false),
        (vec![head(1, false, &long), head(1, true, &[("x", "1")])], false, false),
        (vec![head(1, true, &long)], true, true),
        (vec![head(1, false, &long), data(1, true, b"abc")], true, false),
        (vec![head(1, true, &[(":status", "304"), ("content-length", "3")])], false, true),
        (vec![head(1, false, &OK), data(1, false, b"a"), head(1, false, &[("x", "1")])], false, false),
        (vec![data(1, true, b"abc")], false, false),
        (vec![head(1, true, &OK), data(1, true, b"abc")], false, false),
        (vec![head(1, false, &[(":status", "101")])], false, false),
        (vec![head(1, true, &[(":status", "100")])], false, false),
        (vec![head(1, false, &[(":status", "103")]), head(1, true, &OK)], false, true),
        (vec![head(1, false, &[(":status", "100")]); usize::from(INTERIM_MAX) + 1], false, false),
    ] {
        let mut connection = greeted();
        let id = connection.open(true, bodiless, |_| ()).expect("there is room");
        frames(&mut connection);
        hear(&mut connection, &said).expect("at most the stream's fault");
        let reset = frames(&mut connection).iter().any(|frame| frame.0 == frame::RST_STREAM);
        assert_eq!(!reset, good, "{said:?}");
        while let Ok(Piece::Data(_)) = connection.take(id) {}
        assert_eq!(connection.take(id) == Ok(Piece::End), good, "{said:?}");
    }
}

#[test]
fn who_breaks_the_rules_is_told_which() {
    let long = |kind, flags, id| (kind, flags, id, vec![0; 3]);
    let begun = (frame::HEADERS, 0, 1, vec![0x88]);
    let goes_on = |id| (frame::CONTINUATION, 0, id, vec![]);
    for (said, code) in [
        (vec![(frame::DATA, 0, 3, vec![])], Code::PROTOCOL),
        (vec![(frame::DATA, 0, 2, vec![])], Code::PROTOCOL),
        (vec![(frame::DATA, 0, 0, vec![])], Code::PROTOCOL),
        (vec![(frame::DATA, 8, 1, vec![])], Code::FRAME_SIZE),
        (vec![(frame::DATA, 8, 1, vec![2, 0])], Code::PROTOCOL),
        (vec![head(0, true, &OK)], Code::PROTOCOL),
        (vec![head(3, true, &OK)], Code::PROTOCOL),
        (vec![(frame::HEADERS, 0x24, 1, vec![0; 4])], Code::FRAME_SIZE),
        (vec![(frame::HEADERS, 4, 1, vec![0x80])], Code::COMPRESSION),
        (vec![begun.clone(), data(1, true, b"")], Code::PROTOCOL),
        (vec![begun.clone(), goes_on(3)], Code::PROTOCOL),
        (vec![goes_on(1)], Code::PROTOCOL),
        ([vec![begun.clone()], vec![goes_on(1); CONTINUATIONS_MAX]].concat(), Code::CALM),
        (
            [vec![begun], vec![(frame::CONTINUATION, 0, 1, vec![0; FRAME_BYTES as usize]); 4]].concat(),
            Code::CALM,
        ),
        (vec![(frame::PRIORITY, 0, 0, vec![0; 5])], Code::PROTOCOL),
        (vec![long(frame::PRIORITY, 0, 1)], Code::FRAME_SIZE),
        (vec![long(frame::RST_STREAM, 0, 1)], Code::FRAME_SIZE),
        (vec![(frame::RST_STREAM, 0, 5, vec![0; 4])], Code::PROTOCOL),
        (vec![long(frame::SETTINGS, 0, 0)], Code::FRAME_SIZE),
        (vec![(frame::SETTINGS, 0, 1, vec![])], Code::PROTOCOL),
        (vec![(frame::SETTINGS, frame::ACK, 0, vec![0; 6])], Code::FRAME_SIZE),
        (vec![setting(frame::ENABLE_PUSH, 1)], Code::PROTOCOL),
        (vec![setting(frame::INITIAL_WINDOW_SIZE, 1 << 31)], Code::FLOW_CONTROL),
        (vec![setting(frame::MAX_FRAME_SIZE, 16_383)], Code::PROTOCOL),
        (vec![setting(frame::MAX_FRAME_SIZE, 1 << 24)], Code::PROTOCOL),
        (vec![(frame::PUSH_PROMISE, 4, 1, vec![0; 4])], Code::PROTOCOL),
        (vec![(frame::PING, 0, 1, vec![0; 8])], Code::PROTOCOL),
        (vec![long(frame::PING, 0, 0)], Code::FRAME_SIZE),
        (vec![(frame::GOAWAY, 0, 1, vec![0; 8])], Code::PROTOCOL),
        (vec![long(frame::GOAWAY, 0, 0)], Code::FRAME_SIZE),
        (vec![long(frame::WINDOW_UPDATE, 0, 0)], Code::FRAME_SIZE),
        (vec![update(0, 0)], Code::PROTOCOL),
        (vec![update(0, 0x7fff_ffff)], Code::FLOW_CONTROL),
        (vec![update(7, 1)], Code::PROTOCOL),
        (vec![(frame::DATA, 0, 1, vec![0; FRAME_BYTES as usize + 1])], Code::FRAME_SIZE),
    ] {
        let mut connection = greeted();
        ask(&mut connection, true);
        frames(&mut connection);
        let fault = hear(&mut connection, &said).expect_err("against the rules");
        assert_eq!(fault.code, code, "{said:?}: {fault}");
        connection.fail(&fault);
        let out = frames(&mut connection);
        let told = out.last().expect("it is told");
        assert_eq!((told.0, &told.3[4..]), (frame::GOAWAY, &code.0.to_be_bytes()[..]));
        assert!(connection.head(1).is_err() && !connection.is_usable());
    }
    let mut first = Connection::new(Side::Asking, None, Moment::default());
    assert!(hear(&mut first, &[(frame::PING, 0, 0, vec![0; 8])]).is_err(), "settings come first");
}

/// Windows of streams that grow by nothing or too much are theirs alone.
#[test]
fn a_stream_whose_window_is_wrong_ends_alone() {
    for more in [0, 0x7fff_ffff] {
        let mut connection = greeted();
        let (one, other) = (ask(&mut connection, true), ask(&mut connection, true));
        hear(&mut connection, &[update(1, more)]).expect("the stream's fault alone");
        assert!(connection.head(one).is_err() && connection.head(other) == Ok(None));
    }
}

#[test]
fn what_is_not_known_is_passed_over_and_what_asks_is_answered() {
    let mut connection = greeted();
    let said = [
        (0x77, 0xff, 9, vec![1, 2, 3]),
        setting(0x99, 1),
        (frame::PING, 0, 0, b"12345678".to_vec()),
        (frame::PING, frame::ACK, 0, vec![0; 8]),
    ];
    hear(&mut connection, &said).expect("by the rules");
    let answers =
        [(frame::SETTINGS, frame::ACK, 0, vec![]), (frame::PING, frame::ACK, 0, b"12345678".to_vec())];
    assert_eq!(frames(&mut connection), answers);
}

/// Who does not read the answers is not read.
#[test]
fn a_flood_of_questions_is_bounded() {
    let mut connection = greeted();
    let mut pings = bytes(&vec![(frame::PING, 0, 0, vec![0; 8]); 1_000]);
    let mut heard = 0;
    while connection.listens() {
        connection.receive(Moment::default(), &mut pings.clone()).expect("by the rules");
        heard += 1_000;
        assert!(heard < 100_000);
    }
    pings.clear();
    assert!(sent(&mut connection).len() < CONTROL_BYTES_MAX + 1_000 * 17);
    assert!(connection.listens(), "they have gone");
}

/// Bytes may come cut anywhere, and frames padded.
#[test]
fn frames_are_read_however_they_come() {
    let padded = (frame::DATA, 8 | frame::END_STREAM, 1, b"\x04data\0\0\0\0".to_vec());
    let section = head(1, false, &[(":status", "200"), ("x", "1")]).3;
    let said = [
        (frame::HEADERS, 0x20 | 8, 1, [&[2, 0, 0, 0, 0, 1], &section[..5], &[0, 0]].concat()),
        (frame::CONTINUATION, 0, 1, vec![]),
        (frame::CONTINUATION, frame::END_HEADERS, 1, section[5..].to_vec()),
        padded,
    ];
    let whole = bytes(&said);
    for step in [1, 2, 5, whole.len()] {
        let mut connection = greeted();
        let id = ask(&mut connection, true);
        let mut came = BytesMut::new();
        for piece in whole.chunks(step) {
            came.extend_from_slice(piece);
            connection.receive(Moment::default(), &mut came).expect("by the rules");
        }
        assert_eq!(connection.head(id).expect("unbroken").expect("it came").0.fields.len(), 1);
        assert_eq!(connection.take(id), Ok(Piece::Data(Bytes::from_static(b"data"))));
        assert_eq!(connection.take(id), Ok(Piece::End));
    }
}

#[test]
fn a_section_that_is_larger_than_a_frame_goes_in_several() {
    let mut connection = greeted();
    let long = "v".repeat(40_000);
    connection.open(true, false, |writer| writer.field("x", long.as_bytes(), false)).expect("there is room");
    let out = frames(&mut connection);
    let shape: Vec<_> = out.iter().map(|frame| (frame.0, frame.1, frame.3.len())).collect();
    assert_eq!(shape[0], (frame::HEADERS, frame::END_STREAM, TURN_BYTES));
    assert_eq!(shape[1], (frame::CONTINUATION, 0, TURN_BYTES));
    assert_eq!((shape[2].0, shape[2].1, shape.len()), (frame::CONTINUATION, frame::END_HEADERS, 3));
    let section: Vec<u8> = out.iter().flat_map(|frame| frame.3.clone()).collect();
    let mut read = Vec::new();
    Decoder::default().read(&section, |field| read.push(field)).expect("a section");
    assert_eq!((read.len(), read[0].value.len()), (1, 40_000));
}

/// RFC 7541 §4.2: who may use less of a table says so before it goes on.
#[test]
fn a_reader_that_wants_no_table_is_told_that_none_is_used() {
    let mut connection = greeted();
    hear(&mut connection, &[setting(frame::HEADER_TABLE_SIZE, 0)]).expect("by the rules");
    frames(&mut connection);
    for want in [0x20, 0x83] {
        ask(&mut connection, true);
        assert_eq!(frames(&mut connection)[0].3[0], want);
    }
}

#[test]
fn who_is_silent_is_asked_and_then_given_up() {
    let at = |seconds| Moment::after_start(Duration::from_secs(seconds));
    let patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };
    let mut connection = Connection::new(Side::Asking, Some(patience), at(0));
    connection.receive(at(0), &mut bytes(&[(frame::SETTINGS, 0, 0, vec![])])).expect("settings");
    connection.tick(at(100)).expect("nothing is under way");
    ask(&mut connection, true);
    connection.receive(at(100), &mut bytes(&[setting(0x99, 1)])).expect("by the rules");
    sent(&mut connection);
    connection.tick(at(104)).expect("not long");
    assert!(!connection.has_output());
    connection.tick(at(105)).expect("it is asked");
    assert_eq!(frames(&mut connection)[0].0, frame::PING);
    connection
        .receive(at(109), &mut bytes(&[(frame::PING, frame::ACK, 0, vec![0; 8])]))
        .expect("by the rules");
    connection.tick(at(110)).expect("it has answered");
    connection.tick(at(114)).expect("it is asked again");
    assert_eq!(frames(&mut connection)[0].0, frame::PING);
    assert!(connection.tick(at(119)).is_err());
}

#[test]
fn it_is_over_when_nothing_is_left_to_carry() {
    let mut connection = greeted();
    let id = ask(&mut connection, true);
    frames(&mut connection);
    connection.drain();
    assert!(!connection.is_drained());
    hear(&mut connection, &[head(1, false, &OK)]).expect("by the rules");
    assert!(!connection.is_drained(), "its answer goes on");
    hear(&mut connection, &[data(1, true, b"end")]).expect("by the rules");
    assert!(connection.is_drained());
    assert_eq!(
        connection.take(id),
        Ok(Piece::Data(Bytes::from_static(b"end"))),
        "what came is read all the same"
    );
}

// --- the answering side ---

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One whose caller has said its settings; it answers three at once.
fn served() -> Connection {
    let mut connection = Connection::new(Side::Answering { streams_max: 3 }, None, Moment::default());
    assert_eq!(frames(&mut connection)[0].0, frame::SETTINGS);
    for piece in PREFACE.chunks(5) {
        connection.receive(Moment::default(), &mut BytesMut::from(piece)).expect("the preface");
    }
    hear(&mut connection, &[(frame::SETTINGS, 0, 0, vec![])]).expect("settings");
    assert_eq!(frames(&mut connection), [(frame::SETTINGS, frame::ACK, 0, vec![])]);
    connection
}

fn get(id: StreamId, ends: bool) -> Said {
    head(id, ends, &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "orders")])
}

fn reset(id: StreamId, code: Code) -> Said {
    (frame::RST_STREAM, 0, id, code.0.to_be_bytes().to_vec())
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.next_event()).collect()
}

#[test]
fn a_request_comes_in_and_its_answer_goes_out() {
    let mut connection = served();
    hear(&mut connection, &[get(1, false), data(1, false, b"ask"), head(1, true, &[("x", "1")])])
        .expect("by the rules");
    assert_eq!(events(&mut connection), [Event::Asked(1)]);
    let (request, whole) = connection.request(1).expect("it came");
    assert_eq!((&request.method[..], &request.path[..], whole), (&b"GET"[..], &b"/"[..], false));
    assert_eq!(connection.request(1), None, "once");
    assert_eq!(connection.take(1), Ok(Piece::Data(Bytes::from_static(b"ask"))));
    assert!(matches!(connection.take(1), Ok(Piece::Trailers(_))));
    connection.answer(1, false, |writer| writer.status(200));
    connection.give(1, &mut Bytes::from_static(b"answer")).expect("there is room");
    let mut trailers = Writer::default();
    trailers.field("grpc-status", b"0", false);
    connection.finish(1, Some(trailers));
    let answered = (frame::HEADERS, frame::END_HEADERS, 1, vec![0x88]);
    let trailers = head(1, true, &[("grpc-status", "0")]);
    assert_eq!(frames(&mut connection), [answered, data(1, false, b"answer"), trailers]);
    connection.release_reader(1);
    connection.release_writer(1);
    assert!(!connection.knows(1) && connection.streams() == 0 && frames(&mut connection).is_empty());
}

#[test]
fn a_request_that_nobody_reads_is_passed_over_until_it_is_answered() {
    let mut connection = served();
    hear(&mut connection, &[get(1, false), data(1, false, b"some")]).expect("by the rules");
    connection.release_reader(1);
    assert!(frames(&mut connection).is_empty());
    for _ in 0..32 {
        hear(&mut connection, &[data(1, false, &vec![0; 32_000])]).expect("within the window");
    }
    assert_eq!(connection.held_bytes().0, 0);
    hear(&mut connection, &[get(3, false), data(3, false, &vec![0; 32_000])]).expect("within the window");
    connection.release_reader(3);
    assert_eq!(
        frames(&mut connection),
        [update(0, 4 + 33 * 32_000)],
        "the stream's window is not given back"
    );
    connection.answer(1, true, |writer| writer.status(413));
    let out = frames(&mut connection);
    assert_eq!((out[0].1, &out[1]), (frame::END_HEADERS | frame::END_STREAM, &reset(1, Code::NO_ERROR)));
    connection.release_writer(1);
    assert!(!connection.knows(1));
}

#[test]
fn whoever_answers_hears_that_nobody_waits_any_more() {
    let mut connection = served();
    hear(&mut connection, &[get(1, true)]).expect("by the rules");
    events(&mut connection);
    assert!(!connection.is_unwanted(1));
    hear(&mut connection, &[reset(1, Code::CANCEL)]).expect("by the rules");
    assert_eq!(events(&mut connection), [Event::Write(1)]);
    assert!(connection.is_unwanted(1));
    connection.answer(1, true, |writer| writer.status(200));
    connection.release_writer(1);
    connection.release_reader(1);
    assert!(frames(&mut connection).is_empty() && !connection.knows(1), "there is nobody to tell");
}

#[test]
fn an_answer_that_is_let_go_of_is_reset() {
    let mut connection = served();
    hear(&mut connection, &[get(1, true)]).expect("by the rules");
    connection.answer(1, false, |writer| writer.status(200));
    connection.release_reader(1);
    connection.release_writer(1);
    assert_eq!(frames(&mut connection)[1..], [reset(1, Code::CANCEL)]);
}

#[test]
fn more_than_may_be_open_are_refused_and_what_is_no_request_is_reset() {
    let mut connection = served();
    let no_request = head(7, true, &[(":method", "GET")]);
    let said = [get(1, true), get(3, true), no_request, get(11, true), get(13, true)];
    hear(&mut connection, &said).expect("by the rules");
    let asked = [Event::Asked(1), Event::Asked(3), Event::Asked(11)];
    assert_eq!(events(&mut connection), asked);
    assert_eq!(frames(&mut connection), [reset(7, Code::PROTOCOL), reset(13, Code::REFUSED)]);
    hear(&mut connection, &[get(5, true)]).expect("it was passed over, and is closed");
    assert!(events(&mut connection).is_empty());
}

/// A request whose fields are one of the table, so many times.
fn packed(id: StreamId, times: usize) -> Said {
    let mut section = head(id, true, &[(":method", "GET"), (":scheme", "http"), (":path", "/")]).3;
    section.extend_from_slice(&head(id, true, &[("x-long", &"v".repeat(1_000))]).3);
    let at = section.len() - 1_000 - 3 - 7 - 1;
    section[at] |= 0x40;
    section.extend_from_slice(&vec![0xbe; times]);
    (frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, id, section)
}

#[test]
fn fields_that_are_too_large_are_431() {
    let mut connection = served();
    hear(&mut connection, &[packed(1, 100)]).expect("by the rules");
    assert!(events(&mut connection).is_empty(), "nobody is asked");
    let out = frames(&mut connection);
    assert_eq!((out.len(), &out[0].3[..]), (1, &b"\x08\x03431"[..]));
    hear(&mut connection, &[get(3, true)]).expect("the table is as it should be");
    assert_eq!(events(&mut connection), [Event::Asked(3)]);
    // The same without any packing, in two frames.
    let (mut plain, start) = (Writer::default(), get(5, true).3);
    (0..100).for_each(|_| plain.field("x", &[b'v'; 1_000], false));
    let section = [start, plain.into_bytes()].concat();
    let (first, rest) = section.split_at(60_000);
    let parts = [
        (frame::HEADERS, frame::END_STREAM, 5, first.to_vec()),
        (frame::CONTINUATION, frame::END_HEADERS, 5, rest.to_vec()),
    ];
    frames(&mut connection);
    hear(&mut connection, &parts).expect("by the rules");
    assert_eq!(&frames(&mut connection)[0].3[..], b"\x08\x03431");
    assert_eq!(hear(&mut connection, &[packed(7, 300)]).expect_err("a bomb").code, Code::CALM);
}

/// CVE-2023-44487: streams that are opened and reset at once.
#[test]
fn who_opens_streams_for_nothing_is_cut_off() {
    let mut connection = served();
    let mut opened = 0;
    let fault = loop {
        let id = 2 * opened + 1;
        opened += 1;
        if let Err(fault) = hear(&mut connection, &[get(id, true), reset(id, Code::CANCEL)]) {
            break fault;
        }
        connection.release_reader(id);
        connection.release_writer(id);
        assert!(connection.streams() == 0);
    };
    assert_eq!((fault.code, opened), (Code::CALM, RESETS_UNANSWERED_MAX + 1));
    // Who has us reset them does no better (CVE-2025-8671).
    let mut connection = served();
    let wasted = (0..2 * RESETS_UNANSWERED_MAX).map(|n| 2 * n + 1).find(|id| {
        let cut_off = hear(&mut connection, &[get(*id, false), update(*id, 0)]).is_err();
        connection.release_reader(*id);
        connection.release_writer(*id);
        frames(&mut connection);
        cut_off
    });
    assert_eq!(wasted, Some(2 * RESETS_UNANSWERED_MAX + 1));
    // One that is answered between them makes it another matter.
    let mut connection = served();
    for n in 0..3 * RESETS_UNANSWERED_MAX {
        let id = 2 * n + 1;
        hear(&mut connection, &[get(id, true)]).expect("by the rules");
        if n % 500 == 0 {
            connection.answer(id, false, |writer| writer.status(200));
        }
        hear(&mut connection, &[reset(id, Code::CANCEL)]).expect("not for nothing");
        connection.release_reader(id);
        connection.release_writer(id);
        frames(&mut connection);
    }
}

/// What was answered may be cancelled as often as one likes: it was not for nothing.
#[test]
fn answers_that_are_cancelled_do_not_count() {
    let mut connection = served();
    for n in 0..2 {
        hear(&mut connection, &[get(2 * n + 1, true)]).expect("by the rules");
        connection.answer(2 * n + 1, false, |writer| writer.status(200));
    }
    let nothing = |n: u32| [get(2 * n + 1, true), reset(2 * n + 1, Code::CANCEL)];
    for n in 2..2 + RESETS_UNANSWERED_MAX {
        hear(&mut connection, &nothing(n)).expect("not too many");
        assert_eq!(connection.request(2 * n + 1), None, "nobody waits for it");
        connection.release_reader(2 * n + 1);
        connection.release_writer(2 * n + 1);
    }
    hear(&mut connection, &[reset(1, Code::CANCEL), reset(3, Code::CANCEL)]).expect("they were answered");
    assert!(hear(&mut connection, &nothing(2 + RESETS_UNANSWERED_MAX)).is_err());
}

/// However small the pieces are in which something comes or goes, little is held beside them.
#[test]
fn bytes_that_come_one_by_one_are_held_together() {
    let mut connection = greeted();
    let id = ask(&mut connection, false);
    frames(&mut connection);
    hear(&mut connection, &[head(1, false, &OK)]).expect("by the rules");
    let one_by_one: Vec<Said> = (0..20_000).map(|_| data(1, false, b"x")).collect();
    hear(&mut connection, &one_by_one).expect("within the window");
    let mut came = Vec::new();
    while let Ok(Piece::Data(piece)) = connection.take(id) {
        came.push(piece.len());
    }
    assert!(came.len() <= 4 && came.iter().sum::<usize>() == 20_000, "{came:?}");
    for _ in 0..20_000 {
        assert_eq!(connection.give(id, &mut Bytes::from_static(b"y")), Ok(1));
    }
    let sizes: Vec<usize> = frames(&mut connection).iter().map(|frame| frame.3.len()).collect();
    assert_eq!(sizes, [TURN_BYTES, 20_000 - TURN_BYTES]);
}

/// RFC 9113 §6.8: what is asked before the other side has heard of it is answered.
#[test]
fn it_drains_without_losing_a_request() {
    let mut connection = served();
    hear(&mut connection, &[get(1, true)]).expect("by the rules");
    connection.drain();
    connection.drain();
    let out = frames(&mut connection);
    assert_eq!((out[0].0, &out[0].3[..4]), (frame::GOAWAY, &[0x7f, 0xff, 0xff, 0xff][..]));
    assert_eq!((out[1].0, out.len()), (frame::PING, 2));
    hear(&mut connection, &[get(3, true), (frame::PING, frame::ACK, 0, out[1].3.clone())])
        .expect("by the rules");
    let last = frames(&mut connection);
    assert_eq!((last[0].0, &last[0].3[..4], last.len()), (frame::GOAWAY, &[0, 0, 0, 3][..], 1));
    hear(&mut connection, &[get(5, true)]).expect("it was on its way");
    assert_eq!(events(&mut connection), [Event::Asked(1), Event::Asked(3)]);
    for id in [1, 3] {
        assert!(!connection.is_drained());
        connection.answer(id, true, |writer| writer.status(200));
    }
    frames(&mut connection);
    assert!(connection.is_drained());
}

#[test]
fn who_does_not_ask_as_it_should_is_told_so() {
    for (said, code) in [
        (vec![head(2, true, &OK)], Code::PROTOCOL),
        (vec![head(0, true, &OK)], Code::PROTOCOL),
        (vec![data(1, true, b"")], Code::PROTOCOL),
        (vec![reset(1, Code::CANCEL)], Code::PROTOCOL),
        (vec![update(1, 1)], Code::PROTOCOL),
        (vec![setting(frame::ENABLE_PUSH, 2)], Code::PROTOCOL),
        (vec![(frame::PUSH_PROMISE, 4, 1, vec![0; 4])], Code::PROTOCOL),
    ] {
        let mut connection = served();
        assert_eq!(hear(&mut connection, &said).expect_err("against the rules").code, code, "{said:?}");
    }
    let mut connection = Connection::new(Side::Answering { streams_max: 3 }, None, Moment::default());
    let mut wrong = BytesMut::from(&b"PRI * HTTP/1.1\r\n\r\n"[..]);
    assert!(connection.receive(Moment::default(), &mut wrong).is_err());
    let mut connection = served();
    hear(&mut connection, &[setting(frame::MAX_CONCURRENT_STREAMS, 0)]).expect("it is asked nothing");
    hear(&mut connection, &[get(1, true)]).expect("by the rules");
    assert_eq!(events(&mut connection), [Event::Asked(1)]);
    let long = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("content-length", "1")];
    hear(&mut connection, &[head(3, true, &long)]).expect("the stream's fault alone");
    assert!(frames(&mut connection).contains(&reset(3, Code::PROTOCOL)));
}
