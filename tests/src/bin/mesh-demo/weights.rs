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
/// How far the split may be from the weights: with 45 calls the standard deviation is at most 0.075.
const TOLERANCE: f64 = 0.15;
/// As many calls in a row are judged: fewer than come in between two changes at 60 a second, so that those on the verge
/// may be left out.
const CALLS_JUDGED: usize = 45;
/// How long a change is tried while the control plane elects a leader.
const CHANGE_LIMIT: Duration = Duration::from_secs(15);
/// The shares of v2, in turn; each is far from the one before.
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

/// Whether calls in a row that started in time after the change were split by its weights.
pub(crate) fn seen(change: &Change, answers: &[(u64, bool)]) -> bool {
    let deadline = change.at + SEEN_WITHIN_MILLIS;
    let v2: Vec<bool> =
        answers.iter().filter(|(at, _)| (change.at..=deadline).contains(at)).map(|(_, v2)| *v2).collect();
    let want = f64::from(change.share) / 100.0;
    let fits = |calls: &[bool]| {
        (calls.iter().filter(|v2| **v2).count() as f64 / calls.len() as f64 - want).abs() <= TOLERANCE
    };
    v2.windows(CALLS_JUDGED).any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls every 5 ms from `start`, for 600 ms, whose share of v2 is exactly `share`.
    fn answers(start: u64, share: u64) -> Vec<(u64, bool)> {
        (0..120).map(|n| (start + n * 5, n * share % 100 < share)).collect()
    }

    #[test]
    fn a_change_is_seen_in_the_split_or_not() {
        let change = Change { at: 1_000, share: 60 };
        assert!(seen(&change, &answers(1_500, 60)));
        assert!(!seen(&change, &answers(1_500, 10)), "the old weights were taken for the new ones");
        assert!(!seen(&change, &answers(4_100, 60)), "it came too late");
        assert!(!seen(&change, &answers(1_500, 60)[..CALLS_JUDGED - 1]), "too few calls to judge");
    }

    #[test]
    fn shares_differ_enough_to_be_told_apart() {
        for n in 0..SHARES.len() {
            let (one, next) = (f64::from(share(n)), f64::from(share(n + 1)));
            assert!((one - next).abs() / 100.0 > 2.0 * TOLERANCE);
        }
        assert_eq!(manifest::parse(&manifest(60)).expect("valid").len(), 1);
    }
}
