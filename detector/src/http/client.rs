//! Asks a running agent over its Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, select, time::timeout};

use super::api::Problem;

/// The longest answer that is read, in bytes: a hundred thousand rows.
const ANSWER_LIMIT: usize = 64 << 20;
/// How long an answer may take. The agent has it ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change may take: the agent may wait a minute for the lease database.
const CHANGE_PATIENCE: Duration = Duration::from_secs(75);

/// The agent's Unix socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why the agent did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the agent at {}: {source}", .socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is not for us.
    #[error("{} is only for root and group dupip", .0.display())]
    NotPermitted(PathBuf),
    /// It listens, but does not answer.
    #[error("the agent did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The answer broke off.
    #[error("the agent's answer broke off: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what was asked for.
    #[error("the agent's answer cannot be understood: {0}")]
    Garbled(#[from] serde_json::Error),
    /// The agent says why not.
    #[error("{}", .0.detail)]
    Refused(Problem),
}

impl Client {
    /// Asks the agent that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// What the agent answers to `path`.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer in time, or says why not.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        within(PATIENCE, self.send(Method::GET, path, Vec::new())).await
    }

    /// What the agent answers to `path`, as text: for `/metrics`, which is no JSON.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (status, body) = within(PATIENCE, self.exchange(Method::GET, path, Vec::new())).await?;
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            false => Err(refusal(status, &body)),
        }
    }

    /// The process that listens there, by the kernel's word; `None` if it is in a PID namespace that is not seen from here.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn process(&self) -> Result<Option<u32>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| unreachable(&self.socket, source))?;
        let peer = stream.peer_cred().map_err(broken)?;
        Ok(peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0))
    }

    /// What the agent answers to `path`, if it was asked to take its time and may wait so long.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer in time, or says why not.
    pub async fn wait_for<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, ClientError> {
        within(wait + PATIENCE, self.send(Method::GET, path, Vec::new())).await
    }

    /// What the agent answers to a request for a change.
    ///
    /// # Errors
    /// When it cannot be reached, does not answer in time, or says why not. A change that was not answered may have been
    /// made.
    pub async fn change<T: DeserializeOwned>(&self, path: &str, change: &impl Serialize) -> Result<T, ClientError> {
        within(CHANGE_PATIENCE, self.send(Method::POST, path, serde_json::to_vec(change)?)).await
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        let (status, body) = self.exchange(method, path, body).await?;
        understand(status, &body)
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| unreachable(&self.socket, source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "dupip")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        let answer = async { read(sender.send_request(request).await.map_err(broken)?).await };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        select! {
            answer = &mut answer => answer,
            // The connection may end before the last of the answer is taken from it.
            _ = &mut connection => answer.await,
        }
    }
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    timeout(patience, answer).await.unwrap_or(Err(ClientError::Late(patience)))
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(ClientError::Broken)?;
    Ok((status, body.to_bytes()))
}

fn understand<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if status.is_success() {
        return Ok(serde_json::from_slice(body)?);
    }
    Err(refusal(status, body))
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let said_otherwise = |_| Problem::new(status, format!("the agent answered {status}"));
    ClientError::Refused(serde_json::from_slice(body).unwrap_or_else(said_otherwise))
}

fn unreachable(socket: &Path, source: io::Error) -> ClientError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(socket.to_owned()),
        _ => ClientError::Unreachable { socket: socket.to_owned(), source },
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(error.into())
}

/// An interface's name as a query takes it: whatever could mean something else there as `%` and its bytes (RFC 3986,
/// section 2.1).
#[must_use]
pub fn encoded(name: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_nothing_else_in_a_query() {
        assert_eq!(encoded("br-0.a_b"), "br-0.a_b");
        assert_eq!(encoded("a&b=\u{fc}"), "a%26b%3D%C3%BC");
    }
}
