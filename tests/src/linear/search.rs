//! Pure. The search for an order of one key's operations that explains every answer, each at a moment between its
//! beginning and its end. What was seen before is not looked at again: a set of done operations and what then stands
//! there, as a hash of 128 bits.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Call, Expect, Nanos, Operation, Outcome, Standing};
use crate::dice::mix;

/// A search that takes more steps than this answers «undecided», within about a minute: never silently «fine».
const STEPS_MAX: u64 = 20_000_000;
/// Stands for any value that nobody saw: one is as good as the other.
const UNSEEN: u64 = u64::MAX;
/// The end of the list.
const END: usize = usize::MAX;

/// What answers about a key show, stale ones among them.
pub(super) struct Known {
    /// Which value each revision wrote.
    pub(super) values: HashMap<u64, u64>,
    /// When a value was first shown to one who did not write it.
    seen: HashMap<u64, Nanos>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine { steps: u64 },
    Wrong,
    Undecided { steps: u64 },
}

impl Known {
    /// From all operations on a key.
    pub(super) fn of(history: &[Operation]) -> Self {
        let (mut values, mut seen) = (HashMap::new(), HashMap::new());
        for operation in history {
            let Some((value, revision)) = operation.shows() else { continue };
            values.insert(revision, value);
            if !matches!(operation.call, Call::Put { .. }) {
                let first = seen.entry(value).or_insert(operation.ended);
                *first = operation.ended.min(*first);
            }
        }
        Self { values, seen }
    }
}

/// Whether there is such an order.
pub(super) fn search(history: &[Operation], known: &Known) -> Verdict {
    Search::new(history, known).run()
}

/// An operation that must have been done, or (without an end) may have been.
struct Step<'a> {
    operation: &'a Operation,
    value: u64,
    ended: Option<Nanos>,
}

struct Search<'a> {
    steps: Vec<Step<'a>>,
    known: &'a Known,
    /// Steps that must be done, as a list of beginnings and ends in time; those done are taken out.
    events: Events,
    /// Steps that may be done: those of a class do the same, so they are taken in the order in which they began.
    classes: Vec<Class>,
    left: usize,
}

struct Class {
    members: Vec<usize>,
    used: usize,
}

/// A doubly linked list of events; two for each step.
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
    of: Vec<(usize, bool)>,
    places: Vec<(usize, usize)>,
    head: usize,
}

/// A place in the search: what may come next there.
struct Place {
    standing: Standing,
    hash: u128,
    choices: Vec<Choice>,
    tried: usize,
}

#[derive(Clone, Copy)]
enum Choice {
    Step(usize),
    Class(usize),
}

impl<'a> Search<'a> {
    fn new(history: &'a [Operation], known: &'a Known) -> Self {
        let horizon = history.iter().map(|operation| operation.ended).max().unwrap_or(0);
        let steps: Vec<_> = history.iter().map(|operation| Step::new(operation, known, horizon)).collect();
        let mut classes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let useful = Useful::of(history);
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.ended.is_none()) {
            if let Some(class) = step.class().filter(|_| useful.wants(step.operation)) {
                classes.entry(class).or_default().push(index);
            }
        }
        let in_order = |mut members: Vec<usize>| {
            members.sort_by_key(|&index| steps[index].operation.began);
            Class { members, used: 0 }
        };
        let classes = classes.into_values().map(in_order).collect();
        let events = Events::new(&steps);
        let left = steps.iter().filter(|step| step.ended.is_some()).count();
        Self { steps, known, events, classes, left }
    }

    fn run(mut self) -> Verdict {
        let mut seen = HashSet::new();
        let mut path: Vec<Choice> = Vec::new();
        let mut places = vec![self.place(None, 0)];
        let mut steps = 0;
        while self.left > 0 {
            steps += 1;
            if steps > STEPS_MAX {
                return Verdict::Undecided { steps };
            }
            let place = places.last_mut().expect("the first place is left only by returning");
            let Some(&choice) = place.choices.get(place.tried) else {
                places.pop();
                match path.pop() {
                    Some(choice) => self.undo(choice),
                    None => return Verdict::Wrong,
                }
                continue;
            };
            place.tried += 1;
            let index = self.index(choice);
            let Some(standing) = self.steps[index].done(place.standing, self.known) else { continue };
            let hash = place.hash ^ zobrist(index as u64);
            if seen.insert(hash ^ zobrist(standing.map_or(1 << 62, |value| value ^ (1 << 63)))) {
                self.take(choice);
                path.push(choice);
                places.push(self.place(standing, hash));
            }
        }
        Verdict::Fine { steps }
    }

    /// What may come next: whatever began before the first end of what is not done yet. What changes nothing and fits
    /// comes at once, with no other choice: to do it later explains nothing more. What must be done comes before what
    /// may be, so that the unknown is only assumed where it is needed.
    fn place(&self, standing: Standing, hash: u128) -> Place {
        let (mut choices, mut limit) = (Vec::new(), Nanos::MAX);
        let mut at = self.events.head;
        while at != END {
            let (step, ends) = self.events.of[at];
            if ends {
                limit = self.steps[step].ended.unwrap_or(Nanos::MAX);
                break;
            }
            if self.steps[step].fits_unchanged(standing, self.known) {
                return Place { standing, hash, choices: vec![Choice::Step(step)], tried: 0 };
            }
            choices.push(Choice::Step(step));
            at = self.events.next[at];
        }
        for (index, class) in self.classes.iter().enumerate() {
            let next = class.members.get(class.used);
            if next.is_some_and(|&step| self.steps[step].operation.began <= limit) {
                choices.push(Choice::Class(index));
            }
        }
        Place { standing, hash, choices, tried: 0 }
    }

    fn index(&self, choice: Choice) -> usize {
        match choice {
            Choice::Step(index) => index,
            Choice::Class(class) => self.classes[class].members[self.classes[class].used],
        }
    }

    fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Step(index) => {
                self.events.take_out(index);
                self.left -= 1;
            }
            Choice::Class(class) => self.classes[class].used += 1,
        }
    }

    fn undo(&mut self, choice: Choice) {
        match choice {
            Choice::Step(index) => {
                self.events.put_back(index);
                self.left += 1;
            }
            Choice::Class(class) => self.classes[class].used -= 1,
        }
    }
}

impl<'a> Step<'a> {
    /// A write that nobody answered but whose value was seen must have been done before it was seen first.
    fn new(operation: &'a Operation, known: &Known, horizon: Nanos) -> Self {
        let value = match operation.call {
            Call::Put { value, .. } => value,
            _ => UNSEEN,
        };
        match operation.outcome {
            Outcome::Unknown => {
                let ended = known.seen.get(&value).copied().filter(|first| *first <= horizon);
                Self { operation, value: if ended.is_some() { value } else { UNSEEN }, ended }
            }
            _ => Self { operation, value, ended: Some(operation.ended) },
        }
    }

    /// What stands there after it, if it could be answered so by what stands there.
    fn done(&self, standing: Standing, known: &Known) -> Option<Standing> {
        let holds = |expect: Expect| match expect {
            Expect::Any => true,
            Expect::Absent => standing.is_none(),
            Expect::Revision(revision) => {
                standing.is_some() && known.values.get(&revision).copied() == standing
            }
        };
        let (fits, after) = match (self.operation.call, self.operation.outcome) {
            (Call::Get { .. }, Outcome::Found { value, .. }) => (standing == Some(value), standing),
            (Call::Get { .. }, Outcome::Nothing { .. }) => (standing.is_none(), None),
            (Call::Put { expect, .. }, Outcome::Written { created, .. }) => {
                (holds(expect) && !(created && standing.is_some()), Some(self.value))
            }
            (Call::Put { expect, .. }, Outcome::Unknown) => (holds(expect), Some(self.value)),
            (Call::Put { expect, .. }, Outcome::Mismatch) => (!holds(expect), standing),
            (Call::Delete { expect }, Outcome::Removed { value, .. }) => {
                (holds(expect) && standing == Some(value), None)
            }
            (Call::Delete { expect }, Outcome::Unknown) => (holds(expect) && standing.is_some(), None),
            (Call::Delete { .. }, Outcome::NothingToRemove) => (standing.is_none(), None),
            (Call::Delete { expect }, Outcome::Mismatch) => (!holds(expect) && standing.is_some(), standing),
            _ => (false, standing),
        };
        fits.then_some(after)
    }

    /// Whether it could be answered so by what stands there, and leaves that as it is.
    fn fits_unchanged(&self, standing: Standing, known: &Known) -> bool {
        let changes = matches!(
            self.operation.outcome,
            Outcome::Written { .. } | Outcome::Removed { .. } | Outcome::Unknown
        );
        !changes && self.done(standing, known).is_some()
    }

    /// Steps of one class do the same wherever they are done.
    fn class(&self) -> Option<String> {
        match self.operation.call {
            Call::Get { .. } => None,
            Call::Put { expect, .. } => Some(format!("put {expect:?}")),
            Call::Delete { expect } => Some(format!("delete {expect:?}")),
        }
    }
}

/// For what a write that nobody saw can be needed: assumed in vain it only costs time.
struct Useful {
    puts: bool,
    deletes: bool,
}

impl Useful {
    fn of(history: &[Operation]) -> Self {
        Self {
            puts: history.iter().any(|one| one.outcome == Outcome::Mismatch),
            deletes: history.iter().any(shows_absence),
        }
    }

    fn wants(&self, operation: &Operation) -> bool {
        match operation.call {
            Call::Get { .. } => false,
            Call::Put { .. } => self.puts,
            Call::Delete { .. } => self.deletes,
        }
    }
}

/// Whether an answer can be owed to a deletion.
pub(super) fn shows_absence(operation: &Operation) -> bool {
    match operation.outcome {
        Outcome::Nothing { .. } | Outcome::NothingToRemove | Outcome::Mismatch => true,
        Outcome::Written { created, .. } => {
            created || matches!(operation.call, Call::Put { expect: Expect::Absent, .. })
        }
        _ => matches!(operation.call, Call::Put { expect: Expect::Absent, .. }),
    }
}

impl Events {
    fn new(steps: &[Step<'_>]) -> Self {
        let mut order: Vec<(Nanos, bool, usize)> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            if let Some(ended) = step.ended {
                order.push((step.operation.began, false, index));
                order.push((ended.max(step.operation.began), true, index));
            }
        }
        // Beginnings before ends of the same moment: in doubt two operations overlap.
        order.sort_unstable();
        let mut places = vec![(END, END); steps.len()];
        for (at, (_, ends, step)) in order.iter().enumerate() {
            if *ends { places[*step].1 = at } else { places[*step].0 = at }
        }
        let count = order.len();
        let next = (0..count).map(|at| if at + 1 < count { at + 1 } else { END }).collect();
        let previous = (0..count).map(|at| if at > 0 { at - 1 } else { END }).collect();
        let of = order.into_iter().map(|(_, ends, step)| (step, ends)).collect();
        Self { next, previous, of, places, head: if count > 0 { 0 } else { END } }
    }

    fn take_out(&mut self, step: usize) {
        let (begin, end) = self.places[step];
        self.unlink(begin);
        self.unlink(end);
    }

    fn put_back(&mut self, step: usize) {
        let (begin, end) = self.places[step];
        self.link(end);
        self.link(begin);
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        if before == END {
            self.head = after
        } else {
            self.next[before] = after
        }
        if after != END {
            self.previous[after] = before;
        }
    }

    /// Undoes the last [`Events::unlink`] that is not undone.
    fn link(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        if before == END {
            self.head = at
        } else {
            self.next[before] = at
        }
        if after != END {
            self.previous[after] = at;
        }
    }
}

fn zobrist(number: u64) -> u128 {
    (u128::from(mix(number)) << 64) | u128::from(mix(number ^ 0x5bf0_3635_d1c2_57a9))
}
