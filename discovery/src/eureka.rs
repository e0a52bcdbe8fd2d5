//! Type Eureka: all applications, then, again and again, what became another. Where the hash says that both sides do not
//! mean the same, all is asked for anew; after a failure and from time to time, too, since a hash that is right proves little.

use std::time::{Duration, Instant};

use model::{resource::EurekaSource as Spec, shape::Text};
use reqwest::{StatusCode, header::ACCEPT};

use crate::{
    Failure, News, Source, Telling,
    client::{Directory, Fields, Papers},
    clock,
    files::{FileError, Files},
    found::Set,
};

mod read;

use read::{Answer, Registry};

/// What to mend where it refuses.
const FIELDS: Fields = Fields { secret: "spec.eureka.passwordFile", ca: "spec.eureka.caFile", lacks: None };

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often all is asked for, whatever the hash says.
const WHOLE_EVERY: Duration = Duration::from_secs(300);

/// A Eureka server.
pub(crate) struct EurekaSource {
    directory: Directory,
    password_file: Option<String>,
    secure: bool,
    every: Duration,
    /// What it said, and when it said all.
    known: Option<(Registry, Instant)>,
    told: Option<Set>,
    /// Whether the last question was answered.
    well: bool,
    asked: Instant,
}

impl EurekaSource {
    /// The server that a spec names; it says that it is there each `beat`.
    pub(crate) fn open(spec: &Spec, beat: Duration, files: Files) -> Self {
        let text = |text: &Option<Text<4096>>| text.as_ref().map(|text| text.as_str().to_owned());
        let papers = Papers::files(text(&spec.ca_file), None);
        Self {
            directory: Directory::new(spec.address.as_str(), FIELDS, papers, files),
            password_file: text(&spec.password_file),
            secure: spec.secure_port,
            every: spec.every.duration().min(beat),
            known: None,
            told: None,
            well: false,
            asked: clock::now(),
        }
    }

    async fn look(&mut self) -> Result<News, Failure> {
        // Whoever was refused asks again when the caller says so.
        if self.well {
            let passed = clock::now().saturating_duration_since(self.asked);
            tokio::time::sleep(self.every.saturating_sub(passed)).await;
        }
        self.asked = clock::now();
        let was_well = std::mem::replace(&mut self.well, false);
        let fresh = |since: &Instant| clock::now().saturating_duration_since(*since) < WHOLE_EVERY;
        let known = self.known.take().filter(|(_, since)| was_well && fresh(since));
        let known = match known {
            Some(known) => self.changed(known).await?,
            None => self.whole().await?,
        };
        let set = known.0.set(self.secure);
        self.known = Some(known);
        self.well = true;
        if self.told.as_ref() == Some(&set) {
            return Ok(News::Same);
        }
        Ok(News::Full(self.told.insert(set).clone()))
    }

    /// With what became another since; all of it where that does not lead to what the server means.
    async fn changed(
        &self,
        (mut registry, since): (Registry, Instant),
    ) -> Result<(Registry, Instant), Failure> {
        // A server may have no such answers: 403, or 404 behind others' proxies.
        let refusals = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        let Some(answer) = self.ask(&["apps", "delta"], &refusals).await? else { return self.whole().await };
        let hash = answer.hash().to_owned();
        registry.change(answer);
        if registry.hash() == hash { Ok((registry, since)) } else { self.whole().await }
    }

    async fn whole(&self) -> Result<(Registry, Instant), Failure> {
        let answer = self.ask(&["apps"], &[]).await?;
        let answer = answer.ok_or_else(|| self.directory.odd("list of applications"))?;
        Ok((Registry::new(answer), clock::now()))
    }

    /// `None` where the answer has one of these statuses.
    async fn ask(&self, path: &[&str], refusals: &[StatusCode]) -> Result<Option<Answer>, Failure> {
        let mut request =
            self.directory.get(path).await?.timeout(PATIENCE).header(ACCEPT, "application/json");
        if let Some(path) = &self.password_file {
            let secret = self.directory.secret(path).await?;
            let what = "is no USER:PASSWORD: one line of it".to_owned();
            let wrong = || FileError::Content { path: path.clone(), what };
            let (user, password) = secret.split_once(':').ok_or_else(wrong)?;
            request = request.basic_auth(user, Some(password));
        }
        let response = self.directory.send(request).await?;
        if refusals.contains(&response.status()) {
            return Ok(None);
        }
        let body = self.directory.body(response).await?;
        Answer::read(&body).ok_or_else(|| self.directory.odd("list of applications")).map(Some)
    }
}

impl Source for EurekaSource {
    fn next(&mut self) -> Telling<'_> {
        Box::pin(self.look())
    }
}
