//! Where a packet goes next: longest prefix match ([`trie`], read through the plan), then the neighbour
//! ([`neighbour`]) whose link-layer address its frame is sent to.

pub mod neighbour;
pub mod trie;
