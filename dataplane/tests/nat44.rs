//! NAT44 mapping, filtering, UDP: requirements §1.

mod common;

use common::{INSIDE, Lab, OUTSIDE, end, read, udp};
use dataplane::counters::Drop;

/// N44-01, N44-31: one inside endpoint keeps one external endpoint for every destination; replies come back.
#[test]
fn n44_01_mapping_is_endpoint_independent() {
    let mut lab = Lab::default_lab();
    let host = end("192.168.1.10:4000");
    let mut seen = Vec::new();
    for server in ["198.18.0.1:1", "198.18.0.1:2", "198.18.0.2:1"] {
        let out = read(&lab.pass(INSIDE, &udp(INSIDE, host, end(server), b"hello"), OUTSIDE));
        assert_eq!((out.destination, out.ttl, &out.payload[..]), (end(server), 63, &b"hello"[..]));
        seen.push(out.source);
        let back = read(&lab.pass(OUTSIDE, &udp(OUTSIDE, end(server), out.source, b"reply"), INSIDE));
        assert_eq!((back.source, back.destination, back.ttl), (end(server), host, 63));
    }
    assert_eq!(seen, [end("203.0.113.5:4000"); 3], "and the port is kept (N44-09)");
    assert_eq!((lab.sessions(), lab.mappings()), (3, [0, 1, 0]));
}

/// An unsolicited packet from outside does not pass.
#[test]
fn unsolicited_packets_are_dropped() {
    let mut lab = Lab::default_lab();
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.1:9"), end("203.0.113.5:4000"), b""), Drop::Unsolicited);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.1:9"), end("192.168.1.10:4000"), b""), Drop::Unsolicited);
}
