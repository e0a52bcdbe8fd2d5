//! A host leaves, for good: the control plane forgets it, and refuses its certificates from then on. What becomes of its
//! files is the caller's matter, and comes after.

use std::time::Duration;

use http::Method;
use model::trust::TrustBundle;

use crate::{
    control::{Control, ControlError},
    identity::{Identity, IdentityError, ShutOut},
    settings::Settings,
};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the control plane knows of a host that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// That it left: its Node is gone.
    Heard,
    /// It listens to this host no more. The Node is gone, unless an operator distrusts it and let it stand.
    Distrusted,
}

/// Why a host cannot leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// It could not say so.
    #[error("no server took the farewell: {0}")]
    Unheard(#[from] ControlError),
    /// It cannot prove any more who it is.
    #[error("{0}: nobody believes that this host is it")]
    ShutOut(ShutOut),
    /// What it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A host that is about to leave.
pub struct Leaver {
    identity: Identity,
    control: Control,
    /// The control plane as anybody sees it: it answers those whom it distrusts, too.
    open: Control,
}

impl Leaver {
    /// A host with this identity.
    pub fn new(settings: &Settings, identity: Identity) -> Self {
        let (servers, epoch) = (identity.servers(settings), identity.node().epoch.clone());
        let control = Control::new(servers.clone(), Some(identity.slot()), identity.trust(), epoch.clone());
        let open = Control::new(servers, None, identity.trust(), epoch);
        Self { identity, control, open }
    }

    /// Whether there is somebody to whom it can say farewell. Changes nothing.
    ///
    /// # Errors
    /// If no server has a leader, or its certificate has expired.
    pub async fn can_be_heard(&self) -> Result<(), LeaveError> {
        match self.shut_out().await? {
            Some(ShutOut::Distrusted(_)) => return Ok(()),
            Some(expired) => return Err(LeaveError::ShutOut(expired)),
            None => {}
        }
        let ready = self.control.call::<serde_json::Value>(Method::GET, "/readyz", None::<&()>, PATIENCE);
        Ok(ready.await.map(drop)?)
    }

    /// Says farewell. May be repeated: also where the answer to the first one was lost.
    ///
    /// # Errors
    /// If nobody took it.
    pub async fn say(&self) -> Result<Farewell, LeaveError> {
        let said =
            self.control.call::<serde_json::Value>(Method::DELETE, "/v1/proxy/node", None::<&()>, PATIENCE);
        match said.await {
            Ok(_) => Ok(Farewell::Heard),
            Err(error) => match self.shut_out().await? {
                Some(ShutOut::Distrusted(_)) => Ok(Farewell::Distrusted),
                _ => Err(error.into()),
            },
        }
    }

    /// As the control plane sees it now, not as this host last heard.
    async fn shut_out(&self) -> Result<Option<ShutOut>, LeaveError> {
        let bundle = self.open.call::<TrustBundle>(Method::GET, "/v1/ca/bundle", None::<&()>, PATIENCE);
        Ok(self.identity.shut_out_by(&bundle.await?.distrusted))
    }
}
