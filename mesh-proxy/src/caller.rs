//! Whose connection it is, by the kernel's word alone: which user and cgroup made the socket at its other end, and for
//! which service of this host that one speaks. Nothing that a caller sends is asked.
//!
//! What holds for a connection: it is looked up as soon as it is taken, before anything of it is read. Its other end
//! must be a socket that a process has open and that has been connected; then our own end must still be connected. As
//! long as it is, the kernel lets no other socket have the same two addresses, so that what was looked up is this
//! connection's other end and not that of one which came after it. Whoever left in between is unknown.

use std::{net::SocketAddr, sync::Arc};

use model::name::ServiceName;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::net::TcpStream;

mod diag;
mod message;
mod places;
mod table;
mod users;

pub use places::{CGROUPS_MAX, ELSEWHERE_MAX, WALK_PAUSE, root as cgroup_root};
pub use table::Table;
pub use users::uid;

use diag::Diag;
use places::Places;

/// The states of a socket whose process connected it and that was not closed from here: `ESTABLISHED`, and `FIN_WAIT1`
/// and `FIN_WAIT2` where it has said its last. In particular not `LISTEN`: where no connection has the addresses, the
/// kernel names whoever listens at the caller's port.
const CONNECTED: [u8; 3] = [1, 4, 5];

/// One thread's way to ask whose a connection is.
#[derive(Debug, Default)]
pub struct Callers {
    diag: Mutex<Diag>,
}

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host.
    Known(Owner),
    /// It cannot be told.
    Unknown(Unknown),
}

/// Who made a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The number of the cgroup.
    pub cgroup: Option<u64>,
}

/// Why it cannot be told whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Another host, another network namespace, or gone.
    #[error("its other end is no socket of this host's network")]
    Elsewhere,
    /// It closed or reset the connection before it was looked up.
    #[error("its process left before it was looked up")]
    Left,
    /// The kernel could not be asked.
    #[error("the kernel does not say: {0}")]
    Silent(Errno),
}

/// Why a caller speaks for no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBound {
    /// It cannot be told who it is.
    #[error("whose connection this is cannot be told: {0}")]
    Unknown(Unknown),
    /// No binding fits.
    #[error("no service of this host is bound to the calling process ({0})")]
    Nobody(Owner),
    /// The listener is another service's.
    #[error("{service} is not bound to the calling process ({owner})")]
    Other {
        /// The listener's.
        service: ServiceName,
        /// Who calls.
        owner: Owner,
    },
    /// Two bindings fit alike.
    #[error("several services are bound to the calling process alike ({0})")]
    Several(Owner),
}

/// Who speaks for which service, and what is remembered of the host's cgroups for that.
#[derive(Debug, Default)]
pub struct Bindings {
    table: Arc<Table>,
    places: Places,
}

impl Callers {
    /// Whose a connection is that has just been taken; `dialled` is where its caller wanted to be connected, which is not
    /// our own address where the kernel turned it aside.
    pub fn of(&self, stream: &TcpStream, peer: SocketAddr, dialled: SocketAddr) -> Caller {
        match self.owner(stream, peer, dialled) {
            Ok(owner) => Caller::Known(owner),
            Err(unknown) => Caller::Unknown(unknown),
        }
    }

    fn owner(&self, stream: &TcpStream, peer: SocketAddr, dialled: SocketAddr) -> Result<Owner, Unknown> {
        let owner = self.look_up(peer, dialled)?;
        // Not before: what was found counts only if this end was connected all the while. The kernel names the other end
        // of a socket unless it is CLOSE or SYN_SENT, which for one that was taken leaves ESTABLISHED and CLOSE_WAIT.
        match stream.peer_addr() {
            Ok(still) if still == peer => Ok(owner),
            _ => Err(Unknown::Left),
        }
    }

    /// Who made the socket that has these addresses now. By itself it says nothing of a connection that was taken before.
    fn look_up(&self, peer: SocketAddr, dialled: SocketAddr) -> Result<Owner, Unknown> {
        let (peer, dialled) = (plain(peer), plain(dialled));
        if peer.is_ipv4() != dialled.is_ipv4() {
            return Err(Unknown::Elsewhere);
        }
        let facts = self.diag.lock().look_up(peer, dialled).map_err(|error| match error {
            Errno::NOENT => Unknown::Elsewhere,
            error => Unknown::Silent(error),
        })?;
        match (CONNECTED.contains(&facts.state), facts.inode) {
            (false, _) => Err(Unknown::Elsewhere),
            (true, 0) => Err(Unknown::Left),
            (true, _) => Ok(Owner { uid: facts.uid, cgroup: facts.cgroup }),
        }
    }
}

/// An address as its family has it: a v4 one may come in v6's clothes, and the kernel finds it by either.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Bindings {
    /// Bindings as the files say; of cgroups nothing is known yet.
    pub fn new(table: Table) -> Self {
        Self { table: Arc::new(table), places: Places::new(cgroup_root()) }
    }

    /// What the files say.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// For which service a caller speaks at a listener for this one, or at one for any.
    ///
    /// # Errors
    /// If for none.
    pub async fn speaks_for(
        &self,
        caller: Caller,
        listener: Option<&ServiceName>,
    ) -> Result<ServiceName, NotBound> {
        if let Some(service) = listener.filter(|service| self.table.shared().contains(service)) {
            return Ok(service.clone());
        }
        let owner = match caller {
            Caller::Known(owner) => owner,
            Caller::Unknown(unknown) => return Err(NotBound::Unknown(unknown)),
        };
        let cgroup = self.cgroup(owner).await;
        match listener {
            Some(service) => self.table.admits(service, &owner, cgroup.as_deref()).map(|()| service.clone()),
            None => self.table.speaks_for(&owner, cgroup.as_deref()),
        }
    }

    async fn cgroup(&self, owner: Owner) -> Option<Arc<str>> {
        let number = owner.cgroup.filter(|_| self.table.asks_for_cgroups())?;
        let table = self.table.clone();
        self.places.path(number, move |path| table.leads(path)).await
    }
}

impl NotBound {
    /// As in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Nobody(_) => "unbound",
            Self::Other { .. } => "other",
            Self::Several(_) => "several",
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cgroup {
            Some(cgroup) => write!(f, "uid {}, cgroup {cgroup}", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests;
