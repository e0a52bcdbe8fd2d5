//! Questions to a directory that wait until something becomes another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{Dialect, Question, index};
use crate::{Failure, client::Directory};

/// What an answer may take beyond the time that it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a directory is asked.
pub(super) struct Queries<D> {
    pub(super) dialect: D,
    directory: Directory,
    token_file: Option<String>,
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

impl<D: Dialect> Queries<D> {
    pub(super) fn new(dialect: D, directory: Directory, token_file: Option<String>) -> Self {
        Self { dialect, directory, token_file, wait: AtomicU64::new(0) }
    }

    /// How long questions about one service wait from now on.
    pub(super) fn say_wait(&self, wait: Duration) {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.wait.store(millis, Ordering::Relaxed);
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.load(Ordering::Relaxed))
    }

    /// Asks, waiting until there is another index than `index`, or for so long.
    pub(super) async fn ask(
        &self,
        question: &Question,
        index: u64,
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let path: Vec<&str> = question.path.iter().map(String::as_str).collect();
        // The directory adds up to a sixteenth of the wait.
        let request = self.directory.get(&path).await?.timeout(wait + wait / 16 + PATIENCE);
        let mut request = request.query(&question.parameters);
        if index > 0 {
            request =
                request.query(&[("index", index.to_string()), ("wait", format!("{}ms", wait.as_millis()))]);
        }
        if let Some(path) = &self.token_file {
            request = request.header(D::TOKEN, self.directory.token(path).await?);
        }
        let response = self.directory.send(request).await?;
        let answered = response.headers().get(D::INDEX).and_then(|index| index.to_str().ok());
        let next = index::next(index, answered);
        Ok(Answer { index: next, body: self.directory.body(response).await? })
    }

    /// An answer that is not what the API says.
    pub(super) fn odd(&self, what: &str) -> Failure {
        self.directory.odd(what)
    }
}
