//! Finds the system's DPDK with pkg-config, generates bindings for the names below, and compiles the wrappers.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Everything that `dataplane::dpdk` calls or names, and in the last line what `perf` compares our tables with.
const FUNCTIONS: &str = "dpdk_(errno|eth_link_get_nowait|log_to|has_flow_rules|flow|flow_destroy)|rte_log_cur_msg_loglevel\
    |rte_eal_(init|get_runtime_dir|alarm_set)|rte_thread_(un)?register|rte_lcore_id|rte_rdtsc|rte_get_tsc_hz|rte_dev_(probe|remove)\
    |rte_pktmbuf_(pool_create|alloc|free|free_bulk)|rte_mempool_in_use_count\
    |rte_eth_(rx|tx)_burst|rte_eth_(rx|tx)_queue_setup|rte_eth_dev_(configure|start|stop|close|info_get|socket_id)\
    |rte_eth_dev_(rss_reta_update|get_port_by_name|adjust_nb_rx_tx_desc|default_mac_addr_set|mac_addr_add|set_mtu|get_mtu)\
    |rte_eth_dev_conf_get|rte_eth_(macaddr_get|promiscuous_(enable|disable)|allmulticast_enable|stats_get)\
    |rte_hash_(create|free|lookup_with_hash_bulk_data|add_key_with_hash_data|del_key_with_hash)|rte_malloc_get_socket_stats";
const CONSTANTS: &str = "DPDK_.*|LCORE_ID_ANY|RTE_LOG_(WARNING|NOTICE)|RTE_PKTMBUF_HEADROOM|RTE_ETH_SPEED_NUM_UNKNOWN\
    |RTE_HASH_EXTRA_FLAGS_EXT_TABLE|RTE_ETH_HASH_FUNCTION_TOEPLITZ\
    |RTE_FLOW_ITEM_TYPE_(END|ETH|IPV4|IPV6|UDP|TCP)|RTE_FLOW_ACTION_TYPE_(END|RSS)";

fn main() {
    println!("cargo:rerun-if-changed=dpdk.h");
    if let Err(error) = pkg_config::Config::new().atleast_version("22.11").probe("libdpdk") {
        eprintln!(
            "{error}\n\nDPDK 22.11 or newer is needed. On Debian: apt install libdpdk-dev pkg-config libclang-dev gcc"
        );
        std::process::exit(1);
    }
    if let Ok(directory) = pkg_config::get_variable("libdpdk", "pcfiledir") {
        println!("cargo:rerun-if-changed={directory}/libdpdk.pc"); // another release has other bindings
    }
    // The pkg-config crate drops `-march=` and `-include rte_config.h`, and DPDK's headers need both.
    let pkg_config = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(pkg_config).args(["--cflags", "libdpdk"]).output().expect("pkg-config has just run");
    let cflags = String::from_utf8(output.stdout).expect("pkg-config speaks UTF-8");
    let cflags: Vec<&str> = cflags.split_whitespace().collect();

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let wrappers = out.join("wrappers.c");
    bindgen::Builder::default()
        .header("dpdk.h")
        .clang_args(&cflags)
        .allowlist_function(FUNCTIONS)
        .allowlist_var(CONSTANTS)
        .allowlist_type("dpdk_mbuf_offset|rte_flow_(item|action|action_rss)")
        .opaque_type("rte_mbuf|rte_mempool|rte_device")
        .blocklist_type("rte_(mbuf|mempool|device)__bindgen_ty.*")
        .prepend_enum_name(false)
        .wrap_static_fns(true)
        .wrap_static_fns_path(&wrappers)
        .generate()
        .expect("bindings for DPDK")
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR is writable");

    let mut cc = cc::Build::new();
    for flag in &cflags {
        cc.flag(flag);
    }
    cc.file(&wrappers).include(".").compile("dpdk_wrappers");
}
