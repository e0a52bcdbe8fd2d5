//! What the proxy's threads learned together of one endpoint: whether calls reach it, what it answers, what checks say. Of
//! most endpoints there is nothing to say, and to see that takes no lock.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use traffic::{
    Dice, Moment,
    endpoint::{
        Ejection, Standing,
        outlier::{Cause, Heard, Outlier, Settings},
    },
};

/// What is known of an endpoint.
pub(super) struct Learned {
    /// There is something in the state.
    marked: AtomicBool,
    /// It may be left alone.
    out: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// When it was first seen, or came back.
    since: Moment,
    ejection: Ejection,
    outlier: Outlier,
    /// Why checks say that it is unwell.
    unwell: Option<String>,
}

/// Why an endpoint is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// For people.
    pub reason: String,
    /// How often it was ejected of late; 0 where checks say that it is unwell.
    pub times: u32,
    /// Until it is asked again; `None` where checks will say.
    pub left: Option<Duration>,
}

impl Learned {
    pub(super) fn new(now: Moment) -> Self {
        let (ejection, outlier) = (Ejection::default(), Outlier::default());
        let state = Mutex::new(State { since: now, ejection, outlier, unwell: None });
        Self { marked: AtomicBool::new(false), out: AtomicBool::new(false), state }
    }

    /// Whether calls should go to it.
    pub(super) fn standing(&self, now: Moment) -> Standing {
        if !self.is_out() {
            return Standing::Fine;
        }
        let state = self.state.lock();
        let both = [state.ejection.standing(now), state.outlier.standing(now)];
        if state.unwell.is_some() || both.contains(&Standing::Ejected) {
            Standing::Ejected
        } else if both.contains(&Standing::Probing) {
            Standing::Probing
        } else {
            Standing::Fine
        }
    }

    /// Whether it may be left alone.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// Since when it is there.
    pub(super) fn since(&self) -> Moment {
        self.state.lock().since
    }

    /// Whether it is ejected because of what it answers.
    pub(super) fn is_ejected(&self, now: Moment) -> bool {
        self.is_out() && self.state.lock().outlier.ejected(now).is_some()
    }

    /// Why it is left alone because of what it answers or what checks say, if it is.
    pub(super) fn left_alone(&self, now: Moment) -> Option<Left> {
        if !self.is_out() {
            return None;
        }
        let state = self.state.lock();
        if let Some(reason) = &state.unwell {
            return Some(Left { reason: format!("its check: {reason}"), times: 0, left: None });
        }
        let (cause, times, until) = state.outlier.ejected(now)?;
        Some(Left { reason: cause.to_string(), times, left: Some(until.since(now)) })
    }

    /// A call is on its way to it.
    pub(super) fn called(&self, now: Moment) {
        if self.is_out() {
            let mut state = self.state.lock();
            state.ejection.called(now);
            state.outlier.called(now);
        }
    }

    /// A call did not reach it. Says whether it is out by that.
    pub(super) fn missed(&self, now: Moment, dice: &mut Dice) -> bool {
        self.change(|state| state.ejection.missed(now, dice))
    }

    /// A call reached it. Says whether it is back by that.
    pub(super) fn reached(&self) -> bool {
        self.is_out() && self.change(|state| state.ejection.reached())
    }

    /// A check passed, or failed for a reason. Says whether it is out or back by that.
    pub(super) fn checked(&self, result: Result<(), String>, now: Moment) -> bool {
        self.change(|state| {
            if result.is_ok() && state.unwell.is_some() {
                state.since = now;
            }
            state.unwell = result.err();
        })
    }

    /// What came of a call; for which cause it is to be ejected, if it is.
    pub(super) fn heard(
        &self,
        settings: &Settings,
        now: Moment,
        heard: Heard,
        took: Duration,
    ) -> Option<Cause> {
        if heard == Heard::Fine && !settings.counts() && !self.marked.load(Ordering::Acquire) {
            return None;
        }
        let mut cause = None;
        self.change(|state| {
            let before = state.outlier.standing(now);
            cause = state.outlier.heard(settings, now, heard, took);
            if before != Standing::Fine && state.outlier.standing(now) == Standing::Fine {
                state.since = now;
            }
        });
        cause
    }

    pub(super) fn eject(&self, settings: &Settings, now: Moment, cause: Cause) {
        self.change(|state| state.outlier.eject(settings, now, cause));
    }

    pub(super) fn spare(&self, now: Moment) {
        self.change(|state| state.outlier.spare(now));
    }

    /// Changes the state, and says whether it is out or back by that.
    fn change(&self, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state.lock();
        change(&mut state);
        let out = state.unwell.is_some() || !state.ejection.is_fine() || state.outlier.is_out();
        self.marked.store(out || !state.outlier.is_spotless(), Ordering::Release);
        self.out.swap(out, Ordering::AcqRel) != out
    }
}
