//! The bodies of the fuzz targets. Each takes any bytes, and panics where a promise is broken.

mod bytes;
mod capture;
mod config;
mod engine;
mod host;
mod parser;

pub use capture::capture;
pub use config::config;
pub use engine::engine;
pub use host::host;
pub use parser::parser;

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its program and of its corpus' directory.
pub const TARGETS: [(&str, Target); 5] =
    [("parser", parser), ("engine", engine), ("config", config), ("host", host), ("capture", capture)];
