//! Pure. Whether a request is let in. All that are under way share the server's places and memory; whoever is less
//! important is refused first, and nobody takes more than a share. Who asks, and what for, is the caller's to find out;
//! nothing here waits: whoever is refused is told when to come again.

use std::time::Duration;

mod accounts;

use accounts::{Account, Accounts};

/// Requests under way at once where nothing else is configured: a task and its texts, some 10 KiB each.
pub const PLACES: u32 = 16_384;
/// Bytes of requests and answers held at once where nothing else is configured, in MiB. In memory, decoded, they are up to
/// five times as much.
pub const HELD_MIB: u32 = 256;
/// Requests a second of one identity where nothing else is configured: several times what a server can do, so that only a
/// program that has gone wrong gets there.
pub const PER_SECOND: u32 = 20_000;
/// What an identity may ask at once after it was quiet, in seconds of its rate.
const BURST_SECONDS: u32 = 2;
/// Watches of one identity at once, of the 8,192 of a server: a quarter is for others.
pub const WATCHES_PER_IDENTITY_MAX: u32 = 6_144;
/// Streams of one host's proxy at once: it has one, and another while it reconnects or its program is replaced.
pub const STREAMS_PER_NODE_MAX: u32 = 32;
/// When whoever found no place should come again: most requests take milliseconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How important a request is, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What sessions, certificates and the cluster itself live from: keep-alives, renewals, members, health.
    Vital,
    /// What proxies need to follow the mesh: their registrations and streams.
    Proxy,
    /// Writes, and reads of one object.
    Change,
    /// Whatever is large or can wait: lists, watches of operators, history, audit, snapshots.
    Bulk,
}

/// What an operator may configure of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at once, all together.
    pub places: u32,
    /// Bytes held at once, in MiB, all together.
    pub held_mib: u32,
    /// Requests a second of one identity.
    pub per_second: u32,
}

/// Up to how much may be taken, all classes together, when a request of a class is let in.
#[derive(Debug, Clone, Copy)]
struct Share {
    places: u32,
    bytes: u64,
}

/// A request at the door.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// How important it is.
    pub class: Class,
    /// Whose it is, by a hash; `None` for members and for what is asked by nobody in particular.
    pub who: Option<u64>,
    /// As many bytes come with it.
    pub bytes: u64,
}

/// What a request holds while it is under way. To be given back.
#[derive(Debug)]
#[must_use = "a place that is not given back is lost"]
pub struct Place {
    class: Class,
    who: Option<u64>,
    bytes: u64,
}

/// What a stream holds while it is open. To be given back.
#[derive(Debug)]
#[must_use = "a stream that is not given back counts for ever"]
pub struct Following {
    who: Option<u64>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} has reached the limit of {limit}", .reason.as_str())]
pub struct Refused {
    /// Of which class it is.
    pub class: Class,
    /// Which limit it met.
    pub reason: Reason,
    /// How much that is.
    pub limit: u64,
    /// When it is worth to come again.
    pub after: Duration,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This identity asks too often.
    Rate,
    /// This identity has half of what its class may have under way.
    OwnPlaces,
    /// This identity has half of the bytes that its class may hold.
    OwnBytes,
    /// This identity has too many streams.
    OwnStreams,
    /// The server has too much under way for this class.
    Places,
    /// The server holds too many bytes for this class.
    Bytes,
}

/// What is under way at a server, and what each identity asked for of late.
#[derive(Debug)]
pub struct Load {
    shares: [Share; Class::ALL.len()],
    places: u32,
    bytes: u64,
    accounts: Accounts,
}

impl Class {
    /// All, most important first.
    pub const ALL: [Self; 4] = [Self::Vital, Self::Proxy, Self::Change, Self::Bulk];

    /// As metrics and errors call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vital => "vital",
            Self::Proxy => "proxy",
            Self::Change => "change",
            Self::Bulk => "bulk",
        }
    }

    /// Each class may fill half of what the next more important one may: the other half stays for that.
    fn share(self, limits: &Limits) -> Share {
        let halved = self as u32;
        let bytes = u64::from(limits.held_mib) << 20;
        Share { places: (limits.places >> halved).max(1), bytes: bytes >> halved }
    }
}

impl Reason {
    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::OwnPlaces => "own_places",
            Self::OwnBytes => "own_bytes",
            Self::OwnStreams => "own_streams",
            Self::Places => "places",
            Self::Bytes => "bytes",
        }
    }

    /// Whether it is the one who asks that asks for too much, rather than all together.
    pub fn own(self) -> bool {
        matches!(self, Self::Rate | Self::OwnPlaces | Self::OwnBytes | Self::OwnStreams)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { places: PLACES, held_mib: HELD_MIB, per_second: PER_SECOND }
    }
}

impl Load {
    /// Nothing is under way.
    pub fn new(limits: &Limits) -> Self {
        Self::with_shares(limits, Class::ALL.map(|class| class.share(limits)))
    }

    fn with_shares(limits: &Limits, shares: [Share; Class::ALL.len()]) -> Self {
        let accounts = Accounts::new(limits.per_second.max(1), BURST_SECONDS);
        Self { shares, places: 0, bytes: 0, accounts }
    }

    /// Lets a request in, or says why not. `now` is counted from any moment and never goes back.
    ///
    /// # Errors
    /// A limit is met; nothing is taken then but from the rate of who asks.
    pub fn enter(&mut self, now: Duration, asked: Asked) -> Result<Place, Refused> {
        let Asked { class, who, bytes } = asked;
        let share = self.shares[class as usize];
        let refused = |reason, limit, after| Refused { class, reason, limit, after };
        let who = who.map(|who| self.accounts.open(who, now));
        if let Some(who) = who {
            let rate = self.accounts.charge(who, now);
            rate.map_err(|after| refused(Reason::Rate, self.accounts.per_second(), after))?;
            if self.accounts.of(who).places >= share.half().places {
                return Err(refused(Reason::OwnPlaces, share.half().places.into(), RETRY_AFTER));
            }
        }
        if self.places >= share.places {
            return Err(refused(Reason::Places, share.places.into(), RETRY_AFTER));
        }
        let mut place = Place { class, who, bytes: 0 };
        self.hold(&mut place, bytes)?;
        self.places += 1;
        if let Some(account) = self.account(who) {
            account.places += 1;
        }
        Ok(place)
    }

    /// A request that is under way holds so many bytes more.
    ///
    /// # Errors
    /// The server, or who asked, holds too many; none are taken then.
    pub fn hold(&mut self, place: &mut Place, bytes: u64) -> Result<(), Refused> {
        let (class, share) = (place.class, self.shares[place.class as usize]);
        let refused = |reason, limit| Refused { class, reason, limit, after: RETRY_AFTER };
        // Who brings none needs none: a read is not refused for what others hold before it has something to answer.
        if bytes > 0 {
            let own = place.who.map_or(0, |who| self.accounts.of(who).bytes);
            if own.saturating_add(bytes) > share.half().bytes {
                return Err(refused(Reason::OwnBytes, share.half().bytes));
            }
            if self.bytes.saturating_add(bytes) > share.bytes {
                return Err(refused(Reason::Bytes, share.bytes));
            }
        }
        place.bytes += bytes;
        self.bytes += bytes;
        if let Some(account) = self.account(place.who) {
            account.bytes += bytes;
        }
        Ok(())
    }

    /// A request is over.
    pub fn leave(&mut self, place: Place) {
        let Place { who, bytes, .. } = place;
        self.places -= 1;
        self.bytes -= bytes;
        if let Some(account) = self.account(who) {
            account.places -= 1;
            account.bytes -= bytes;
        }
    }

    /// A request becomes a stream that may stay open for days: that takes no place, but counts for who opened it.
    ///
    /// # Errors
    /// He has too many.
    pub fn follow(&mut self, place: &Place) -> Result<Following, Refused> {
        let limit = if place.class == Class::Proxy { STREAMS_PER_NODE_MAX } else { WATCHES_PER_IDENTITY_MAX };
        if let Some(account) = self.account(place.who) {
            if account.streams >= limit {
                let (class, reason, limit) = (place.class, Reason::OwnStreams, u64::from(limit));
                return Err(Refused { class, reason, limit, after: RETRY_AFTER });
            }
            account.streams += 1;
        }
        Ok(Following { who: place.who })
    }

    /// A stream has ended.
    pub fn unfollow(&mut self, following: Following) {
        if let Some(account) = self.account(following.who) {
            account.streams -= 1;
        }
    }

    /// Requests under way.
    pub fn places(&self) -> u32 {
        self.places
    }

    /// Bytes that they hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn account(&mut self, who: Option<u64>) -> Option<&mut Account> {
        who.map(|who| self.accounts.of(who))
    }
}

impl Share {
    /// What one identity may have of it.
    fn half(self) -> Self {
        Self { places: (self.places / 2).max(1), bytes: self.bytes / 2 }
    }
}

#[cfg(test)]
mod tests;
