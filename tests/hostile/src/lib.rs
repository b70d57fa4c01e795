//! Malformed frames for a gateway, and what is done with them: shared by tests and fuzzing.
//!
//! [`Catalogue`] holds every kind of malformed frame one by one, [`Stream`] plays them and goes on at random for as long as is
//! wanted; both are the same at every run. They are made for the gateway of [`scene::CONFIG`], and for the flows that
//! [`scene::proper`] opens there. [`check`] says whether what such a gateway sends is well-formed.
//!
//! [`targets`] are the bodies of the fuzz targets in tests/fuzz: ordinary functions, so that their corpora are also played by
//! `cargo test`.

pub mod build;
pub mod catalogue;
pub mod check;
pub mod random;
pub mod scene;
pub mod stream;
pub mod targets;

pub use catalogue::Catalogue;
pub use stream::Stream;
