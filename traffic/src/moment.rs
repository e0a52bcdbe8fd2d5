//! Pure. A point in time as the decisions see it: so long after a start that the caller chose. It never goes back, and
//! it says nothing about the date.

use std::{ops::Add, time::Duration};

/// Monotonic time since a start that is the same for all moments of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment so long after the process's start.
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the start it is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` it is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_go_back_and_never_overflow() {
        let second = Duration::from_secs(1);
        let early = Moment::after_start(second);
        assert_eq!((early + second).since(early), second);
        assert_eq!(early.since(early + second), Duration::ZERO);
        assert_eq!((early + Duration::MAX).since_start(), Duration::MAX);
    }
}
