//! What memory alone costs on this machine: the same number of random lines as a session's packet must touch.

use arrayvec::ArrayVec;
use dataplane::session::pages::make_huge;
use dataplane::session::prefetch::prefetch;
use dataplane::worker::BURST;

use perf::clock;
use perf::figures::Window;
use perf::frames::permutation;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Lines in a segment of buckets.
const BUCKETS: usize = 64;
/// Sessions in a segment.
const SESSIONS: usize = 32;

/// Buckets of 64 bytes, each naming one of as many sessions of 128 bytes; both in no order. Their memory is as the engine's:
/// segments of 4 KiB, on huge pages where there are any.
#[derive(Debug)]
pub struct Floor {
    buckets: Vec<Box<[Line; BUCKETS]>>,
    sessions: Vec<Box<[[Line; 2]; SESSIONS]>>,
    order: Vec<usize>,
    next: usize,
}

impl Floor {
    /// Tables for this many flows, all touched.
    pub fn new(flows: usize) -> Floor {
        let named = permutation(flows, 1);
        let bucket = |at| Line([*named.get(at).unwrap_or(&0) as u64; 8]);
        let buckets: Vec<_> = (0..flows.div_ceil(BUCKETS))
            .map(|segment| Box::new(std::array::from_fn(|at| bucket(segment * BUCKETS + at))))
            .collect();
        let sessions: Vec<_> = (0..flows.div_ceil(SESSIONS)).map(|_| Box::new([[Line([0; 8]); 2]; SESSIONS])).collect();
        make_huge(&buckets);
        make_huge(&sessions);
        Floor { buckets, sessions, order: permutation(flows, 2), next: 0 }
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
                prefetch(&self.buckets[flow / BUCKETS][flow % BUCKETS]);
            }
            let mut sessions = ArrayVec::<usize, BURST>::new();
            for &flow in &flows {
                let bucket = &self.buckets[flow / BUCKETS][flow % BUCKETS];
                let session = usize::try_from(bucket.0[flow % 8]).unwrap_or(0);
                prefetch(&self.sessions[session / SESSIONS][session % SESSIONS]);
                sessions.push(session);
            }
            for session in sessions {
                let line = &mut self.sessions[session / SESSIONS][session % SESSIONS][0];
                line.0[session % 8] += 1;
            }
            spent.push(clock::ticks() - start);
        }
        Window::new(spent, BURST)
    }
}
