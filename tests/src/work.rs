//! Clients at work on registers, each at one server and now and then at another, until told to stop. What they asked and
//! were answered is a history for [`crate::linear`].

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use model::read::Consistency;
use tokio::task::JoinSet;

use crate::{
    dice::Dice,
    linear::{Call, Expect, Nanos, Operation, Outcome},
    register::Registers,
    steady::now,
};

/// As many operations as a history may have: memory, and the time of the check.
const OPERATIONS_MAX: usize = 200_000;
/// Of a hundred calls, as many go to another server than the one before.
const MOVES_PERCENT: u64 = 5;

/// The servers that clients may ask, by number: their addresses, and how often each was started.
#[derive(Debug, Clone, Default)]
pub struct Servers(Arc<Mutex<BTreeMap<u8, (String, u32)>>>);

/// What clients share.
#[derive(Debug)]
struct Shared {
    servers: Servers,
    start: Instant,
    stop: AtomicBool,
    value: AtomicU64,
    /// The greatest revision that any of them was told of.
    revision: AtomicU64,
    odd_boots: AtomicU32,
    history: Mutex<Vec<Operation>>,
    /// Answers that the API does not promise.
    odd: Mutex<Vec<String>>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Work {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    reader: Registers,
}

/// Who works, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many clients.
    pub clients: u32,
    /// How many registers.
    pub keys: u32,
    /// Their dice.
    pub seed: u64,
}

impl Servers {
    /// A server comes.
    pub fn come(&self, number: u8, address: String) {
        self.lock().insert(number, (address, 0));
    }

    /// A server is gone for ever.
    pub fn gone(&self, number: u8) {
        self.lock().remove(&number);
    }

    /// A server is about to be started again.
    pub fn started(&self, number: u8) {
        if let Some((_, boots)) = self.lock().get_mut(&number) {
            *boots += 1;
        }
    }

    fn address(&self, number: u8) -> Option<(String, u32)> {
        self.lock().get(&number).cloned()
    }

    fn numbers(&self) -> Vec<u8> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u8, (String, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Sends clients to work.
    ///
    /// # Errors
    /// If the root certificate cannot be read.
    pub fn start(load: Load, servers: Servers, cacert: &Path, token: &str) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            servers,
            start: now(),
            stop: AtomicBool::new(false),
            value: AtomicU64::new(1),
            revision: AtomicU64::new(0),
            odd_boots: AtomicU32::new(u32::MAX),
            history: Mutex::default(),
            odd: Mutex::default(),
        });
        let (mut dice, mut clients) = (Dice::new(load.seed), JoinSet::new());
        for number in 0..load.clients {
            let registers = Registers::new(cacert, token)?;
            let client = Client {
                number,
                registers,
                shared: shared.clone(),
                dice: dice.split(),
                at: 0,
                seen: BTreeMap::new(),
            };
            clients.spawn(client.work(load.keys));
        }
        Ok(Self { shared, clients, reader: Registers::new(cacert, token)? })
    }

    /// Lets the clients end what they do, reads every register once more at every server, and answers the history.
    ///
    /// # Errors
    /// If a server answered what the API does not promise.
    pub async fn stop(mut self, keys: u32) -> anyhow::Result<Vec<Operation>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        let dice = Dice::new(0);
        let (registers, shared) = (self.reader, self.shared.clone());
        let mut last = Client { number: u32::MAX, registers, shared, dice, at: 0, seen: BTreeMap::new() };
        for key in 0..keys {
            for server in last.shared.servers.numbers() {
                last.at = server;
                last.once(key, Call::Get { consistency: Consistency::Linearizable, least: None }).await;
            }
        }
        let odd = self.shared.odd.lock().unwrap_or_else(PoisonError::into_inner).clone();
        anyhow::ensure!(odd.is_empty(), "answers that nobody promised: {odd:#?}");
        Ok(std::mem::take(&mut *self.shared.history.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

struct Client {
    number: u32,
    registers: Registers,
    shared: Arc<Shared>,
    dice: Dice,
    at: u8,
    /// The revision of each register as this client saw it last, for `If-Match`.
    seen: BTreeMap<u32, u64>,
}

impl Client {
    async fn work(mut self, keys: u32) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let key = u32::try_from(self.dice.below(u64::from(keys))).expect("a small number");
            let call = self.draw(key);
            self.choose();
            if !self.once(key, call).await {
                // Whoever is not served asks another.
                self.at = 0;
            }
        }
    }

    fn choose(&mut self) {
        let servers = self.shared.servers.numbers();
        if !servers.contains(&self.at) || self.dice.chance(MOVES_PERCENT) {
            self.at = *self.dice.pick(&servers);
        }
    }

    fn draw(&mut self, key: u32) -> Call {
        let expect = match (self.dice.below(20), self.seen.get(&key)) {
            (0, _) => Expect::Absent,
            (1..6, Some(revision)) => Expect::Revision(*revision),
            _ => Expect::Any,
        };
        let known = self.shared.revision.load(Ordering::Relaxed);
        let least = self.dice.chance(10).then_some(known);
        match self.dice.below(20) {
            0..5 => Call::Get { consistency: Consistency::Linearizable, least },
            5..10 => Call::Get { consistency: Consistency::Leased, least },
            10..12 => Call::Get { consistency: Consistency::Stale, least },
            12..18 => Call::Put { value: self.shared.value.fetch_add(1, Ordering::Relaxed), expect },
            _ => Call::Delete { expect },
        }
    }

    /// Does one call and records it; whether it was served.
    async fn once(&mut self, key: u32, call: Call) -> bool {
        let Some((address, boot)) = self.shared.servers.address(self.at) else { return false };
        let began = self.moment();
        let answered = self.registers.call(&address, key, call).await;
        let ended = self.moment();
        let outcome = match answered {
            Ok(outcome) => outcome,
            Err(odd) => {
                self.shared.odd.lock().unwrap_or_else(PoisonError::into_inner).push(odd.to_string());
                return false;
            }
        };
        self.learn(key, outcome);
        // Started again meanwhile: it may have been answered by either start.
        let same = self.shared.servers.address(self.at).is_some_and(|(_, now)| now == boot);
        let boot = if same { boot } else { self.shared.odd_boots.fetch_sub(1, Ordering::Relaxed) };
        let operation = Operation {
            client: self.number,
            server: u32::from(self.at),
            boot,
            key,
            began,
            ended,
            call,
            outcome,
        };
        let mut history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(operation);
        if history.len() >= OPERATIONS_MAX {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        !matches!(outcome, Outcome::Refused | Outcome::Unknown)
    }

    fn learn(&mut self, key: u32, outcome: Outcome) {
        let (revision, of) = match outcome {
            Outcome::Found { revision, of, .. } => (Some(revision), of),
            Outcome::Written { revision, .. } => (Some(revision), revision),
            Outcome::Nothing { of } => (None, of),
            _ => return,
        };
        self.shared.revision.fetch_max(of, Ordering::Relaxed);
        match revision {
            Some(revision) => self.seen.insert(key, revision),
            None => self.seen.remove(&key),
        };
    }

    fn moment(&self) -> Nanos {
        Nanos::try_from(now().duration_since(self.shared.start).as_nanos()).unwrap_or(Nanos::MAX)
    }
}
