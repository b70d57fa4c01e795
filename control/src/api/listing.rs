//! Lists, sent as they come: a JSON object on each line.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::plan::InterfaceId;
use dataplane::session::walk::{Action, Filter, Walk};
use http_body_util::Either;
use http_body_util::channel::{Channel, Sender};
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::answer::Problem;
use super::request::{NEIGHBOURS, Request, View, Walked};
use super::{Desk, Place, rows};
use crate::http::Body;

/// RFC 9110's type for a list of JSON values does not exist; this one is the usual.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Bytes after which lines are sent.
const CHUNK: usize = 16 << 10;

/// Chunks that may wait for the client. While they do, nothing more is asked for.
const CHUNKS: usize = 4;

/// The lines of an answer on their way.
struct Lines {
    sender: Sender<Bytes, io::Error>,
    ready: Vec<u8>,
}

impl Lines {
    /// Adds a line. Waits while the client has enough to read.
    async fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.ready, row)?;
        self.ready.push(b'\n');
        if self.ready.len() >= CHUNK { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> io::Result<()> {
        let lines = std::mem::replace(&mut self.ready, Vec::with_capacity(CHUNK + CHUNK / 4));
        self.sender.send_data(lines.into()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the answer, or breaks it off, so that no client takes half a list for a whole one.
    async fn end(mut self, result: io::Result<()>) {
        let sent = match result {
            Ok(()) if !self.ready.is_empty() => self.send().await,
            result => result,
        };
        if let Err(error) = sent {
            self.sender.abort(error);
        }
    }
}

/// An answer that `produce` writes.
fn list<F>(produce: impl FnOnce(Lines) -> F) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, body) = Channel::new(CHUNKS);
    tokio::spawn(produce(Lines { sender, ready: Vec::new() }));
    let mut response = Response::new(Either::Right(body));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    response
}

/// The rows that `rows` makes of a view.
pub(super) fn of<R>(
    view: View,
    rows: impl for<'a> FnOnce(&'a View) -> Box<dyn Iterator<Item = R> + Send + 'a> + Send + 'static,
) -> Response<Body>
where
    R: Serialize + Send + Sync,
{
    list(|mut lines| async move {
        let mut sent = Ok(());
        for row in rows(&view) {
            sent = lines.row(&row).await;
            if sent.is_err() {
                break;
            }
        }
        lines.end(sent).await;
    })
}

/// Sessions or mappings, as the walk has it.
pub(super) fn table(walker: Walker) -> Response<Body> {
    async fn write(lines: &mut Lines, mut walker: Walker) -> io::Result<()> {
        let mut walk = walker.begin();
        while let Some(step) = walker.step(walk).await? {
            for row in &step.walk.sessions {
                lines.row(&rows::session(row, &step.plan)).await?;
            }
            for row in &step.walk.mappings {
                lines.row(&rows::mapping(row, &step.plan)).await?;
            }
            walk = step.walk;
        }
        Ok(())
    }
    list(|mut lines| async move {
        let sent = write(&mut lines, walker).await;
        lines.end(sent).await;
    })
}

/// Neighbours, some at a time.
pub(super) fn neighbours(desk: Arc<Desk>) -> Response<Body> {
    async fn write(lines: &mut Lines, desk: &Desk) -> io::Result<()> {
        let mut after: Option<(InterfaceId, IpAddr)> = None;
        loop {
            let some = desk.ask(|answer| Request::Neighbours { after, answer }).await?;
            for neighbour in &some.neighbours {
                lines.row(&rows::neighbour(neighbour, &some)).await?;
            }
            match some.neighbours.last() {
                Some(last) if some.neighbours.len() == NEIGHBOURS => after = Some((last.interface, last.address)),
                _ => return Ok(()),
            }
        }
    }
    list(|mut lines| async move {
        let sent = write(&mut lines, &desk).await;
        lines.end(sent).await;
    })
}

/// A walk through the shards of all workers, one after the other, a step at a time.
#[derive(Debug)]
pub(super) struct Walker {
    desk: Arc<Desk>,
    _place: Place,
    action: Action,
    filter: Filter,
    worker: usize,
    met: u64,
}

impl Walker {
    pub(super) fn new(desk: Arc<Desk>, place: Place, action: Action, filter: Filter) -> Self {
        Walker { desk, _place: place, action, filter, worker: 0, met: 0 }
    }

    /// What the first step takes.
    fn begin(&self) -> Box<Walk> {
        Box::new(Walk::new(0, self.action, self.filter))
    }

    /// The next step after that which brought `walk`; none at the end.
    async fn step(&mut self, mut walk: Box<Walk>) -> Result<Option<Walked>, Problem> {
        if walk.done {
            self.met += walk.met;
            self.worker += 1;
            walk = self.begin();
        }
        let worker = self.worker;
        self.desk.ask(|answer| Request::Walk { worker, walk, answer }).await
    }

    /// All steps; how many records were met.
    pub(super) async fn finish(mut self) -> Result<u64, Problem> {
        let mut walk = self.begin();
        while let Some(step) = self.step(walk).await? {
            walk = step.walk;
        }
        Ok(self.met)
    }
}
