//! A NIC with several queues, as its data sheet describes it: it hashes what it was told to with the key that it was given, and
//! looks the queue up in the table that it was given.

use dataplane::steer::rss::{KEY, toeplitz};
use dataplane::steer::{ShardMap, rss};

/// Entries of its table.
const ENTRIES: usize = 128;

/// What it hashes of a packet of TCP or UDP; of all others the same address alone.
#[derive(Clone, Copy, Debug)]
pub enum Fields {
    /// The source address: a port inside.
    Source,
    /// Destination address and port: a port outside.
    Destination,
}

/// A port of it.
#[derive(Debug)]
pub struct Nic {
    fields: Fields,
    table: [usize; ENTRIES],
}

impl Nic {
    /// A port whose table was written from this map.
    pub fn new(fields: Fields, map: &ShardMap) -> Nic {
        Nic { fields, table: std::array::from_fn(|entry| map.owner(rss::shard_of_entry(entry)).index()) }
    }

    /// The queue that it puts a frame into. What is not IPv4 goes to the first.
    pub fn queue(&self, frame: &[u8]) -> usize {
        if frame[12..14] != [8, 0] {
            return self.table[0];
        }
        let ip = &frame[14..];
        let has_ports = matches!(ip[9], 6 | 17) && ip[6] & 0x3f == 0 && ip[7] == 0;
        let transport = &ip[usize::from(ip[0] & 15) * 4..];
        let input = match self.fields {
            Fields::Source => ip[12..16].to_vec(),
            Fields::Destination if has_ports => [&ip[16..20], &transport[2..4]].concat(),
            Fields::Destination => ip[16..20].to_vec(),
        };
        self.table[toeplitz(&KEY[..40], &input) as usize % ENTRIES]
    }
}
