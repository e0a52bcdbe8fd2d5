use super::*;
use crate::dice::Dice;

/// Clients that do one thing at a time on each of `keys` registers; every operation takes effect at one moment.
struct World {
    dice: Dice,
    standing: Vec<Option<(u64, u64)>>,
    revision: u64,
    history: Vec<Operation>,
    /// Revisions that some client was told of: nobody asks for others.
    told: Vec<u64>,
}

/// A call that was begun and takes effect at a moment to come.
struct UnderWay {
    operation: Operation,
    effect: Nanos,
    answered: bool,
}

impl World {
    fn history(seed: u64, operations: usize, clients: u32, keys: u32) -> Vec<Operation> {
        let mut world = Self {
            dice: Dice::new(seed),
            standing: vec![None; keys as usize],
            revision: 0,
            history: Vec::new(),
            told: vec![0],
        };
        let mut under_way: Vec<UnderWay> = Vec::new();
        let (mut free, mut value) = (vec![0; clients as usize], 0);
        while world.history.len() + under_way.len() < operations {
            let client = world.dice.below(u64::from(clients)) as usize;
            value += 1;
            let begun = world.begin(client as u32, keys, free[client], value);
            free[client] = begun.operation.ended + 1;
            under_way.push(begun);
            let horizon = *free.iter().min().expect("clients");
            under_way = world.carry_out(under_way, horizon);
        }
        world.carry_out(under_way, Nanos::MAX);
        world.history
    }

    fn begin(&mut self, client: u32, keys: u32, free: Nanos, value: u64) -> UnderWay {
        let dice = &mut self.dice;
        let began = free + dice.below(500);
        let effect = began + dice.below(1_000);
        let ended = effect + dice.below(1_000);
        let answered = !dice.chance(2);
        let key = dice.below(u64::from(keys)) as u32;
        let expect = match dice.below(10) {
            0 => Expect::Absent,
            1..=3 => Expect::Revision(
                self.told[self.told.len() - 1 - dice.below(self.told.len().min(4) as u64) as usize],
            ),
            _ => Expect::Any,
        };
        let call = match dice.below(10) {
            0..5 => Call::Get { consistency: Consistency::Linearizable, least: None },
            5..9 => Call::Put { value, expect },
            _ => Call::Delete { expect },
        };
        // What nobody answers may be done long after it was given up.
        let effect = if answered { effect } else { effect + dice.below(20_000) };
        let outcome = Outcome::Unknown;
        UnderWay {
            operation: Operation { client, server: 0, boot: 0, key, began, ended, call, outcome },
            effect,
            answered,
        }
    }

    /// Lets all take effect that do before `horizon`, in the order of their moments; answers the others.
    fn carry_out(&mut self, mut under_way: Vec<UnderWay>, horizon: Nanos) -> Vec<UnderWay> {
        under_way.sort_by_key(|one| one.effect);
        let later = under_way.split_off(under_way.partition_point(|one| one.effect < horizon));
        for UnderWay { mut operation, answered, .. } in under_way {
            let outcome =
                if answered || self.dice.chance(50) { self.apply(&operation) } else { Outcome::Unknown };
            if answered {
                operation.outcome = outcome;
                self.told.extend(operation.shows().map(|(_, revision)| revision));
            }
            self.history.push(operation);
        }
        later
    }

    fn apply(&mut self, operation: &Operation) -> Outcome {
        let standing = &mut self.standing[operation.key as usize];
        let holds = |expect: Expect| match expect {
            Expect::Any => true,
            Expect::Absent => standing.is_none(),
            Expect::Revision(revision) => standing.is_some_and(|(_, present)| present == revision),
        };
        let of = self.revision;
        match (operation.call, *standing) {
            (Call::Get { .. }, Some((value, revision))) => Outcome::Found { value, revision, of },
            (Call::Get { .. }, None) => Outcome::Nothing { of },
            (Call::Delete { .. }, None) => Outcome::NothingToRemove,
            (Call::Put { expect, .. } | Call::Delete { expect }, _) if !holds(expect) => Outcome::Mismatch,
            (Call::Put { value, .. }, before) => {
                self.revision += 1;
                *standing = Some((value, self.revision));
                Outcome::Written { revision: self.revision, created: before.is_none() }
            }
            (Call::Delete { .. }, Some((value, revision))) => {
                self.revision += 1;
                *standing = None;
                Outcome::Removed { value, revision }
            }
        }
    }
}

fn writes(history: &[Operation]) -> Vec<(&Operation, u64)> {
    let written = |one: &Operation| matches!(one.outcome, Outcome::Written { .. });
    history.iter().filter(|one| written(one)).filter_map(|one| Some((one, one.shows()?.0))).collect()
}

/// A read, a write of its key that was acknowledged before it, and one that was acknowledged before that: the read now
/// shows the older one. Which operation was changed.
fn plant_stale_read(history: &mut [Operation], dice: &mut Dice) -> Option<usize> {
    let start = dice.below(history.len() as u64) as usize;
    for index in (start..history.len()).chain(0..start) {
        let read = &history[index];
        let Outcome::Found { of, .. } = read.outcome else { continue };
        let mut before: Vec<_> = writes(history)
            .into_iter()
            .filter(|(write, _)| write.key == read.key && write.ended < read.began)
            .collect();
        before.sort_by_key(|(write, _)| write.ended);
        let Some((newest, _)) = before.pop() else { continue };
        let older = before.iter().rev().find(|(write, _)| write.ended < newest.began);
        let Some((value, revision)) = older.and_then(|(write, _)| write.shows()) else { continue };
        history[index].outcome = Outcome::Found { value, revision, of };
        return Some(index);
    }
    None
}

/// An acknowledged write that was not done: whoever saw it sees what stood there before.
fn plant_lost_write(history: &mut [Operation], dice: &mut Dice) -> Option<usize> {
    let index = plant_stale_read(history, dice)?;
    let Outcome::Found { value: old, revision, .. } = history[index].outcome else { return None };
    let read = history[index].clone();
    let lost = writes(history)
        .into_iter()
        .filter(|(write, value)| write.key == read.key && write.ended < read.began && *value != old)
        .max_by_key(|(write, _)| write.ended)?
        .1;
    for operation in history.iter_mut().filter(|operation| operation.key == read.key) {
        match &mut operation.outcome {
            Outcome::Found { value, revision: by, .. } | Outcome::Removed { value, revision: by }
                if *value == lost =>
            {
                (*value, *by) = (old, revision);
            }
            _ => {}
        }
    }
    Some(index)
}

/// A revision that stands before one that was acknowledged before it began.
fn plant_revision_back(history: &mut [Operation], dice: &mut Dice) -> Option<usize> {
    let start = dice.below(history.len() as u64) as usize;
    for index in (start..history.len()).chain(0..start) {
        let began = history[index].began;
        let Outcome::Written { revision, .. } = history[index].outcome else { continue };
        let mut earlier = history.iter().filter(|one| one.ended < began).filter_map(Operation::shows);
        let Some((_, before)) = earlier.find(|(_, before)| *before < revision) else { continue };
        let Outcome::Written { revision, .. } = &mut history[index].outcome else { continue };
        *revision = before;
        return Some(index);
    }
    None
}

#[test]
fn histories_that_could_have_been_pass() {
    for seed in 0..300 {
        let history = World::history(seed, 400, 6, 2);
        if let Err(violation) = check(&history) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[track_caller]
fn found(plant: fn(&mut [Operation], &mut Dice) -> Option<usize>, by: fn(&[Operation]) -> Option<Violation>) {
    let (mut planted, mut windows) = (0, Vec::new());
    for seed in 0..100 {
        let mut history = World::history(seed, 300, 5, 2);
        let Some(_) = plant(&mut history, &mut Dice::new(seed)) else { continue };
        let violation = by(&history).unwrap_or_else(|| panic!("seed {seed}: not found"));
        assert!(violation.key.is_some() && !violation.window.is_empty(), "seed {seed}: {violation}");
        windows.push(violation.window.len());
        planted += 1;
    }
    windows.sort_unstable();
    let median = windows[windows.len() / 2];
    eprintln!("{planted} violations of 100 found; the median window has {median} operations");
    assert!(planted > 60, "only {planted} could be planted");
    assert!(median <= 12, "windows are not small: {windows:?}");
}

/// By the search alone: what revisions say is not asked.
fn by_search(history: &[Operation]) -> Option<Violation> {
    let of = |key| history.iter().filter(|one| one.key == key).cloned().collect::<Vec<_>>();
    (0..2).find_map(|key| check_key(key, &of(key)).err()).map(|violation| *violation)
}

fn by_order(history: &[Operation]) -> Option<Violation> {
    order::check(history).err().map(|violation| *violation)
}

#[test]
fn a_stale_read_is_found() {
    found(plant_stale_read, by_search);
}

#[test]
fn a_lost_write_is_found() {
    found(plant_lost_write, by_search);
}

#[test]
fn a_revision_that_goes_back_is_found() {
    found(plant_revision_back, by_order);
}

fn put(client: u32, began: Nanos, ended: Nanos, value: u64, outcome: Outcome) -> Operation {
    let call = Call::Put { value, expect: Expect::Any };
    Operation { client, server: client, boot: 0, key: 0, began, ended, call, outcome }
}

fn get(client: u32, began: Nanos, ended: Nanos, consistency: Consistency, outcome: Outcome) -> Operation {
    let call = Call::Get { consistency, least: None };
    Operation { client, server: client, boot: 0, key: 0, began, ended, call, outcome }
}

const fn written(revision: u64, created: bool) -> Outcome {
    Outcome::Written { revision, created }
}

const fn see(value: u64, of: u64) -> Outcome {
    Outcome::Found { value, revision: value, of }
}

/// What is wrong with it, or `fine`. Values are their revisions here.
#[track_caller]
fn judge(history: &[Operation], want: &str) {
    let got = check(history).err().map_or_else(|| "fine".to_owned(), |violation| violation.what.clone());
    assert!(got.contains(want), "{got}, not {want}");
}

#[test]
fn a_write_seen_twice_is_found() {
    let linearizable = Consistency::Linearizable;
    let history = [
        put(0, 0, 10, 1, written(1, true)),
        put(0, 20, 30, 2, written(2, false)),
        get(1, 40, 50, linearizable, see(2, 2)),
        get(1, 60, 70, linearizable, Outcome::Found { value: 1, revision: 3, of: 3 }),
    ];
    judge(&history, "value 1 was written twice");
    // The same, by a server that hides it behind the old revision.
    let mut hidden = history.to_vec();
    hidden[3].outcome = Outcome::Found { value: 1, revision: 1, of: 3 };
    judge(&hidden, "no order");
}

#[test]
fn what_nobody_answered_may_be_done_late_or_never_but_not_undone() {
    let linearizable = Consistency::Linearizable;
    let mut history = vec![
        put(0, 0, 10, 1, written(1, true)),
        put(1, 20, 30, 2, Outcome::Unknown),
        get(0, 40, 50, linearizable, see(1, 1)),
    ];
    judge(&history, "fine");
    history.push(get(0, 60, 70, linearizable, see(2, 2)));
    judge(&history, "fine");
    history.push(get(0, 80, 90, linearizable, see(1, 2)));
    judge(&history, "no order");
}

#[test]
fn a_stale_read_may_be_old_but_not_younger_than_before_nor_than_asked() {
    let mut history = vec![
        put(0, 0, 10, 1, written(1, true)),
        put(0, 20, 30, 2, written(2, false)),
        get(1, 40, 50, Consistency::Stale, see(1, 1)),
    ];
    judge(&history, "fine");
    history[2].call = Call::Get { consistency: Consistency::Stale, least: Some(2) };
    judge(&history, "2 was asked for");
    history[2].call = Call::Get { consistency: Consistency::Leased, least: None };
    judge(&history, "was known before a read");
    history[2].call = Call::Get { consistency: Consistency::Stale, least: None };
    history.push(get(1, 60, 70, Consistency::Stale, see(2, 2)));
    history.push(get(1, 80, 90, Consistency::Stale, see(1, 1)));
    judge(&history, "a server showed revision 2, and then 1");
    history[4].boot = 1;
    judge(&history, "fine");
}

#[test]
fn two_writers_of_one_revision_are_found() {
    let history = [put(0, 0, 10, 1, written(1, true)), put(1, 5, 15, 2, written(1, false))];
    judge(&history, "revision 1 is two values");
}

#[test]
fn a_hundred_thousand_operations_are_checked_in_seconds() {
    let mut history = World::history(1, 100_000, 12, 20);
    let checked = check(&history).expect("it could have been");
    assert!(checked.operations > 98_000 && checked.unknown > 500, "{checked:?}");
    assert!(checked.steps < 3_000_000, "{checked:?}");
    eprintln!("{checked:?}");
    plant_stale_read(&mut history, &mut Dice::new(3)).expect("there is one");
    let violation = (0..20).find_map(|key| {
        let of_key: Vec<_> = history.iter().filter(|one| one.key == key).cloned().collect();
        check_key(key, &of_key).err()
    });
    let violation = violation.expect("it is found among them all");
    eprintln!("{violation}");
    assert!(violation.window.len() <= 20, "{violation}");
}
