//! Calls that are streams of bytes: both sides joined until both have said their last, trust ends, or policy lets the
//! caller in no more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    call::Call,
    clock,
    http1::Raw,
    idle,
    standing::Standing,
    telemetry::trace,
    transport::{
        duplex::duplex,
        life::{Cut, Life},
        tcp::{Abort, Counted},
    },
};

/// What may end a stream beside its own sides. Boxed where there is some: most streams have none, and thousands may wait.
type Ends<T> = Option<BoxFuture<'static, T>>;

/// Joins caller and callee, and ends the call. A connection that drains goes on: only its own sides can end a stream.
pub fn join<A, B>(mut call: Box<Call>, caller: A, callee: B, life: Option<Life>) -> impl Future<Output = ()>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let (mut cut, moved) = (cut(life, call.standing.take()), call.idle.map(|_| Arc::<AtomicU64>::default()));
    let (mut caller, mut callee) = (Counted::new(caller, moved.clone()), Counted::new(callee, moved.clone()));
    let mut quiet: Ends<Duration> = moved.map(|moved| {
        let (span, moved) = (call.idle, move || moved.load(Ordering::Relaxed));
        async move { idle::over(span, moved).await }.boxed()
    });
    // What is made before the future stands in it once.
    async move {
        let reason = tokio::select! {
            ended = duplex(&mut caller, &mut callee) => ended.err().map(|error| error.to_string()),
            cut = come(&mut cut) => {
                if let Cut::Denied(denied) = &cut {
                    call.denied(denied, trace::id(clock::dice));
                }
                Some(cut.to_string())
            }
            span = come(&mut quiet) => Some(format!("nothing moved on it for {span:?}")),
        };
        if reason.is_some() {
            // An end that looks like any other would pass off a part as the whole.
            caller.inner().abort();
            callee.inner().abort();
        }
        call.outcome.request_bytes += caller.read;
        call.outcome.response_bytes += callee.read;
        call.over(reason);
    }
}

/// Waits for what may never come.
async fn come<T>(what: &mut Ends<T>) -> T {
    match what {
        Some(what) => what.await,
        None => std::future::pending().await,
    }
}

/// Waits until trust ends, or policy lets the caller in no more.
fn cut(life: Option<Life>, standing: Option<Standing>) -> Ends<Cut> {
    let policy = |mut standing: Standing| async move { Cut::Denied(standing.revoked().await) };
    match (life, standing) {
        (None, None) => None,
        (Some(mut life), None) => Some(async move { life.cut().await }.boxed()),
        (None, Some(standing)) => Some(policy(standing).boxed()),
        (Some(mut life), Some(standing)) => Some(Box::pin(async move {
            tokio::select! {
                cut = life.cut() => cut,
                cut = policy(standing) => cut,
            }
        })),
    }
}

/// Joins two connections as soon as both have left HTTP.
pub fn upgraded(mut call: Box<Call>, caller: Raw, callee: Raw, life: Option<Life>) {
    tokio::spawn(async move {
        match tokio::try_join!(caller.stream(), callee.stream()) {
            Ok((caller, callee)) => join(call, caller, callee, life).await,
            Err(error) => call.over(Some(format!("the upgrade broke off: {error}"))),
        }
    });
}
