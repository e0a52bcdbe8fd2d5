//! Request bodies: bounded in size and time, judged by their media type, and read with the line and column of what is
//! wrong.

use std::{error::Error, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;
use crate::load::Refused;

/// The largest body, in bytes: a thousand objects of 4 KiB.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a body may take from its first byte to its last: a slow client must not hold memory for ever.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body as it came.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its bytes, which are UTF-8.
    pub text: String,
    /// Its media type without parameters, in lower case; `None` if the client named none.
    pub media_type: Option<String>,
}

/// A body that must be JSON (`application/json`).
#[derive(Debug, Clone)]
pub struct Json(pub Value);

/// A body that must be JSON of one shape: what programs of the mesh say to each other.
#[derive(Debug, Clone)]
pub struct Dto<T>(pub T);

impl Text {
    /// Refuses media types that are not among `taken`. A client that names none is believed.
    ///
    /// # Errors
    /// [`ApiError::MediaType`].
    pub fn of(self, taken: &[&str]) -> Result<Self, ApiError> {
        match &self.media_type {
            Some(other) if !taken.contains(&other.as_str()) => {
                Err(ApiError::MediaType(format!("Content-Type must be {}, is {other}", taken.join(" or "))))
            }
            _ => Ok(self),
        }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// What is wrong, with its line and column.
    pub fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_str(&self.text)
            .map_err(|error| ApiError::Malformed(format!("the body is not JSON: {error}")))
    }
}

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let media_type = media_type(request.headers())?;
        let bytes = read(request.into_body(), BODY_BYTES_MAX).await?;
        let text = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            ApiError::Malformed(format!("the body is not UTF-8: byte {at} is wrong"))
        })?;
        Ok(Self { text, media_type })
    }
}

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let text = Text::from_request(request, state).await?;
        text.of(&["application/json"])?.json().map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Dto<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(value) = Json::from_request(request, state).await?;
        // serde stops at the first fault and names its field in the text.
        serde_json::from_value(value).map(Self).map_err(|error| ApiError::invalid("", error))
    }
}

/// The whole body, if it is not larger than `limit` bytes and comes in time.
///
/// # Errors
/// [`ApiError::TooLarge`], [`ApiError::TooSlow`], [`ApiError::Malformed`] if it breaks off.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect());
    match collected.await {
        Err(_) => {
            Err(ApiError::TooSlow(format!("the body did not come within {} s", BODY_TIMEOUT.as_secs())))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::TooLarge(format!("the body has more than {limit} bytes; send less at once")))
        }
        Ok(Err(error)) => Err(match no_room(&*error) {
            Some(refused) => refused.into(),
            None => ApiError::Malformed(format!("the body broke off: {error}")),
        }),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// Whether the server had no room for what came.
fn no_room(error: &(dyn Error + 'static)) -> Option<Refused> {
    match error.downcast_ref() {
        Some(refused) => Some(*refused),
        None => no_room(error.source()?),
    }
}

fn media_type(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::Malformed("Content-Type is not a text".to_owned()))?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(Some(essence))
}
