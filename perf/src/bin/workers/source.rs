//! A port that makes its packets itself, and takes back what it is given to send.

use std::sync::{Arc, Mutex, PoisonError};

use dataplane::dpdk::{Mbuf, Mempool};
use dataplane::packet::{Packet, PacketPool};
use dataplane::worker::{Burst, Device};
use perf::frames::{End, Traffic, ends4};

/// Buffers that are kept at hand: more than a poll of all ports moves.
const STOCK: usize = 512;

/// What a port has sent while flows were opened: source and destination of each frame.
pub type Seen = Arc<Mutex<Vec<(End, End)>>>;

/// The port.
#[derive(Debug)]
pub struct Source {
    traffic: Option<Traffic>,
    /// Frames that it may still make.
    left: u64,
    stock: Vec<Mbuf>,
    pool: Mempool,
    /// Where it tells what it sends, while somebody wants to know.
    seen: Option<Seen>,
}

impl Source {
    /// One without traffic.
    pub fn new(pool: Mempool) -> Self {
        Source { traffic: None, left: 0, stock: Vec::with_capacity(STOCK), pool, seen: None }
    }

    /// Gives it traffic: each frame once, or for ever.
    pub fn play(&mut self, traffic: Option<Traffic>, for_ever: bool) {
        let once = traffic.as_ref().map_or(0, |it| it.len() as u64);
        self.left = if for_ever && once > 0 { u64::MAX } else { once };
        self.traffic = traffic;
    }

    /// Whether it has no more to make.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Tells from now on what it sends, or does not.
    pub fn tell(&mut self, seen: Option<Seen>) {
        self.seen = seen;
    }
}

impl Device for Source {
    type Packet = Mbuf;

    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        let Some(traffic) = &mut self.traffic else { return };
        while self.left > 0 && !burst.is_full() {
            let Some(mut packet) = self.stock.pop().or_else(|| self.pool.alloc()) else { return };
            packet.truncate(0);
            traffic.write(|length| {
                assert!(packet.append(length), "a frame fits a buffer");
                packet.data_mut()
            });
            burst.push(packet);
            self.left -= 1;
        }
    }

    fn transmit(&mut self, burst: &mut Burst<Mbuf>) {
        if let Some(seen) = &self.seen {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.extend(burst.iter().map(|packet| ends4(packet.data())));
        }
        let room = (STOCK - self.stock.len()).min(burst.len());
        self.stock.extend(burst.drain(..room));
        Packet::discard(burst);
    }
}
