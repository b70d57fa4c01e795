//! Raw bindings to the DPDK found by pkg-config.
