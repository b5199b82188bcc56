//! The thread of the loop.
//!
//! It has a runtime to itself: whatever the loop waits for wakes its own thread and no other first, and what waits for a slow
//! reader of the log is the loop alone, not those who ask the agent.

use std::{
    future::Future,
    io,
    panic::resume_unwind,
    thread::{Builder, JoinHandle},
};

use tokio::{
    runtime::{self, Runtime},
    select,
    sync::oneshot,
};

use super::error::Error;

/// A runtime for one thread.
pub(super) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    pub(super) fn new() -> Result<Self, Error> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(Some).map(Self).map_err(Error::Thread)
    }

    /// Opens what the loop waits for, so that it is woken itself.
    pub(super) fn within<T>(&self, open: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        open()
    }

    /// Runs something to its end, in the calling thread.
    fn run<T>(&self, run: impl Future<Output = T>) -> Option<T> {
        self.0.as_ref().map(|runtime| runtime.block_on(run))
    }
}

/// Whoever starts an agent may fail to, and is itself in a runtime, where none may be waited for.
impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A loop that runs on its thread until this value goes, which waits for that.
pub(super) struct Looping {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), Error>>,
    thread: Option<JoinHandle<()>>,
}

impl Looping {
    /// Starts it.
    pub(super) fn start(
        own: OwnRuntime,
        run: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (told, ended) = oneshot::channel();
        let until_stopped = async {
            select! {
                ended = run => ended,
                _ = stopped => Ok(()),
            }
        };
        let thread = Builder::new().name("loop".to_owned()).spawn(move || {
            // Nobody waits for it any more if it was stopped.
            if let Some(ended) = own.run(until_stopped) {
                let _ = told.send(ended);
            }
        })?;
        Ok(Self { stop: Some(stop), ended, thread: Some(thread) })
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(mut self) -> Result<(), Error> {
        let ended = (&mut self.ended).await;
        self.join();
        ended.unwrap_or(Ok(()))
    }

    /// A panic over there goes on here.
    fn join(&mut self) {
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Looping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if !std::thread::panicking() {
            self.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, thread, time::Duration};

    use tokio::time::timeout;

    use super::*;

    struct Guard(Option<oneshot::Sender<thread::ThreadId>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(thread::current().id());
        }
    }

    #[tokio::test]
    async fn what_it_owns_is_gone_when_it_is_dropped() {
        let (gone, mut whose) = oneshot::channel();
        let guard = Guard(Some(gone));
        let run = async move {
            let _guard = guard;
            pending::<Result<(), Error>>().await
        };
        let looping = Looping::start(OwnRuntime::new().unwrap(), run).unwrap();
        assert!(timeout(Duration::from_millis(20), looping.ended()).await.is_err(), "it runs until it is dropped");
        assert_ne!(whose.try_recv().unwrap(), thread::current().id());
    }

    #[tokio::test]
    async fn its_end_is_told() {
        let looping = Looping::start(OwnRuntime::new().unwrap(), async { Err(Error::Surveyor) }).unwrap();
        assert!(matches!(looping.ended().await, Err(Error::Surveyor)));
    }

    #[tokio::test]
    async fn a_panic_is_not_kept_back() {
        let looping = Looping::start(OwnRuntime::new().unwrap(), async { panic!("on purpose") }).unwrap();
        let ended = tokio::spawn(looping.ended()).await;
        assert!(ended.unwrap_err().is_panic());
    }
}
