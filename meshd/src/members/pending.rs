//! Who is in the middle of a handshake: nobody knows yet whether they are members. A stranger that opens connections
//! and says nothing takes the places of its own address, not those of the members.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

/// Handshakes at once of one address: a member opens a few connections, and may share its address with others.
pub(super) const PENDING_PER_ADDRESS_MAX: usize = 16;

/// Handshakes under way, by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One handshake; dropping it makes room.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Pending,
    from: IpAddr,
}

impl Pending {
    /// Begins a handshake, if its address has room for one more.
    pub(super) fn begin(&self, from: IpAddr) -> Option<Handshake> {
        let mut pending = self.0.lock();
        let count = pending.entry(from).or_default();
        if *count >= PENDING_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Handshake { all: self.clone(), from })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut pending = self.all.0.lock();
        if let Some(count) = pending.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places() {
        let (pending, stranger): (_, IpAddr) = (Pending::default(), "10.0.0.9".parse().expect("an address"));
        let held: Vec<_> = (0..PENDING_PER_ADDRESS_MAX).map(|_| pending.begin(stranger)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(pending.begin(stranger).is_none());
        assert!(pending.begin("10.0.0.1".parse().expect("an address")).is_some(), "a member's is another");
        drop(held);
        assert!(pending.begin(stranger).is_some());
        assert!(pending.0.lock().is_empty(), "nothing is kept of those who are gone");
    }
}
