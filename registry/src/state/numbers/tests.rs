//! Numbers, by themselves and through snapshots that come back; what commands make of them is said by a script.

use super::*;
use crate::state::{
    HISTORY_REVISIONS_MAX,
    tests::{furnished, perform},
};

fn service(n: usize) -> ServiceName {
    format!("default/s{n}").parse().expect("a name")
}

fn number(ips: Option<VirtualIps>) -> u32 {
    u32::from(ips.expect("there are enough").v4()) & 0x00ff_ffff
}

#[test]
fn a_number_is_given_in_turn_and_the_turn_begins_again_where_it_ends() {
    let mut numbers = Numbers::new();
    assert_eq!([1, 2, 3].map(|n| number(numbers.give(&service(n), Millis(0)))), [1, 2, 3]);
    numbers.let_go(&service(2), Millis(5));
    numbers.last.insert((), NUMBER_MAX - 1);
    assert_eq!(number(numbers.give(&service(4), Millis(6))), NUMBER_MAX);
    assert_eq!(number(numbers.give(&service(5), Millis(6))), 4, "the first three are taken or kept back");
    // A day after it was let go it is free, and still has to wait for its turn.
    let day = Millis(5 + KEPT_BACK.duration().as_millis() as u64);
    assert_eq!(number(numbers.give(&service(6), day)), 5);
    numbers.last.insert((), NUMBER_MAX);
    assert_eq!(number(numbers.give(&service(7), day)), 2);
    assert!(numbers.indexed());
}

#[test]
fn of_too_many_that_are_kept_back_the_oldest_are_forgotten_and_are_not_given_soon() {
    let mut numbers = Numbers::new();
    for n in 0..=KEPT_BACK_MAX {
        numbers.give(&service(n), Millis(n as u64));
        numbers.let_go(&service(n), Millis(n as u64));
    }
    assert_eq!((numbers.holders.len(), numbers.gone.len()), (KEPT_BACK_MAX, KEPT_BACK_MAX));
    assert_eq!(number(numbers.give(&service(1), Millis(9))), 2, "it has its own again");
    let forgotten = number(numbers.give(&service(0), Millis(9)));
    assert_eq!(forgotten as usize, KEPT_BACK_MAX + 2, "another one, and nobody has the first");
    assert!(numbers.indexed());
}

#[test]
fn a_breach_is_found() {
    let (state, web) = (furnished(), "shop/web".parse::<ServiceName>().expect("a name"));
    let broken = |breach: fn(&mut State)| {
        let mut state = state.clone();
        breach(&mut state);
        state.check().expect_err("it is found").what
    };
    assert!(state.virtual_ips(&web).is_some());
    let ghost = broken(|state| assert!(state.numbers.give(&service(9), Millis(0)).is_some()));
    assert!(ghost.contains("default/s9 outlived it"), "{ghost}");
    let silent = broken(|state| state.numbers.let_go(&"shop/web".parse().expect("a name"), Millis(0)));
    assert!(silent.contains("does not say its virtual IPs"), "{silent}");
    let twice = broken(|state| {
        let service = "shop/web".parse().expect("a name");
        drop(state.numbers.holders.insert(70, Holder { service, gone_at: Some(Millis(0)) }));
    });
    assert!(twice.contains("is not indexed"), "{twice}");
}

/// What version 0.2.0 wrote has no such records, and reads to a state of the same hash, which goes on as that version would.
#[test]
fn a_state_without_them_is_as_it_was_before_them() {
    let mut state = State::new();
    perform(&mut state, "put Service/default/a ports=[{\"port\":80}]");
    let image = state.image();
    assert!(image.records.iter().all(|(key, _)| ![10, 11].contains(&key.0[0])), "no new table");
    let mut read = State::from_image(&image, HISTORY_REVISIONS_MAX).expect("its own");
    assert!(perform(&mut read, "show Service/default/a").ends_with("]}"), "no status");
    perform(&mut read, "delete Service/default/a");
    assert!(read.numbers.is_empty(), "nobody had a number");
}

#[test]
fn a_snapshot_and_an_index_have_them() {
    let mut state = furnished();
    perform(&mut state, "delete Service/shop/web");
    let read = State::from_image(&state.image(), HISTORY_REVISIONS_MAX).expect("its own");
    assert_eq!(perform(&mut read.clone(), "show numbers"), perform(&mut state, "show numbers"));
    assert_eq!(read.check(), Ok(()));
    let mut without = state.image();
    without.records.retain(|(key, _)| key.0[0] != 10);
    State::from_image(&without, HISTORY_REVISIONS_MAX).map(drop).expect_err("the hash is of them, too");
}
