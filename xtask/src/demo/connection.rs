//! A client of the winner's, with a connection that carries data while all of it happens.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lab::Sandbox;
use serde_json::{Value, json};

/// Where the service listens.
const PORT: u16 = 7;
/// How often the client asks.
const EVERY: Duration = Duration::from_millis(5);
/// How long an answer may take before the connection counts as dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection on which one end sends numbers and the other sends them back.
pub(super) struct Connection {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Result<Echoes>>,
}

/// What went over a connection that lives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Echoes {
    /// Numbers that came back.
    pub(super) count: u64,
    /// The longest that one took.
    pub(super) longest: Duration,
}

impl Connection {
    /// From `client` to a service on `address` in `server`. Others may have the address, too: the client is one that has
    /// learned it from the right one.
    pub(super) fn open(server: &Sandbox, client: &Sandbox, address: Ipv4Addr) -> Result<Self> {
        let (to, mac) = (SocketAddr::from((address, PORT)), server.mac()?.to_string());
        let listener = server.inside(|| TcpListener::bind(to).context("the service cannot listen"))?;
        let learn = format!("ip neighbour replace {address} lladdr {mac} dev eth0 nud reachable");
        client.run(learn.split(' '))?;
        let stream =
            client.inside(|| TcpStream::connect_timeout(&to, PATIENCE).context("the service is not reached"))?;
        let (served, _) = listener.accept()?;
        thread::spawn(move || serve(served));
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        Ok(Self { stop, client: thread::spawn(move || echoes(stream, &until)) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it was reset or dead before, and after how many echoes.
    pub(super) fn close(self) -> Result<Echoes> {
        self.stop.store(true, Ordering::Relaxed);
        match self.client.join() {
            Ok(echoes) => echoes,
            Err(_) => bail!("the client has panicked"),
        }
    }
}

impl Echoes {
    pub(super) fn json(self) -> Value {
        json!({ "echoes": self.count, "longest_ms": self.longest.as_secs_f64() * 1000.0 })
    }
}

/// Sends back what comes until there is no more. Whether it came to that is the client's to say.
fn serve(mut stream: TcpStream) {
    let mut number = [0; 8];
    while stream.read_exact(&mut number).is_ok() && stream.write_all(&number).is_ok() {}
}

fn echoes(mut stream: TcpStream, stop: &AtomicBool) -> Result<Echoes> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut echoes = Echoes::default();
    while !stop.load(Ordering::Relaxed) {
        let (asked, sent, mut heard) = (Instant::now(), echoes.count.to_be_bytes(), [0; 8]);
        let exchanged = stream.write_all(&sent).and_then(|()| stream.read_exact(&mut heard));
        exchanged.with_context(|| format!("the connection died after {} echoes", echoes.count))?;
        if heard != sent {
            bail!("the service answered {heard:?} to {sent:?}");
        }
        echoes = Echoes { count: echoes.count + 1, longest: echoes.longest.max(asked.elapsed()) };
        thread::sleep(EVERY);
    }
    Ok(echoes)
}
