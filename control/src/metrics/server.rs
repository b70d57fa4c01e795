//! The HTTP side: a thread that answers scrapes and probes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Method, Request, Response};

use super::Metrics;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is not to be had.
    #[error("metrics.listen: {address}: {problem}; choose another address or port, or stop what holds it")]
    Bind {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        problem: String,
    },
    /// No thread.
    #[error("metrics: no thread for it: {error}")]
    Thread {
        /// What the system said.
        error: io::Error,
    },
}

/// A running server. Dropping it stops it.
pub struct Server {
    http: Arc<tiny_http::Server>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).finish()
    }
}

impl Server {
    /// Listens on `address` and answers from a thread of its own.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn start(address: SocketAddr, metrics: Metrics) -> Result<Self, ServeError> {
        let http = tiny_http::Server::http(address)
            .map_err(|problem| ServeError::Bind { address, problem: problem.to_string() })?;
        let http = Arc::new(http);
        let listener = Arc::clone(&http);
        let serve = move || listener.incoming_requests().for_each(|request| answer(request, &metrics));
        let spawned = thread::Builder::new().name("metrics".to_owned()).spawn(serve);
        let thread = spawned.map_err(|error| ServeError::Thread { error })?;
        Ok(Server { http, thread: Some(thread) })
    }

    /// Where it listens: tells the port if the configuration left it to the system.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.http.server_addr().to_ip()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
        if let Some(thread) = self.thread.take() {
            // A panic in it is reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn answer(request: Request, metrics: &Metrics) {
    let path = request.url().split('?').next().unwrap_or_default();
    let (status, body) = match (request.method(), path) {
        (Method::Get | Method::Head, "/metrics") => (200, metrics.text()),
        (Method::Get | Method::Head, "/healthz") => (200, "ok\n".to_owned()),
        (Method::Get | Method::Head, "/readyz") if metrics.is_ready() => (200, "ready\n".to_owned()),
        (Method::Get | Method::Head, "/readyz") => (503, "not forwarding packets\n".to_owned()),
        (Method::Get | Method::Head, _) => (404, "see /metrics, /healthz and /readyz\n".to_owned()),
        _ => (405, "only GET and HEAD\n".to_owned()),
    };
    let mut response = Response::from_string(body).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", TEXT_FORMAT) {
        response.add_header(header);
    }
    // A client that has gone away has no use for an error.
    let _ = request.respond(response);
}
