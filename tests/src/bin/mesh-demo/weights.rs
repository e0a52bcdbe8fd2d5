//! Changes the weights of orders every second, and judges whether each was seen in the split.

use std::time::Duration;

use model::{
    client::{Client, ClientError},
    manifest,
    object::Object,
};

use crate::app::now_millis;

/// How often weights change.
pub(crate) const CHANGE_EVERY: Duration = Duration::from_secs(1);
/// Within which time a change must be seen, in milliseconds.
pub(crate) const SEEN_WITHIN_MILLIS: u64 = 3_000;
/// How far the split may be from the weights; with 20 calls, the standard deviation is at most 0.11.
const TOLERANCE: f64 = 0.15;
/// As many calls in a row are judged: a third of a second's, within these bounds.
const CALLS_JUDGED: (usize, usize) = (20, 60);
/// How long a change is tried while the control plane elects a leader.
const CHANGE_LIMIT: Duration = Duration::from_secs(15);
/// The shares of v2, in turn. Each is far from both its neighbours and beyond them on the same side, so that no mixture of
/// what was before and what came after can be taken for it.
const SHARES: [u32; 4] = [10, 60, 0, 90];

/// A change that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The share of v2, in percent.
    pub(crate) share: u32,
}

/// The share of v2 that the `n`th change sets, in percent.
pub(crate) fn share(n: usize) -> u32 {
    SHARES[n % SHARES.len()]
}

/// The manifest of the route with this share of v2.
pub(crate) fn manifest(share: u32) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{namespace: default, name: orders}}\nspec:\n  parentRefs:\n  - {{kind: Service, name: orders, port: 80}}\n  rules:\n  - backendRefs:\n\
         \x20   - {{kind: Service, name: orders, subset: v1, port: 80, weight: {}}}\n    - {{kind: Service, name: orders, subset: v2, port: 80, weight: {share}}}\n",
        100 - share
    )
}

/// Sets the share of v2; asks one member after the other until one took it.
pub(crate) async fn change(clients: &[Client], share: u32) -> anyhow::Result<Change> {
    let parsed = manifest::parse(&manifest(share))?;
    let object: &Object = &parsed[0].object;
    let mut turn = 0;
    mesh_tests::wait::until("a change of weights is taken", CHANGE_LIMIT, || {
        let client = &clients[turn % clients.len()];
        turn += 1;
        async move { client.put(object).await.map_err(|error: ClientError| error.to_string()) }
    })
    .await?;
    Ok(Change { at: now_millis(), share })
}

/// How many of the changes were seen in the split in time, at so many calls per second; those that were not.
pub(crate) fn unseen<'a>(changes: &'a [Change], answers: &[(u64, bool)], rate: u32) -> Vec<&'a Change> {
    let judged = (rate as usize / 3).clamp(CALLS_JUDGED.0, CALLS_JUDGED.1);
    let deadline = |index: usize| {
        let after_next = changes.get(index + 2).map_or(u64::MAX, |change| change.at);
        after_next.min(changes[index].at + SEEN_WITHIN_MILLIS)
    };
    let lost = |(index, change): &(usize, &Change)| !seen(change, deadline(*index), answers, judged);
    changes.iter().enumerate().filter(lost).map(|(_, change)| change).collect()
}

/// Whether so many calls in a row that started in time after the change were split by its weights.
fn seen(change: &Change, deadline: u64, answers: &[(u64, bool)], judged: usize) -> bool {
    let in_time = answers.iter().filter(|(at, _)| (change.at..deadline).contains(at));
    let v2: Vec<bool> = in_time.map(|(_, v2)| *v2).collect();
    let want = f64::from(change.share) / 100.0;
    let share = |calls: &[bool]| calls.iter().filter(|v2| **v2).count() as f64 / calls.len() as f64;
    v2.windows(judged).any(|calls| (share(calls) - want).abs() <= TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 200;

    /// Calls every 5 ms from `start`, for 600 ms, whose share of v2 is exactly `share`.
    fn answers(start: u64, share: u64) -> Vec<(u64, bool)> {
        (0..120).map(|n| (start + n * 5, n * share % 100 < share)).collect()
    }

    fn lost(changes: &[Change], answers: &[(u64, bool)]) -> Vec<u32> {
        unseen(changes, answers, RATE).into_iter().map(|change| change.share).collect()
    }

    #[test]
    fn a_change_is_seen_in_the_split_or_not() {
        let change = [Change { at: 1_000, share: 60 }];
        assert_eq!(lost(&change, &answers(1_500, 60)), [0; 0]);
        assert_eq!(lost(&change, &answers(1_500, 10)), [60], "the old weights were taken for the new ones");
        assert_eq!(lost(&change, &answers(4_100, 60)), [60], "it came too late");
        assert_eq!(lost(&change, &answers(1_500, 60)[..59]), [60], "too few calls to judge");
    }

    #[test]
    fn a_change_that_was_lost_is_not_seen_in_those_around_it() {
        let changes: Vec<_> =
            (0..12).map(|n| Change { at: 1_000 * (n + 1), share: share(n as usize) }).collect();
        let all: Vec<_> = changes.iter().flat_map(|change| answers_for(change.at, change.share)).collect();
        assert_eq!(lost(&changes, &all), [0; 0]);
        for gone in 1..changes.len() - 2 {
            // Where a change is lost, the weights before it go on.
            let in_force = |n: usize| changes[if n == gone { n - 1 } else { n }].share;
            let split: Vec<_> =
                (0..changes.len()).flat_map(|n| answers_for(changes[n].at, in_force(n))).collect();
            assert_eq!(lost(&changes, &split), [changes[gone].share], "change {gone}");
        }
    }

    /// A whole second of calls.
    fn answers_for(at: u64, share: u32) -> Vec<(u64, bool)> {
        (0..200).map(|n| (at + n * 5, n * u64::from(share) % 100 < u64::from(share))).collect()
    }

    #[test]
    fn shares_lie_beyond_both_neighbours() {
        for n in 1..=SHARES.len() {
            let [before, one, next] = [n - 1, n, n + 1].map(|n| f64::from(share(n)) / 100.0);
            assert!((one - before) * (one - next) > 0.0, "{one} lies between its neighbours");
            assert!((one - before).abs().min((one - next).abs()) > 2.0 * TOLERANCE);
        }
        assert_eq!(manifest::parse(&manifest(60)).expect("valid").len(), 1);
    }
}
