//! One direction of a wire, which can be held: what comes meanwhile is kept, and goes on in order when it is let go.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

#[derive(Clone)]
pub(crate) struct Gate {
    open: Arc<watch::Sender<bool>>,
    held: Arc<watch::Sender<usize>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: Arc::new(watch::Sender::new(true)), held: Arc::default() }
    }
}

impl Gate {
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn let_go(&self) {
        self.open.send_replace(true);
    }

    /// Bytes that came and have not gone on.
    pub(crate) fn held(&self) -> usize {
        *self.held.borrow()
    }

    pub(crate) async fn carry(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (mut open, mut kept, mut bytes) = (self.open.subscribe(), Vec::new(), vec![0; 16 * 1024]);
        loop {
            let is_open = *open.borrow_and_update();
            if is_open && !kept.is_empty() {
                to.write_all(&kept).await?;
                self.held.send_modify(|held| *held -= kept.len());
                kept.clear();
            }
            tokio::select! {
                read = from.read(&mut bytes) => {
                    let read = read?;
                    if read == 0 {
                        return to.shutdown().await;
                    }
                    kept.extend_from_slice(&bytes[..read]);
                    self.held.send_modify(|held| *held += read);
                }
                _ = open.changed() => {}
            }
        }
    }
}
