//! How a port spreads what it receives over its queues (RSS): by the shards, where its device can.

use std::fmt;

use super::port::OpenPort;
use crate::steer::rss::{KEY, KEY_MAX, shard_of_entry};
use crate::steer::{SHARDS, ShardMap};

/// Entries of the largest table from hashes to queues that is written.
const ENTRIES_MAX: u16 = 2048;

/// The side that most of a port's flows are seen from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Their inside end is the source of what the port receives.
    Inside,
    /// Their external end is the destination of what the port receives.
    Outside,
    /// Neither: the port only sees what is routed, or it sees both.
    #[default]
    Neither,
}

/// How a port's device spreads what it receives over its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// There is one queue.
    OneQueue,
    /// By the source address: to the owner of the flow.
    Source,
    /// By destination address and port: to the owner of the flow, where ports were leased with that in view.
    Destination,
    /// By a hash of addresses and ports that knows nothing of owners.
    Hash,
    /// As the device or its peer likes.
    Device,
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Steering::OneQueue => "one-queue",
            Steering::Source => "by-source",
            Steering::Destination => "by-destination",
            Steering::Hash => "by-hash",
            Steering::Device => "by-device",
        })
    }
}

/// What a device is told: a steering, its hash types, and the key.
pub(super) struct Rss {
    pub(super) steering: Steering,
    /// Entries of the table that says which queue a hash leads to; 0 if none can be written.
    pub(super) entries: u16,
    types: u64,
    key_size: u8,
}

/// The key where drivers find it: they keep a pointer to it, and only read.
pub(super) static KEY_AT: [u8; KEY_MAX] = KEY;

impl Rss {
    /// The best that a device can do for a port with so many queues.
    pub(super) fn choose(info: &dpdk_sys::rte_eth_dev_info, side: Side, queues: u16) -> Rss {
        let offered = info.flow_type_rss_offloads;
        let wanted = dpdk_sys::DPDK_RSS_IPV4
            | dpdk_sys::DPDK_RSS_FRAG_IPV4
            | dpdk_sys::DPDK_RSS_IPV4_TCP
            | dpdk_sys::DPDK_RSS_IPV4_UDP
            | dpdk_sys::DPDK_RSS_IPV6
            | dpdk_sys::DPDK_RSS_FRAG_IPV6
            | dpdk_sys::DPDK_RSS_IPV6_TCP
            | dpdk_sys::DPDK_RSS_IPV6_UDP;
        let types = offered & wanted;
        let source = 1_u64 << dpdk_sys::DPDK_RSS_L3_SRC_ONLY_BIT;
        let destination = dpdk_sys::DPDK_RSS_L3_DST_ONLY | dpdk_sys::DPDK_RSS_L4_DST_ONLY;
        let has_key = (40..=KEY_MAX).contains(&usize::from(info.hash_key_size));
        let has_table =
            usize::from(info.reta_size).is_multiple_of(SHARDS) && (1..=ENTRIES_MAX).contains(&info.reta_size);
        let (steering, types) = match side {
            _ if queues == 1 => (Steering::OneQueue, 0),
            _ if types == 0 => (Steering::Device, 0),
            Side::Inside if has_key && has_table && offered & source != 0 => (Steering::Source, types | source),
            Side::Outside if has_key && has_table && offered & destination == destination => {
                (Steering::Destination, types | destination)
            }
            _ => (Steering::Hash, types),
        };
        let entries = if types != 0 && has_table { info.reta_size } else { 0 };
        Rss { steering, entries, types, key_size: if has_key { info.hash_key_size } else { 0 } }
    }

    /// Without a choice of ours, for a device that does not take it.
    pub(super) fn left_to_the_device(&mut self) {
        (self.steering, self.types, self.entries) = (Steering::Device, 0, 0);
    }

    /// Whether the device hashes with our key, and its table is written.
    pub(super) fn is_ours(&self) -> bool {
        self.entries > 0 && self.key_size > 0
    }

    /// What flow rules for a side steer by.
    pub(super) fn by_rules(side: Side) -> Steering {
        match side {
            Side::Inside => Steering::Source,
            Side::Outside => Steering::Destination,
            Side::Neither => Steering::Hash,
        }
    }

    /// Writes it into a device's configuration.
    pub(super) fn configure(&self, conf: &mut dpdk_sys::rte_eth_conf) {
        if self.types == 0 {
            conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_NONE;
            return;
        }
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        let rss = &mut conf.rx_adv_conf.rss_conf;
        rss.rss_hf = self.types;
        if self.key_size > 0 {
            (rss.rss_key, rss.rss_key_len) = (KEY_AT.as_ptr().cast_mut(), self.key_size);
        }
    }
}

/// The queue of each entry of a table of `entries`, for shards owned as `map` says. A worker without a queue of its own is served
/// by the one that sends for it.
pub(super) fn table(map: &ShardMap, entries: u16, queues: u16) -> Vec<u16> {
    let queue = |entry| u16::from(map.owner(shard_of_entry(usize::from(entry))).0) % queues.max(1);
    (0..entries).map(queue).collect()
}

/// Writes the device's table from hashes to queues.
///
/// # Errors
/// The driver's code.
pub(super) fn write_table(port: &OpenPort, map: &ShardMap, entries: u16, queues: u16) -> Result<(), i32> {
    // SAFETY: all zeros is an entry that nothing is to be written of.
    let group = || unsafe { std::mem::zeroed::<dpdk_sys::rte_eth_rss_reta_entry64>() };
    let table = table(map, entries, queues);
    let groups = table.chunks(64).map(|queues| {
        let mut group = group();
        for (at, (entry, queue)) in group.reta.iter_mut().zip(queues).enumerate() {
            group.mask |= 1 << at;
            *entry = *queue;
        }
        group
    });
    let mut groups: Vec<_> = groups.collect();
    // SAFETY: the port is open (`port`), its control calls are made one at a time by our caller; there is a group for every 64 of
    // `entries`.
    match unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port.id(), groups.as_mut_ptr(), entries) } {
        0 => Ok(()),
        code => Err(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::{ShardId, shard_of4};

    /// A device of this description; the rest is nothing.
    fn device(offered: u64, reta_size: u16, hash_key_size: u8) -> dpdk_sys::rte_eth_dev_info {
        // SAFETY: all zeros is a description: of a device that can do nothing.
        let nothing: dpdk_sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        dpdk_sys::rte_eth_dev_info { flow_type_rss_offloads: offered, reta_size, hash_key_size, ..nothing }
    }

    #[test]
    fn a_device_does_the_best_that_it_can() {
        let plain = dpdk_sys::DPDK_RSS_IPV4 | dpdk_sys::DPDK_RSS_IPV4_UDP;
        let ends =
            1 << dpdk_sys::DPDK_RSS_L3_SRC_ONLY_BIT | dpdk_sys::DPDK_RSS_L3_DST_ONLY | dpdk_sys::DPDK_RSS_L4_DST_ONLY;
        let steering = |info, side, queues| Rss::choose(&info, side, queues).steering;
        let i40e = || device(plain | ends, 512, 52);
        assert_eq!(steering(i40e(), Side::Inside, 4), Steering::Source);
        assert_eq!(steering(i40e(), Side::Outside, 4), Steering::Destination);
        assert_eq!(steering(i40e(), Side::Neither, 4), Steering::Hash);
        assert_eq!(steering(i40e(), Side::Inside, 1), Steering::OneQueue);
        // No hash of one end alone; no key; no table, or none that shards fit.
        assert_eq!(steering(device(plain, 128, 40), Side::Inside, 4), Steering::Hash);
        assert_eq!(steering(device(plain | ends, 128, 0), Side::Outside, 4), Steering::Hash);
        assert_eq!(steering(device(plain | ends, 0, 40), Side::Outside, 4), Steering::Hash);
        assert_eq!(steering(device(plain | ends, 48, 40), Side::Inside, 4), Steering::Hash);
        assert_eq!(steering(device(0, 0, 0), Side::Inside, 4), Steering::Device);
    }

    #[test]
    fn the_table_leads_to_the_owners_queue() {
        let map = ShardMap::dealt(3);
        let table = table(&map, 128, 3);
        let source = 0xc0a8_0117;
        let hash = crate::steer::rss::toeplitz(&KEY, &u32::to_be_bytes(source)) as usize;
        assert_eq!(table[hash % 128], u16::from(map.owner(shard_of4(source)).0));
        assert!(ShardId::all().all(|shard| table.contains(&u16::from(map.owner(shard).0))));
    }
}
