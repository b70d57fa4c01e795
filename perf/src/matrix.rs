//! The matrix: the cells that there are, whether a run fills them or not.

/// Flows of the tables: one, 16 inside hosts, one external address' worth as CSIT has it, sixteen times that, and 160 times.
pub const FLOWS: [usize; 5] = [1, ROUTED, 64_512, 1_032_192, 10_321_920];
/// Flows where their number changes nothing: those of 16 inside hosts.
pub const ROUTED: usize = 1008;

/// The rows of the engine's table, and the flows that each has.
pub const ENGINE: [(&str, &[usize]); 20] = [
    ("IPv4 routed", &[ROUTED]),
    ("IPv4 routed, translators configured and not matching", &[ROUTED]),
    ("IPv6 routed", &[ROUTED]),
    ("IPv6 routed, translators configured and not matching", &[ROUTED]),
    ("NAT44 in→out", &FLOWS),
    ("NAT44 out→in", &FLOWS),
    ("NAT44 in→out, headers cold", &FLOWS),
    ("NAT44 out→in, headers cold", &FLOWS),
    ("NAT44 in→out, 10 remotes a mapping", &[64_512, 1_032_192, 10_321_920]),
    ("NAT44 out→in, 10 remotes a mapping", &[64_512, 1_032_192, 10_321_920]),
    ("floor: bucket and session", &FLOWS),
    ("a poll's tick", &FLOWS),
    ("NPTv6 in→out", &[ROUTED]),
    ("NPTv6 out→in", &[ROUTED]),
    ("NETMAP in→out", &[ROUTED]),
    ("NETMAP out→in", &[ROUTED]),
    ("SIIT 4→6", &[ROUTED]),
    ("SIIT 6→4", &[ROUTED]),
    ("EAM, 100,000 rows, 4→6", &[FLOWS[2]]),
    ("EAM, 100,000 rows, 6→4", &[FLOWS[2]]),
];

/// The place in [`ENGINE`] of the first row of stateless translators: two of each.
pub const STATELESS: usize = 12;

/// Sessions in the tables that are compared.
pub const TABLES: [usize; 4] = [1024, 65_536, 1_048_576, 10_485_760];

/// What is the lowest of its rounds: the longest insertion.
pub const WORST: &str = "worst insertion";

/// The rows of a turn in which all sessions are made, used and ended.
pub const TURN: [&str; 3] = ["turn: new session", "turn: hit", "turn: end of a session"];
/// The memory in use after a turn, and of a flow by part, each name behind this.
pub const RESIDENT: &str = "turn: resident memory";
/// See [`RESIDENT`].
pub const MEMORY: &str = "memory: ";

/// Frames of the NAT44 rows whose length is varied; 1,008 flows.
pub const FRAMES: [&str; 4] = ["64", "512", "1518", "IMIX"];

/// Fill levels at which new sessions are made, in percent of the table and of the pool.
pub const FILLED: [usize; 2] = [50, 90];
