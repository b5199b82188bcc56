//! Where the agent can be asked.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::{
    listening::{Listening, is_beyond_loopback},
    peer,
    reread::Unusable,
    secrets::Secrets,
};

/// The sockets that the agent listens on. The Unix socket's file goes with it.
#[derive(Debug)]
pub struct Endpoints {
    pub(super) unix: UnixListener,
    pub(super) file: SocketFile,
    pub(super) tcp: Vec<OverTcp>,
}

/// A TCP socket that the agent listens on.
#[derive(Debug)]
pub(super) struct OverTcp {
    pub(super) listener: TcpListener,
    /// What is asked of whoever comes from another machine; nothing on loopback.
    pub(super) secrets: Option<Arc<Secrets>>,
}

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there already.
    #[error("another agent is running: it answers on {}; stop it, or give this one another --socket", .0.display())]
    Running(PathBuf),
    /// What is there is no socket, and not ours to remove.
    #[error("{} is not a socket; move it away, or name another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The Unix socket cannot be made.
    #[error("cannot listen on {}: {source}", .path.display())]
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The TCP socket cannot be made.
    #[error("cannot listen on {address}: {source}; name another --listen, or turn it off with --listen none")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is nothing to keep strangers out with.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// A Unix socket's file, removed with its value.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever finds it all the same finds that nobody listens, and removes it.
        let _ = fs::remove_file(&self.0);
    }
}

impl Endpoints {
    /// Listens on a Unix socket, for root and group `dupip`, and on TCP where `listening` says. A socket that a dead agent
    /// has left behind is replaced.
    ///
    /// # Errors
    /// When another agent answers there, something else is in the way, a certificate or token is of no use, or the kernel
    /// refuses.
    pub async fn bind(socket: &Path, listening: &Listening) -> Result<Self, BindError> {
        // A second agent is told of the first, not of the port that the first has.
        clear(socket).await?;
        let tcp = over_tcp(listening).await?;
        let unix = open(socket).map_err(|source| BindError::Unix { path: socket.to_owned(), source })?;
        Ok(Self { unix, file: SocketFile(socket.to_owned()), tcp })
    }

    /// Where TCP is listened on, with the ports that the kernel chose if 0 was asked for.
    #[must_use]
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|tcp| tcp.listener.local_addr().ok()).collect()
    }
}

async fn over_tcp(listening: &Listening) -> Result<Vec<OverTcp>, BindError> {
    let secrets = listening.secrets().cloned().map(Secrets::open).transpose()?.map(Arc::new);
    let mut tcp = Vec::new();
    for &address in listening.addresses() {
        let listener = TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?;
        tcp.push(OverTcp { listener, secrets: secrets.clone().filter(|_| is_beyond_loopback(&address)) });
    }
    Ok(tcp)
}

/// Removes what a dead agent has left at `socket`, and nothing else.
async fn clear(socket: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Unix { path: socket.to_owned(), source };
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(socket.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(socket).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket).map_err(failed),
        Err(error) => Err(failed(error)),
        Ok(_) => Err(BindError::Running(socket.to_owned())),
    }
}

fn open(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory)?;
    }
    let listener = UnixListener::bind(socket)?;
    if let Some(group) = peer::group() {
        chown(socket, None, Some(group.as_raw()))?;
    }
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
