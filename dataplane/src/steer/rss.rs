//! What a NIC computes when it spreads packets over queues (RSS), and the key that makes it agree with us.
//!
//! A NIC hashes some fields of a packet with the Toeplitz function, and its table (RETA) says which queue each value of the
//! hash's lowest bits goes to. With our [`KEY`] the lowest six bits name a shard: of the source address alone, on ports inside,
//! they are the shard of that address ([`shard_of4`](super::shard_of4)); of destination address and port, on ports outside, all
//! 64 ports of a block fall together, into the shard that the block is [`home`] to. So one table, written from the map of shards,
//! does for both: a packet from inside arrives at its owner, and so does one for a block that was leased where it is at home.
//!
//! Nothing depends on it: what arrives elsewhere is handed over.

use super::{SHARDS, ShardId};

/// How far an inside address is shifted to the right for each term of its shard's number. Chosen such that neighbours, and hosts at
/// any regular distance up to 300, are spread well. They are the key's bits, at 57 less the shift.
pub(super) const ADDRESS_SHIFTS: [u32; 8] = [0, 6, 8, 9, 12, 15, 19, 25];

/// The same for the number of a block of ports: the key's bits at 67 less the shift.
const BLOCK_SHIFTS: [u32; 2] = [0, 4];

/// The key of Microsoft's specification, whose bits serve where we need none of our own.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// Bytes of the longest key that a NIC takes (Intel's 700 and 800 series).
pub const KEY_MAX: usize = 52;

/// Our key; NICs with shorter ones take its first 40 bytes.
pub const KEY: [u8; KEY_MAX] = key();

const fn key() -> [u8; KEY_MAX] {
    let mut key = [0; KEY_MAX];
    let mut at = 0;
    while at < KEY_MAX {
        key[at] = MICROSOFT_KEY[at % MICROSOFT_KEY.len()];
        at += 1;
    }
    // What the lowest six bits of the hash see of an IPv4 address in front and a port behind it, and of a port's lowest six
    // bits behind an IPv6 address.
    let mut bit = 26;
    while bit < 79 {
        key[bit / 8] &= !(0x80 >> (bit % 8));
        bit += 1;
    }
    bit = 164;
    while bit < 175 {
        key[bit / 8] &= !(0x80 >> (bit % 8));
        bit += 1;
    }
    let mut term = 0;
    while term < ADDRESS_SHIFTS.len() {
        let bit = 57 - ADDRESS_SHIFTS[term] as usize;
        key[bit / 8] |= 0x80 >> (bit % 8);
        term += 1;
    }
    term = 0;
    while term < BLOCK_SHIFTS.len() {
        let bit = 67 - BLOCK_SHIFTS[term] as usize;
        key[bit / 8] |= 0x80 >> (bit % 8);
        term += 1;
    }
    key
}

/// The hash of `input`, fields in network order one behind the other, as a NIC computes it.
#[must_use]
pub fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let window = |from: usize| (from..from + 32).fold(0, |word, at| word << 1 | u32::from(bit(key, at)));
    (0..8 * input.len()).filter(|&at| bit(input, at)).fold(0, |hash, at| hash ^ window(at))
}

/// The shard that an entry of a NIC's table is for: the lowest six bits of its index, in reverse.
#[must_use]
pub fn shard_of_entry(index: usize) -> ShardId {
    let low = u8::try_from(index % SHARDS).unwrap_or(0);
    ShardId(low.reverse_bits() >> 2)
}

/// The shard that the block of this port at an external address (host order) is home to: a NIC outside that hashes the
/// destination's address and port delivers the block's packets to that shard's worker.
#[inline]
#[must_use]
pub fn home(address: u32, port: u16) -> ShardId {
    let block = u32::from(port) / 64;
    let terms = BLOCK_SHIFTS.iter().fold(0, |sum, shift| sum ^ block >> shift);
    #[allow(clippy::cast_possible_truncation)] // 6 bits are left
    ShardId(super::shard_of4(address).0 ^ (terms & 63) as u8)
}

#[cfg(test)]
mod tests {
    use super::super::shard_of4;
    use super::*;

    /// The published vectors for verification (Microsoft, "Verifying the RSS Hash Calculation").
    #[test]
    fn the_hash_is_the_published_one() {
        // Destination, destination port, source, source port; hashes of the addresses alone and with the ports.
        for (to, to_port, from, from_port, addresses, all) in [
            ([161, 142, 100, 80], 1766_u16, [66, 9, 149, 187], 2794_u16, 0x323e_8fc2, 0x51cc_c178),
            ([65, 69, 140, 83], 4739, [199, 92, 111, 2], 14230, 0xd718_262a, 0xc626_b0ea),
            ([12, 22, 207, 184], 38024, [24, 19, 198, 95], 12898, 0xd2d0_a5de, 0x5c2b_394a),
            ([209, 142, 163, 6], 2217, [38, 27, 205, 30], 48228, 0x8298_9176, 0xafc7_327f),
            ([202, 188, 127, 2], 1303, [153, 39, 163, 191], 44251, 0x5d18_09c5, 0x10e8_28a2),
        ] {
            let input: Vec<u8> = [&from[..], &to[..], &from_port.to_be_bytes(), &to_port.to_be_bytes()].concat();
            assert_eq!(toeplitz(&MICROSOFT_KEY, &input[..8]), addresses);
            assert_eq!(toeplitz(&MICROSOFT_KEY, &input), all);
        }
        // IPv6: 3ffe:2501:200:1fff::7 to 3ffe:2501:200:3::1.
        let from: std::net::Ipv6Addr = "3ffe:2501:200:1fff::7".parse().unwrap();
        let to: std::net::Ipv6Addr = "3ffe:2501:200:3::1".parse().unwrap();
        let input = [&from.octets()[..], &to.octets(), &2794_u16.to_be_bytes(), &1766_u16.to_be_bytes()].concat();
        assert_eq!(toeplitz(&MICROSOFT_KEY, &input[..32]), 0x2cc1_8cd5);
        assert_eq!(toeplitz(&MICROSOFT_KEY, &input), 0x4020_7d3d);
    }

    /// Inside, whatever the size of the NIC's table: the entry of a source is its shard's.
    #[test]
    fn a_nic_inside_names_the_shard_of_the_source() {
        for n in 0..10_000_u32 {
            let source = n.wrapping_mul(0x9e37_79b1);
            let hash = toeplitz(&KEY, &source.to_be_bytes()) as usize;
            for entries in [64, 128, 512] {
                assert_eq!(shard_of_entry(hash % entries), shard_of4(source), "{source:#x}, {entries} entries");
            }
        }
    }

    /// Outside: the entry of a destination is its block's home, for all of the block's ports; and an address's blocks are at
    /// home in all shards, 16 in each.
    #[test]
    fn a_nic_outside_names_the_home_of_the_block() {
        for address in [0xcb00_7105_u32, 0xc633_6401, 0x0a00_0001] {
            let mut homes = [0; SHARDS];
            for block in 0..1024_u16 {
                let port = block * 64;
                homes[home(address, port).index()] += 1;
                for port in [port, port + 1, port + 42, port + 63] {
                    let input = [&address.to_be_bytes()[..], &port.to_be_bytes()].concat();
                    assert_eq!(shard_of_entry(toeplitz(&KEY, &input) as usize % 128), home(address, port));
                }
            }
            assert_eq!(homes, [16; SHARDS]);
        }
        // Behind an IPv6 address too a block's ports fall together.
        let address: std::net::Ipv6Addr = "2001:db8::cb00:7105".parse().unwrap();
        let index = |port: u16| toeplitz(&KEY, &[&address.octets()[..], &port.to_be_bytes()].concat()) % 64;
        assert!((0..64).all(|port| index(port) == index(0) && index(6400 + port) == index(6400)));
    }
}
