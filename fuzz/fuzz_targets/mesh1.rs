//! One side of a `mesh/1` connection against a hostile other side: any bytes, in any pieces, while the application opens,
//! reads, writes and drops streams. What is held stays bounded, nothing panics, and what is sent is always readable.
#![no_main]

use std::time::Duration;

use traffic::{
    Moment, Outgoing,
    mesh1::{
        CONTROL_BYTES_MAX, Code, Connection, Decoder, Event, Farewell, Kind, Patience, QUEUES_BYTES_MAX,
        Read, STREAMS_MAX, Side, StreamId, WINDOW_CONNECTION_BYTES,
    },
};

const PATIENCE: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };
/// What a side may hold, in bytes: all that it has granted, all that waits to be sent, and what came with one input.
const HELD_BYTES_MAX: usize = WINDOW_CONNECTION_BYTES as usize + 2 * QUEUES_BYTES_MAX + 2 * CONTROL_BYTES_MAX;

struct World {
    connection: Connection,
    streams: Vec<StreamId>,
    said: Decoder,
    seconds: u64,
}

impl World {
    /// What the application does, as a byte says.
    fn act(&mut self, act: u8) {
        let stream = usize::from(act >> 4);
        let id = self.streams.get(stream).copied().unwrap_or(u32::from(act));
        let connection = &mut self.connection;
        match act & 15 {
            0 => self.streams.extend(connection.open(Kind::Tcp, 80)),
            1 => connection.accept(id),
            2 => drop(connection.write(id, &[7; 40_000])),
            3 => drop(connection.write(id, b"x")),
            4 => connection.finish(id),
            5 => while let Ok(Read::Bytes(1..)) = connection.read(id, &mut [0; 4_096]) {},
            6 => drop(connection.read(id, &mut [0; 1])),
            7 => connection.reset(id, Farewell::new(Code::UNREACHED, "nobody listens")),
            8 => connection.release(id),
            9 => connection.go_away(Farewell::new(Code::DRAIN, "")),
            10 => self.tick(),
            11 => self.transmit(usize::MAX),
            12 => self.transmit(20_000),
            13 => drop(connection.answered(id)),
            14 => connection.close("gone"),
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.seconds += 3;
        drop(self.connection.tick(Moment::after_start(Duration::from_secs(self.seconds))));
    }

    /// What is sent is read by our own decoder.
    fn transmit(&mut self, most: usize) {
        let mut out = Outgoing::default();
        self.connection.transmit(&mut out, most);
        let out = out.to_vec();
        let mut rest = &out[..];
        while self.said.next(&mut rest).expect("we keep the rules").is_some() {}
    }

    fn check(&mut self) {
        while let Some(event) = self.connection.next_event() {
            if let Event::Opened(id, _) = event {
                self.streams.push(id);
            }
        }
        assert!(self.connection.streams() <= STREAMS_MAX as usize);
        assert!(self.connection.held_bytes() <= HELD_BYTES_MAX, "{}", self.connection.held_bytes());
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((side, mut data)) = data.split_first() else { return };
    let side = if side % 2 == 0 { Side::Taker } else { Side::Opener };
    let connection = Connection::new(side, PATIENCE, Moment::default());
    let mut world = World { connection, streams: Vec::new(), said: Decoder::default(), seconds: 0 };
    // Each piece: what the application does, how many bytes come then, and these.
    while let [act, length, rest @ ..] = data {
        world.act(*act);
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let now = Moment::after_start(Duration::from_secs(world.seconds));
        if world.connection.receive(now, piece).is_err() {
            world.transmit(usize::MAX);
        }
        world.check();
        data = rest;
    }
    // Whoever comes last, nothing is left for nobody.
    world.connection.close("over");
    for id in std::mem::take(&mut world.streams) {
        world.connection.release(id);
    }
    world.transmit(usize::MAX);
    assert_eq!((world.connection.streams(), world.connection.held_bytes()), (0, 0));
});
