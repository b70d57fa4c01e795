//! Raw bindings to the DPDK that pkg-config finds: the functions that `dataplane::dpdk` calls (and a few for `perf`) and the types and
//! constants that they need. No logic; see README.md for versions and linking.
#![allow(missing_docs, missing_debug_implementations, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::cast_possible_truncation)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
