//! Spans of sampled calls, on their way to a collector. A call hands its span over and goes on; where they cannot be
//! sent as fast as they come, they are dropped and counted. How a collector is told of them: `otlp`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, header};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Outcome, trace};
use crate::{clock, settings::Tracing};

mod otlp;

use otlp::Span;

/// Spans that wait to be sent, of some 500 bytes each.
pub const SPANS_MAX: usize = 4_096;
/// Spans of one request to the collector: some 300 KiB.
pub const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long the collector may take for one request.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Where calls hand their spans over. Cheap to clone.
#[derive(Clone)]
pub struct Spans {
    to: Option<mpsc::Sender<Span>>,
    counts: Arc<SpanCounts>,
    /// Of those calls of which nobody has decided, the share that is sampled, in 2^-32.
    share: u32,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// The collector took them.
    pub sent: AtomicU64,
    /// They could not be sent, or too many waited.
    pub dropped: AtomicU64,
}

/// Sends what calls hand over.
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    counts: Arc<SpanCounts>,
    collector: String,
}

/// The spans that the settings ask for, and who sends them, if any are.
pub fn open(settings: &Tracing) -> (Spans, Option<Exporter>) {
    let counts = Arc::<SpanCounts>::default();
    let Some(collector) = settings.traces_url() else {
        return (Spans { to: None, counts, share: 0 }, None);
    };
    let (to, spans) = mpsc::channel(SPANS_MAX);
    let share = (settings.sample * f64::from(u32::MAX)) as u32;
    (Spans { to: Some(to), counts: counts.clone(), share }, Some(Exporter { spans, counts, collector }))
}

impl Spans {
    /// None are kept.
    pub fn off() -> Self {
        Self { to: None, counts: Arc::default(), share: 0 }
    }

    /// What became of them so far.
    pub fn counts(&self) -> &SpanCounts {
        &self.counts
    }

    /// What a request's context is on this proxy's way.
    pub fn begin(&self, headers: &mut http::HeaderMap) -> trace::Context {
        let rules = trace::Rules { kept: self.to.is_some(), share: self.share };
        trace::begin(headers, rules, clock::dice)
    }

    /// Hands a call's span over, or drops it.
    pub fn finished(&self, outcome: &Outcome) {
        let (Some(to), Some(own)) = (&self.to, &outcome.note.span) else { return };
        if to.try_send(Span::of(own, outcome, clock::wall())).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Exporter {
    /// Sends spans until nobody makes any more, or `stop`; then what waits is sent once more.
    pub async fn run(mut self, stop: CancellationToken) {
        let client = reqwest::Client::builder().timeout(SEND_TIMEOUT).build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "no spans are sent"),
        };
        let (mut batch, mut well) = (Vec::new(), true);
        loop {
            let open = tokio::select! {
                came = self.spans.recv_many(&mut batch, BATCH_SPANS_MAX) => came > 0,
                () = stop.cancelled() => false,
            };
            if open && batch.len() < BATCH_SPANS_MAX {
                let more = self.fill(&mut batch);
                // Whatever came until then goes.
                drop(timeout(BATCH_WAIT, more).await);
            }
            while let Ok(span) = self.spans.try_recv() {
                batch.push(span);
                if batch.len() == BATCH_SPANS_MAX {
                    break;
                }
            }
            if !batch.is_empty() {
                well = self.send(&client, std::mem::take(&mut batch), well).await;
            }
            if !open {
                return;
            }
        }
    }

    async fn fill(&mut self, batch: &mut Vec<Span>) {
        while batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            if self.spans.recv_many(batch, room).await == 0 {
                return;
            }
        }
    }

    /// Sends a batch, once: spans are many, and each tells little. Says so in the log when that begins and ceases to work.
    async fn send(&self, client: &reqwest::Client, batch: Vec<Span>, well: bool) -> bool {
        let count = batch.len() as u64;
        let request = client
            .post(&self.collector)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(otlp::request(&batch));
        let failed = match request.send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
        };
        match failed {
            None => {
                self.counts.sent.fetch_add(count, Ordering::Relaxed);
                if !well {
                    tracing::info!(collector = %self.collector, "spans are sent again");
                }
                true
            }
            Some(cause) => {
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                if well {
                    tracing::warn!(collector = %self.collector, cause, "spans are lost: the collector does not take them");
                }
                false
            }
        }
    }
}
