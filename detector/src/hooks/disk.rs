//! The outbox, used beside the loop: a slow disk makes nobody wait, a broken one keeps nobody from being told.

use std::{fmt, io, sync::Arc};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, oneshot},
    task::spawn_blocking,
};

use super::{
    spool::{Kept, Outbox, Pending},
    trouble::Trouble,
};

/// One thing at a time is done at the disk, in the order in which it was asked for.
#[derive(Clone)]
pub(super) struct Disk {
    outbox: Arc<dyn Outbox>,
    turn: Arc<Mutex<()>>,
    trouble: Arc<Trouble>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub(super) fn new(outbox: Arc<dyn Outbox>, trouble: Arc<Trouble>) -> Self {
        Self { outbox, turn: Arc::default(), trouble }
    }

    /// Keeps a message, unless that is done already, until it is said that it is over. The room that it takes is free
    /// again when it is gone from the disk, too.
    pub(super) async fn keep_until(
        self,
        pending: Arc<Pending>,
        is_kept: bool,
        over: oneshot::Receiver<()>,
        room: OwnedSemaphorePermit,
    ) {
        if !is_kept {
            let kept = Arc::clone(&pending);
            // Only this shows that the disk works: that nothing is there any more is well also where nothing can be.
            if self.ask(move |outbox| outbox.keep(&kept)).await.is_some() {
                self.trouble.disk(None);
            }
        }
        // Nobody says so if the agent ends before: then it stays for the next run.
        if over.await.is_ok() {
            self.forget(pending).await;
        }
        drop(room);
    }

    pub(super) async fn forget(&self, pending: Arc<Pending>) {
        self.ask(move |outbox| outbox.forget(&pending)).await;
    }

    /// What an earlier run has left; nothing if that cannot be read.
    pub(super) async fn pending(&self, most: usize) -> Kept {
        self.ask(move |outbox| outbox.pending(most)).await.unwrap_or_default()
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&dyn Outbox) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let _turn = self.turn.lock().await;
        let outbox = Arc::clone(&self.outbox);
        // It fails only by a panic, which has told itself, or while the runtime ends.
        let answer = spawn_blocking(move || what(&*outbox)).await.ok()?;
        if let Err(error) = &answer {
            self.trouble.disk(Some(format!("what is to be told cannot be kept on disk: {error}")));
        }
        answer.ok()
    }
}
