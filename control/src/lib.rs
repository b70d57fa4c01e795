//! Turnpike's control thread: what the configuration file says, the host that the gateway is, and what it reports.
#![deny(unsafe_code)]

pub mod config;
