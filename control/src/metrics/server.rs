//! The HTTP side: a thread that answers scrapes and probes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use super::Metrics;
use crate::http::{self, Body, ServerThread, full};

/// Prometheus' text format.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Connections at once; others wait until one of these ends.
const CONNECTIONS: usize = 32;

/// How long a connection lasts at most.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// The metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not to be had.
    #[error("metrics.listen: {address}: {problem}; choose another address or port, or stop what holds it")]
    Bind {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        problem: io::Error,
    },
    /// No thread.
    #[error("metrics: no thread for it: {error}")]
    Thread {
        /// What the system said.
        error: io::Error,
    },
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _thread: ServerThread,
}

impl Server {
    /// Listens on `address` and answers from a thread of its own.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn start(address: SocketAddr, metrics: Metrics) -> Result<Self, ServeError> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (bound, listener) = bind().map_err(|problem| ServeError::Bind { address, problem })?;
        let thread = ServerThread::start("metrics", move || serve(listener, metrics));
        let thread = thread.map_err(|error| ServeError::Thread { error })?;
        Ok(Server { address: bound, _thread: thread })
    }

    /// Where it listens: tells the port if the configuration left it to the system.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, metrics: Metrics) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime with I/O");
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&free).acquire_owned().await.expect("never closed");
        let (stream, _) = http::accepted(|| listener.accept()).await;
        let metrics = metrics.clone();
        tokio::spawn(async move {
            http::connection(stream, CONNECTION_TIME, |request| {
                let answer = answer(&request, &metrics);
                async { answer }
            })
            .await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Body> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics.text()),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if metrics.is_ready() => (StatusCode::OK, "ready\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "not forwarding packets\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "see /metrics, /healthz and /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    response
}
