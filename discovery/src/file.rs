//! Type File: a YAML file that is looked at several times a second, and read when it became another. One that is being
//! written is left alone until it rests, so that half of it is not taken for the whole. One that is replaced again and
//! again, by a whole one each time, need not rest.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use model::discovery::{FILE_BYTES_MAX, ListedEndpoint, ListedService, listing};

use crate::{
    Failure, News, Source, Telling, clock,
    files::{FileError, Files},
    found::{Found, FoundKey, Instance, Set},
};

/// How often it is looked whether the file became another; a change is told after two looks that see the same.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After so many looks in a row that each saw a new file it is read as it stands: once in 0.8 s.
const REPLACED_LOOKS: u32 = 4;

/// A file.
pub struct FileSource {
    path: String,
    beat: Duration,
    files: Files,
    /// What was read.
    known: Option<Mark>,
    told: Instant,
}

/// By what a file's states are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    /// When it was made: another file has another moment, if not another number.
    created: Option<SystemTime>,
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl FileSource {
    /// The file at `path`; it says that it is there each `beat`.
    pub fn new(path: &str, beat: Duration, files: Files) -> Self {
        Self { path: path.to_owned(), beat, files, known: None, told: clock::now() }
    }

    async fn look(&mut self) -> Result<News, Failure> {
        let (mut seen, mut replaced) = (self.mark().await?, 0);
        loop {
            if self.known.as_ref() == Some(&seen) && self.told + self.beat <= clock::now() {
                self.told = clock::now();
                return Ok(News::Same);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.mark().await?;
            replaced = if now.created > seen.created { replaced + 1 } else { 0 };
            let whole = now == seen || replaced >= REPLACED_LOOKS;
            seen = now;
            if whole && self.known.as_ref() != Some(&seen) {
                let set = self.read().await?;
                (self.known, self.told) = (Some(seen), clock::now());
                return Ok(News::Full(set));
            }
        }
    }

    async fn read(&self) -> Result<Set, Failure> {
        let text = self.files.text(&self.path, FILE_BYTES_MAX).await?;
        let wrong = |what: String| FileError::Content { path: self.path.clone(), what };
        let services = listing(&text).map_err(|invalid| wrong(invalid.to_string()))?.services;
        let mut set = Set::new();
        for service in services {
            let (key, found) = found(service);
            let name = key.name.clone();
            if set.insert(key, found).is_some() {
                return Err(wrong(format!("service {name:?} stands twice")).into());
            }
        }
        Ok(set)
    }

    async fn mark(&self) -> Result<Mark, Failure> {
        use std::os::unix::fs::MetadataExt;
        let failed =
            |error: std::io::Error| FileError::Read { path: self.path.clone(), cause: error.to_string() };
        let metadata = tokio::fs::metadata(&self.path).await.map_err(failed)?;
        let (created, modified) = (metadata.created().ok(), metadata.modified().ok());
        Ok(Mark { created, modified, bytes: metadata.len(), inode: metadata.ino() })
    }
}

impl Source for FileSource {
    fn next(&mut self) -> Telling<'_> {
        Box::pin(self.look())
    }
}

fn found(service: ListedService) -> (FoundKey, Found) {
    let ListedService { name, namespace, ports, labels, tags, endpoints } = service;
    let key = FoundKey {
        namespace: namespace.map(|namespace| namespace.as_str().to_owned()),
        name: name.as_str().to_owned(),
    };
    let tags = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
    let instances: BTreeMap<_, _> = endpoints.into_iter().map(instance).collect();
    (key, Found { ports, labels, tags, instances })
}

fn instance(endpoint: ListedEndpoint) -> (String, Instance) {
    let ListedEndpoint { id, address, target_port, ports, labels, tags, zone, weight, health } = endpoint;
    let port = target_port.and_then(|port| u16::try_from(port.value()).ok());
    let own =
        || format!("{address} {port:?} {:?}", ports.iter().map(|port| port.target_port).collect::<Vec<_>>());
    let id = id.map_or_else(own, |id| id.as_str().to_owned());
    let tags = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
    let weight = u32::try_from(weight.value()).unwrap_or(u32::MAX);
    (id, Instance { address, port, ports, labels, tags, zone, weight, health })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "services: [{name: a, ports: [{port: 80}], endpoints: [{address: 10.0.0.1}]}]";
    const OTHER: &str = "services: [{name: b, ports: [{port: 80}]}]";

    fn names(news: Result<News, Failure>) -> Vec<String> {
        match news.expect("it is well") {
            News::Full(set) => set.into_keys().map(|key| key.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_told_when_it_became_another_and_says_that_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("services.yaml");
        let mut source =
            FileSource::new(path.to_str().expect("UTF-8"), Duration::from_millis(1), Files::default());
        let error = source.next().await.expect_err("there is none").to_string();
        assert!(error.contains("services.yaml: No such file"), "{error}");
        std::fs::write(&path, FIRST).expect("written");
        assert_eq!(names(source.next().await), ["a"]);
        assert_eq!(source.next().await, Ok(News::Same));
        std::fs::write(folder.path().join("next"), OTHER).expect("written");
        std::fs::rename(folder.path().join("next"), &path).expect("renamed");
        assert_eq!(names(source.next().await), ["b"]);
        std::fs::write(&path, "services: [{name: b, ports: []}]").expect("written");
        let error = source.next().await.expect_err("a service has a port").to_string();
        assert!(error.contains("services[0].ports: must have at least one port"), "{error}");
        std::fs::write(&path, "services: [{name: b, ports: [{port: 1}]}, {name: b, ports: [{port: 1}]}]")
            .expect("written");
        let error = source.next().await.expect_err("twice").to_string();
        assert!(error.contains("service \"b\" stands twice"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_all_the_time_is_told_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, next) = (folder.path().join("services.yaml"), folder.path().join("next"));
        std::fs::write(&path, FIRST).expect("written");
        let mut source =
            FileSource::new(path.to_str().expect("UTF-8"), Duration::from_secs(600), Files::default());
        let replacing = tokio::spawn(async move {
            loop {
                std::fs::write(&next, OTHER).expect("written");
                std::fs::rename(&next, &path).expect("renamed");
                // Pace: much faster than it is looked.
                tokio::time::sleep(LOOK_EVERY / 10).await;
            }
        });
        for _ in 0..3 {
            assert_eq!(names(source.next().await).len(), 1);
        }
        assert!(!replacing.is_finished());
        replacing.abort();
    }
}
