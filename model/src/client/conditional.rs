//! Writes that happen only if an object is as their writer believes it to be.

use reqwest::{Method, RequestBuilder, StatusCode, header};

use super::{ANSWER_TIMEOUT, Client, ClientError, decode};
use crate::{
    object::{Key, Object},
    rollout::{Rollout, Waiting},
};

/// What must hold of an object for a write to happen; else the answer is 412.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// Its last change is of this revision.
    Revision(u64),
}

impl Client {
    /// Creates or replaces one object if it is as expected; whether it was created.
    ///
    /// # Errors
    /// [`ClientError`]; 412 where it is not as expected.
    pub async fn put_if(&self, object: &Object, expected: Expected) -> Result<(Object, bool), ClientError> {
        let request = self.request(Method::PUT, &object.key().path()).json(object).timeout(ANSWER_TIMEOUT);
        let response = self.send(expected.stated(request)).await?;
        let created = response.status() == StatusCode::CREATED;
        Ok((decode(response).await?, created))
    }

    /// Puts one object if it is as expected, and says how far that has come among the proxies, once enough of them run it
    /// or the time is over.
    ///
    /// # Errors
    /// As [`Self::put_if`]. That not enough of them run it in time is none.
    pub async fn put_and_wait(
        &self,
        object: &Object,
        expected: Expected,
        waiting: &Waiting,
    ) -> Result<Rollout, ClientError> {
        let request = self.request(Method::PUT, &object.key().path()).json(object);
        self.rolled_out(expected.stated(request), waiting).await
    }

    /// Removes one object if it is as expected, and says how far that has come, as [`Self::put_and_wait`].
    ///
    /// # Errors
    /// As [`Self::delete_if`].
    pub async fn delete_and_wait(
        &self,
        key: &Key,
        expected: Expected,
        waiting: &Waiting,
    ) -> Result<Rollout, ClientError> {
        let request = self.request(Method::DELETE, &key.path());
        self.rolled_out(expected.stated(request), waiting).await
    }

    async fn rolled_out(&self, request: RequestBuilder, waiting: &Waiting) -> Result<Rollout, ClientError> {
        let request = request.query(&waiting.query()).timeout(ANSWER_TIMEOUT + waiting.timeout.duration());
        let mut object: Object = decode(self.send(request).await?).await?;
        let rollout = object.status.as_mut().map(|status| status["rollout"].take());
        serde_json::from_value(rollout.unwrap_or_default())
            .map_err(|error| ClientError::Answer(format!("status.rollout: {error}")))
    }

    /// Removes one object if it is as expected, and returns it as it was.
    ///
    /// # Errors
    /// [`ClientError`]; 404 where there is none, 412 where it is not as expected.
    pub async fn delete_if(&self, key: &Key, expected: Expected) -> Result<Object, ClientError> {
        let request = self.request(Method::DELETE, &key.path()).timeout(ANSWER_TIMEOUT);
        decode(self.send(expected.stated(request)).await?).await
    }
}

impl Expected {
    fn stated(self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Absent => request.header(header::IF_NONE_MATCH, "*"),
            Self::Revision(revision) => request.header(header::IF_MATCH, format!("\"{revision}\"")),
        }
    }
}
