use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{frame::kind, *};
use crate::{Moment, Outgoing};

const PATIENCE: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// Two sides, joined in memory.
struct Pair {
    opener: Connection,
    taker: Connection,
    out: Vec<u8>,
    back: Vec<u8>,
}

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn side(side: Side) -> Connection {
    Connection::new(side, PATIENCE, at(0))
}

impl Pair {
    /// Both have said hello.
    fn new() -> Self {
        let (opener, taker) = (side(Side::Opener), side(Side::Taker));
        let mut pair = Self { opener, taker, out: Vec::new(), back: Vec::new() };
        pair.settle();
        pair
    }

    /// So many bytes arrive at each side.
    fn deliver(&mut self, forth: usize, back: usize) {
        let forth: Vec<u8> = self.out.drain(..forth.min(self.out.len())).collect();
        self.taker.receive(at(0), &forth).expect("the opener keeps the rules");
        let back: Vec<u8> = self.back.drain(..back.min(self.back.len())).collect();
        self.opener.receive(at(0), &back).expect("the taker keeps the rules");
    }

    fn transmit(&mut self, most: usize) {
        self.out.extend(sent(&mut self.opener, most));
        self.back.extend(sent(&mut self.taker, most));
    }

    /// All that is to be sent arrives.
    fn settle(&mut self) {
        loop {
            self.transmit(usize::MAX);
            if self.out.is_empty() && self.back.is_empty() {
                return;
            }
            self.deliver(usize::MAX, usize::MAX);
        }
    }

    fn open(&mut self) -> StreamId {
        let id = self.opener.open(Kind::Tcp, 80).expect("there is room");
        self.settle();
        id
    }

    fn at(&mut self, side: Side) -> &mut Connection {
        if side == Side::Opener { &mut self.opener } else { &mut self.taker }
    }
}

/// What a side sends at once.
fn sent(connection: &mut Connection, most: usize) -> Vec<u8> {
    let mut out = Outgoing::default();
    connection.transmit(&mut out, most);
    out.to_vec()
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.next_event()).collect()
}

fn read_all(connection: &mut Connection, id: StreamId) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 5_000]);
    while let Ok(Read::Bytes(length)) = connection.read(id, &mut buffer) {
        all.extend(&buffer[..length]);
    }
    all
}

/// Reads at most so much: by turns as a copy and as a piece.
fn read(connection: &mut Connection, id: StreamId, most: usize) -> Result<Read<Bytes>, Broken> {
    if most % 2 == 1 {
        return connection.take(id, most);
    }
    let mut buffer = vec![0; most];
    Ok(match connection.read(id, &mut buffer)? {
        Read::Bytes(length) => Read::Bytes(Bytes::copy_from_slice(&buffer[..length])),
        Read::Nothing => Read::Nothing,
        Read::End => Read::End,
    })
}

/// What stands at that place of what a side sends on a stream.
fn byte(side: Side, id: StreamId, place: usize) -> u8 {
    u8::try_from((place * 7 + place / 251 + id as usize * 13 + side as usize) % 256).expect("below 256")
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Write(bool, usize, usize),
    Finish(bool, usize),
    Read(bool, usize, usize),
    Reset(bool, usize),
    Transmit(usize),
    Deliver(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (side, stream) = (any::<bool>(), 0..8_usize);
    let step = prop_oneof![
        2 => Just(Step::Open),
        8 => (side, stream.clone(), 1..90_000_usize).prop_map(|(a, b, c)| Step::Write(a, b, c)),
        1 => (side, stream.clone()).prop_map(|(a, b)| Step::Finish(a, b)),
        6 => (side, stream.clone(), 1..90_000_usize).prop_map(|(a, b, c)| Step::Read(a, b, c)),
        1 => (side, stream).prop_map(|(a, b)| Step::Reset(a, b)),
        6 => (1..200_000_usize).prop_map(Step::Transmit),
        6 => (0..150_000_usize, 0..150_000_usize).prop_map(|(a, b)| Step::Deliver(a, b)),
    ];
    prop::collection::vec(step, 1..60)
}

/// What one side of a stream has done.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    written: usize,
    read: usize,
    finished: bool,
}

/// A pair, and what its applications know.
struct World {
    pair: Pair,
    streams: Vec<(StreamId, [Seen; 2], bool)>,
}

impl World {
    fn step(&mut self, step: &Step) {
        let side = |opener: bool| if opener { Side::Opener } else { Side::Taker };
        match *step {
            Step::Open if self.streams.len() < 8 => {
                let id = self.pair.opener.open(Kind::Tcp, 80).expect("there is room");
                self.streams.push((id, Default::default(), false));
            }
            Step::Write(opener, stream, length) => self.write(side(opener), stream, length),
            Step::Finish(opener, stream) => self.finish(side(opener), stream),
            Step::Read(opener, stream, length) => self.read(side(opener), stream, length),
            Step::Reset(opener, stream) => {
                if let Some((id, _, reset)) = self.streams.get_mut(stream) {
                    *reset = true;
                    let id = *id;
                    self.pair.at(side(opener)).reset(id, Farewell::new(Code::CANCEL, ""));
                }
            }
            Step::Transmit(most) => self.pair.transmit(most),
            Step::Deliver(forth, back) => self.pair.deliver(forth, back),
            Step::Open => {}
        }
    }

    fn write(&mut self, side: Side, stream: usize, length: usize) {
        let Some((id, seen, _)) = self.streams.get_mut(stream) else { return };
        let seen = &mut seen[side as usize];
        let bytes: Vec<u8> = (seen.written..seen.written + length).map(|n| byte(side, *id, n)).collect();
        let connection = self.pair.at(side);
        // By turns as a copy and as a piece.
        let taken = match length % 2 {
            0 => connection.write(*id, &bytes),
            _ => connection.give(*id, &mut bytes.into()),
        };
        if let Ok(taken) = taken {
            assert!(!seen.finished, "nothing is taken after the end");
            seen.written += taken;
        }
    }

    fn finish(&mut self, side: Side, stream: usize) {
        let Some((id, seen, _)) = self.streams.get_mut(stream) else { return };
        // What does not know a stream yet cannot end it.
        if *id <= self.pair.at(side).highest_stream() {
            seen[side as usize].finished = true;
            let id = *id;
            self.pair.at(side).finish(id);
        }
    }

    fn read(&mut self, side: Side, stream: usize, length: usize) {
        let other = if side == Side::Opener { Side::Taker } else { Side::Opener };
        let Some((id, seen, _)) = self.streams.get_mut(stream) else { return };
        match read(self.pair.at(side), *id, length) {
            Ok(Read::Bytes(came)) => {
                let from = &mut seen[side as usize].read;
                let want = (*from..*from + came.len()).map(|n| byte(other, *id, n));
                assert!(want.eq(came.iter().copied()), "stream {id} to {side:?} at {from}");
                *from += came.len();
            }
            Ok(Read::End) => {
                let (read, other) = (seen[side as usize].read, seen[other as usize]);
                assert!(other.finished && read == other.written, "an end that is none: {read} of {other:?}");
            }
            Ok(Read::Nothing) | Err(_) => {}
        }
    }

    /// Everybody ends and reads: all that was written has to arrive.
    fn finish_all(&mut self) {
        self.pair.settle();
        for stream in 0..self.streams.len() {
            self.finish(Side::Opener, stream);
            self.finish(Side::Taker, stream);
        }
        for _ in 0..4_000 {
            self.pair.settle();
            for stream in 0..self.streams.len() {
                self.read(Side::Opener, stream, 100_000);
                self.read(Side::Taker, stream, 100_000);
            }
        }
        for (id, [opener, taker], reset) in &self.streams {
            let whole = opener.read == taker.written && taker.read == opener.written;
            assert!(*reset || whole, "stream {id}: {opener:?} {taker:?}");
            self.pair.opener.release(*id);
            self.pair.taker.release(*id);
        }
        self.pair.settle();
        let left = (self.pair.opener.streams(), self.pair.taker.streams());
        assert_eq!(left, (0, 0), "what is over is forgotten");
        let held = self.pair.opener.held_bytes() + self.pair.taker.held_bytes();
        assert_eq!(held, 0, "nothing is held for nobody");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_in_whatever_order_bytes_arrive_whole_and_no_window_is_passed(steps in steps()) {
        let mut world = World { pair: Pair::new(), streams: Vec::new() };
        for step in &steps {
            world.step(step);
            let held = world.pair.opener.held_bytes().max(world.pair.taker.held_bytes());
            prop_assert!(held <= 8 * (WINDOW_STREAM_BYTES_MAX as usize + QUEUE_BYTES_MAX) + CONTROL_BYTES_MAX);
        }
        world.finish_all();
    }

    #[test]
    fn frames_are_read_alike_however_the_network_cuts_them(cuts in prop::collection::vec(1..40_usize, 1..40)) {
        let bytes = sample();
        let (mut decoder, mut pieces, mut rest) = (Decoder::default(), Vec::<(StreamId, Vec<u8>, Option<Frame>)>::new(), &bytes[..]);
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (mut part, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
            while let Some(piece) = decoder.next(&mut part).expect("frames") {
                match (piece, pieces.last_mut()) {
                    (Piece::Data(id, part), Some((last, data, None))) if *last == id => data.extend_from_slice(part),
                    (Piece::Data(id, part), _) => pieces.push((id, part.to_vec(), None)),
                    (Piece::Frame(frame), _) => pieces.push((0, Vec::new(), Some(frame))),
                }
            }
            rest = after;
        }
        let frames: Vec<_> = pieces.iter().filter_map(|(.., frame)| frame.clone()).collect();
        prop_assert_eq!(frames, sample_frames());
        prop_assert!(pieces.contains(&(3, b"hello".to_vec(), None)));
    }
}

fn sample_frames() -> Vec<Frame> {
    let hello = Hello { streams: 7, window_stream: 100, window_connection: 1_000, http2: true };
    let farewell = Farewell::new(Code::UNREACHED, "it sleeps");
    vec![
        Frame::Hello(hello),
        Frame::Open(3, Some(Open { kind: Kind::Http1, port: 8_080 })),
        Frame::Accept(3),
        Frame::Window(0, 5),
        Frame::Window(3, 5),
        Frame::Ping(99),
        Frame::Pong(98),
        Frame::End(3),
        Frame::Reset(3, farewell.clone()),
        Frame::GoAway(3, farewell),
    ]
}

/// Every frame, with data and one of a later version among them.
fn sample() -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in sample_frames() {
        frame.encode(&mut bytes);
        bytes.extend(raw(77, 3, b"of a later version"));
        bytes.extend(raw(kind::DATA, 3, b"hello"));
    }
    bytes
}

fn raw(kind: u8, stream: StreamId, payload: &[u8]) -> Vec<u8> {
    [&frame::header(kind, stream, payload.len())[..], payload].concat()
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    sample_frames()[0].encode(&mut bytes);
    bytes
}

/// What a side says to bytes that follow the other's HELLO.
#[track_caller]
fn check(side_: Side, frames: &[Vec<u8>], want: &str) {
    let mut connection = side(side_);
    connection.receive(at(0), &hello()).expect("a hello");
    let said = connection.receive(at(0), &frames.concat());
    assert_eq!(said.map_or_else(|fault| fault.to_string(), |()| "fine".to_owned()), want);
    if want != "fine" {
        let out = sent(&mut connection, usize::MAX);
        assert!(String::from_utf8_lossy(&out).ends_with(want), "the other side is told why");
        assert_eq!(connection.open(Kind::Tcp, 80), Err(Unopened::Closed));
    }
}

#[test]
fn what_breaks_the_rules_is_named_and_ends_the_connection() {
    let open = |id| raw(kind::OPEN, id, &[1, 0, 80]);
    let data = |id, length| raw(kind::DATA, id, &vec![0; length]);
    for (frames, want) in [
        (vec![hello()], "HELLO must come first, and once"),
        (vec![raw(200, 1, b"")], "frames of type 200 must be understood, and are not known"),
        (vec![raw(kind::DATA, 0, b"x")], "a frame of type 3 on stream 0"),
        (vec![raw(kind::END, 0, b"")], "a frame of type 4 on stream 0"),
        (vec![raw(kind::PING, 1, &[0; 8])], "a frame of type 7 on stream 1"),
        (vec![raw(kind::PING, 0, &[0; 7])], "a frame of type 7 with 7 bytes"),
        (vec![raw(kind::RESET, 1, &[0; 3])], "a frame of type 5 with 3 bytes"),
        (vec![raw(kind::GOAWAY, 0, &[0; 7])], "a frame of type 9 with 7 bytes"),
        (vec![raw(kind::RESET, 1, &[0; 1_025])], "a frame of type 5 with 1025 bytes"),
        (vec![raw(77, 1, &[0; FRAME_BYTES_MAX + 1])], "a frame of type 77 with 65537 bytes"),
        (vec![raw(kind::WINDOW, 0, &[0; 4])], "a window of 0 bytes"),
        (vec![raw(kind::WINDOW, 0, &[0xff; 4])], "a window of 4294967295 bytes"),
        (
            vec![raw(kind::WINDOW, 0, &WINDOW_BYTES_MAX.to_be_bytes())],
            "the window of stream 0 grew too large",
        ),
        (vec![raw(kind::OPEN, 1, &[1, 0])], "a frame of type 1 with 2 bytes"),
        (vec![raw(kind::OPEN, 1, &[1, 0, 0])], "the preamble names port 0"),
        (vec![raw(kind::OPEN, 1, &[1, 0, 80, 9, 0, 1])], "an extension of the preamble is cut off"),
        (vec![open(2), open(1)], "stream 1 was opened after a later one"),
        (vec![open(1), open(1)], "stream 1 was opened after a later one"),
        (vec![data(1, 1)], "stream 1 was never opened"),
        (vec![raw(kind::END, 1, b"")], "stream 1 was never opened"),
        (vec![open(1), raw(kind::ACCEPT, 1, b"")], "ACCEPT does not come from that side"),
        (vec![open(1), raw(kind::END, 1, b""), data(1, 1)], "stream 1 went on after its end"),
        (vec![open(1), raw(kind::END, 1, b""), raw(kind::END, 1, b"")], "stream 1 went on after its end"),
        (vec![open(1), data(1, 60_000), data(1, 5_537)], "stream 1 sent more than its window"),
    ] {
        check(Side::Taker, &frames, want);
    }
    check(Side::Opener, &[open(1)], "OPEN does not come from that side");
    let mut first = side(Side::Taker);
    assert_eq!(first.receive(at(0), &open(1)), Err(Fault::Hello));
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let longer = raw(kind::PING, 0, &[0; 20]);
    let extended = raw(kind::OPEN, 1, &[1, 0, 80, 9, 0, 1, 7]);
    check(Side::Taker, &[raw(127, 9, &[1; FRAME_BYTES_MAX]), longer, extended], "fine");
    let mut taker = side(Side::Taker);
    taker.receive(at(0), &hello()).expect("a hello");
    let (kind_of_later, critical) =
        (raw(kind::OPEN, 1, &[9, 0, 80]), raw(kind::OPEN, 2, &[1, 0, 80, 200, 0, 0]));
    taker
        .receive(at(0), &[kind_of_later, critical].concat())
        .expect("the stream is refused, the connection goes on");
    assert_eq!(events(&mut taker), [Event::Ready]);
    let out = sent(&mut taker, usize::MAX);
    assert_eq!(String::from_utf8_lossy(&out).matches("streams of that kind are not known here").count(), 2);
}

#[test]
fn a_stream_is_answered_carries_bytes_and_ends_one_side_after_the_other() {
    let mut pair = Pair::new();
    let id = pair.opener.open(Kind::Tcp, 5_432).expect("there is room");
    assert_eq!(pair.opener.answered(id), None);
    pair.settle();
    assert_eq!(
        events(&mut pair.taker),
        [Event::Ready, Event::Opened(id, Open { kind: Kind::Tcp, port: 5_432 })]
    );
    pair.taker.accept(id);
    assert_eq!(pair.taker.write(id, b"welcome"), Ok(7), "a server may speak first");
    pair.settle();
    assert_eq!(events(&mut pair.opener), [Event::Ready, Event::Read(id)]);
    assert_eq!(pair.opener.answered(id), Some(Ok(())));
    assert_eq!(read_all(&mut pair.opener, id), b"welcome");
    assert_eq!(pair.opener.write(id, b"bye"), Ok(3));
    pair.opener.finish(id);
    assert_eq!(pair.opener.write(id, b"more"), Err(Broken::Ended));
    pair.settle();
    assert_eq!(read_all(&mut pair.taker, id), b"bye");
    assert_eq!(pair.taker.read(id, &mut [0; 9]), Ok(Read::End));
    assert_eq!(pair.taker.write(id, b"still there"), Ok(11), "its own direction goes on");
    pair.taker.finish(id);
    pair.taker.release(id);
    pair.settle();
    assert_eq!(read_all(&mut pair.opener, id), b"still there");
    assert_eq!(pair.opener.read(id, &mut [0; 9]), Ok(Read::End));
    pair.opener.release(id);
    assert_eq!((pair.opener.streams(), pair.taker.streams()), (0, 0));
}

#[test]
fn a_stream_that_is_refused_is_not_one_that_broke() {
    let mut pair = Pair::new();
    let (unreached, refused) = (pair.open(), pair.open());
    pair.taker.reset(unreached, Farewell::new(Code::UNREACHED, "nobody listens"));
    pair.taker.reset(refused, Farewell::new(Code::REFUSED, "no room"));
    pair.settle();
    let farewell = Farewell::new(Code::UNREACHED, "nobody listens");
    assert_eq!(pair.opener.answered(unreached), Some(Err(Broken::Reset(farewell))));
    assert_eq!(pair.opener.answered(refused), Some(Err(Broken::Unseen)));
}

#[test]
fn a_reset_drops_what_was_on_the_way_but_nothing_that_was_ended_before() {
    let mut pair = Pair::new();
    let (cut, ended) = (pair.open(), pair.open());
    for id in [cut, ended] {
        assert_eq!(pair.taker.write(id, b"answer"), Ok(6));
    }
    pair.taker.finish(ended);
    pair.settle();
    pair.taker.release(cut);
    pair.taker.release(ended);
    pair.settle();
    let broken = Err(Broken::Reset(Farewell::new(Code::CANCEL, "")));
    assert_eq!(pair.opener.read(cut, &mut [0; 9]), broken);
    assert_eq!(read_all(&mut pair.opener, ended), b"answer");
    assert_eq!(pair.opener.read(ended, &mut [0; 9]), Ok(Read::End));
    assert_eq!(pair.opener.write(ended, b"x").map_err(|_| ()), Err(()), "nobody reads there any more");
    assert_eq!(pair.taker.streams(), 0);
}

#[test]
fn who_neither_reads_nor_writes_hears_that_a_stream_breaks_off() {
    let mut pair = Pair::new();
    let (cut, lost, ended) = (pair.open(), pair.open(), pair.open());
    for id in [cut, lost, ended] {
        assert_eq!(pair.opener.write(id, b"unread"), Ok(6));
    }
    pair.settle();
    events(&mut pair.taker);
    assert!(![cut, lost, ended].iter().any(|id| pair.taker.broke_off(*id)));
    pair.opener.finish(ended);
    pair.settle();
    assert_eq!(events(&mut pair.taker), [], "nobody asked for bytes, and it came to its end");
    pair.opener.release(cut);
    pair.settle();
    assert_eq!(events(&mut pair.taker), [Event::Broke(cut)]);
    assert_eq!([cut, lost, ended].map(|id| pair.taker.broke_off(id)), [true, false, false]);
    pair.taker.close("its socket was closed");
    let told = events(&mut pair.taker);
    assert!(told.len() == 2 && told.contains(&Event::Broke(lost)) && told.contains(&Event::Broke(ended)));
}

#[test]
fn a_stream_that_is_not_read_stops_itself_alone() {
    let mut pair = Pair::new();
    let (stuck, flowing) = (pair.open(), pair.open());
    for _ in 0..100 {
        drop(pair.opener.write(stuck, &[1; 50_000]));
        pair.settle();
    }
    assert_eq!(pair.taker.held_bytes(), WINDOW_STREAM_BYTES as usize);
    assert_eq!(pair.opener.held_bytes(), QUEUE_BYTES_MAX);
    let mut moved = 0;
    for _ in 0..1_000 {
        moved += pair.opener.write(flowing, &[2; 30_000]).expect("it flows");
        pair.settle();
        assert!(read_all(&mut pair.taker, flowing).iter().all(|byte| *byte == 2));
    }
    assert_eq!(moved, 30_000_000);
    assert_eq!(read_all(&mut pair.taker, stuck).len(), WINDOW_STREAM_BYTES as usize);
    pair.settle();
    assert!(events(&mut pair.opener).contains(&Event::Write(stuck)), "and is told when it is read");
}

#[test]
fn streams_take_turns_and_a_small_one_waits_for_one_round_at_most() {
    let mut pair = Pair::new();
    let large: Vec<StreamId> = (0..5).map(|_| pair.open()).collect();
    for id in &large {
        assert_eq!(pair.opener.write(*id, &[0; 100_000]), Ok(QUEUE_BYTES_MAX));
    }
    let small = pair.open_quietly();
    assert_eq!(pair.opener.write(small, b"me too"), Ok(6));
    let out = sent(&mut pair.opener, 5 * QUANTUM_BYTES + 60);
    let mut order = Vec::new();
    let (mut decoder, mut rest) = (Decoder::default(), &out[..]);
    while let Some(piece) = decoder.next(&mut rest).expect("frames") {
        if let Piece::Data(id, part) = piece {
            assert!(part.len() <= QUANTUM_BYTES);
            order.push(id);
        }
    }
    assert_eq!(order, [&large[..], &[small]].concat());
}

#[test]
fn a_large_piece_is_sent_from_where_it_lies_in_full_turns() {
    let mut pair = Pair::new();
    let id = pair.open();
    let whole = Bytes::from(vec![7; 64 * 1_024]);
    let mut piece = whole.clone();
    assert_eq!(pair.opener.give(id, &mut piece), Ok(QUEUE_BYTES_MAX));
    assert_eq!(piece.len(), whole.len() - QUEUE_BYTES_MAX, "what has no room stays with the writer");
    let mut out = Outgoing::default();
    assert_eq!(pair.opener.transmit(&mut out, usize::MAX), 4);
    let mut slices = [std::io::IoSlice::new(&[]); 9];
    assert_eq!(out.slices(&mut slices), 8, "four turns, each a header and a part of the piece");
    for (turn, slices) in slices.chunks_exact(2).take(4).enumerate() {
        assert_eq!(slices[0].len() + slices[1].len(), 16 * 1_024, "a turn fills a record of TLS");
        assert_eq!(slices[1].as_ptr(), whole[turn * QUANTUM_BYTES..].as_ptr(), "turn {turn} is no copy");
    }
}

impl Pair {
    /// Opens a stream, of which the other side does not hear yet.
    fn open_quietly(&mut self) -> StreamId {
        self.opener.open(Kind::Tcp, 80).expect("there is room")
    }
}

#[test]
fn windows_grow_for_streams_that_are_read_and_stay_small_for_those_that_are_not() {
    let mut pair = Pair::new();
    let id = pair.open();
    let fill = |pair: &mut Pair| {
        for _ in 0..100 {
            drop(pair.opener.write(id, &[1; 50_000]));
            pair.settle();
        }
        pair.taker.held_bytes()
    };
    assert_eq!(fill(&mut pair), WINDOW_STREAM_BYTES as usize);
    for _ in 0..6 {
        read_all(&mut pair.taker, id);
        fill(&mut pair);
    }
    assert_eq!(fill(&mut pair), WINDOW_STREAM_BYTES_MAX as usize);
}

#[test]
fn who_goes_away_says_what_it_has_looked_at() {
    let mut pair = Pair::new();
    let taken = pair.open();
    let late = pair.open_quietly();
    pair.taker.go_away(Farewell::new(Code::DRAIN, "upgrade"));
    pair.settle();
    assert!(events(&mut pair.opener).contains(&Event::GoneAway(Farewell::new(Code::DRAIN, "upgrade"))));
    assert_eq!(pair.opener.answered(late), Some(Err(Broken::Unseen)));
    assert!(
        !events(&mut pair.taker).iter().any(|event| matches!(event, Event::Opened(id, _) if *id == late))
    );
    assert_eq!(pair.opener.open(Kind::Tcp, 80), Err(Unopened::Closed));
    assert_eq!(pair.opener.write(taken, b"goes on"), Ok(7));
    pair.settle();
    assert_eq!(read_all(&mut pair.taker, taken), b"goes on");
    assert!(!pair.taker.drained() && !pair.opener.drained());
    [taken, late].into_iter().for_each(|id| pair.opener.release(id));
    pair.taker.release(taken);
    pair.settle();
    assert!(pair.taker.drained() && pair.opener.drained());
}

#[test]
fn when_a_connection_breaks_what_was_never_sent_was_not_seen() {
    let mut pair = Pair::new();
    let told = pair.open();
    assert_eq!(pair.taker.write(told, b"half an ans"), Ok(11));
    pair.settle();
    let untold = pair.open_quietly();
    pair.opener.close("gone");
    assert_eq!(pair.opener.answered(untold), Some(Err(Broken::Unseen)));
    assert_eq!(read_all(&mut pair.opener, told), b"half an ans", "what came may be read");
    assert_eq!(pair.opener.read(told, &mut [0; 9]), Err(Broken::Lost("gone".to_owned())));
}

#[test]
fn streams_beyond_the_limit_are_refused_and_then_the_connection_is_cut() {
    let open = |id| raw(kind::OPEN, id, &[1, 0, 80]);
    let mut taker = side(Side::Taker);
    taker.receive(at(0), &hello()).expect("a hello");
    for id in 1..=2 * STREAMS_MAX {
        taker.receive(at(0), &open(id)).expect("so many are refused one by one");
    }
    assert_eq!(taker.streams(), STREAMS_MAX as usize);
    let out = sent(&mut taker, usize::MAX);
    assert_eq!(String::from_utf8_lossy(&out).matches("too many streams").count(), STREAMS_MAX as usize);
    let fault = taker.receive(at(0), &open(2 * STREAMS_MAX + 1)).expect_err("enough");
    assert_eq!(fault.to_string(), "too many streams: 4097 were refused, one after the other");
    let mut pair = Pair::new();
    for _ in 0..STREAMS_MAX {
        pair.open_quietly();
    }
    assert_eq!(pair.opener.open(Kind::Tcp, 80), Err(Unopened::Full), "one who keeps the rules knows them");
}

#[test]
fn streams_that_are_reset_at_once_over_and_over_cut_the_connection() {
    let mut taker = side(Side::Taker);
    taker.receive(at(0), &hello()).expect("a hello");
    let reset = |id| [raw(kind::OPEN, id, &[1, 0, 80]), raw(kind::RESET, id, &[0, 0, 0, 5])].concat();
    for id in 1..=RESETS_UNANSWERED_MAX {
        taker.receive(at(0), &reset(id)).expect("callers give up");
        taker.release(id);
    }
    let fault = taker.receive(at(0), &reset(RESETS_UNANSWERED_MAX + 1)).expect_err("enough");
    assert_eq!(fault, Fault::Resets(RESETS_UNANSWERED_MAX + 1));
}

#[test]
fn who_does_not_read_the_answers_to_its_frames_is_cut_off() {
    let mut taker = side(Side::Taker);
    taker.receive(at(0), &hello()).expect("a hello");
    let strange = |id| raw(kind::OPEN, id, &[9, 0, 80]);
    let fault = (1..).find_map(|id| taker.receive(at(0), &strange(id)).err()).expect("before memory is full");
    assert_eq!(fault, Fault::Unread);
    let mut pinged = side(Side::Taker);
    pinged.receive(at(0), &hello()).expect("a hello");
    for token in 0..100_000_u64 {
        pinged.receive(at(0), &raw(kind::PING, 0, &token.to_be_bytes())).expect("one answer is for all");
    }
    assert!(pinged.held_bytes() < 100);
}

#[test]
fn who_is_silent_is_asked_and_then_given_up() {
    let mut pair = Pair::new();
    assert_eq!(pair.opener.tick(at(100)), Ok(()), "an opener without streams does not care");
    assert!(!pair.opener.has_output());
    let id = pair.open();
    assert_eq!((pair.opener.tick(at(105)), pair.opener.has_output()), (Ok(()), true));
    pair.settle();
    assert_eq!(pair.opener.tick(at(112)), Ok(()), "it answered");
    let fault = pair.opener.tick(at(117)).expect_err("this time it did not");
    assert_eq!(fault.to_string(), "nothing was heard for 117 s");
    assert_eq!(pair.opener.answered(id), Some(Err(Broken::Lost(fault.to_string()))));
}
