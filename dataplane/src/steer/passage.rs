//! What must be known of a packet, beside what it says itself, to process it from the start: elsewhere, or later.

use super::hand_over::Turn;
use crate::fragment::Lent;

/// How far a packet has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// What is left to be done with it.
    pub turn: Turn,
    /// Of a fragment: what the first one of its datagram said, if that is known.
    pub lent: Option<Lent>,
}

impl Passage {
    /// Of a packet as it came in.
    pub const FIRST: Passage = Passage { turn: Turn::First, lent: None };
}
