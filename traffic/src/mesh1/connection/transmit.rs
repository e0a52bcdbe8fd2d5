//! Pure. What goes to the other side: first what is owed and short, then the streams' bytes, each stream a turn of
//! [`QUANTUM_BYTES`] at most before the next.

use super::Connection;
use crate::Outgoing;
use crate::mesh1::{
    Code, Event, Farewell, Frame, QUANTUM_BYTES, QUEUE_BYTES_MAX, StreamId, WINDOW_CONNECTION_BYTES,
    frame::{self, kind},
};

impl Connection {
    /// Writes what is to be sent behind what is in `out`, until that holds `most` bytes or more, or all is written. Returns
    /// how many turns streams had.
    pub fn transmit(&mut self, out: &mut Outgoing, most: usize) -> usize {
        if !self.over {
            self.credit();
        }
        if let Some(token) = self.pong.take() {
            Frame::Pong(token).encode(&mut self.control);
        }
        self.told = self.highest;
        out.with(|bytes| bytes.append(&mut self.control));
        // Streams that may not send now, one after the other: the round is over when none was met that may.
        let (mut stuck, mut turns) = (0, 0);
        while out.len() < most && stuck < self.round.len() {
            let Some(id) = self.round.pop_front() else { break };
            if self.turn(id, out) {
                (stuck, turns) = (0, turns + 1);
            } else {
                stuck += 1;
            }
        }
        if self.control.capacity() > 4 * QUANTUM_BYTES {
            self.control = Vec::new();
        }
        turns
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        let owed = !self.control.is_empty() || self.pong.is_some() || !self.credits.is_empty();
        let sendable = |id| self.streams.get(id).is_some_and(|stream| stream.sendable(self.send_window));
        owed || self.owes_credit() || self.round.iter().any(sendable)
    }

    /// One stream's turn; whether it sent anything.
    fn turn(&mut self, id: StreamId, out: &mut Outgoing) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        if !stream.sendable(u32::MAX) {
            stream.listed = false;
            return true;
        }
        let leave = stream.send_window.min(self.send_window) as usize;
        let length = stream.queue.len().min(QUANTUM_BYTES).min(leave);
        if length > 0 {
            out.with(|bytes| bytes.extend(frame::header(kind::DATA, id, length)));
            out.draw(&mut stream.queue, length);
            self.queued -= length;
            let sent = u32::try_from(length).expect("a turn is no longer than a frame");
            (stream.send_window, self.send_window) = (stream.send_window - sent, self.send_window - sent);
        }
        let ends = stream.queue.is_empty() && stream.finishing;
        if ends {
            stream.ended = true;
            out.with(|bytes| Frame::End(id).encode(bytes));
        }
        if stream.wants_write && stream.queue.len() < QUEUE_BYTES_MAX {
            stream.wants_write = false;
            self.events.push_back(Event::Write(id));
        }
        stream.listed = stream.sendable(u32::MAX);
        if stream.listed {
            self.round.push_back(id);
        }
        if ends {
            self.let_go(id, out);
        }
        length > 0 || ends
    }

    /// A stream whose last byte is sent and that nobody asks for: what the other side may still send, nobody reads.
    fn let_go(&mut self, id: StreamId, out: &mut Outgoing) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.released) else { return };
        if !stream.peer_ended {
            out.with(|bytes| Frame::Reset(id, Farewell::new(Code::CANCEL, "")).encode(bytes));
        }
        self.streams.remove(&id);
    }

    /// Grants what was read again.
    fn credit(&mut self) {
        while let Some(id) = self.credits.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.credited = false;
            if stream.owes_credit() {
                let credit = stream.credit();
                Frame::Window(id, credit).encode(&mut self.control);
            }
        }
        if self.owes_credit() {
            let credit = std::mem::take(&mut self.read);
            self.granted += credit;
            Frame::Window(0, credit).encode(&mut self.control);
        }
    }

    fn owes_credit(&self) -> bool {
        !self.over && self.read >= WINDOW_CONNECTION_BYTES / 2
    }
}
