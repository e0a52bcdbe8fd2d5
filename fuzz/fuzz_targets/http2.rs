//! One side of a connection of HTTP/2 against a hostile other side: any bytes, in any pieces, while messages are opened,
//! sent, read and dropped. What is held of what came stays bounded, nothing panics, what is sent are whole frames, and
//! nobody is left over.
#![no_main]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use traffic::{
    Moment, Outgoing,
    http2::{
        CONTROL_BYTES_MAX, Code, Connection, Event, FRAME_BYTES, Patience, Piece, Side, StreamId,
        WINDOW_CONNECTION_BYTES, Writer,
    },
};

const PATIENCE: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };
/// Streams that callers may have open.
const STREAMS_MAX: u32 = 5;
/// A frame's header, in bytes.
const HEADER_BYTES: usize = 9;

struct World {
    connection: Connection,
    streams: Vec<StreamId>,
    came: BytesMut,
    seconds: u64,
    greeted: bool,
    asks: bool,
}

impl World {
    /// What the proxy does, as a byte says.
    fn act(&mut self, act: u8) {
        let id = self.streams.get(usize::from(act >> 4)).copied().unwrap_or(u32::from(act));
        let connection = &mut self.connection;
        match act & 15 {
            0 => self.open(true, false),
            1 => self.open(false, false),
            2 if self.asks => self.open(true, true),
            2 => connection.answer(id, act & 16 != 0, |writer| writer.status(200)),
            3 => drop(connection.give(id, &mut Bytes::from_static(&[7; 40_000]))),
            4 => drop(connection.give(id, &mut Bytes::from_static(b"x"))),
            5 => connection.finish(id, None),
            6 => {
                let mut trailers = Writer::default();
                trailers.field("x", b"y", false);
                connection.finish(id, Some(trailers));
            }
            7 => while let Ok(Piece::Data(_) | Piece::Trailers(_)) = connection.take(id) {},
            8 => drop((connection.head(id), connection.is_unwanted(id))),
            9 => connection.reset(id, Code::CANCEL),
            10 => connection.release_reader(id),
            11 => connection.release_writer(id),
            12 => self.tick(),
            13 => self.transmit(usize::MAX),
            14 => connection.drain(),
            _ => self.transmit(20_000),
        }
    }

    fn open(&mut self, whole: bool, bodiless: bool) {
        if !self.asks {
            return;
        }
        let opened = self.connection.open(whole, bodiless, |writer| {
            writer.request("POST", "http", "orders", "/a");
            writer.field("x-long", &[b'l'; 300], false);
        });
        self.streams.extend(opened);
    }

    fn tick(&mut self) {
        self.seconds += 3;
        drop(self.connection.tick(Moment::after_start(Duration::from_secs(self.seconds))));
    }

    /// What is sent is the preface, and then whole frames that every server takes.
    fn transmit(&mut self, most: usize) {
        let mut out = Outgoing::default();
        self.connection.transmit(&mut out, most);
        let out = out.to_vec();
        let preface = if self.greeted || out.is_empty() || !self.asks { 0 } else { 24 };
        self.greeted |= preface > 0;
        let mut rest = &out[preface..];
        while let [a, b, c, ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            rest = rest.get(HEADER_BYTES + length..).expect("frames are whole");
        }
        assert!(rest.is_empty());
    }

    fn check(&mut self) {
        while let Some(event) = self.connection.next_event() {
            if let Event::Asked(id) = event {
                assert!(self.connection.request(id).is_some() || self.connection.is_unwanted(id));
                self.streams.push(id);
            }
            if let Event::Read(id) | Event::Write(id) = event {
                assert!(self.streams.contains(&id));
            }
        }
        assert!(self.asks || self.connection.streams() <= STREAMS_MAX as usize);
        let (unread, control) = self.connection.held_bytes();
        assert!(unread <= WINDOW_CONNECTION_BYTES as usize, "{unread}");
        assert!(control <= CONTROL_BYTES_MAX + 64 * 1_024, "{control}");
        assert!(self.came.len() <= HEADER_BYTES + FRAME_BYTES as usize, "what is whole is taken");
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((side, mut data)) = data.split_first() else { return };
    let asks = side % 2 == 0;
    let side = if asks { Side::Asking } else { Side::Answering { streams_max: STREAMS_MAX } };
    let connection = Connection::new(side, Some(PATIENCE), Moment::default());
    let (streams, came) = (Vec::new(), BytesMut::new());
    let mut world = World { connection, streams, came, seconds: 0, greeted: false, asks };
    // Each piece: what the proxy does, how many bytes come then, and these.
    while let [act, length, rest @ ..] = data {
        world.act(*act);
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        if world.connection.listens() {
            world.came.extend_from_slice(piece);
            let now = Moment::after_start(Duration::from_secs(world.seconds));
            if let Err(fault) = world.connection.receive(now, &mut world.came) {
                world.connection.fail(&fault);
                world.came.clear();
            }
        } else {
            world.transmit(usize::MAX);
        }
        world.check();
        data = rest;
    }
    // Whoever comes last, nothing is left for nobody.
    world.connection.close("over");
    for id in std::mem::take(&mut world.streams) {
        world.connection.release_reader(id);
        world.connection.release_writer(id);
    }
    world.transmit(usize::MAX);
    assert_eq!((world.connection.streams(), world.connection.held_bytes()), (0, (0, 0)));
});
