//! TLS sessions that may be resumed. Nothing of a session outlives the trust it was made under: the server's tickets
//! and the client's cache are both void as soon as trust is replaced, and the client's when its identity is renewed.
//! What a resumed handshake skips, its owner does: see `Accept::recheck`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    server::ProducesTickets,
};
use rustls_pki_types::ServerName;

use crate::{identity::IdentitySlot, tls::Clock, trust::TrustStore};

/// How long a server takes a ticket, and how long it makes new ones with one key (design: at most 1 h).
pub(crate) const TICKET_LIFETIME: Duration = Duration::from_secs(3_600);
/// How long a client goes on resuming before it shakes hands in full again. A resumed session hands the certificates
/// of its first handshake on to the next, so this bounds how old they get: well below what a certificate of the
/// shortest life (1 h) has left when it is renewed (40 min).
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Servers that a client configuration keeps sessions for: it has one destination, under few names.
const SESSION_NAMES_MAX: usize = 32;

const NONCE_BYTES: usize = 12;
/// Time of making, then trust version, 8 bytes each.
const STAMP_BYTES: usize = 16;

/// Makes and opens the tickets of one listener: sealed with keys that never leave the process and go after two
/// lifetimes, stamped with the time and the trust they were made under.
pub(crate) struct Tickets {
    trust: Arc<TrustStore>,
    clock: Clock,
    keys: Mutex<Option<Keys>>,
}

struct Keys {
    current: Arc<RandomizedNonceKey>,
    previous: Option<Arc<RandomizedNonceKey>>,
    since: u64,
}

impl Tickets {
    pub(crate) fn new(trust: Arc<TrustStore>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { trust, clock, keys: Mutex::new(None) })
    }

    fn now(&self) -> Option<u64> {
        self.clock.current_time().map(|time| time.as_secs())
    }

    /// The key to seal with at `now`, and the one before it.
    fn keys(&self, now: u64) -> Option<(Arc<RandomizedNonceKey>, Option<Arc<RandomizedNonceKey>>)> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |keys: &Keys| now.abs_diff(keys.since) < TICKET_LIFETIME.as_secs();
        if !keys.as_ref().is_some_and(fresh) {
            let previous = keys.take().map(|keys| keys.current);
            *keys = Some(Keys { current: new_key()?, previous, since: now });
        }
        keys.as_ref().map(|keys| (keys.current.clone(), keys.previous.clone()))
    }

    fn stamp(&self, now: u64) -> [u8; STAMP_BYTES] {
        let mut stamp = [0; STAMP_BYTES];
        stamp[..8].copy_from_slice(&now.to_be_bytes());
        stamp[8..].copy_from_slice(&self.trust.version().to_be_bytes());
        stamp
    }

    /// Whether a ticket with this stamp may be opened at `now`: made under the trust of now, not too long ago.
    fn current(&self, stamp: &[u8; STAMP_BYTES], now: u64) -> bool {
        let (made, version) = stamp.split_at(8);
        let made = u64::from_be_bytes(made.try_into().expect("the first half has 8 bytes"));
        version == self.trust.version().to_be_bytes()
            && made <= now
            && now - made <= TICKET_LIFETIME.as_secs()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME.as_secs().try_into().expect("an hour of seconds fits")
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = self.now()?;
        let (key, _) = self.keys(now)?;
        let stamp = self.stamp(now);
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(stamp), &mut sealed).ok()?;
        Some([nonce.as_ref().as_slice(), &stamp, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = self.now()?;
        let (nonce, rest) = ticket.split_first_chunk::<NONCE_BYTES>()?;
        let (stamp, sealed) = rest.split_first_chunk::<STAMP_BYTES>()?;
        if !self.current(stamp, now) {
            return None;
        }
        let (current, previous) = self.keys(now)?;
        [Some(current), previous].into_iter().flatten().find_map(|key| {
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            Some(key.open_in_place(nonce, Aad::from(*stamp), &mut plain).ok()?.to_vec())
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

fn new_key() -> Option<Arc<RandomizedNonceKey>> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?))
}

/// The sessions of one client configuration: emptied when trust or identity is replaced, and every
/// [`SESSION_LIFETIME`].
pub(crate) struct Sessions {
    trust: Arc<TrustStore>,
    identity: Option<Arc<IdentitySlot>>,
    clock: Clock,
    held: Mutex<Held>,
}

struct Held {
    trust: u64,
    identity: u64,
    since: u64,
    cache: Arc<ClientSessionMemoryCache>,
}

impl Sessions {
    pub(crate) fn new(
        trust: Arc<TrustStore>,
        identity: Option<Arc<IdentitySlot>>,
        clock: Clock,
    ) -> Arc<Self> {
        let held = Held { trust: 0, identity: 0, since: 0, cache: empty() };
        Arc::new(Self { trust, identity, clock, held: Mutex::new(held) })
    }

    fn cache(&self) -> Arc<ClientSessionMemoryCache> {
        let trust = self.trust.version();
        let identity = self.identity.as_ref().map_or(0, |slot| slot.version());
        let now = self.clock.current_time().map_or(0, |time| time.as_secs());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let old = now.abs_diff(held.since) >= SESSION_LIFETIME.as_secs();
        if old || (held.trust, held.identity) != (trust, identity) {
            *held = Held { trust, identity, since: now, cache: empty() };
        }
        held.cache.clone()
    }
}

fn empty() -> Arc<ClientSessionMemoryCache> {
    Arc::new(ClientSessionMemoryCache::new(SESSION_NAMES_MAX))
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.cache().set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache().kx_hint(name)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.cache().insert_tls13_ticket(name, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache().take_tls13_ticket(name)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
