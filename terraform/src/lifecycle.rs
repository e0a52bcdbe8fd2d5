//! How an object is made, changed and removed without losing anybody's work: each write says what it expects. Where an
//! answer was lost on the way, what stands there tells whether the write was done.

use model::{
    client::{ClientError, Expected},
    object::{Key, Object},
    rollout::{Rollout, Waiting},
};

use crate::{control::Control, object::same};

/// How often a write is tried anew because the object got another revision, but says the same: its status was written.
const OVERTAKEN_MAX: usize = 5;

/// Why an object is not as it should be.
#[derive(Debug)]
pub(crate) enum Undone {
    /// It is there already, and not of this configuration.
    Exists(Key),
    /// Somebody else changed it since it was read.
    Changed(Box<Object>),
    /// Somebody else removed it since it was read.
    Gone(Key),
    /// It was made, but the answer with its secret was lost, and the mesh tells that once.
    SecretLost(Box<Object>),
    /// The API refused, or is not there.
    Failed(ClientError),
}

/// The object, if there is one.
///
/// # Errors
/// [`ClientError`].
pub(crate) async fn present(control: &Control, key: &Key) -> Result<Option<Object>, ClientError> {
    let asked = control.ask(|client| async move { client.get(key).await }).await;
    match asked.answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes an object that is not there yet.
///
/// # Errors
/// [`Undone`].
pub(crate) async fn create(control: &Control, object: &Object) -> Result<Object, Undone> {
    let asked = control.ask(|client| async move { client.put_if(object, Expected::Absent).await }).await;
    let refused = match asked.answer {
        Ok((made, _)) => return Ok(made),
        Err(error) if error.status() == Some(412) => object.key(),
        Err(error) => return Err(Undone::Failed(error)),
    };
    match present(control, &refused).await? {
        Some(present) if asked.again && same(&present, object) => made_before(present),
        _ => Err(Undone::Exists(refused)),
    }
}

/// An earlier try of ours, or somebody with the same wish, made it.
fn made_before(object: Object) -> Result<Object, Undone> {
    if object.kind.has_secret() { Err(Undone::SecretLost(Box::new(object))) } else { Ok(object) }
}

/// Changes an object that says what `before` says, last seen at `revision`.
///
/// # Errors
/// [`Undone`].
pub(crate) async fn update(
    control: &Control,
    object: &Object,
    before: &Object,
    revision: u64,
) -> Result<Object, Undone> {
    let mut expected = Expected::Revision(revision);
    for _ in 0..OVERTAKEN_MAX {
        let asked = control.ask(|client| async move { client.put_if(object, expected).await }).await;
        match asked.answer {
            Ok((written, _)) => return Ok(written),
            Err(error) if matches!(error.status(), Some(404 | 412)) => {}
            Err(error) => return Err(Undone::Failed(error)),
        }
        match present(control, &object.key()).await? {
            None => return Err(Undone::Gone(object.key())),
            Some(present) if same(&present, object) => return Ok(present),
            Some(present) => expected = unchanged(present, before)?,
        }
    }
    Err(Undone::Changed(Box::new(before.clone())))
}

/// Removes an object that says what `before` says, last seen at `revision`. One that is gone is as good as removed. With
/// `waiting` it says how far that has come among the proxies; `None` where it was gone already, or an answer was lost.
///
/// # Errors
/// [`Undone`].
pub(crate) async fn delete(
    control: &Control,
    before: &Object,
    revision: u64,
    waiting: Option<&Waiting>,
) -> Result<Option<Rollout>, Undone> {
    let (key, mut expected) = (&before.key(), Expected::Revision(revision));
    for _ in 0..OVERTAKEN_MAX {
        let asked = control.ask(|client| async move {
            match waiting {
                Some(waiting) => client.delete_and_wait(key, expected, waiting).await.map(Some),
                None => client.delete_if(key, expected).await.map(|_| None),
            }
        });
        match asked.await.answer {
            Ok(rollout) => return Ok(rollout),
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) if error.status() == Some(412) => {}
            Err(error) => return Err(Undone::Failed(error)),
        }
        match present(control, key).await? {
            None => return Ok(None),
            Some(present) => expected = unchanged(present, before)?,
        }
    }
    Err(Undone::Changed(Box::new(before.clone())))
}

/// The revision to go on from, if only the revision is another one.
fn unchanged(present: Object, before: &Object) -> Result<Expected, Undone> {
    if same(&present, before) {
        Ok(Expected::Revision(present.metadata.revision))
    } else {
        Err(Undone::Changed(Box::new(present)))
    }
}

impl From<ClientError> for Undone {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests;
