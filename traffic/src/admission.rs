//! Pure. Whether a call may go out: bounded for each destination, by what its traffic policy allows. Nothing queues here;
//! what is over a limit is refused at once, so that callers of a service that answers nothing hear so while they can still
//! do something else (a circuit breaker).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use model::resource::PolicyLimits;

use crate::conduct::Conduct;

/// As much may be under way to one destination from one proxy where no policy says else. Each call holds some tens of KiB of
/// buffers, so that a destination that answers nothing cannot take more than about 1 GiB.
pub const IN_FLIGHT_MAX: u32 = 16_384;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bounded {
    /// Streams: TCP connections and what left HTTP.
    Connections,
    /// Requests that wait for a connection to an endpoint's proxy.
    Pending,
    /// Requests.
    Requests,
    /// Retries.
    Retries,
}

/// How much may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of [`Bounded::Connections`].
    pub connections: u32,
    /// Of [`Bounded::Pending`].
    pub pending: u32,
    /// Of [`Bounded::Requests`].
    pub requests: u32,
    /// Of [`Bounded::Retries`].
    pub retries: u32,
}

/// The gate to one destination. Kept outside the snapshot: it counts on when configuration changes.
#[derive(Debug, Default)]
pub struct Gate {
    counts: [AtomicU32; 4],
}

/// Proof that a call may go out; it counts as under way until dropped. Only [`Gate::admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    place: Place,
    conduct: Arc<Conduct>,
}

/// One of those that are under way, until dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    what: Bounded,
}

/// As much is under way to the destination as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} {what} are under way to the destination, which is the limit")]
pub struct Full {
    /// Of what.
    pub what: Bounded,
    /// The limit.
    pub limit: u32,
}

// === impl Bounded, Limits ===

impl Bounded {
    /// All of it.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "streams",
            Self::Pending => "requests without a connection",
            Self::Requests => "requests",
            Self::Retries => "retries",
        })
    }
}

impl Limits {
    /// The limit of one of them.
    pub fn of(&self, what: Bounded) -> u32 {
        match what {
            Bounded::Connections => self.connections,
            Bounded::Pending => self.pending,
            Bounded::Requests => self.requests,
            Bounded::Retries => self.retries,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let most = IN_FLIGHT_MAX;
        Self { connections: most, pending: most, requests: most, retries: most }
    }
}

impl From<&PolicyLimits> for Limits {
    fn from(spec: &PolicyLimits) -> Self {
        Self {
            connections: spec.max_connections.value() as u32,
            pending: spec.max_pending_requests.value() as u32,
            requests: spec.max_requests.value() as u32,
            retries: spec.max_retries.value() as u32,
        }
    }
}

// === impl Gate, Admitted ===

impl Gate {
    /// A gate through which nothing went yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets one call out, a request or a stream ([`Bounded::Requests`], [`Bounded::Connections`]).
    ///
    /// # Errors
    /// If the limit is reached.
    pub fn admit(self: &Arc<Self>, what: Bounded, conduct: &Arc<Conduct>) -> Result<Admitted, Full> {
        let place = self.take(what, conduct.limits.of(what))?;
        Ok(Admitted { place, conduct: Arc::clone(conduct) })
    }

    fn take(self: &Arc<Self>, what: Bounded, limit: u32) -> Result<Place, Full> {
        let room = |count: u32| (count < limit).then_some(count + 1);
        match self.count(what).fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Place { gate: Arc::clone(self), what }),
            Err(_) => Err(Full { what, limit }),
        }
    }

    /// How many are under way.
    pub fn under_way(&self, what: Bounded) -> u32 {
        self.count(what).load(Ordering::Acquire)
    }

    /// Whether nothing is.
    pub fn is_idle(&self) -> bool {
        Bounded::ALL.into_iter().all(|what| self.under_way(what) == 0)
    }

    fn count(&self, what: Bounded) -> &AtomicU32 {
        &self.counts[what as usize]
    }
}

impl Admitted {
    /// Lets the call wait for a connection.
    ///
    /// # Errors
    /// If too many do.
    pub fn wait(&self) -> Result<Place, Full> {
        self.also(Bounded::Pending)
    }

    /// Lets the call be tried again.
    ///
    /// # Errors
    /// If too many are.
    pub fn again(&self) -> Result<Place, Full> {
        self.also(Bounded::Retries)
    }

    /// How long a connection for it may take to come about.
    pub fn connect_timeout(&self) -> Duration {
        self.conduct.connect
    }

    fn also(&self, what: Bounded) -> Result<Place, Full> {
        self.place.gate.take(what, self.conduct.limits.of(what))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.count(self.what).fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conduct(limits: Limits) -> Arc<Conduct> {
        Arc::new(Conduct { limits, ..Conduct::default() })
    }

    #[test]
    fn a_full_gate_opens_when_a_call_ends() {
        let (gate, conduct) = (Gate::new(), conduct(Limits { requests: 2, ..Limits::default() }));
        let admit = || gate.admit(Bounded::Requests, &conduct);
        let first = admit().expect("there is room");
        let _second = admit().expect("there is room");
        let full = admit().expect_err("it is full");
        assert_eq!(full, Full { what: Bounded::Requests, limit: 2 });
        assert_eq!(full.to_string(), "2 requests are under way to the destination, which is the limit");
        let stream = gate.admit(Bounded::Connections, &conduct).expect("streams are another matter");
        drop(first);
        assert_eq!(gate.under_way(Bounded::Requests), 1);
        let _third = admit().expect("there is room again");
        assert_eq!((gate.under_way(Bounded::Requests), gate.under_way(Bounded::Connections)), (2, 1));
        drop(stream);
        assert!(!gate.is_idle());
    }

    #[test]
    fn what_waits_and_what_is_tried_again_is_bounded_by_itself() {
        let limits = Limits { pending: 1, retries: 0, ..Limits::default() };
        let (gate, conduct) = (Gate::new(), conduct(limits));
        let (one, two) = (gate.admit(Bounded::Requests, &conduct), gate.admit(Bounded::Requests, &conduct));
        let (one, two) = (one.expect("room"), two.expect("room"));
        let waiting = one.wait().expect("the first may wait");
        assert_eq!(two.wait().expect_err("and only that"), Full { what: Bounded::Pending, limit: 1 });
        drop(waiting);
        assert!(two.wait().is_ok());
        assert_eq!(one.again().expect_err("none may"), Full { what: Bounded::Retries, limit: 0 });
        drop((one, two));
        assert!(gate.is_idle());
    }

    #[test]
    fn a_limit_that_changes_holds_for_what_is_under_way() {
        let gate = Gate::new();
        let (wide, narrow) =
            (conduct(Limits::default()), conduct(Limits { requests: 1, ..Limits::default() }));
        let held: Vec<_> = (0..3).map(|_| gate.admit(Bounded::Requests, &wide).expect("room")).collect();
        assert!(gate.admit(Bounded::Requests, &narrow).is_err());
        drop(held);
        assert!(gate.admit(Bounded::Requests, &narrow).is_ok());
    }
}
