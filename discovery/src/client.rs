//! Calls to a directory's HTTP API: whom its certificate must come from, tokens, and answers that are bounded in time and
//! size. The same fault has the same words, whatever was asked.

use std::{fmt, time::Duration};

use reqwest::{
    Certificate, Client, Identity, RequestBuilder, Response, StatusCode, Url, header::HeaderValue, redirect,
};
use tokio::sync::Mutex;

use crate::{
    Failure,
    files::{FileError, Files},
};

/// The longest token, in bytes: a UUID has 36.
const TOKEN_BYTES_MAX: usize = 4_096;
/// The largest bundle of certificates, or key, in bytes.
const PEM_BYTES_MAX: usize = 1 << 20;
/// The largest answer, in bytes: some ten thousand instances of one service.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What says who may answer, and who asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Papers {
    /// The certificates that the directory's own must come from; those that the system trusts if left out.
    pub(crate) ca: Option<Paper>,
    /// Our certificate and its key, where the directory asks for one.
    pub(crate) own: Option<(Paper, Paper)>,
}

/// Certificates or a key (PEM).
#[derive(Clone, PartialEq)]
pub(crate) enum Paper {
    /// In a file, which is read anew.
    File(String),
    /// As they stand.
    Text(String),
}

impl Papers {
    /// Of the files that a spec names.
    pub(crate) fn files(ca: Option<String>, own: Option<(String, String)>) -> Self {
        let own = own.map(|(certificate, key)| (Paper::File(certificate), Paper::File(key)));
        Self { ca: ca.map(Paper::File), own }
    }
}

impl Paper {
    /// How it is called where something is wrong with it.
    fn name(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Text(_) => "what the kubeconfig holds",
        }
    }
}

/// A key is not shown.
impl fmt::Debug for Paper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fields of a spec by which a directory is called: what to mend where it refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// What says who asks.
    pub(crate) secret: &'static str,
    /// What says whom its certificate must come from.
    pub(crate) ca: &'static str,
    /// What it lacks where it does not understand the question (400).
    pub(crate) lacks: Option<&'static str>,
}

/// A directory, as it is called.
pub(crate) struct Directory {
    /// Where it is, without a slash at its end.
    address: String,
    fields: Fields,
    papers: Papers,
    files: Files,
    /// The client, with the texts of the files that it was made of.
    made: Mutex<Option<(Vec<String>, Client)>>,
}

/// An answer that comes line by line.
pub(crate) struct Lines {
    address: String,
    fields: Fields,
    response: Response,
    buffer: Vec<u8>,
}

impl Directory {
    pub(crate) fn new(address: &str, fields: Fields, papers: Papers, files: Files) -> Self {
        let address = address.trim_end_matches('/').to_owned();
        Self { address, fields, papers, files, made: Mutex::new(None) }
    }

    /// A question about a path below its address.
    pub(crate) async fn get(&self, path: &[&str]) -> Result<RequestBuilder, Failure> {
        let mut url = Url::parse(&self.address).map_err(|error| Failure::Source(error.to_string()))?;
        url.path_segments_mut()
            .map_err(|()| Failure::Source(format!("{} is no address", self.address)))?
            .pop_if_empty()
            .extend(path);
        Ok(self.client().await?.get(url))
    }

    /// Its answer, whatever status it has.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.broken(&error))
    }

    /// The whole of an answer of status 200.
    pub(crate) async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        self.fine(&response)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("{} answers more than {ANSWER_BYTES_MAX} bytes", self.address);
                return Err(Failure::Source(message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The lines of an answer of status 200, one by one.
    pub(crate) fn lines(&self, response: Response) -> Result<Lines, Failure> {
        self.fine(&response)?;
        Ok(Lines { address: self.address.clone(), fields: self.fields, response, buffer: Vec::new() })
    }

    fn fine(&self, response: &Response) -> Result<(), Failure> {
        let (address, status) = (&self.address, response.status());
        let mend = match status {
            StatusCode::OK => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!(": show it by {} who asks, and let that one read", self.fields.secret)
            }
            StatusCode::BAD_REQUEST => {
                self.fields.lacks.map(|lacks| format!(": {lacks}")).unwrap_or_default()
            }
            _ => String::new(),
        };
        Err(Failure::Source(format!("{address} answers {status}{mend}")))
    }

    /// The token in a file, which is read anew each time.
    pub(crate) async fn token(&self, path: &str) -> Result<HeaderValue, Failure> {
        token(&self.files.text(path, TOKEN_BYTES_MAX).await?, path)
    }

    /// The one line of a file, which is read anew each time.
    pub(crate) async fn secret(&self, path: &str) -> Result<String, Failure> {
        let text = self.files.text(path, TOKEN_BYTES_MAX).await?;
        let line = text.trim_end_matches(['\r', '\n']);
        if line.is_empty() || line.contains(char::is_control) {
            let what = "is no secret: one line of it".to_owned();
            return Err(FileError::Content { path: path.to_owned(), what }.into());
        }
        Ok(line.to_owned())
    }

    /// An answer that is not what the API says.
    pub(crate) fn odd(&self, what: &str) -> Failure {
        Failure::Source(format!("{} answers what is no {what}", self.address))
    }

    /// What it says of itself.
    pub(crate) fn says(&self, what: &str) -> Failure {
        Failure::Source(format!("{} {what}", self.address))
    }

    fn broken(&self, error: &reqwest::Error) -> Failure {
        broken(&self.address, self.fields, error)
    }

    /// The client; another one once a file says something else.
    async fn client(&self) -> Result<Client, Failure> {
        let mut made = self.made.lock().await;
        let mut texts = Vec::new();
        let own = self.papers.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        for paper in self.papers.ca.iter().chain(own) {
            texts.push(match paper {
                Paper::File(path) => self.files.text(path, PEM_BYTES_MAX).await?,
                Paper::Text(text) => text.clone(),
            });
        }
        if let Some((_, client)) = made.as_ref().filter(|(from, _)| *from == texts) {
            return Ok(client.clone());
        }
        let client = self.make(&texts)?;
        Ok(made.insert((texts, client)).1.clone())
    }

    fn make(&self, texts: &[String]) -> Result<Client, Failure> {
        let wrong = |paper: &Paper, what: &str| FileError::Content {
            path: paper.name().to_owned(),
            what: what.to_owned(),
        };
        let (ca, own) = texts.split_at(usize::from(self.papers.ca.is_some()));
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent("meshd-discovery");
        if let Some((paper, text)) = self.papers.ca.as_ref().zip(ca.first()) {
            let roots = Certificate::from_pem_bundle(text.as_bytes()).unwrap_or_default();
            if roots.is_empty() {
                return Err(wrong(paper, "has no certificate (PEM)").into());
            }
            builder = builder.tls_certs_only(roots);
        }
        if let Some((paper, _)) = &self.papers.own {
            let own = Identity::from_pem(own.join("\n").as_bytes());
            builder = builder
                .identity(own.map_err(|_| wrong(paper, "is no certificate (PEM) that goes with its key"))?);
        }
        builder.build().map_err(|error| Failure::Source(error.to_string()))
    }
}

fn broken(address: &str, fields: Fields, error: &reqwest::Error) -> Failure {
    let what = match error {
        error if error.is_timeout() => "does not answer in time".to_owned(),
        error if error.is_connect() => {
            let why = innermost(error);
            // As rustls says it.
            let mend = why.contains("peer certificate").then(|| {
                format!(": say by {} whom it must come from, and call it by a name that it has", fields.ca)
            });
            format!("cannot be reached: {why}{}", mend.unwrap_or_default())
        }
        error => format!("breaks off: {}", innermost(error)),
    };
    Failure::Source(format!("{} {what}", address))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl Lines {
    /// The next one, of at most `limit` bytes; `None` after the last.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > limit {
                return Err(Failure::Source(format!(
                    "{} answers more than {limit} bytes in one line",
                    self.address
                )));
            }
            match self.response.chunk().await.map_err(|error| broken(&self.address, self.fields, &error))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// One line; a file of another sort, a key say, is not sent anywhere.
fn token(text: &str, path: &str) -> Result<HeaderValue, Failure> {
    let wrong =
        || FileError::Content { path: path.to_owned(), what: "is no token: one line of it".to_owned() };
    let mut value: HeaderValue = text.trim().parse().map_err(|_| wrong())?;
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

    #[tokio::test]
    async fn what_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem").display().to_string();
        std::fs::write(&path, "words").expect("written");
        let fields = Fields { secret: "spec.x.tokenFile", ca: "spec.x.caFile", lacks: None };
        for (papers, want) in [
            (Papers::files(Some(path.clone()), None), "has no certificate (PEM)"),
            (
                Papers::files(None, Some((path.clone(), path.clone()))),
                "is no certificate (PEM) that goes with its key",
            ),
        ] {
            let directory = Directory::new("https://127.0.0.1:1", fields, papers, Files::default());
            let failure = directory.get(&["v1"]).await.expect_err("there is none").to_string();
            assert_eq!(failure, format!("{path}: {want}"));
        }
    }
}
