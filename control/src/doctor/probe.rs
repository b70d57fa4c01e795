//! What DPDK says of the configured ports: they are opened, asked, and closed again.

use dataplane::dpdk::{Capabilities, Eal, Hashing, Offloads, Port, available_cores};
use dataplane::steer::ShardMap;

use super::{Area, Finding, Findings};
use crate::config::Config;
use crate::run;

/// Opens the ports of a configuration as a start would, on this machine, and says what each can do.
///
/// The calling process can start DPDK once; and a port that a running gateway has can't be had. What keeps a start from
/// its ports is a finding too.
#[must_use]
pub fn probe(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::new(Area::Ports);
    let usable: Vec<u16> = available_cores().into_iter().filter_map(|core| core.try_into().ok()).collect();
    let workers = config.boot.cpu.worker_cores(&usable).len();
    match open(config, workers) {
        Ok((_, ports)) => {
            for (name, port) in &ports {
                let can = port.capabilities();
                device(name, port, &can, workers, &mut findings);
                capabilities(name, &can, &mut findings);
                uses(name, &port.info().offloads, &mut findings);
            }
        }
        Err(error) => {
            // DPDK's own words come line by line.
            let error = error.to_string();
            let error: Vec<&str> = error.lines().map(str::trim).collect();
            findings.check("open").fail(error.join("; "), "as it says; and stop a gateway that has the ports");
        }
    }
    findings.list
}

/// The ports, opened with a queue for each worker.
fn open(config: &Config, workers: usize) -> Result<(Eal, Vec<(String, Port)>), run::RunError> {
    let eal = run::start_dpdk(config, false)?;
    let pools = (0..workers).map(|_| run::packet_pool(eal, config)).collect::<Result<Vec<_>, _>>()?;
    let (ports, _queues) =
        run::open_ports(eal, config, &pools, &ShardMap::dealt(u8::try_from(workers).unwrap_or(u8::MAX)))?;
    Ok((eal, ports))
}

fn device(name: &str, port: &Port, can: &Capabilities, workers: usize, findings: &mut Findings) {
    let info = port.info();
    let link = port.link();
    let mut text =
        format!("{} by {}, {}, MTU {} of at most {}", info.device, info.driver, info.mac, info.mtu, can.max_mtu);
    if let Some(node) = info.numa_node {
        text.push_str(&format!(", node {node}"));
    }
    findings.on(name, "open").ok(text);
    let speed = link.speed_mbps.map_or(String::new(), |mbps| format!(", {mbps} Mbit/s"));
    if link.up {
        findings.on(name, "link").ok(format!("up{speed}"));
    } else {
        findings.on(name, "link").warn("down", "look at the cable, the transceiver and the other end");
    }
    let most = info.max_rx_queues.min(info.max_tx_queues);
    let workers = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    findings.on(name, "queues").ok(format!("{most} at most, for {workers}"));
}

fn capabilities(name: &str, can: &Capabilities, findings: &mut Findings) {
    if can.hashes.is_empty() {
        findings.on(name, "hashing").not_applicable("it spreads nothing by a hash of its own");
    } else {
        let table = match (can.reta_size, can.hash_key_size) {
            (0, _) => "no table that can be set".to_owned(),
            (entries, bytes) => format!("table of {entries}, key of {bytes} bytes"),
        };
        findings.on(name, "hashing").ok(format!("{}; {table}", can.hashes.join(", ")));
    }
    let steering = [
        ("IPv4 by source", can.source_only),
        ("IPv4 by destination and port", can.destination_only),
        ("IPv6 by source /64", can.source_prefix_only),
    ];
    let words = |hashing| match hashing {
        Hashing::No => "no",
        Hashing::ByConfiguration => "yes",
        Hashing::ByFlowRule => "by a flow rule",
    };
    let found: Vec<String> = steering.iter().map(|(what, how)| format!("{what}: {}", words(*how))).collect();
    let found = found.join("; ");
    if steering.iter().all(|(_, how)| *how == Hashing::No) {
        // Correctness never depends on it.
        findings.on(name, "steering").not_applicable(format!("{found}; workers hand packets over in software"));
    } else {
        findings.on(name, "steering").ok(found);
    }
    let rules = if can.flow_rules { "its driver has them" } else { "its driver has none" };
    findings.on(name, "flow-rules").ok(rules);
    let checksums = |can: [bool; 3]| {
        let names = ["IPv4", "UDP", "TCP"].into_iter().zip(can);
        let names: Vec<&str> = names.filter(|(_, can)| *can).map(|(name, _)| name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let found = format!("received: {}; sent: {}", checksums(can.rx_checksums), checksums(can.tx_checksums));
    findings.on(name, "checksums").ok(found);
    let lro =
        if can.lro { "the device can merge segments; Turnpike leaves that off" } else { "the device merges nothing" };
    findings.on(name, "lro").ok(lro);
}

/// What the port leaves to hardware, of what there is.
fn uses(name: &str, offloads: &Offloads, findings: &mut Findings) {
    let found = format!("the look at received checksums: {offloads}; checksums of what leaves are written in software");
    findings.on(name, "offloads").ok(found);
    if let Some(reason) = &offloads.merging {
        findings.on(name, "merging").warn(
            format!("the kernel may merge what the interface receives, and would not stop: {reason}"),
            "`ethtool -K IF gro off lro off`, IF being the port's interface",
        );
    }
}
