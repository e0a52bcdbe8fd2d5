//! Calls that are streams of bytes: both sides joined until both have said their last, trust ends, or policy lets the
//! caller in no more.

use std::sync::atomic::Ordering;

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

/// Joins caller and callee, and ends the call. A connection that drains goes on: only its own sides can end a stream.
pub async fn join<A, B>(mut call: Box<Call>, caller: A, callee: B, life: Option<Life>)
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let (mut caller, mut callee) = (Counted::new(caller), Counted::new(callee));
    let moved = [caller.moved(), callee.moved()];
    let moved = move || moved.iter().map(|moved| moved.load(Ordering::Relaxed)).sum();
    let (standing, idle) = (call.standing.take(), idle::over(call.idle, moved));
    let reason = tokio::select! {
        ended = duplex(&mut caller, &mut callee) => ended.err().map(|error| error.to_string()),
        cut = cut(life, standing) => {
            if let Cut::Denied(denied) = &cut {
                call.denied(denied, trace::id(clock::dice));
            }
            Some(cut.to_string())
        }
        span = idle => Some(format!("nothing moved on it for {span:?}")),
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

/// Waits until trust ends, or policy lets the caller in no more.
async fn cut(life: Option<Life>, standing: Option<Standing>) -> Cut {
    let trust = async {
        match life {
            Some(mut life) => life.cut().await,
            None => std::future::pending().await,
        }
    };
    let policy = async {
        match standing {
            Some(mut standing) => standing.revoked().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        cut = trust => cut,
        denied = policy => Cut::Denied(denied),
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
