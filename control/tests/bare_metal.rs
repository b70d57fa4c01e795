//! The gateways for testers on bare metal, as `turnpike check` judges them: files that nobody here can run are read all the same.
#![allow(missing_docs)]

use std::path::Path;
use std::process::Command;

/// What `turnpike check` says of a file, its runs of spaces made one.
fn report(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let output = Command::new(env!("CARGO_BIN_EXE_turnpike")).args(["check", file]).current_dir(root).output();
    let output = output.expect("it runs");
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaint.is_empty(), "{file}: {complaint}");
    said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// Testers answer neither ARP nor neighbour discovery: all that they send from, and to, is behind a neighbour in the file.
#[test]
fn gateways_for_testers() {
    for file in ["perf/bare-metal/routed.yaml", "perf/bare-metal/nat44.yaml"] {
        let report = report(file);
        for (network, neighbour, interface) in [
            ("198.18.0.0/16", "192.0.2.2", "inside"),
            ("198.19.0.0/16", "192.0.2.6", "outside"),
            ("16.0.0.0/8", "192.0.2.2", "inside"),
            ("48.0.0.0/8", "192.0.2.6", "outside"),
            ("2001:2::/49", "fd00:1::2", "inside"),
            ("2001:2:0:8000::/49", "fd00:2::2", "outside"),
        ] {
            let route = format!("{network} {neighbour} on interface {interface} routes\n");
            assert!(report.contains(&route), "{file}: no {route:?} in:\n{report}");
        }
    }
    // No session ends by itself during a trial, and the next trial finds all ports free (RFC 9693).
    let report = report("perf/bare-metal/nat44.yaml");
    for line in ["UDP 2h\n", "freed port, before it is used again 0s\n"] {
        assert!(report.contains(line), "no {line:?} in:\n{report}");
    }
    // 160 addresses of 65,535 ports, by CSIT's scheme for 160 x 64,512 mappings.
    let pool = "public 203.0.113.0-203.0.113.159 160 1-65535 10485600";
    assert!(report.contains(pool), "no {pool:?} in:\n{report}");
}
