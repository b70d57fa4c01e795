//! The control socket: HTTP and JSON over a Unix socket, which is what `turnpikectl` speaks. docs/control-socket.md describes
//! it for whoever else wants to.
//!
//! Promises:
//! - Nothing that a client does reaches a worker, or delays the control thread, by more than a bounded piece of work. The
//!   server has a thread of its own, reads the counters itself, asks the control thread for the rest ([`Request`]), and waits for
//!   it; the control thread never waits for the server.
//! - A list is never gathered: each step of a [`Walk`](dataplane::session::walk::Walk) is sent before the next is asked for, so a client that reads
//!   slowly slows its own list down and nothing else.
//! - Everyone may connect, and who may do what is judged by the peer's credentials ([`Readers`]).
//! - Connections are bounded, those of each user apart: nobody can keep root out.

mod answer;
mod client;
mod filter;
mod listing;
mod request;
mod rights;
mod rows;
mod socket;
pub mod types;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

pub use client::{Client, ClientError, Reply};
pub use request::{Answer, NEIGHBOURS, Neighbours, Request, View, Walked};
pub use rights::{Peer, Readers};
pub use socket::{Socket, SocketError};

use crate::http::{self, ServerThread};

/// Requests that may wait for the control thread.
pub const REQUESTS: usize = 64;

/// How long a connection lasts at most: a list that is not read in this time is broken off.
const CONNECTION_TIME: Duration = Duration::from_secs(600);

/// Connections at once: of one user, and of all but root.
const CONNECTIONS: Shares = Shares { each: 8, all: 32 };

/// Walks at once: of one user, and of all but root.
const WALKS: Shares = Shares { each: 2, all: 4 };

/// A running server. Dropping it stops it, and removes the socket.
#[derive(Debug)]
pub struct Server {
    _thread: ServerThread,
    _socket: Socket,
}

impl Server {
    /// Answers on `socket`, from a thread of its own, with what the taker of `requests` says.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(socket: Socket, requests: Sender<Request>) -> Result<Self, SocketError> {
        let listener = socket.listener.try_clone().map_err(SocketError::Thread)?;
        let desk = Arc::new(Desk {
            readers: socket.readers.clone(),
            requests,
            connections: Places::new(CONNECTIONS),
            walks: Places::new(WALKS),
        });
        let thread = ServerThread::start("control-socket", move || serve(listener, desk));
        Ok(Server { _thread: thread.map_err(SocketError::Thread)?, _socket: socket })
    }
}

/// What every connection works with.
#[derive(Debug)]
struct Desk {
    readers: Readers,
    requests: Sender<Request>,
    connections: Arc<Places>,
    walks: Arc<Places>,
}

async fn serve(listener: std::os::unix::net::UnixListener, desk: Arc<Desk>) {
    let listener = tokio::net::UnixListener::from_std(listener).expect("in a runtime with I/O");
    loop {
        let (stream, _) = http::accepted(|| listener.accept()).await;
        let Ok(credentials) = stream.peer_cred() else { continue };
        let peer = Peer { uid: credentials.uid(), gid: credentials.gid() };
        // One too many is closed unheard.
        let Some(place) = desk.connections.take(peer) else { continue };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            http::connection(stream, CONNECTION_TIME, |request| answer::answer(Arc::clone(&desk), peer, request)).await;
            drop(place);
        });
    }
}

/// How many of something there may be at once.
#[derive(Clone, Copy, Debug)]
struct Shares {
    /// Of one user.
    each: usize,
    /// Of all users but root.
    all: usize,
}

/// Places that users take, each a share of them.
#[derive(Debug)]
struct Places {
    shares: Shares,
    taken: Mutex<HashMap<u32, usize>>,
}

impl Places {
    fn new(shares: Shares) -> Arc<Self> {
        Arc::new(Places { shares, taken: Mutex::default() })
    }

    /// A place for `peer`, if there is one.
    fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let others: usize = taken.iter().filter(|&(&uid, _)| uid != 0).map(|(_, taken)| taken).sum();
        let own = taken.entry(peer.uid).or_default();
        if *own >= self.shares.each || (peer.uid != 0 && others >= self.shares.all) {
            return None;
        }
        *own += 1;
        Some(Place { places: Arc::clone(self), uid: peer.uid })
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_another_s_place_and_root_s_are_always_there() {
        let places = Places::new(Shares { each: 2, all: 3 });
        let take = |uid| places.take(Peer { uid, gid: uid });
        let taken = [take(1), take(1), take(2)];
        assert!(taken.iter().all(Option::is_some));
        assert!(take(1).is_none() && take(2).is_none() && take(3).is_none());
        let root = [take(0), take(0), take(0)];
        assert_eq!(root.map(|place| place.is_some()), [true, true, false]);
        drop(taken);
        assert!(take(3).is_some());
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
