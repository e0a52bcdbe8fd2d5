//! Keeps a log readable: who is refused tries again twice a second, and says nothing new.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The same complaint is made once in such a span.
const SPAN: Duration = Duration::from_secs(60);
/// Different complaints that are remembered; beyond that all are forgotten, and made once more.
const COMPLAINTS_MAX: usize = 256;

/// What was complained of, when, and how often since.
#[derive(Debug, Default)]
pub(super) struct Dampened(Mutex<HashMap<String, (Instant, u64)>>);

impl Dampened {
    /// Counts one more; `Some` if it is to be said now, with how often it was kept back before.
    pub(super) fn count(&self, what: &str, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        if let Some((at, kept_back)) = said.get_mut(what) {
            if now.saturating_duration_since(*at) < SPAN {
                *kept_back += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(kept_back));
        }
        if said.len() >= COMPLAINTS_MAX {
            said.clear();
        }
        said.insert(what.to_owned(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_how_often_it_was_kept_back() {
        let (dampened, now) = (Dampened::default(), crate::clock::now());
        assert_eq!(dampened.count("a", now), Some(0));
        assert_eq!(dampened.count("a", now + SPAN / 2), None);
        assert_eq!(dampened.count("b", now + SPAN / 2), Some(0), "another complaint");
        assert_eq!(dampened.count("a", now + SPAN), Some(1));
        assert_eq!(dampened.count("a", now + SPAN), None);
    }
}
