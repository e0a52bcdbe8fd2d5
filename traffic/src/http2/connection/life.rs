//! Pure. How a connection comes to its end.

use super::{Broken, Code, Connection, Event, Fault, LAST, LEAVING, Moment, Side, StreamId, THERE, frame};

impl Connection {
    /// No other stream is opened; those that are go on. The other side, where it opens them, is told, and those that it
    /// has opened before it hears of it are answered.
    pub fn drain(&mut self) {
        if self.side == Side::Asking {
            self.closing = true;
            self.events.push_back(Event::Room);
        } else if !std::mem::replace(&mut self.leaving, true) {
            self.go_away(LAST, Code::NO_ERROR);
            frame::short(&mut self.control, frame::PING, 0, 0, LEAVING);
        }
    }

    pub(super) fn go_away(&mut self, last: StreamId, code: Code) {
        let payload = [last.to_be_bytes(), code.0.to_be_bytes()].concat();
        frame::short(&mut self.control, frame::GOAWAY, 0, 0, &payload);
    }

    /// Whether nothing is left to carry, and no other stream is opened.
    pub fn is_drained(&self) -> bool {
        self.closing && self.active.0 == 0 && self.control.is_empty()
    }

    /// The other side broke the rules: it is told, and all ends.
    pub fn fail(&mut self, fault: &Fault) {
        self.go_away(self.last, fault.code);
        self.close(&fault.to_string());
    }

    /// The connection ended.
    pub fn close(&mut self, why: &str) {
        if self.lost.is_some() {
            return;
        }
        (self.lost, self.closing) = (Some(why.to_owned()), true);
        let open: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in open {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_over()) {
                let unseen = id >= self.unsent;
                stream.broken = Some(if unseen { Broken::Unseen } else { Broken::Lost(why.to_owned()) });
                self.broke(id);
            }
        }
        self.events.push_back(Event::Room);
    }

    /// Looks at the time: every second or so.
    ///
    /// # Errors
    /// If the other side gives no sign of life.
    pub fn tick(&mut self, now: Moment) -> Result<(), Fault> {
        let Some(patience) = self.patience.filter(|_| self.side != Side::Asking || self.active.0 > 0) else {
            self.asked = None;
            return Ok(());
        };
        match self.asked {
            Some(asked) if self.heard > asked => self.asked = None,
            Some(asked) if now.since(asked) >= patience.answer => {
                return Err(Fault { code: Code::NO_ERROR, what: "it gives no sign of life" });
            }
            Some(_) => {}
            None if now.since(self.heard) >= patience.quiet => {
                self.asked = Some(now);
                frame::short(&mut self.control, frame::PING, 0, 0, THERE);
            }
            None => {}
        }
        Ok(())
    }
}
