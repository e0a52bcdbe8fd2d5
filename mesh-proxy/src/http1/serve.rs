//! Connections that are served: one request after the other, each answered before the next is read.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header, response};
use http_body::Body as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Sleep, sleep, timeout},
};
use traffic::{
    http1::{self, Length},
    mesh1::Code,
};

use super::{
    Broke, Io, Stream,
    asked::Served,
    fields::{self, Framing},
    raw::Kept,
    sending::{self, Sending, Unsent},
};
use crate::{
    body::{Answer, Incoming},
    clock, heads, refused,
    server::Ends,
    transport::life::End,
};

/// How long the head of a request may take, and how long a connection may wait for its next one: longer than callers
/// keep theirs, so that we seldom close one that a request is just on its way on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a caller that is told why its connection ends may go on sending, in time and bytes: who is cut off while it
/// sends may never read what it was told (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1_024;

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// An application: it is told when its answer was made, if nobody else said so (RFC 9110 §6.6.1).
    App,
    /// Another proxy.
    Proxy,
}

/// Serves requests until the connection ends; `ends` says when it has to.
pub async fn serve<F>(
    io: impl Io + 'static,
    edge: Edge,
    mut ends: Ends,
    take: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Answer>>,
{
    let served = Served::new(Box::new(io));
    let mut talk = pin!(talk(served.clone(), edge, take));
    let end = tokio::select! {
        biased;
        () = talk.as_mut() => return,
        end = ends.come() => end,
    };
    let refused = match end {
        End::Close(refused) => refused,
        End::Drain => {
            let idle_until = ends.idle_until.take();
            served.with(|state| (state.drains, state.ends_idle) = (true, idle_until.is_none()));
            let idle = async {
                match idle_until {
                    Some(until) => until.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = talk.as_mut() => return,
                refused = ends.cut() => refused,
                () = idle => {
                    served.with(|state| state.ends_idle = true);
                    tokio::select! {
                        biased;
                        () = talk.as_mut() => return,
                        refused = ends.cut() => refused,
                    }
                }
            }
        }
    };
    drop(served.take());
    tracing::warn!(%refused, "a caller's connection is cut off");
}

/// What the answer to a request has to know of it.
struct Turn {
    method: Method,
    version: Version,
    keep_alive: bool,
    /// Where the connection goes if it leaves HTTP.
    leaves: Option<oneshot::Sender<Stream>>,
}

/// How a connection goes on.
enum Then {
    Next,
    /// It ends well.
    Over,
    /// It breaks off.
    Broken,
    /// Its caller may not have read why.
    Linger,
}

async fn talk<F>(served: Served, edge: Edge, take: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<Answer>>,
{
    let mut patience = pin!(sleep(HEAD_TIMEOUT));
    loop {
        let then = match next(&served, patience.as_mut()).await {
            Ok(None) => Then::Over,
            Ok(Some(head)) => match fields::request(head, edge) {
                Ok((mut head, framing)) => {
                    if edge == Edge::Proxy {
                        heads::restore_request(&mut head);
                    }
                    one(&served, edge, (head, framing), patience.as_mut(), &take).await
                }
                Err(malformed) => refuse(&served, &malformed.into()).await,
            },
            Err(broke) => refuse(&served, &broke).await,
        };
        match then {
            Then::Next => {}
            Then::Over => return close(served).await,
            Then::Broken => return drop(served.take()),
            Then::Linger => return linger(served).await,
        }
    }
}

/// The head of the next request, if one comes.
async fn next(served: &Served, mut patience: Pin<&mut Sleep>) -> Result<Option<Bytes>, Broke> {
    let began = clock::now();
    poll_fn(|cx| {
        let head = served.with(|state| match &mut state.wire {
            None => Poll::Ready(Ok(None)),
            Some(wire) => match wire.poll_head(cx) {
                Poll::Pending if state.ends_idle && !wire.is_ahead() => Poll::Ready(Ok(None)),
                head => head,
            },
        });
        if head.is_ready() {
            return head;
        }
        // One timer for all waits: what is left of this one is seen when it goes off.
        while patience.as_mut().poll(cx).is_ready() {
            let waited = clock::now().saturating_duration_since(began);
            if waited >= HEAD_TIMEOUT {
                return Poll::Ready(Ok(None));
            }
            patience.set(sleep(HEAD_TIMEOUT - waited));
        }
        Poll::Pending
    })
    .await
}

/// One request and its answer.
async fn one<F>(
    served: &Served,
    edge: Edge,
    (head, framing): (http::request::Parts, Framing),
    mut beat: Pin<&mut Sleep>,
    take: impl Fn(Request<Incoming>) -> F,
) -> Then
where
    F: Future<Output = Response<Answer>>,
{
    let body = served.begin(&framing).map_or(Incoming::None, Incoming::Asked);
    let mut turn = Turn {
        method: head.method.clone(),
        version: head.version,
        keep_alive: framing.keep_alive,
        leaves: None,
    };
    let may_leave = heads::is_connect(&head) || heads::is_upgrade(&head);
    let mut request = Request::from_parts(head, body);
    if may_leave {
        let (leaves, left) = oneshot::channel();
        request.extensions_mut().insert(Kept::new(left));
        turn.leaves = Some(leaves);
    }
    let answer = {
        // Boxed: a connection that waits for its next request need not hold what a request takes.
        let mut answer = Box::pin(take(request));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => served.poll_gone(cx, beat.as_mut()).map(|()| None),
        })
        .await
    };
    match answer {
        None => Then::Broken,
        Some(answer) => turn.answer(served, edge, answer, beat).await,
    }
}

impl Turn {
    async fn answer(
        self,
        served: &Served,
        edge: Edge,
        answer: Response<Answer>,
        mut beat: Pin<&mut Sleep>,
    ) -> Then {
        let (mut head, body) = answer.into_parts();
        let drains = served.with(|state| state.drains);
        let leaves = self.leaves(head.status);
        let coding = self.coding(&head, &body);
        let keep_alive = self.keep_alive && !drains && coding != Some(Length::UntilClose);
        if edge == Edge::App && !head.headers.contains_key(header::DATE) {
            head.headers.insert(header::DATE, clock::http_date());
        }
        let mut out = sending::begun();
        out.extend_from_slice(served.answers());
        fields::write_answer(&mut out, &head);
        self.write_rest(&mut out, &head, coding, keep_alive || leaves);
        let mut sending = Sending::new(out, coding.map(|_| body), coding.unwrap_or(Length::Exactly(0)));
        let mut to = served.clone();
        let sent = poll_fn(|cx| match sending.poll(cx, &mut to) {
            Poll::Ready(sent) => Poll::Ready(sent),
            // Who went away wants no more of it, however long the rest takes to come.
            Poll::Pending => {
                let gone = served.poll_gone(cx, beat.as_mut());
                gone.map(|()| Err(Unsent::Io(io::ErrorKind::ConnectionAborted.into())))
            }
        });
        let sent = sent.await;
        match sent {
            Ok(()) if leaves => self.leave(served),
            Ok(()) => {
                if self.rode() {
                    poll_fn(|cx| match served.poll_taken(cx) {
                        Poll::Pending => served.poll_gone(cx, beat.as_mut()),
                        taken => taken,
                    })
                    .await;
                }
                let next = keep_alive && poll_fn(|cx| Poll::Ready(served.finish(cx))).await;
                if next { Then::Next } else { Then::Linger }
            }
            Err(Unsent::Io(error)) => {
                tracing::debug!(%error, "a caller's connection ended");
                Then::Broken
            }
            Err(Unsent::Body(error)) => {
                if self.rode() {
                    let why = Code::of_http2(error.http2_reason().into());
                    served.with(|state| state.reset(why));
                } else if coding == Some(Length::UntilClose) {
                    // Its end must not look like the answer's.
                    served.with(|state| state.break_off());
                }
                Then::Broken
            }
        }
    }

    /// Whether it is a request of HTTP/2 that came in HTTP/1.1.
    fn rode(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Whether the connection leaves HTTP with this answer.
    fn leaves(&self, status: StatusCode) -> bool {
        let tunnel = self.method == Method::CONNECT && status.is_success();
        self.leaves.is_some() && (tunnel || status == StatusCode::SWITCHING_PROTOCOLS)
    }

    /// How long the body is; `None` where there is none whatever the head says (RFC 9112 §6.3).
    fn coding(&self, head: &response::Parts, body: &Answer) -> Option<Length> {
        let bodiless = head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.method == Method::HEAD
            || self.leaves(head.status);
        if bodiless {
            return None;
        }
        if self.rode() {
            // Trailers may come behind what length it says.
            return Some(if body.is_end_stream() { Length::Exactly(0) } else { Length::Chunked });
        }
        let length = fields::said_length(&head.headers).or(body.size_hint().exact());
        Some(match (length, self.version) {
            (Some(length), _) => Length::Exactly(length),
            (None, Version::HTTP_10) => Length::UntilClose,
            (None, _) => Length::Chunked,
        })
    }

    /// The fields that are this connection's, and the end of the head.
    fn write_rest(
        &self,
        out: &mut Vec<u8>,
        head: &response::Parts,
        coding: Option<Length>,
        keep_alive: bool,
    ) {
        if self.rode() {
            fields::write_length(out, &head.headers);
        }
        match coding {
            Some(Length::Exactly(length)) => http1::content_length(out, length),
            Some(Length::Chunked) => http1::field(out, "transfer-encoding", b"chunked"),
            Some(Length::UntilClose) => {}
            // Of an answer to HEAD, and of 304, it is said how long the body would be.
            None if head.status == StatusCode::NO_CONTENT || self.leaves(head.status) => {}
            None => fields::said_length(&head.headers)
                .into_iter()
                .for_each(|length| http1::content_length(out, length)),
        }
        match self.version {
            _ if !keep_alive => http1::field(out, "connection", b"close"),
            Version::HTTP_10 => http1::field(out, "connection", b"keep-alive"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    fn leave(self, served: &Served) -> Then {
        if let (Some(leaves), Some(wire)) = (self.leaves, served.take()) {
            // Whoever does not want it any more drops it.
            drop(leaves.send(wire.into_stream()));
        }
        Then::Over
    }
}

/// Tells a caller what is wrong with what it sends.
async fn refuse(served: &Served, broke: &Broke) -> Then {
    let Some(status) = refused::malformed(broke) else {
        tracing::debug!(error = %broke, "a caller's connection ended");
        return Then::Broken;
    };
    tracing::debug!(error = %broke, %status, "a caller is refused");
    let text = format!("mesh: {broke}\n");
    let mut out = sending::begun();
    http1::status_line(&mut out, status.as_u16(), status.canonical_reason().unwrap_or_default());
    http1::field(&mut out, "date", clock::http_date().as_bytes());
    http1::field(&mut out, "content-type", b"text/plain; charset=utf-8");
    http1::content_length(&mut out, text.len() as u64);
    out.extend_from_slice(b"connection: close\r\n\r\n");
    out.extend_from_slice(text.as_bytes());
    let mut to = served.clone();
    match to.write_all(&out).await {
        Ok(()) => Then::Linger,
        Err(_) => Then::Broken,
    }
}

/// Says the last word.
async fn close(served: Served) {
    let mut to = served.clone();
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "a caller's connection could not be closed");
    }
    drop(served.take());
}

/// Says the last word, and lets it be read.
async fn linger(served: Served) {
    let mut to = served.clone();
    let (Ok(()), Some(wire)) = (to.shutdown().await, served.take()) else { return };
    let mut rest = wire.into_stream().take(LINGER_BYTES);
    let mut sink = tokio::io::sink();
    // Who goes on for longer is cut off.
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
}
