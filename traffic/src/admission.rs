//! Pure. Whether a call may go out: bounded for each destination. Nothing queues here; what is over the limit is refused.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// As many calls and connections may be under way to one destination from one proxy. Each holds some tens of KiB of
/// buffers, so that a destination that answers nothing cannot take more than about 1 GiB.
pub const IN_FLIGHT_MAX: u32 = 16_384;

/// The gate to one destination. Kept outside the snapshot: it counts on when configuration changes.
#[derive(Debug)]
pub struct Gate {
    in_flight: AtomicU32,
    limit: u32,
}

/// Proof that a call may go out; it counts as under way until dropped. Only [`Gate::admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    gate: Arc<Gate>,
}

/// As many calls are under way to the destination as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} calls are under way to the destination, which is the limit")]
pub struct Full {
    /// The limit.
    pub limit: u32,
}

impl Gate {
    /// A gate that lets so many calls be under way.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicU32::new(0), limit })
    }

    /// Lets one call out.
    ///
    /// # Errors
    /// If the limit is reached.
    pub fn admit(self: &Arc<Self>) -> Result<Admitted, Full> {
        let room = |count: u32| (count < self.limit).then_some(count + 1);
        match self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, room) {
            Ok(_) => Ok(Admitted { gate: Arc::clone(self) }),
            Err(_) => Err(Full { limit: self.limit }),
        }
    }

    /// How many calls are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gate.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_opens_when_a_call_ends() {
        let gate = Gate::new(2);
        let first = gate.admit().expect("there is room");
        let _second = gate.admit().expect("there is room");
        assert_eq!(gate.admit().expect_err("it is full"), Full { limit: 2 });
        drop(first);
        assert_eq!(gate.in_flight(), 1);
        let _third = gate.admit().expect("there is room again");
        assert_eq!(gate.in_flight(), 2);
    }
}
