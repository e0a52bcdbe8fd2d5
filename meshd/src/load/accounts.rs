//! Pure. What each identity has under way and asked for of late, in bounded memory. An account is forgotten only when it
//! is as good as a new one, so that nobody gets rid of his by filling the book.

use std::{collections::HashMap, time::Duration};

/// Accounts kept at once, some 100 bytes each: tokens and hosts are fewer, addresses of strangers may be more. Who comes
/// when the book is full shares one account with all others who do.
const ACCOUNTS_MAX: usize = 16_384;
/// How often a full book is looked through for accounts that can be forgotten: it takes a millisecond.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The account of those for whom there was no room.
const CROWD: u64 = 0;

/// One identity's.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Requests under way.
    pub(super) places: u32,
    /// Bytes that they hold.
    pub(super) bytes: u64,
    /// Streams open.
    pub(super) streams: u32,
    /// When all that was asked for is paid off, at the rate (GCRA's theoretical arrival time).
    paid_off: Duration,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Accounts {
    book: HashMap<u64, Account>,
    /// What one request costs.
    cost: Duration,
    /// How far ahead of its time an identity may be.
    credit: Duration,
    per_second: u32,
    swept: Option<Duration>,
}

impl Account {
    fn calm(&self, now: Duration) -> bool {
        self.places == 0 && self.bytes == 0 && self.streams == 0 && self.paid_off <= now
    }
}

impl Accounts {
    pub(super) fn new(per_second: u32, burst_seconds: u32) -> Self {
        let (cost, credit) = (Duration::from_secs(1) / per_second, Duration::from_secs(burst_seconds.into()));
        Self { book: HashMap::new(), cost, credit, per_second, swept: None }
    }

    pub(super) fn per_second(&self) -> u64 {
        self.per_second.into()
    }

    /// The account of `who`, by the name under which it is kept.
    pub(super) fn open(&mut self, who: u64, now: Duration) -> u64 {
        if self.book.contains_key(&who) {
            return who;
        }
        if self.book.len() >= ACCOUNTS_MAX {
            self.sweep(now);
        }
        if self.book.len() >= ACCOUNTS_MAX {
            return CROWD;
        }
        self.book.insert(who, Account::default());
        who
    }

    /// An account that is open.
    pub(super) fn of(&mut self, who: u64) -> &mut Account {
        self.book.entry(who).or_default()
    }

    /// Charges one request, or says when one more can be paid.
    pub(super) fn charge(&mut self, who: u64, now: Duration) -> Result<(), Duration> {
        let (cost, credit) = (self.cost, self.credit);
        let account = self.of(who);
        let paid_off = account.paid_off.max(now) + cost;
        let ahead = paid_off - now;
        if ahead > credit {
            return Err(ahead - credit);
        }
        account.paid_off = paid_off;
        Ok(())
    }

    fn sweep(&mut self, now: Duration) {
        if self.swept.is_none_or(|swept| now >= swept + SWEEP_EVERY) {
            self.swept = Some(now);
            self.book.retain(|_, account| !account.calm(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_paid_off_at_the_rate() {
        let mut accounts = Accounts::new(10, 2);
        let mut charge = |now| {
            let who = accounts.open(7, now);
            accounts.charge(who, now)
        };
        assert!((0..20).all(|_| charge(SECOND).is_ok()), "two seconds at once");
        assert_eq!(charge(SECOND), Err(SECOND / 10));
        assert_eq!(charge(SECOND + SECOND / 20), Err(SECOND / 20), "what was refused is not charged");
        assert_eq!(charge(SECOND + SECOND / 10), Ok(()));
        assert!(charge(SECOND + SECOND / 10).is_err());
        assert!((0..20).all(|_| charge(SECOND * 9).is_ok()), "no more than that is saved up");
        assert!(charge(SECOND * 9).is_err());
    }

    #[test]
    fn nobody_gets_rid_of_his_account_by_filling_the_book() {
        let mut accounts = Accounts::new(10, 2);
        let spend = |accounts: &mut Accounts, who, now| {
            let who = accounts.open(who, now);
            while accounts.charge(who, now).is_ok() {}
            who
        };
        assert_eq!(spend(&mut accounts, 1, SECOND), 1);
        for stranger in 2..=ACCOUNTS_MAX as u64 {
            spend(&mut accounts, stranger, SECOND);
        }
        for stranger in 1_000_000..1_000_100 {
            assert_eq!(spend(&mut accounts, stranger, SECOND), CROWD, "they share what is left");
        }
        assert!(accounts.charge(1, SECOND).is_err(), "he is remembered");
        assert!(accounts.charge(CROWD, SECOND).is_err(), "and so is the crowd");
        assert!(accounts.book.len() <= ACCOUNTS_MAX + 1);
        // Two seconds later all but who is busy are as good as new.
        accounts.of(1).places = 1;
        assert_eq!(accounts.open(1_000_000, SECOND * 4), 1_000_000);
        assert_eq!(accounts.book.len(), 2);
        assert_eq!(accounts.of(1).places, 1);
    }
}
