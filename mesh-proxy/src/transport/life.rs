//! What ends a connection before its two sides do: a certificate that expires lets it drain, a peer that is no longer
//! trusted, or that policy lets in for nothing any more, cuts it off.

use std::{sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use svid::{Accept, Expect, SvidError, TrustStore};
use tokio::{sync::watch, time::sleep};

use traffic::policy::Denied;

use crate::{clock, standing::Standing};

/// The longest sleep before the wall clock, which may jump, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// The certificates under which a connection was made, and the trust that they are judged by.
#[derive(Clone)]
pub struct Life {
    rule: Rule,
    chain: Vec<CertificateDer<'static>>,
    not_after: UnixTime,
    trust: Arc<TrustStore>,
    changes: watch::Receiver<u64>,
    standing: Option<Standing>,
}

/// By which rule the peer was taken.
#[derive(Clone)]
pub enum Rule {
    /// It called us.
    Caller(Accept),
    /// We called it, by this name.
    Server(Expect, ServerName<'static>),
}

/// How a connection is to end.
#[derive(Debug)]
pub enum End {
    /// What is under way may end; nothing new begins.
    Drain,
    /// At once.
    Close(Cut),
}

/// Why a connection is cut off.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The peer is not trusted any more.
    #[error(transparent)]
    Distrusted(SvidError),
    /// Policy lets the peer in no more.
    #[error(transparent)]
    Denied(Denied),
}

impl Life {
    /// Of a connection with these certificates of the peer; `not_after` is the earliest end of any on either side.
    pub fn new(
        rule: Rule,
        chain: &[CertificateDer<'_>],
        not_after: UnixTime,
        trust: Arc<TrustStore>,
        changes: watch::Receiver<u64>,
    ) -> Self {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Self { rule, chain, not_after, trust, changes, standing: None }
    }

    /// The same, for as long as policy lets the peer in.
    #[must_use]
    pub fn standing(mut self, standing: Standing) -> Self {
        self.standing = Some(standing);
        self
    }

    /// Waits until the connection has to end.
    pub async fn ended(&mut self) -> End {
        loop {
            let left = self.not_after.as_secs().saturating_sub(clock::unix().as_secs());
            if left == 0 {
                return End::Drain;
            }
            tokio::select! {
                () = sleep(Duration::from_secs(left).min(LOOK_AGAIN)) => {}
                denied = revoked(&mut self.standing) => return End::Close(Cut::Denied(denied)),
                changed = self.changes.changed() => match self.recheck() {
                    Err(refused) => return End::Close(Cut::Distrusted(refused)),
                    // Nobody is left who could change trust.
                    Ok(()) if changed.is_err() => sleep(Duration::from_secs(left)).await,
                    Ok(()) => {}
                },
            }
        }
    }

    /// Waits until the connection has to end at once.
    pub async fn cut(&mut self) -> Cut {
        loop {
            tokio::select! {
                denied = revoked(&mut self.standing) => return Cut::Denied(denied),
                changed = self.changes.changed() => match self.recheck() {
                    // It drains already.
                    Err(SvidError::Expired { .. }) | Ok(()) if changed.is_ok() => {}
                    Err(SvidError::Expired { .. }) | Ok(()) => {
                        return Cut::Denied(revoked(&mut self.standing).await);
                    }
                    Err(refused) => return Cut::Distrusted(refused),
                },
            }
        }
    }

    fn recheck(&self) -> Result<(), SvidError> {
        let (trust, now) = (self.trust.load(), clock::unix());
        match &self.rule {
            Rule::Caller(accept) => accept.recheck(Some(&self.chain), &trust, now).map(drop),
            Rule::Server(expect, name) => expect.recheck(Some(&self.chain), name, &trust, now).map(drop),
        }
    }
}

async fn revoked(standing: &mut Option<Standing>) -> Denied {
    match standing {
        Some(standing) => standing.revoked().await,
        None => std::future::pending().await,
    }
}
