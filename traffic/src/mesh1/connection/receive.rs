//! Pure. What comes from the other side, and what it may not do.

use super::{Connection, Event, Side};
use crate::{
    Moment,
    mesh1::{
        Broken, CONTROL_BYTES_MAX, Code, Decoder, Farewell, Fault, Frame, Hello, Open, Piece,
        RESETS_UNANSWERED_MAX, STREAMS_MAX, StreamId, WINDOW_BYTES_MAX, stream::Stream,
    },
};

impl Connection {
    /// Takes bytes that came.
    ///
    /// # Errors
    /// If the other side breaks the rules: the connection is over then. What is to be sent tells it why.
    pub fn receive(&mut self, now: Moment, bytes: &[u8]) -> Result<(), Fault> {
        if self.over {
            return Ok(());
        }
        (self.heard, self.pinged) = (now, None);
        let mut decoder = std::mem::take(&mut self.decoder);
        let taken = self.take_all(&mut decoder, bytes);
        self.decoder = decoder;
        if let Err(fault) = &taken {
            self.fail(fault);
        }
        taken
    }

    fn take_all(&mut self, decoder: &mut Decoder, bytes: &[u8]) -> Result<(), Fault> {
        let mut bytes = bytes;
        while let Some(piece) = decoder.next(&mut bytes)? {
            if self.peer.is_none() != matches!(piece, Piece::Frame(Frame::Hello(_))) {
                return Err(Fault::Hello);
            }
            match piece {
                Piece::Data(id, part) => self.data(id, part)?,
                Piece::Frame(frame) => self.frame(frame)?,
            }
            if self.control.len() > CONTROL_BYTES_MAX {
                return Err(Fault::Unread);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Fault> {
        match frame {
            Frame::Hello(hello) => self.hello(hello),
            Frame::Open(id, open) => self.opened(id, open)?,
            Frame::Accept(id) => self.accepted(id)?,
            Frame::End(id) => self.ended(id)?,
            Frame::Reset(id, farewell) => self.was_reset(id, farewell)?,
            Frame::Window(id, bytes) => self.given(id, bytes)?,
            Frame::Ping(token) => self.pong = Some(token),
            Frame::Pong(_) => {}
            Frame::GoAway(last, farewell) => self.gone_away(last, farewell),
        }
        Ok(())
    }

    fn hello(&mut self, hello: Hello) {
        self.send_window = hello.window_connection;
        self.peer = Some(hello);
        self.events.push_back(Event::Ready);
    }

    fn opened(&mut self, id: StreamId, open: Option<Open>) -> Result<(), Fault> {
        if self.side == Side::Opener {
            return Err(Fault::Role("OPEN"));
        }
        if id <= self.highest {
            return Err(Fault::Order(id));
        }
        // The other side was told the last one that is looked at.
        self.highest = id;
        if self.going {
            return Ok(());
        }
        let Some(open) = open else {
            self.refuse(id, "streams of that kind are not known here");
            return Ok(());
        };
        if self.streams.len() >= STREAMS_MAX as usize {
            self.refused += 1;
            if self.refused > STREAMS_MAX {
                return Err(Fault::Streams(self.refused));
            }
            self.refuse(id, "too many streams");
            return Ok(());
        }
        self.refused = 0;
        let window = self.peer.map_or(0, |peer| peer.window_stream);
        self.streams.insert(id, Box::new(Stream::new(window)));
        self.events.push_back(Event::Opened(id, open));
        Ok(())
    }

    fn refuse(&mut self, id: StreamId, reason: &str) {
        Frame::Reset(id, Farewell::new(Code::REFUSED, reason)).encode(&mut self.control);
    }

    fn accepted(&mut self, id: StreamId) -> Result<(), Fault> {
        if self.side == Side::Taker {
            return Err(Fault::Role("ACCEPT"));
        }
        if let Some(stream) = self.known(id)? {
            stream.answered = true;
            self.wake(id, false);
        }
        Ok(())
    }

    fn data(&mut self, id: StreamId, part: &[u8]) -> Result<(), Fault> {
        let length = u32::try_from(part.len()).map_err(|_| Fault::Beyond(0))?;
        self.granted = self.granted.checked_sub(length).ok_or(Fault::Beyond(0))?;
        match self.known(id)? {
            Some(stream) if stream.broken.is_none() && !stream.released => {
                stream.receive(id, part)?;
                self.wake(id, false);
            }
            // It was on its way when the stream ended here.
            _ => self.give_back(part.len()),
        }
        Ok(())
    }

    fn ended(&mut self, id: StreamId) -> Result<(), Fault> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.broken.is_some() {
            return Ok(());
        }
        if std::mem::replace(&mut stream.peer_ended, true) {
            return Err(Fault::AfterEnd(id));
        }
        self.wake(id, false);
        self.forget(id);
        Ok(())
    }

    fn was_reset(&mut self, id: StreamId, farewell: Farewell) -> Result<(), Fault> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.broken.is_some() {
            return Ok(());
        }
        let unanswered = !stream.answered;
        let unseen = farewell.code == Code::REFUSED;
        self.break_off(id, if unseen { Broken::Unseen } else { Broken::Reset(farewell) });
        if self.side == Side::Taker && unanswered {
            self.resets += 1;
            if self.resets > RESETS_UNANSWERED_MAX {
                return Err(Fault::Resets(self.resets));
            }
        }
        Ok(())
    }

    fn given(&mut self, id: StreamId, bytes: u32) -> Result<(), Fault> {
        let window = match id {
            0 => &mut self.send_window,
            _ => match self.known(id)? {
                Some(stream) => &mut stream.send_window,
                None => return Ok(()),
            },
        };
        *window = window.saturating_add(bytes);
        if *window > WINDOW_BYTES_MAX {
            return Err(Fault::Overflow(id));
        }
        self.list(id);
        Ok(())
    }

    fn gone_away(&mut self, last: StreamId, farewell: Farewell) {
        self.gone = true;
        if self.side == Side::Opener {
            let unseen: Vec<StreamId> = self.streams.keys().copied().filter(|id| *id > last).collect();
            unseen.into_iter().for_each(|id| self.break_off(id, Broken::Unseen));
        }
        self.events.push_back(Event::GoneAway(farewell));
    }

    /// The stream, if it is not forgotten yet.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, Fault> {
        if id > self.highest {
            return Err(Fault::Unopened(id));
        }
        Ok(self.streams.get_mut(&id).map(Box::as_mut))
    }
}
