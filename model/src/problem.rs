//! Pure. The body of every error of the API: RFC 9457 `application/problem+json`.

use serde::{Deserialize, Serialize};

use crate::invalid::FieldError;

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for people (`title`, `detail`) and for programs (`status`, `errors`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` where the status says it all (RFC 9457 §4.2.1).
    #[serde(rename = "type", default = "blank")]
    pub kind: String,
    /// The same words for every problem of this kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time, and the way out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Every wrong field of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

fn blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem that its status names.
    pub fn new(status: u16, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: blank(), title: title.into(), status, detail: detail.into(), errors: Vec::new() }
    }

    /// The same, with the wrong fields.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.title)?;
        // Where fields are wrong, they say more than the detail does.
        if !self.detail.is_empty() && self.errors.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        for error in &self.errors {
            write!(f, "\n  {}: {}", error.path, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_each_wrong_field_once() {
        let plain = Problem::new(404, "Not Found", "there is no Service default/x");
        assert_eq!(plain.to_string(), "404 Not Found: there is no Service default/x");
        let error = FieldError { path: "spec.ports".into(), message: "is required".into() };
        let wrong = Problem::new(422, "Invalid", "spec.ports: is required").with_errors(vec![error]);
        assert_eq!(wrong.to_string(), "422 Invalid\n  spec.ports: is required");
    }
}
