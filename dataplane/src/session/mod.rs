//! Sessions.

pub mod bits;
pub mod index;
#[allow(unsafe_code)]
pub mod prefetch;
pub mod slab;
pub mod wheel;
