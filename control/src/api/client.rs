//! The other end of the socket, for `turnpikectl` and tests: one request, and its answer as it comes.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use super::types::Refusal;

/// How long the gateway may take to begin an answer: more than the server gives itself.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// There is no answer, or it is a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no turnpike answers on {path}: {problem}; start it (systemctl start turnpike, or turnpike run), or name its control.socket with --socket"
    )]
    Absent {
        /// The path.
        path: PathBuf,
        /// What was found there.
        problem: &'static str,
    },
    /// The connection failed.
    #[error("{path}: {problem}")]
    Connection {
        /// The path.
        path: PathBuf,
        /// How.
        problem: String,
    },
    /// The gateway says no.
    #[error("{}{}", refusal.error, refusal.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
    Refused {
        /// The answer's HTTP status.
        status: u16,
        /// Why, and what to do.
        refusal: Refusal,
    },
}

impl ClientError {
    /// Whether the request itself was wrong.
    #[must_use]
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, ClientError::Refused { status: 400, .. })
    }
}

/// A client of the gateway with its socket at a path.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When the system lacks what the client needs.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Client { path: path.to_owned(), runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Sends a request; gives its answer, whose body is read from the [`Reply`].
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub fn request(&self, method: Method, path: &str) -> Result<Reply<'_>, ClientError> {
        let response = self.runtime.block_on(async {
            let exchange = tokio::time::timeout(ANSWER_TIME, self.exchange(method, path));
            exchange.await.unwrap_or_else(|_| Err(self.failed("the gateway does not answer; look at its log")))
        })?;
        let status = response.status();
        let mut reply = Reply { client: self, body: response.into_body(), read: Vec::new() };
        if status == StatusCode::OK {
            return Ok(reply);
        }
        let refusal =
            reply.object().map_err(|_| self.failed(format!("HTTP status {status} without a word: no turnpike?")))?;
        Err(ClientError::Refused { status: status.as_u16(), refusal })
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unconnected(&error))?;
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|error| self.failed(error.to_string()))?;
        // Its errors come out of the answer's body too.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, "turnpike").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.failed(error.to_string()))?;
        let broken = |error: hyper::Error| {
            // It closes at once what is too much.
            self.failed(format!(
                "the gateway has broken off ({error}); too many connections at once, perhaps: try again"
            ))
        };
        sender.send_request(request).await.map_err(broken)
    }

    fn unconnected(&self, error: &io::Error) -> ClientError {
        let absent = |problem| ClientError::Absent { path: self.path.clone(), problem };
        match error.kind() {
            ErrorKind::NotFound => absent("there is no such socket"),
            ErrorKind::ConnectionRefused => absent("it is the socket of one that has ended"),
            _ => self.failed(error.to_string()),
        }
    }

    fn failed(&self, problem: impl Into<String>) -> ClientError {
        ClientError::Connection { path: self.path.clone(), problem: problem.into() }
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Reply<'a> {
    client: &'a Client,
    body: Incoming,
    /// What has come, and not been given away.
    read: Vec<u8>,
}

impl Reply<'_> {
    /// All of the body, which is one JSON object.
    ///
    /// # Errors
    /// When the connection breaks off, or it is no such object.
    pub fn object<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        while self.more()? {}
        serde_json::from_slice(&self.read).map_err(|error| self.client.failed(format!("not understood: {error}")))
    }

    /// The next lines of the body, at least one, each with its end; none at the end.
    ///
    /// # Errors
    /// When the connection breaks off: what has come is not all.
    pub fn lines(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(last) = self.read.iter().rposition(|&byte| byte == b'\n') {
                let rest = self.read.split_off(last + 1);
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Reads on. False: that was all.
    fn more(&mut self) -> Result<bool, ClientError> {
        let frame = self.client.runtime.block_on(self.body.frame());
        match frame {
            None => Ok(false),
            Some(Ok(frame)) => {
                self.read.extend(frame.data_ref().map_or(&[][..], |data| data));
                Ok(true)
            }
            Some(Err(error)) => {
                let problem = format!(
                    "the gateway has broken off, so this is not all ({error}): it was stopped, or waited too long for the reader"
                );
                Err(self.client.failed(problem))
            }
        }
    }
}
