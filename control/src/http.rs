//! HTTP/1.1 servers beside the control thread: one for metrics, one for the control socket.
//!
//! Promises:
//! - A server has a thread of its own, with an async runtime that no other thread knows; so no client holds up neighbour
//!   discovery, let alone a packet.
//! - Everything is bounded: the size of a request's head, the time in which it must be there, and the time that a connection
//!   lasts. A connection is one request and its answer. A request's body is never read.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// The time in which a request's head must be there.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// An answer's body: all at once, or as it comes.
pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes, io::Error>>;

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// A thread with a server in it. Dropping it ends the server and all its connections.
#[derive(Debug)]
pub(crate) struct ServerThread {
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    /// Runs what `serve` gives, in the thread's runtime, until it ends or this is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread, or what a runtime needs.
    pub(crate) fn start<F>(name: &str, serve: impl FnOnce() -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let work = move || {
            runtime.block_on(async {
                let serve = pin!(serve());
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
            // Without waiting for threads that look users up.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(ServerThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it is reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// What `accept` gives, tried again after an error that is not the connection's own: the system is out of descriptors, say.
pub(crate) async fn accepted<T, F>(accept: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// Reads a request, and sends what `answer` makes of it. The connection lasts `longest` at most.
pub(crate) async fn connection<S, A, F>(stream: S, longest: Duration, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off, or is too slow, has no use for an error.
    let _ = tokio::time::timeout(longest, connection).await;
}
