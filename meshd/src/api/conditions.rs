//! Preconditions of writes: `If-Match: "<revision>"` and `If-None-Match: *` (RFC 9110 §13.1).

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, header, request::Parts};
use registry::command::Expect;

use super::error::ApiError;

/// What a client says must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// `If-None-Match: *`: it does not exist.
    Absent,
    /// `If-Match: *`: it exists.
    Exists,
    /// `If-Match: "<revision>"`.
    Revision(u64),
}

impl Precondition {
    /// Reads the headers.
    ///
    /// # Errors
    /// They say something else, or both.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let of = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
        match (of(header::IF_MATCH), of(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::None),
            (None, Some("*")) => Ok(Self::Absent),
            (Some("*"), None) => Ok(Self::Exists),
            (Some(tag), None) => {
                let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                number.and_then(|number| number.parse().ok()).map(Self::Revision).ok_or_else(|| {
                    ApiError::Malformed(format!(
                        "If-Match must be \"<revision>\" (an ETag of ours) or *, is {tag}"
                    ))
                })
            }
            (None, Some(other)) => Err(ApiError::Malformed(format!("If-None-Match must be *, is {other}"))),
            (Some(_), Some(_)) => {
                Err(ApiError::Malformed("If-Match and If-None-Match exclude each other".to_owned()))
            }
        }
    }

    /// As the log understands it; that an object exists at all is for the caller to see to.
    pub fn expect(self) -> Expect {
        match self {
            Self::None | Self::Exists => Expect::Any,
            Self::Absent => Expect::Absent,
            Self::Revision(revision) => Expect::Revision(revision),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Precondition {
    type Rejection = ApiError;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, ApiError>> + Send {
        std::future::ready(Self::from_headers(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(HeaderName, &str)], want: Option<Precondition>) {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect();
        assert_eq!(Precondition::from_headers(&headers).ok(), want, "{headers:?}");
    }

    #[test]
    fn tags_are_revisions() {
        use http::header::{IF_MATCH, IF_NONE_MATCH};
        check(&[], Some(Precondition::None));
        check(&[(IF_MATCH, "\"12\"")], Some(Precondition::Revision(12)));
        check(&[(IF_MATCH, "*")], Some(Precondition::Exists));
        check(&[(IF_NONE_MATCH, "*")], Some(Precondition::Absent));
        check(&[(IF_MATCH, "12")], None);
        check(&[(IF_MATCH, "W/\"12\"")], None);
        check(&[(IF_NONE_MATCH, "\"12\"")], None);
        check(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")], None);
    }
}
