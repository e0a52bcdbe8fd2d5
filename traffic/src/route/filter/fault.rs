//! Pure. Faults on purpose: which requests are held up, and which are answered with an error. They end by themselves at a
//! time that the caller's clock says.

use std::{fmt, sync::Arc, time::Duration};

use model::{
    duration::Millis,
    resource::{FaultAbort, FaultInjection},
};

use super::{Reply, share::Share};
use crate::{Dice, request::RequestHead};

#[derive(Debug)]
pub(super) struct Faults {
    delay: Option<(Duration, Share)>,
    abort: Option<(Abort, Share)>,
    until: Option<Millis>,
}

#[derive(Debug)]
struct Abort {
    status: Option<u16>,
    grpc_status: Option<u16>,
}

/// What is done to one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// It is held up for so long.
    pub delay: Option<Duration>,
    /// It is answered so, after its delay, and goes nowhere.
    pub abort: Option<Reply>,
}

impl Faults {
    pub(super) fn new(spec: &FaultInjection) -> Self {
        let delay = spec
            .delay
            .as_ref()
            .map(|delay| (delay.duration.duration(), Share::new(delay.percent, delay.fraction.as_ref())));
        let abort = spec
            .abort
            .as_ref()
            .map(|abort| (Abort::new(abort), Share::new(abort.percent, abort.fraction.as_ref())));
        Self { delay, abort, until: spec.until }
    }

    pub(super) fn draw(&self, head: &RequestHead<'_>, now: Millis, dice: &mut Dice) -> Fault {
        if self.until.is_some_and(|until| now >= until) {
            return Fault::default();
        }
        let delay = self.delay.filter(|(_, share)| share.draw(dice)).map(|(delay, _)| delay);
        let abort = self.abort.as_ref().filter(|(_, share)| share.draw(dice));
        Fault { delay, abort: abort.and_then(|(abort, _)| abort.reply(head)) }
    }
}

/// `faults on purpose: 10 of 100 are held up for 2s, all are aborted, until …`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faults on purpose:")?;
        if let Some((delay, share)) = &self.delay {
            write!(f, " {share} are held up for {delay:?}")?;
        }
        if let Some((_, share)) = &self.abort {
            write!(f, " {share} are aborted")?;
        }
        self.until.map_or(Ok(()), |until| write!(f, " until {until}"))
    }
}

impl Abort {
    fn new(spec: &FaultAbort) -> Self {
        let status = spec.status.map(|status| status.value() as u16);
        Self { status, grpc_status: spec.grpc_status.map(|status| status.value() as u16) }
    }

    /// The error, in the words of what the request speaks; none if there is none for that.
    fn reply(&self, head: &RequestHead<'_>) -> Option<Reply> {
        const SAYS: &str = "a fault on purpose, by the route";
        let grpc = head.field_text("content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match (grpc, self.grpc_status, self.status) {
            (true, Some(code), _) => {
                let fields = vec![
                    pair("content-type", "application/grpc"),
                    pair("grpc-status", &code.to_string()),
                    pair("grpc-message", SAYS),
                ];
                Some(Reply { status: 200, fields, body: Arc::default() })
            }
            (_, _, Some(status)) => {
                let fields = vec![pair("content-type", "text/plain; charset=utf-8")];
                Some(Reply { status, fields, body: format!("mesh: {SAYS}\n").into() })
            }
            (_, _, None) => None,
        }
    }
}
