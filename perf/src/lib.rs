//! What the benchmarks share: a clock, frames, figures, and the matrix of what is measured.
//!
//! - `bench` measures the engine alone, on one core;
//! - `ports` measures the running gateway through memif ports, against testpmd in its place, and its workers over rings;
//! - `tables` measures the engine's flow table beside two others;
//! - `workers` measures several workers against as many processes of one;
//! - `report` puts the figures of all into tables and plots.
//!
//! perf/README.md says how, and what came of it.
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

pub mod clock;
pub mod figures;
pub mod frames;
pub mod machine;
pub mod matrix;
pub mod options;
pub mod plot;
pub mod scene;
pub mod stages;
