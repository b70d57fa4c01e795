//! Safe owners over dpdk-sys.
