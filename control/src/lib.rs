//! Turnpike's control plane: what runs beside the workers, never on the packet's way.
//!
//! [`config`] is what the configuration file says. [`host`] is the gateway as a host of its own: neighbours, pings, and what
//! is addressed to the box itself. [`capture`] reads and writes packet captures. [`metrics`] is what Prometheus sees.
//! [`api`] is what `turnpikectl` speaks to. [`doctor`] is what a machine should be like. [`run`] is the gateway at work,
//! [`replay`] the gateway in virtual time.
#![deny(unsafe_code)]

pub mod api;
pub mod capture;
pub mod config;
pub mod doctor;
pub mod host;
mod http;
pub mod metrics;
pub mod replay;
pub mod run;
