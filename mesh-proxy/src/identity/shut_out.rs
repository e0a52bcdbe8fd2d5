//! Pure. Why the control plane listens to this host no more, whatever it says: then it gets no certificate, and only an
//! operator lets it in again, by a token or an approval.

use model::{
    name::Name,
    trust::{BACKDATE, Distrusted},
};
use rustls_pki_types::UnixTime;
use svid::Svid;

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShutOut {
    /// Its own certificate was not renewed in time.
    #[error("the certificate of node {0} has expired")]
    Expired(Name),
    /// It is refused before its end: the Node was deleted, or an operator distrusts it.
    #[error("the mesh distrusts the certificate of node {0}")]
    Distrusted(Name),
}

impl ShutOut {
    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        let (Self::Expired(node) | Self::Distrusted(node)) = self;
        format!(
            "mesh-proxy rejoin https://HOST:8443, as root, which an operator approves by meshctl ca approve; \
             or at once with --token TOKEN: meshctl token join NAME --node {node} --rejoin makes the token"
        )
    }
}

/// Whether a host with this certificate is shut out at `now`, as far as is known.
pub(super) fn judge(node: &Name, own: &Svid, distrusted: &Distrusted, now: UnixTime) -> Option<ShutOut> {
    let signed_at = own.not_before.as_secs() + BACKDATE.as_secs();
    if distrusted.leaf(&own.id, Some(node), signed_at).is_some() {
        return Some(ShutOut::Distrusted(node.clone()));
    }
    (own.not_after.as_secs() <= now.as_secs()).then(|| ShutOut::Expired(node.clone()))
}
