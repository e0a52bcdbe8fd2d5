//! Counters of look-ups.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Facts;
use crate::dns::answer::{Counted, End, Sort};

/// One thread's counters, by what was asked for and what it came to.
#[derive(Debug, Default)]
pub struct DnsCounts {
    queries: [[AtomicU64; End::ALL.len()]; Sort::ALL.len()],
}

impl DnsCounts {
    /// A query was answered.
    pub fn answered(&self, counted: Counted) {
        self.queries[counted.sort as usize][counted.end as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&mut self, more: &Self) {
        let own = self.queries.iter_mut().flatten();
        own.zip(more.queries.iter().flatten())
            .for_each(|(own, more)| *own.get_mut() += more.load(Ordering::Relaxed));
    }

    /// Those that are not zero.
    pub(super) fn facts(&self) -> Facts {
        let (name, help) =
            ("mesh_dns_queries_total", "Look-ups that were answered, by type and by what came of them.");
        let mut gauges = Vec::new();
        for (sort, ends) in Sort::ALL.into_iter().zip(&self.queries) {
            for (end, count) in End::ALL.into_iter().zip(ends) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("{{type=\"{}\",outcome=\"{}\"}}", sort.as_str(), end.as_str());
                    gauges.push((name, help, labels, count as f64));
                }
            }
        }
        Facts { gauges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_up_and_what_never_was_is_not_shown() {
        let (mut sum, thread) = (DnsCounts::default(), DnsCounts::default());
        thread.answered(Counted { sort: Sort::Aaaa, end: End::NoName });
        thread.answered(Counted { sort: Sort::Aaaa, end: End::NoName });
        (0..2).for_each(|_| sum.add(&thread));
        let facts = sum.facts().gauges;
        assert_eq!(facts.len(), 1);
        assert_eq!((facts[0].2.as_str(), facts[0].3), ("{type=\"AAAA\",outcome=\"nxdomain\"}", 4.0));
        // Their numbers are their places.
        assert!(Sort::ALL.into_iter().enumerate().all(|(place, sort)| sort as usize == place));
        assert!(End::ALL.into_iter().enumerate().all(|(place, end)| end as usize == place));
    }
}
