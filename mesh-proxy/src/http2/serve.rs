//! Requests that come, each answered in a task of its own.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use traffic::http2::{Code, Patience, Side, StreamId};

use super::{Reader, Received, Shared, Writer, drive, fields, sending::Sending, tunnel::Tunnel};
use crate::{
    body::{Answer, Incoming},
    clock,
    http1::{Kept, Stream},
    limits::STREAMS_PER_CONNECTION_MAX,
    listener::Rewound,
    server::Ends,
};

/// When a connection is asked whether its other side is there, and how long that may take to say so.
const PATIENCE: Patience = Patience { quiet: Duration::from_secs(30), answer: Duration::from_secs(10) };

/// Serves HTTP/2 until the connection ends; `ends` says when it has to. Each request is handed to `take`; that its caller
/// went away ends what it does.
pub async fn serve<S, F>(stream: S, ends: Ends, take: impl Fn(Request<Incoming>) -> F + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = Response<Answer>> + Send + 'static,
{
    let side = Side::Answering { streams_max: STREAMS_PER_CONNECTION_MAX };
    let asked = move |shared: &Arc<Shared>, id: StreamId| {
        let (reader, writer) = (Reader { shared: shared.clone(), id }, Writer { shared: shared.clone(), id });
        let Some((request, whole)) = shared.state.lock().core.request(id) else { return };
        let Ok((head, length)) = fields::request(request) else {
            return shared.with(|state| state.core.reset(id, Code::PROTOCOL));
        };
        let mut turn = Turn { writer, method: head.method.clone(), leaves: None };
        let request = if head.method == Method::CONNECT {
            let (leaves, left) = oneshot::channel();
            turn.leaves = Some((leaves, reader));
            let mut request = Request::from_parts(head, Incoming::None);
            request.extensions_mut().insert(Kept::new(left));
            request
        } else {
            let received = || Incoming::Http2(Received::new(reader, length));
            Request::from_parts(head, if whole { Incoming::None } else { received() })
        };
        // Boxed: what is spawned is moved about before it runs.
        let answer = Box::pin(take(request));
        drop(tokio::spawn(turn.served(answer)));
    };
    drive::served(stream, side, PATIENCE, ends, asked).await;
}

/// One request, and what answers it.
struct Turn {
    writer: Writer,
    method: Method,
    /// Where the stream goes if it leaves HTTP, and who reads it then.
    leaves: Option<(oneshot::Sender<Stream>, Reader)>,
}

impl Turn {
    async fn served<F>(self, mut answer: std::pin::Pin<Box<F>>)
    where
        F: Future<Output = Response<Answer>>,
    {
        let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.writer.is_unwanted(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let Some(answered) = answered.await else { return };
        drop(answer);
        self.answer(answered).await;
    }

    async fn answer(self, answer: Response<Answer>) {
        let (mut head, body) = answer.into_parts();
        if !head.headers.contains_key(header::DATE) {
            head.headers.insert(header::DATE, clock::http_date());
        }
        let leaves = self.leaves.filter(|_| head.status.is_success());
        let bodiless = self.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let whole = leaves.is_none() && (bodiless || body.is_end_stream());
        if !whole
            && leaves.is_none()
            && !head.headers.contains_key(header::CONTENT_LENGTH)
            && let Some(length) = body.size_hint().exact()
        {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let writer = self.writer;
        writer.shared.with(|state| {
            state.core.answer(writer.id, whole, |fields| fields::write_answer(fields, &head));
        });
        if let Some((leaves, reader)) = leaves {
            let stream = Rewound::new(bytes::BytesMut::new(), Box::new(Tunnel::new(reader, writer)) as _);
            // Whoever does not want it any more drops it.
            drop(leaves.send(stream));
        } else if !whole {
            let mut sending = Sending::new(writer, body);
            // What is wrong with a body is said by whoever counts the call.
            drop(poll_fn(|cx| sending.poll(cx)).await);
        }
    }
}
