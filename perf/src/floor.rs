//! What memory alone costs on this machine: the same number of random lines as a session's packet must touch.

use arrayvec::ArrayVec;
use dataplane::session::prefetch::prefetch;
use dataplane::worker::BURST;

use crate::clock;
use crate::report::Window;
use crate::traffic::permutation;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Buckets of 64 bytes, each naming one of as many sessions of 128 bytes; both in no order.
#[derive(Debug)]
pub struct Floor {
    buckets: Vec<Line>,
    sessions: Vec<[Line; 2]>,
    order: Vec<usize>,
    next: usize,
}

impl Floor {
    /// Tables for this many flows, all touched.
    pub fn new(flows: usize) -> Floor {
        let buckets = permutation(flows, 1).into_iter().map(|session| Line([session as u64; 8])).collect();
        Floor { buckets, sessions: vec![[Line([0; 8]); 2]; flows], order: permutation(flows, 2), next: 0 }
    }

    /// Touches bucket and session of so many bursts of flows: all buckets prefetched, then all sessions, whose first line
    /// is then read and written.
    pub fn window(&mut self, bursts: usize) -> Window {
        let mut spent = Vec::with_capacity(bursts);
        for _ in 0..bursts {
            let flows: [usize; BURST] = std::array::from_fn(|_| {
                let flow = self.order[self.next];
                self.next = (self.next + 1) % self.order.len();
                flow
            });
            let start = clock::ticks();
            for &flow in &flows {
                prefetch(&self.buckets[flow]);
            }
            let mut sessions = ArrayVec::<usize, BURST>::new();
            for &flow in &flows {
                let session = usize::try_from(self.buckets[flow].0[flow % 8]).unwrap_or(0);
                prefetch(&self.sessions[session]);
                sessions.push(session);
            }
            for session in sessions {
                let line = &mut self.sessions[session][0];
                line.0[session % 8] += 1;
            }
            spent.push(clock::ticks() - start);
        }
        Window::new(spent, BURST)
    }
}
