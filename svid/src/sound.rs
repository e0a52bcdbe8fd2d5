//! Chains that were found sound, so that the same one need not be verified again: its bytes, the trust and the role say
//! all but what the clock does. A handshake judges its peer twice (a resumed one skips the verifier, so its owner judges
//! it anew), and callers come again.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::verify::{Peer, Usage};

/// Chains that are remembered at most; then all are forgotten. Only sound ones are: a stranger fills nothing.
const CHAINS_MAX: usize = 1_024;

/// What one [`Trust`](crate::Trust) found sound; another trust knows nothing of it.
#[derive(Debug, Default)]
pub(crate) struct Sound(Mutex<HashMap<Chain, Found>>);

/// SHA-256 over the role and all certificates with their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Chain([u8; 32]);

#[derive(Debug, Clone)]
struct Found {
    peer: Peer,
    /// The latest beginning of a certificate in the chain; their earliest end is the peer's.
    not_before: UnixTime,
}

impl Chain {
    pub(crate) fn of(chain: &[CertificateDer<'_>], usage: Usage) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[match usage {
            Usage::Client => 0,
            Usage::Server => 1,
        }]);
        for der in chain {
            context.update(&(der.len() as u64).to_be_bytes());
            context.update(der);
        }
        let digest = context.finish();
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl Sound {
    /// Who the chain stands for, if it was found sound and all of it is valid at `now`.
    pub(crate) fn find(&self, chain: &Chain, now: UnixTime) -> Option<Peer> {
        let known = self.0.lock();
        let found = known.get(chain)?;
        (found.not_before <= now && now <= found.peer.not_after).then(|| found.peer.clone())
    }

    pub(crate) fn keep(&self, chain: Chain, peer: Peer, not_before: UnixTime) {
        let mut known = self.0.lock();
        if known.len() >= CHAINS_MAX {
            known.clear();
        }
        known.insert(chain, Found { peer, not_before });
    }
}

/// A trust that was cloned finds out for itself.
impl Clone for Sound {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::unix;

    fn chain(ders: &[&[u8]], usage: Usage) -> Chain {
        let ders: Vec<CertificateDer<'_>> = ders.iter().map(|der| CertificateDer::from(*der)).collect();
        Chain::of(&ders, usage)
    }

    fn peer(not_after: u64) -> Peer {
        let id = "spiffe://mesh.internal/ns/default/svc/web".parse().expect("an id");
        Peer { id, node: None, not_after: unix(not_after) }
    }

    #[test]
    fn another_cut_or_role_is_another_chain() {
        let one = chain(&[b"ab", b"c"], Usage::Client);
        assert_eq!(one, chain(&[b"ab", b"c"], Usage::Client));
        for other in [
            chain(&[b"a", b"bc"], Usage::Client),
            chain(&[b"abc"], Usage::Client),
            chain(&[b"c", b"ab"], Usage::Client),
            chain(&[b"ab", b"c"], Usage::Server),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_was_sound_is_so_only_while_all_of_it_is_valid() {
        let (sound, chain) = (Sound::default(), chain(&[b"a"], Usage::Client));
        assert_eq!(sound.find(&chain, unix(15)), None);
        sound.keep(chain, peer(20), unix(10));
        let found = |at| sound.find(&chain, unix(at)).is_some();
        assert_eq!([9, 10, 20, 21].map(found), [false, true, true, false]);
        assert_eq!(sound.clone().find(&chain, unix(15)), None);
    }

    #[test]
    fn it_holds_so_many_and_no_more() {
        let sound = Sound::default();
        for number in 0..CHAINS_MAX + 10 {
            sound.keep(chain(&[&number.to_be_bytes()], Usage::Client), peer(20), unix(10));
        }
        assert_eq!(sound.0.lock().len(), 10);
    }
}
