//! Questions to a Consul agent: the client, the token, and answers that are bounded in time and size.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use model::resource::ConsulSource as Spec;
use reqwest::{Client, StatusCode, redirect};

use crate::{
    Failure,
    files::{FileError, Files},
};

/// The longest token, in bytes: a UUID has 36.
const TOKEN_BYTES_MAX: usize = 4_096;
/// The largest bundle of certificates, in bytes.
const CA_BYTES_MAX: usize = 1 << 20;
/// The largest answer, in bytes: some ten thousand instances of one service.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// What an answer may take beyond the time that it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How an agent is asked.
pub(super) struct Queries {
    client: Client,
    address: String,
    datacenter: Option<String>,
    pub(super) passing_only: bool,
    token_file: Option<String>,
    files: Files,
    /// How long questions about one service wait, in milliseconds.
    wait: AtomicU64,
}

/// An answer.
pub(super) struct Answer {
    /// For the next question.
    pub(super) index: u64,
    /// JSON.
    pub(super) body: Vec<u8>,
}

impl Queries {
    /// Reads what the spec names.
    pub(super) async fn new(spec: &Spec, files: Files) -> Result<Self, Failure> {
        let builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent("meshd-discovery");
        let builder = match &spec.ca_file {
            None => builder,
            Some(path) => {
                let path = path.as_str();
                let text = files.text(path, CA_BYTES_MAX).await?;
                let roots = reqwest::Certificate::from_pem_bundle(text.as_bytes()).unwrap_or_default();
                if roots.is_empty() {
                    let what = "has no certificate (PEM)".to_owned();
                    return Err(FileError::Content { path: path.to_owned(), what }.into());
                }
                builder.tls_certs_only(roots)
            }
        };
        Ok(Self {
            client: builder.build().map_err(|error| Failure::Source(error.to_string()))?,
            address: spec.address.as_str().trim_end_matches('/').to_owned(),
            datacenter: spec.datacenter.as_ref().map(|datacenter| datacenter.as_str().to_owned()),
            passing_only: spec.passing_only,
            token_file: spec.token_file.as_ref().map(|path| path.as_str().to_owned()),
            files,
            wait: AtomicU64::new(0),
        })
    }

    /// How long questions about one service wait from now on.
    pub(super) fn say_wait(&self, wait: Duration) {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.wait.store(millis, Ordering::Relaxed);
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.load(Ordering::Relaxed))
    }

    /// Asks for a path, waiting until it has another index than `index`, or for so long.
    pub(super) async fn ask(&self, path: &[&str], index: u64, wait: Duration) -> Result<Answer, Failure> {
        let broken = |error: reqwest::Error| self.broken(&error);
        let mut url =
            reqwest::Url::parse(&self.address).map_err(|error| Failure::Source(error.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| Failure::Source(format!("{} is no address", self.address)))?
            .pop_if_empty()
            .extend(path);
        if let Some(datacenter) = &self.datacenter {
            url.query_pairs_mut().append_pair("dc", datacenter);
        }
        if index > 0 {
            let (index, wait) = (index.to_string(), format!("{}ms", wait.as_millis()));
            url.query_pairs_mut().append_pair("index", &index).append_pair("wait", &wait);
        }
        // The agent adds up to a sixteenth of the wait.
        let mut request = self.client.get(url).timeout(wait + wait / 16 + PATIENCE);
        if let Some(path) = &self.token_file {
            request = request
                .header("x-consul-token", token(&self.files.text(path, TOKEN_BYTES_MAX).await?, path)?);
        }
        let mut response = request.send().await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Source(format!("{} answers {}", self.address, response.status())));
        }
        let answered = response.headers().get("x-consul-index").and_then(|index| index.to_str().ok());
        let next = super::index::next(index, answered);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("{} answers more than {ANSWER_BYTES_MAX} bytes", self.address);
                return Err(Failure::Source(message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { index: next, body })
    }

    /// The same fault has the same words, whatever was asked.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let what = match error {
            error if error.is_timeout() => "does not answer in time".to_owned(),
            error if error.is_connect() => format!("cannot be reached: {}", innermost(error)),
            error => format!("breaks off: {}", innermost(error)),
        };
        Failure::Source(format!("{} {what}", self.address))
    }

    /// An answer that is not what the API says.
    pub(super) fn odd(&self, what: &str) -> Failure {
        Failure::Source(format!("{} answers what is no {what}", self.address))
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// One line; a file of another sort, a key say, is not sent anywhere.
fn token(text: &str, path: &str) -> Result<reqwest::header::HeaderValue, Failure> {
    let wrong =
        || FileError::Content { path: path.to_owned(), what: "is no token: one line of it".to_owned() };
    let mut value: reqwest::header::HeaderValue = text.trim().parse().map_err(|_| wrong())?;
    if value.is_empty() || text.trim().contains(char::is_whitespace) {
        return Err(wrong().into());
    }
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(token("0b3f-7\n", "/t").expect("a token"), "0b3f-7");
        for text in ["", "\n", "-----BEGIN PRIVATE KEY-----\nMIG\n", "two words", "a\nb"] {
            let error = token(text, "/t").expect_err("it is none").to_string();
            assert_eq!(error, "/t: is no token: one line of it", "{text:?}");
        }
    }
}
