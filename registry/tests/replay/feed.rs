//! What a watcher replays is what happened: in order, once, revision by revision, wherever it stopped in between.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    kind::Kind,
    object::{Key, Object},
};
use registry::{
    State,
    feed::{Event, Filter, Seen, replay},
};

use crate::{WORLDS, dice::Dice, found, state::log, worlds};

/// What comes between the feed and its reader.
type Way = dyn Fn(Vec<Event>, &mut Dice) -> Vec<Event>;

#[test]
fn a_watcher_is_told_what_happened() {
    worlds("a watcher's replay", WORLDS.0 / 2, |seed| play(seed, &|events, _| events));
}

#[test]
fn a_feed_that_drops_doubles_reorders_or_splits_is_found() {
    let at = |events: &[Event], dice: &mut Dice| {
        usize::try_from(dice.below(events.len() as u64)).expect("an index")
    };
    let drops = move |mut events: Vec<Event>, dice: &mut Dice| {
        if events.len() > 1 {
            events.remove(at(&events, dice));
        }
        events
    };
    let doubles = move |mut events: Vec<Event>, dice: &mut Dice| {
        if !events.is_empty() {
            let at = at(&events, dice);
            events.insert(at, events[at].clone());
        }
        events
    };
    let reorders = move |mut events: Vec<Event>, _: &mut Dice| {
        if events.len() > 1 {
            events.swap(0, 1);
        }
        events
    };
    // A revision of several events whose first one claims to be its last.
    let splits = |mut events: Vec<Event>, _: &mut Dice| {
        if let Some(event) = events.iter_mut().find(|event| !event.last) {
            event.last = true;
        }
        events
    };
    found("a feed that drops an event", |seed| play(seed, &drops));
    found("a feed that doubles an event", |seed| play(seed, &doubles));
    found("a feed that swaps two events", |seed| play(seed, &reorders));
    found("a feed that splits a revision", |seed| play(seed, &splits));
}

type Held = BTreeMap<Key, Arc<Object>>;

fn play(seed: u64, way: &Way) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let kinds = dice.pick(&[vec![], vec![Kind::Service], vec![Kind::Endpoint, Kind::Node]]).clone();
    let namespace = *dice.pick(&[None, None, Some("default")]);
    let filter = Filter { kinds, namespace: namespace.map(|name| name.parse().expect("a name")) };
    let (mut state, mut states) = (State::new(), vec![State::new()]);
    for entry in log(&mut dice, 50) {
        state.apply(entry);
        states.push(state.clone());
    }
    let from = dice.pick(&states).clone();
    let (mut cursor, mut held, mut revision) = (from.revision(), wanted(&from, &filter), from.revision());
    // It looks at several times, and takes so many at once.
    let mut looks: Vec<&State> = states.iter().filter(|state| state.revision() >= cursor).collect();
    looks.retain(|_| dice.percent(30));
    looks.push(&state);
    for seen in looks {
        while cursor < seen.revision() {
            let most = 1 + usize::try_from(dice.below(6)).expect("small");
            let (events, next) = replay(seen, cursor, &filter, most).map_err(|error| error.to_string())?;
            if next <= cursor {
                return Err(format!("the cursor stays at {cursor}"));
            }
            cursor = next;
            take(way(events, &mut dice), &mut held, &mut revision)?;
        }
        if held != wanted(seen, &filter) {
            return Err(format!("at revision {} the watcher holds something else", seen.revision()));
        }
    }
    Ok(())
}

/// Takes events up, as a reader does who trusts nobody.
fn take(events: Vec<Event>, held: &mut Held, revision: &mut u64) -> Result<(), String> {
    let mut open = None;
    for Event { revision: of, last, change } in events {
        let follows = match open {
            Some(open) => of == open,
            None => of > *revision,
        };
        if !follows {
            return Err(format!("revision {of} after {revision}"));
        }
        let (key, was) = match change {
            Seen::Put(object) => (object.key(), held.insert(object.key(), object.clone()) == Some(object)),
            Seen::Delete(object) => (object.key(), held.remove(&object.key()).is_none()),
        };
        if was {
            return Err(format!("{key} at revision {of} is no news"));
        }
        *revision = of;
        open = if last { None } else { Some(of) };
    }
    match open {
        Some(open) => Err(format!("revision {open} has no end")),
        None => Ok(()),
    }
}

fn wanted(state: &State, filter: &Filter) -> Held {
    let objects = state.objects().iter().map(|object| (object.key(), object.clone()));
    objects.filter(|(key, _)| filter.wants(key)).collect()
}
