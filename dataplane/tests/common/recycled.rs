//! Packets in buffers that are made once and go back to their pool when they are dropped, as mbufs do: taking one and
//! giving it back allocates nothing.

use std::sync::{Arc, Mutex};

use dataplane::packet::{Packet, PacketPool, RxChecksum};

const SIZE: usize = 2176;
const HEADROOM: usize = 128;

type Buffer = Box<[u8; SIZE]>;
type Free = Arc<Mutex<Vec<Buffer>>>;

/// A packet of a [`RecycledPool`].
#[derive(Debug)]
pub struct Recycled {
    /// Some until it is dropped.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// Whether it claims to be in one segment.
    pub contiguous: bool,
    free: Free,
}

impl Recycled {
    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..])
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        self.free.lock().unwrap().extend(self.buffer.take());
    }
}

impl Packet for Recycled {
    fn data(&self) -> &[u8] {
        &self.bytes()[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[start..end])
    }

    fn is_contiguous(&self) -> bool {
        self.contiguous
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        SIZE - self.end
    }

    fn prepend(&mut self, n: usize) -> bool {
        let start = self.start.checked_sub(n);
        self.start = start.unwrap_or(self.start);
        start.is_some()
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        self.start += if fits { n } else { 0 };
        fits
    }

    fn append(&mut self, n: usize) -> bool {
        let fits = n <= self.tailroom();
        self.end += if fits { n } else { 0 };
        fits
    }

    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    fn is_merged(&self) -> bool {
        false
    }

    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::Unknown
    }
}

/// A bounded pool of [`Recycled`] packets.
#[derive(Debug, Clone)]
pub struct RecycledPool {
    free: Free,
}

impl RecycledPool {
    /// A pool of this many packets.
    pub fn new(packets: usize) -> Self {
        let free = (0..packets).map(|_| Box::new([0; SIZE])).collect();
        RecycledPool { free: Arc::new(Mutex::new(free)) }
    }

    /// Packets that are not taken.
    pub fn free(&self) -> usize {
        self.free.lock().unwrap().len()
    }

    /// A packet holding `frame`.
    pub fn packet(&mut self, frame: &[u8]) -> Recycled {
        let mut packet = self.alloc().expect("a free packet");
        assert!(packet.append(frame.len()));
        packet.data_mut().copy_from_slice(frame);
        packet
    }
}

impl PacketPool for RecycledPool {
    type Packet = Recycled;

    fn alloc(&mut self) -> Option<Recycled> {
        let buffer = self.free.lock().unwrap().pop()?;
        let free = Arc::clone(&self.free);
        Some(Recycled { buffer: Some(buffer), start: HEADROOM, end: HEADROOM, contiguous: true, free })
    }
}
