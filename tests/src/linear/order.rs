//! Pure. What revisions promise across keys, checked in one pass each: a revision left an object in one way, later writes
//! have greater ones, reads are not older than what was acknowledged before them or asked for, and a server's own
//! view does not go back while it runs.

use std::collections::HashMap;

use model::read::Consistency;

use super::{Call, Nanos, Operation, Outcome, Violation};

/// All of it.
///
/// # Errors
/// The first violation, with the two operations that show it.
pub fn check(history: &[Operation]) -> Result<(), Box<Violation>> {
    one_value_each(history)?;
    writes_rise(history)?;
    reads_are_fresh(history)?;
    reads_have_what_was_asked_for(history)?;
    views_do_not_go_back(history)
}

/// A revision of an object has one value, and a value one revision: nothing was written twice, no revision was split.
fn one_value_each(history: &[Operation]) -> Result<(), Box<Violation>> {
    let mut by_revision: HashMap<(u32, u64), (u64, &Operation)> = HashMap::new();
    let mut by_value: HashMap<u64, (u64, &Operation)> = HashMap::new();
    for operation in history {
        let Some((value, revision)) = operation.shows() else { continue };
        let (known, first) = *by_revision.entry((operation.key, revision)).or_insert((value, operation));
        if known != value {
            return Err(two(operation.key, format!("revision {revision} is two values"), first, operation));
        }
        let (known, first) = *by_value.entry(value).or_insert((revision, operation));
        if known != revision {
            return Err(two(operation.key, format!("value {value} was written twice"), first, operation));
        }
    }
    Ok(())
}

/// What was acknowledged before another write began has a smaller revision.
fn writes_rise(history: &[Operation]) -> Result<(), Box<Violation>> {
    let written = |operation: &Operation| match operation.outcome {
        Outcome::Written { revision, .. } => Some(revision),
        _ => None,
    };
    let writes = || history.iter().filter_map(|operation| Some((operation, written(operation)?)));
    let what = |newer: u64, older: u64| {
        format!("revision {newer} was acknowledged before the write of revision {older} began")
    };
    rises(writes(), writes(), |before, after| before < after, what)
}

/// A read that promises it has all that was acknowledged, or read, before it began.
fn reads_are_fresh(history: &[Operation]) -> Result<(), Box<Violation>> {
    let promising =
        |operation: &&Operation| !matches!(operation.call, Call::Get { consistency: Consistency::Stale, .. });
    let known = history.iter().filter(promising).filter_map(|operation| match operation.outcome {
        Outcome::Written { revision, .. } => Some((operation, revision)),
        _ => Some((operation, read(operation)?)),
    });
    let reads = history.iter().filter(promising).filter_map(|one| Some((one, read(one)?)));
    let what = |newer: u64, older: u64| {
        format!("revision {newer} was known before a read of revision {older} began")
    };
    rises(known, reads, |before, after| before <= after, what)
}

fn reads_have_what_was_asked_for(history: &[Operation]) -> Result<(), Box<Violation>> {
    for operation in history {
        let Some(of) = read(operation) else { continue };
        let wrong = match (operation.call, operation.outcome) {
            (Call::Get { least: Some(least), .. }, _) if of < least => {
                format!("revision {of} was read, {least} was asked for")
            }
            (_, Outcome::Found { revision, .. }) if revision > of => {
                format!("revision {revision} was found in revision {of}")
            }
            _ => continue,
        };
        let window = vec![operation.clone()];
        return Err(Box::new(Violation { key: Some(operation.key), what: wrong, window }));
    }
    Ok(())
}

/// One start of one server shows rising revisions, whatever was asked of it.
fn views_do_not_go_back(history: &[Operation]) -> Result<(), Box<Violation>> {
    let mut views: HashMap<(u32, u32), Vec<(&Operation, u64)>> = HashMap::new();
    for operation in history {
        if let Some(of) = read(operation) {
            views.entry((operation.server, operation.boot)).or_default().push((operation, of));
        }
    }
    let what = |newer: u64, older: u64| format!("a server showed revision {newer}, and then {older}");
    views.into_values().try_for_each(|reads| {
        rises(reads.iter().copied(), reads.iter().copied(), |before, after| before <= after, what)
    })
}

/// The revision of the state that was read.
fn read(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Found { of, .. } | Outcome::Nothing { of } => Some(of),
        _ => None,
    }
}

/// Whether for each that ended before one of `later` began, `fits` holds of their numbers.
fn rises<'a>(
    earlier: impl Iterator<Item = (&'a Operation, u64)>,
    later: impl Iterator<Item = (&'a Operation, u64)>,
    fits: impl Fn(u64, u64) -> bool,
    what: impl Fn(u64, u64) -> String,
) -> Result<(), Box<Violation>> {
    let mut ends: Vec<(Nanos, u64, &Operation)> =
        earlier.map(|(one, number)| (one.ended, number, one)).collect();
    let mut begins: Vec<(Nanos, u64, &Operation)> =
        later.map(|(one, number)| (one.began, number, one)).collect();
    ends.sort_by_key(|(ended, ..)| *ended);
    begins.sort_by_key(|(began, ..)| *began);
    let (mut ends, mut greatest) = (ends.into_iter().peekable(), None::<(u64, &Operation)>);
    for (began, number, operation) in begins {
        while let Some((_, ended, by)) = ends.next_if(|(ended, ..)| *ended < began) {
            if greatest.is_none_or(|(known, _)| ended > known) {
                greatest = Some((ended, by));
            }
        }
        if let Some((known, by)) = greatest
            && !fits(known, number)
        {
            return Err(two(operation.key, what(known, number), by, operation));
        }
    }
    Ok(())
}

fn two(key: u32, what: String, first: &Operation, second: &Operation) -> Box<Violation> {
    let mut window = vec![first.clone(), second.clone()];
    window.sort_by_key(|operation| operation.began);
    Box::new(Violation { key: Some(key), what, window })
}
