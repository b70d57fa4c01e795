//! Hostile frames without end.

use crate::catalogue::{Catalogue, seal};
use crate::random::Random;
use crate::scene::{self, Side};

/// A proper frame comes after this many hostile ones, so that sessions, mappings and forwards are always there to be hit.
pub const PROPER_EVERY: usize = 15;

/// Frames in an order that follows from a seed: first the proper traffic once, then the catalogue, each frame once, and then
/// frames of it that are spoiled further, at random. Proper traffic goes on in between.
#[derive(Debug)]
pub struct Stream {
    catalogue: Catalogue,
    /// The catalogue's frames that are still to come, in order.
    order: Vec<usize>,
    proper: Vec<(Side, Vec<u8>)>,
    sent: usize,
    random: Random,
    spoiled: Vec<u8>,
}

impl Stream {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let catalogue = Catalogue::new();
        let mut random = Random::new(seed);
        let mut order: Vec<usize> = (0..catalogue.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at + 1));
        }
        Stream { catalogue, order, proper: scene::proper(), sent: 0, random, spoiled: Vec::new() }
    }

    /// The next frame, and the side that it arrives at.
    pub fn frame(&mut self) -> (Side, &[u8]) {
        let (at, len) = (self.sent, self.proper.len());
        self.sent += 1;
        let proper =
            if at < len { Some(at) } else { (at % (PROPER_EVERY + 1) == 0).then_some(at / (PROPER_EVERY + 1) % len) };
        if let Some(proper) = proper {
            let (side, frame) = &self.proper[proper];
            return (*side, frame);
        }
        match self.order.pop() {
            Some(index) => self.catalogue.get(index).unwrap_or((Side::Inside, &[0])),
            None => self.spoil(),
        }
    }

    /// A frame of the catalogue with some more bytes of its headers changed, cut off, or lengthened.
    fn spoil(&mut self) -> (Side, &[u8]) {
        let (random, spoiled) = (&mut self.random, &mut self.spoiled);
        let index = random.below(self.catalogue.len());
        let (side, frame) = self.catalogue.get(index).unwrap_or((Side::Inside, &[0]));
        spoiled.clear();
        spoiled.extend_from_slice(frame);
        for _ in 0..=random.below(3) {
            // Behind the Ethernet addresses, mostly.
            let first = if random.below(16) == 0 { 0 } else { 12 };
            let at = first + random.below(spoiled.len().min(100).saturating_sub(first));
            if let Some(byte) = spoiled.get_mut(at) {
                *byte = match random.below(4) {
                    0 => *byte ^ 1 << random.below(8),
                    1 => [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    _ => random.byte(),
                };
            }
        }
        match random.below(8) {
            0 => spoiled.truncate(random.below(spoiled.len()).max(1)),
            1 => spoiled.resize(spoiled.len() + random.below(64), 0),
            _ => {}
        }
        if random.below(2) == 0 {
            seal(spoiled);
        }
        (side, spoiled)
    }
}
