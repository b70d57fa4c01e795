//! Routes.

pub mod trie;
