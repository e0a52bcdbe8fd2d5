//! Writes that happen only if an object is as their writer believes it to be.

use reqwest::{Method, RequestBuilder, StatusCode, header};

use super::{ANSWER_TIMEOUT, Client, ClientError, decode};
use crate::object::{Key, Object};

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
