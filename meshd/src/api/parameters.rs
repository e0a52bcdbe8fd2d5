//! Query parameters, strictly: unknown ones, doubled ones and ones that come later are refused by name, as a filter
//! that is silently ignored answers another question than was asked.

use std::{fmt::Display, str::FromStr};

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use model::{
    invalid::{FieldError, Invalid},
    read::{Consistency, Freshness},
};

use super::error::ApiError;

/// The query parameters of a request.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Vec<(String, String)>);

/// The query parameters that say how fresh a read is to be.
pub const FRESHNESS: &[&str] = &["consistency", "minRevision"];

/// Parameters of the contract that this version does not serve.
const LATER: &[&str] = &["from"];

impl Parameters {
    /// Refuses all but `known` ones, and those that stand twice.
    ///
    /// # Errors
    /// Every wrong one.
    pub fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        for (index, (name, _)) in self.0.iter().enumerate() {
            let message = if known.contains(&name.as_str()) {
                let doubled = self.0[..index].iter().any(|(before, _)| before == name);
                doubled.then(|| "stands twice".to_owned())
            } else if LATER.contains(&name.as_str()) {
                Some("is not supported here by this version".to_owned())
            } else if known.is_empty() {
                Some("unknown query parameter; none is known here".to_owned())
            } else {
                Some(format!("unknown query parameter; known are {}", known.join(", ")))
            };
            errors.extend(message.map(|message| FieldError { path: name.clone(), message }));
        }
        errors.truncate(model::invalid::FIELD_ERRORS_MAX);
        if errors.is_empty() { Ok(self) } else { Err(Invalid { errors }.into()) }
    }

    /// The text of a parameter; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|text| !text.is_empty())
    }

    /// A parameter as what it means.
    ///
    /// # Errors
    /// It means nothing.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| text.parse().map_err(|error| ApiError::invalid(name, error));
        self.text(name).map(parse).transpose()
    }

    /// A switch: `true`, or `false` as where it is left out.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid(name, format_args!("must be true or false, is '{other}'"))),
        }
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// It is none, or outside.
    pub fn number(&self, name: &str, from: u64, to: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            ApiError::invalid(name, format_args!("must be a whole number from {from} to {to}, is '{text}'"))
        };
        let number: u64 = text.parse().map_err(|_| wrong())?;
        if (from..=to).contains(&number) { Ok(Some(number)) } else { Err(wrong()) }
    }

    /// How fresh a read is to be: [`FRESHNESS`].
    ///
    /// # Errors
    /// A word or a number that is none.
    pub fn freshness(&self) -> Result<Freshness, ApiError> {
        let consistency = self.parsed::<Consistency>("consistency")?.unwrap_or_default();
        Ok(Freshness { consistency, min_revision: self.number("minRevision", 0, u64::MAX)? })
    }
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, ApiError>> + Send {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let parameters = match query {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => {
                Err(ApiError::Malformed(format!("the query cannot be read: {}", error.body_text())))
            }
        };
        std::future::ready(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        let uri = format!("/x?{query}").parse().expect("a URI");
        Parameters(Query::try_from_uri(&uri).expect("a query").0)
    }

    #[track_caller]
    fn check(query: &str, want: Result<(), &str>) {
        let got =
            parameters(query).only(&["limit", "consistency"]).map(drop).map_err(|error| error.to_string());
        assert_eq!(got, want.map_err(str::to_owned));
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        check("limit=1&consistency=linearizable", Ok(()));
        check("limt=1", Err("limt: unknown query parameter; known are limit, consistency"));
        check(
            "limit=1&limit=2&from=5",
            Err("limit: stands twice; from: is not supported here by this version"),
        );
    }

    #[test]
    fn values_are_checked() {
        let text = |result: Result<_, ApiError>| result.map_err(|error| error.to_string());
        assert_eq!(text(parameters("limit=7").number("limit", 1, 9)), Ok(Some(7)));
        assert_eq!(
            text(parameters("limit=0").number("limit", 1, 9)),
            Err("limit: must be a whole number from 1 to 9, is '0'".to_owned())
        );
        assert!(parameters("dryRun=yes").flag("dryRun").is_err());
        assert!(parameters("dryRun=true").flag("dryRun").expect("a switch"));
        let freshness = |query: &str| {
            let read = parameters(query).freshness().map(|freshness| freshness.query().count());
            read.map_err(|error| error.to_string())
        };
        assert_eq!(freshness("consistency=&minRevision="), Ok(0), "the default");
        assert_eq!(freshness("consistency=stale&minRevision=7"), Ok(2));
        assert_eq!(
            freshness("consistency=old"),
            Err("consistency: must be linearizable, leased or stale, is 'old'".to_owned())
        );
        assert!(freshness("minRevision=-1").is_err());
        assert!(parameters("name=A").parsed::<model::name::Name>("name").is_err());
    }
}
