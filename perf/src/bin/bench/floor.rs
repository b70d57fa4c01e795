//! What memory alone costs on this machine: the same number of random lines as a session's packet must touch.

use arrayvec::ArrayVec;
use dataplane::session::memory::Segment;
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
const BUCKETS: usize = 256;
/// Sessions in a segment.
const SESSIONS: usize = 256;

/// Buckets of 64 bytes, each naming one of as many sessions of 64 bytes; both in no order. Their memory is as the engine's:
/// segments of 16 KiB, on huge pages where there are any.
#[derive(Debug)]
pub struct Floor {
    buckets: Vec<Segment<Line, BUCKETS>>,
    sessions: Vec<Segment<Line, SESSIONS>>,
    order: Vec<usize>,
    next: usize,
}

impl Floor {
    /// Tables for this many flows, all touched.
    pub fn new(flows: usize) -> Floor {
        let named = permutation(flows, 1);
        let bucket = |at| Line([*named.get(at).unwrap_or(&0) as u64; 8]);
        let mut buckets = Segment::take(flows.div_ceil(BUCKETS), Line([0; 8]));
        for (number, segment) in buckets.iter_mut().enumerate() {
            for (at, line) in segment.records_mut().iter_mut().enumerate() {
                *line = bucket(number * BUCKETS + at);
            }
        }
        let sessions = Segment::take(flows.div_ceil(SESSIONS), Line([0; 8]));
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
                prefetch(&self.buckets[flow / BUCKETS].records()[flow % BUCKETS]);
            }
            let mut sessions = ArrayVec::<usize, BURST>::new();
            for &flow in &flows {
                let bucket = &self.buckets[flow / BUCKETS].records()[flow % BUCKETS];
                let session = usize::try_from(bucket.0[flow % 8]).unwrap_or(0);
                prefetch(&self.sessions[session / SESSIONS].records()[session % SESSIONS]);
                sessions.push(session);
            }
            for session in sessions {
                let line = &mut self.sessions[session / SESSIONS].records_mut()[session % SESSIONS];
                line.0[session % 8] += 1;
            }
            spent.push(clock::ticks() - start);
        }
        Window::new(spent, BURST)
    }
}
