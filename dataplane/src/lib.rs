//! Turnpike's data plane: the library that moves and rewrites packets.
//!
//! The rooms, in the order in which a packet walks through them: [`dpdk`] (ports), [`packet`] (views and parsing),
//! [`steer`] (which shard owns it), [`session`] (the flow it belongs to), [`policy`] (what to do on a miss), [`pool`]
//! (external addresses and ports), [`translate`] (the rewriting), [`fragment`] (parts of datagrams), [`route`] (where it goes next). [`engine`] is the walk
//! itself and [`worker`] the poll loop around it. [`plan`] is the compiled configuration that all of them read,
//! [`counters`] what they count ([`stages`]: where cycles go), [`message`] what they say to the control thread.
//!
//! The engine does no I/O and owns no clock: every call takes `now`.
#![deny(unsafe_code)]

pub mod counters;
#[allow(unsafe_code)]
pub mod dpdk;
pub mod engine;
pub mod fragment;
pub mod message;
pub mod packet;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod route;
pub mod session;
pub mod stages;
pub mod steer;
pub mod time;
pub mod trace;
pub mod translate;
pub mod worker;
