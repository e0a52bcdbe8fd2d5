//! When connections that come in end. HTTP/1.1 is served by [`crate::http1::serve`], HTTP/2 by [`crate::http2::serve`].

use tokio_util::sync::CancellationToken;

use crate::transport::life::{Cut, End, Life};

/// When a connection has to end, beside its own sides' wishes.
pub struct Ends {
    /// When the proxy goes away.
    pub draining: CancellationToken,
    /// How long a connection of HTTP/1.1 on which nothing is under way stays open while the proxy drains: its caller may be
    /// about to ask, and cannot know that nobody listens. `None` is not at all.
    pub idle_until: Option<CancellationToken>,
    /// When a certificate of it ends, or its peer is refused.
    pub life: Option<Life>,
}

impl Ends {
    /// Waits until it has to.
    pub async fn come(&mut self) -> End {
        let life = async {
            match &mut self.life {
                Some(life) => life.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.draining.cancelled() => End::Drain,
            end = life => end,
        }
    }

    /// Waits until it has to at once.
    pub async fn cut(&mut self) -> Cut {
        match &mut self.life {
            Some(life) => life.cut().await,
            None => std::future::pending().await,
        }
    }
}
