//! A way from the machine's loopback device to a server in the lab, so that a browser reaches it. No interface is touched.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use lab::Runner;

/// Listens on the machine for as long as this value lives.
pub(super) struct Forward {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    doorman: Option<JoinHandle<()>>,
}

impl Forward {
    /// To a server on the runner; on the same port of 127.0.0.1 if that is free, else on any.
    pub(super) fn to(runner: &Runner, server: SocketAddr) -> Result<Self> {
        let same = TcpListener::bind((Ipv4Addr::LOCALHOST, server.port()));
        let listener = same.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.context("no port of 127.0.0.1 is free")?;
        let (address, stop) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let (runner, until) = (runner.clone(), Arc::clone(&stop));
        let doorman = thread::spawn(move || let_in(&listener, &runner, server, &until));
        Ok(Self { address, stop, doorman: Some(doorman) })
    }

    /// Where a browser finds it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Forward {
    /// The doorman has a handle of the runner, and sleeps until somebody knocks.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let knocked = TcpStream::connect(self.address);
        if let (Ok(_), Some(doorman)) = (knocked, self.doorman.take()) {
            let _ = doorman.join();
        }
    }
}

/// Whoever comes while the server does not listen is turned away, as the server's own machine would do.
fn let_in(listener: &TcpListener, runner: &Runner, server: SocketAddr, stop: &AtomicBool) {
    for guest in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let host = runner.inside(|| Ok(TcpStream::connect(server)?));
        if let (Ok(guest), Ok(host)) = (guest, host) {
            join(guest, host);
        }
    }
}

/// Passes on what either says until both are done.
fn join(guest: TcpStream, host: TcpStream) {
    let ends = (Arc::new(guest), Arc::new(host));
    for (from, to) in [(Arc::clone(&ends.0), Arc::clone(&ends.1)), (ends.1, ends.0)] {
        thread::spawn(move || {
            // One that has gone away is as good as one that is done.
            let _ = io::copy(&mut from.as_ref(), &mut to.as_ref());
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
