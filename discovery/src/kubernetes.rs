//! Type Kubernetes: the EndpointSlices of a cluster, listed once and then watched, from one version to the next. Where the
//! version to go on from is no longer kept, all is listed anew. Each watch is a short one: that the next can be opened is
//! the sign of life.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use model::{resource::KubernetesSource as Spec, shape::Text};
use reqwest::{RequestBuilder, StatusCode};

use crate::{
    Failure, News, Source, Telling,
    client::{Directory, Fields, Lines, Papers},
    clock,
    files::{FileError, Files},
};

mod kubeconfig;
mod read;

use kubeconfig::{Access, Token};
use read::{Event, List, Slices};

/// So many slices are asked for at a time.
const PAGE: usize = 500;
/// As many slices are held; each has 100 endpoints or so.
pub const SLICES_MAX: usize = 10_000;
/// As many pages are read of one list: twice those of full ones.
pub const PAGES_MAX: usize = 2 * SLICES_MAX / PAGE;
/// The longest word of a watch, in bytes: a slice has at most 1,000 endpoints.
const LINE_BYTES_MAX: usize = 4 << 20;
/// What an answer may take, beyond the time that a watch was asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the beginnings of two watches: a server that ends each at once is not asked without a pause.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The largest kubeconfig, in bytes: some hundred clusters with their certificates.
const KUBECONFIG_BYTES_MAX: usize = 1 << 20;

/// A cluster.
pub(crate) struct KubernetesSource {
    files: Files,
    /// Where a kubeconfig says how it is asked, and by which context: read anew before it is asked again.
    kubeconfig: Option<(String, Option<String>)>,
    access: Access,
    directory: Directory,
    namespace: Option<String>,
    selector: Option<String>,
    /// How long a watch is.
    span: Duration,
    /// What there is, and the version that it has; `None` if it has to be listed.
    known: Option<(Slices, String)>,
    watch: Option<Lines>,
    opened: Option<Instant>,
    ready: VecDeque<News>,
}

/// What to mend where it refuses.
fn fields(by_kubeconfig: bool) -> Fields {
    match by_kubeconfig {
        true => {
            Fields { secret: "spec.kubernetes.kubeconfig", ca: "spec.kubernetes.kubeconfig", lacks: None }
        }
        false => Fields { secret: "spec.kubernetes.tokenFile", ca: "spec.kubernetes.caFile", lacks: None },
    }
}

impl KubernetesSource {
    /// The cluster that a spec names; it says that it is there each `beat`.
    pub(crate) fn open(spec: &Spec, beat: Duration, files: Files) -> Self {
        let text = |text: &Option<Text<4096>>| text.as_ref().map(|text| text.as_str().to_owned());
        let access = Access {
            address: spec.address.as_ref().map_or_else(String::new, |address| address.as_str().to_owned()),
            papers: Papers::files(text(&spec.ca_file), text(&spec.cert_file).zip(text(&spec.key_file))),
            token: text(&spec.token_file).map(Token::File),
        };
        let context = spec.context.as_ref().map(|context| context.as_str().to_owned());
        Self {
            kubeconfig: text(&spec.kubeconfig).map(|path| (path, context)),
            directory: Directory::new(
                &access.address,
                fields(spec.kubeconfig.is_some()),
                access.papers.clone(),
                files.clone(),
            ),
            access,
            files,
            namespace: spec.namespace.as_ref().map(|namespace| namespace.as_str().to_owned()),
            selector: spec.label_selector.as_ref().map(|selector| selector.as_str().to_owned()),
            span: Duration::from_secs((beat / 2).as_secs().max(1)),
            known: None,
            watch: None,
            opened: None,
            ready: VecDeque::new(),
        }
    }

    async fn look(&mut self) -> Result<News, Failure> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(news);
            }
            let Some((_, version)) = &self.known else {
                let known = self.list().await?;
                self.ready.push_back(News::Full(known.0.set()));
                self.known = Some(known);
                continue;
            };
            match self.watch.take() {
                None => {
                    let version = version.clone();
                    self.begin(&version).await?;
                }
                Some(mut watch) => {
                    // One that is over is followed by the next, from where it ended.
                    let Some(line) = watch.next(LINE_BYTES_MAX).await? else { continue };
                    self.hear(&line)?;
                    self.watch = self.known.is_some().then_some(watch);
                }
            }
        }
    }

    /// Takes up what a kubeconfig says by now.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Some((path, context)) = &self.kubeconfig else { return Ok(()) };
        let text = self.files.text(path, KUBECONFIG_BYTES_MAX).await?;
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let access = kubeconfig::read(&text, folder, context.as_deref());
        let access = access.map_err(|what| FileError::Content { path: path.clone(), what })?;
        if access != self.access {
            self.directory =
                Directory::new(&access.address, fields(true), access.papers.clone(), self.files.clone());
            self.access = access;
        }
        Ok(())
    }

    /// Everything, page by page.
    async fn list(&mut self) -> Result<(Slices, String), Failure> {
        self.settle().await?;
        let (mut slices, mut more) = (Slices::default(), String::new());
        for _ in 0..PAGES_MAX {
            let mut request = self.request().await?.timeout(PATIENCE).query(&[("limit", PAGE)]);
            if !more.is_empty() {
                request = request.query(&[("continue", &more)]);
            }
            let response = self.directory.send(request).await?;
            // What was begun is no longer kept: the next attempt begins anew.
            let body = self.directory.body(response).await?;
            let list: Option<List> = serde_json::from_slice(&body).ok();
            let list = list.ok_or_else(|| self.directory.odd("list of EndpointSlices"))?;
            list.items.into_iter().flatten().for_each(|slice| drop(slices.put(slice)));
            self.bounded(&slices)?;
            if list.metadata.more.is_empty() {
                return Ok((slices, list.metadata.resource_version));
            }
            more = list.metadata.more;
        }
        Err(self.directory.says("lists EndpointSlices without an end"))
    }

    async fn begin(&mut self, version: &str) -> Result<(), Failure> {
        if let Some(opened) = self.opened {
            let passed = clock::now().saturating_duration_since(opened);
            tokio::time::sleep(REOPEN_AFTER.saturating_sub(passed)).await;
        }
        self.opened = Some(clock::now());
        self.settle().await?;
        let request = self.request().await?.timeout(self.span + PATIENCE).query(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &self.span.as_secs().to_string()),
        ]);
        let response = self.directory.send(request).await?;
        // Gone, or a version that the cluster does not have yet, as after its restore: all is listed anew.
        if !response.status().is_success() {
            self.known = None;
        }
        if response.status() != StatusCode::GONE {
            self.watch = Some(self.directory.lines(response)?);
            self.ready.push_back(News::Same);
        }
        Ok(())
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), Failure> {
        let event = Event::read(line).ok_or_else(|| self.directory.odd("event of EndpointSlices"))?;
        let Some((slices, version)) = &mut self.known else { return Ok(()) };
        let concerned = match event {
            Event::Put(slice) => {
                slice.version().clone_into(version);
                slices.put(slice)
            }
            Event::Gone(slice) => {
                slice.version().clone_into(version);
                slices.remove(&slice)
            }
            Event::Bookmark(at) => {
                *version = at;
                return Ok(());
            }
            Event::Expired => {
                self.known = None;
                return Ok(());
            }
            Event::Fault(message) => {
                self.known = None;
                return Err(self.directory.says(&message));
            }
        };
        self.ready.extend(concerned.into_iter().map(|key| {
            let found = slices.found(&key);
            News::Changed(key, found)
        }));
        let crowded = self.known.as_ref().map(|(slices, _)| self.bounded(slices));
        crowded.unwrap_or(Ok(()))
    }

    fn bounded(&self, slices: &Slices) -> Result<(), Failure> {
        let what = format!("has more than {SLICES_MAX} EndpointSlices; choose by namespace or labelSelector");
        if slices.count() > SLICES_MAX { Err(self.directory.says(&what)) } else { Ok(()) }
    }

    async fn request(&self) -> Result<RequestBuilder, Failure> {
        let mut path = vec!["apis", "discovery.k8s.io", "v1"];
        path.extend(self.namespace.iter().flat_map(|namespace| ["namespaces", namespace]));
        path.push("endpointslices");
        let mut request = self.directory.get(&path).await?;
        match &self.access.token {
            Some(Token::File(path)) => request = request.bearer_auth(self.directory.secret(path).await?),
            Some(Token::Text(token)) => request = request.bearer_auth(token),
            None => {}
        }
        if let Some(selector) = &self.selector {
            request = request.query(&[("labelSelector", selector)]);
        }
        Ok(request)
    }
}

impl Source for KubernetesSource {
    fn next(&mut self) -> Telling<'_> {
        Box::pin(self.look())
    }
}
