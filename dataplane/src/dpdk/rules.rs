//! Flow rules (rte_flow) that spread what a port receives by the shards: for devices that hash one end alone only if a rule says so.
//!
//! A rule covers IPv4 packets of one transport, or of any, and has a hash of its own. Some drivers take a rule with a key and a table
//! from hashes to queues; others leave both to the device, where they were set as for any hash.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::error;
use super::rss::{KEY_AT, Side, table};
use crate::steer::{SHARDS, ShardMap};

/// Bytes of the key that a rule brings along.
const KEY_SIZE: u32 = 40;
/// Entries of its table: one for each shard.
const ENTRIES: u16 = 64;
const _: () = assert!(ENTRIES as usize == SHARDS);

/// A rule: the packets that it covers, and what of them it hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// The network header.
    network: dpdk_sys::rte_flow_item_type,
    /// The header behind it; none covers any.
    transport: Option<dpdk_sys::rte_flow_item_type>,
    types: u64,
}

/// The rules for a side of the gateway: the shard of what comes from inside follows from its source; of what comes from outside
/// from its destination, and the port if there is one.
fn wanted(side: Side) -> Vec<Wanted> {
    let (address, port) = match side {
        Side::Inside => (1_u64 << dpdk_sys::DPDK_RSS_L3_SRC_ONLY_BIT, 0),
        Side::Outside => (dpdk_sys::DPDK_RSS_L3_DST_ONLY, dpdk_sys::DPDK_RSS_L4_DST_ONLY),
        Side::Neither => return Vec::new(),
    };
    let (udp, tcp) = (dpdk_sys::RTE_FLOW_ITEM_TYPE_UDP, dpdk_sys::RTE_FLOW_ITEM_TYPE_TCP);
    let rule = |transport, types| Wanted { network: dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV4, transport, types };
    vec![
        rule(Some(udp), dpdk_sys::DPDK_RSS_IPV4_UDP | address | port),
        rule(Some(tcp), dpdk_sys::DPDK_RSS_IPV4_TCP | address | port),
        rule(None, dpdk_sys::DPDK_RSS_IPV4 | address),
    ]
}

impl Wanted {
    /// The headers that a packet has.
    fn pattern(&self) -> Vec<dpdk_sys::rte_flow_item> {
        let kinds = [dpdk_sys::RTE_FLOW_ITEM_TYPE_ETH, self.network]
            .into_iter()
            .chain(self.transport)
            .chain([dpdk_sys::RTE_FLOW_ITEM_TYPE_END]);
        let item = |type_| dpdk_sys::rte_flow_item { type_, spec: ptr::null(), last: ptr::null(), mask: ptr::null() };
        kinds.map(item).collect()
    }

    /// What is to be done with it. Without `queues` the device's own table and key are used.
    fn action(&self, queues: &[u16]) -> dpdk_sys::rte_flow_action_rss {
        let has_table = !queues.is_empty();
        dpdk_sys::rte_flow_action_rss {
            func: dpdk_sys::RTE_ETH_HASH_FUNCTION_TOEPLITZ,
            level: 0,
            types: self.types,
            key_len: if has_table { KEY_SIZE } else { 0 },
            queue_num: u32::try_from(queues.len()).unwrap_or(0),
            key: if has_table { KEY_AT.as_ptr() } else { ptr::null() },
            queue: if has_table { queues.as_ptr() } else { ptr::null() },
        }
    }

    /// Gives a port the rule. Without `create` its driver is only asked, and nothing changes.
    fn give(&self, port: u16, queues: &[u16], create: bool) -> Result<*mut dpdk_sys::rte_flow, String> {
        let (pattern, rss) = (self.pattern(), self.action(queues));
        let action = |type_, conf: *const c_void| dpdk_sys::rte_flow_action { type_, conf };
        let actions = [
            action(dpdk_sys::RTE_FLOW_ACTION_TYPE_RSS, (&raw const rss).cast()),
            action(dpdk_sys::RTE_FLOW_ACTION_TYPE_END, ptr::null()),
        ];
        let (mut rule, mut words): (_, *const c_char) = (ptr::null_mut(), ptr::null());
        let place = if create { &raw mut rule } else { ptr::null_mut() };
        // SAFETY: the port is open and started, and control calls are made one at a time (our callers); pattern and actions end with
        // END, all they point to outlives the call, and drivers copy what they keep, but for the key, which is static.
        let code = unsafe { dpdk_sys::dpdk_flow(port, pattern.as_ptr(), actions.as_ptr(), place, &raw mut words) };
        if code == 0 {
            return Ok(rule);
        }
        let said = error::reason(code);
        // SAFETY: DPDK's words are a string of the driver's, which stays loaded, or null.
        let words = (!words.is_null()).then(|| unsafe { CStr::from_ptr(words) }.to_string_lossy());
        Err(words.map_or(said.clone(), |words| format!("{said}: {words}")))
    }
}

/// The rules of a port, taken back when dropped; which is to happen while the port is open, under the lock of control calls.
#[derive(Debug)]
pub(super) struct Rules {
    port: u16,
    side: Side,
    /// Queues that their table leads to; none if the device's table is used.
    queues: Option<u16>,
    rules: Vec<*mut dpdk_sys::rte_flow>,
}

// SAFETY: the rules are DPDK's; they are only given back to it, under the lock of control calls.
unsafe impl Send for Rules {}

impl Rules {
    /// Gives a port, which spreads over so many queues, rules for its side, each with a table from this map, or, if its driver wants
    /// them so, without. `has_table`: the device's own table and key are set as ours.
    ///
    /// # Errors
    /// Why its driver takes them neither way.
    pub(super) fn give(port: u16, side: Side, map: &ShardMap, queues: u16, has_table: bool) -> Result<Rules, String> {
        let with_table = Rules::try_give(port, side, map, Some(queues));
        if has_table { with_table.or_else(|_| Rules::try_give(port, side, map, None)) } else { with_table }
    }

    fn try_give(port: u16, side: Side, map: &ShardMap, queues: Option<u16>) -> Result<Rules, String> {
        let table = queues.map_or(Vec::new(), |queues| table(map, ENTRIES, queues));
        let wanted = wanted(side);
        for rule in &wanted {
            rule.give(port, &table, false)?;
        }
        let mut given = Rules { port, side, queues, rules: Vec::new() };
        for rule in &wanted {
            given.rules.push(rule.give(port, &table, true)?);
        }
        Ok(given)
    }

    /// Rules for another map, in place of these.
    ///
    /// # Errors
    /// Why its driver does not take them; these are gone all the same.
    pub(super) fn renew(self, map: &ShardMap) -> Result<Rules, String> {
        let (port, side, queues) = (self.port, self.side, self.queues);
        if queues.is_none() {
            return Ok(self);
        }
        drop(self);
        Rules::try_give(port, side, map, queues)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        for rule in self.rules.drain(..) {
            // SAFETY: the rule is the open port's, and is given back once. Nothing more can be done about a driver that refuses.
            unsafe { dpdk_sys::dpdk_flow_destroy(self.port, rule) };
        }
    }
}

/// Whether a driver would take a rule that spreads UDP over IPv4, or IPv6, by a hash of `types`, in either form.
pub(super) fn would_take(port: u16, ipv6: bool, types: u64, queues: u16) -> bool {
    let network = if ipv6 { dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV6 } else { dpdk_sys::RTE_FLOW_ITEM_TYPE_IPV4 };
    let rule = Wanted { network, transport: Some(dpdk_sys::RTE_FLOW_ITEM_TYPE_UDP), types };
    let all: Vec<u16> = (0..queues).collect();
    [&[][..], &all].iter().any(|queues| rule.give(port, queues, false).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::rss::KEY;
    use crate::steer::{ShardId, rss};

    fn kinds(rule: &Wanted) -> Vec<dpdk_sys::rte_flow_item_type> {
        rule.pattern().iter().map(|item| item.type_).collect()
    }

    /// Each covers one transport, or what is left, of IPv4; by source inside, by destination and port outside.
    #[test]
    fn the_rules_of_each_side() {
        use dpdk_sys::{
            RTE_FLOW_ITEM_TYPE_END as END, RTE_FLOW_ITEM_TYPE_ETH as ETHERNET, RTE_FLOW_ITEM_TYPE_IPV4 as IPV4,
            RTE_FLOW_ITEM_TYPE_TCP as TCP, RTE_FLOW_ITEM_TYPE_UDP as UDP,
        };
        let (source, destination) = (1 << dpdk_sys::DPDK_RSS_L3_SRC_ONLY_BIT, dpdk_sys::DPDK_RSS_L3_DST_ONLY);
        let port = dpdk_sys::DPDK_RSS_L4_DST_ONLY;
        let plain = [dpdk_sys::DPDK_RSS_IPV4_UDP, dpdk_sys::DPDK_RSS_IPV4_TCP, dpdk_sys::DPDK_RSS_IPV4];
        for (side, ends) in
            [(Side::Inside, [source; 3]), (Side::Outside, [destination | port, destination | port, destination])]
        {
            let rules = wanted(side);
            assert_eq!(kinds(&rules[0]), [ETHERNET, IPV4, UDP, END]);
            assert_eq!(kinds(&rules[1]), [ETHERNET, IPV4, TCP, END]);
            assert_eq!(kinds(&rules[2]), [ETHERNET, IPV4, END]);
            let types: Vec<_> = rules.iter().map(|rule| rule.types).collect();
            assert_eq!(types, [plain[0] | ends[0], plain[1] | ends[1], plain[2] | ends[2]]);
        }
        assert!(wanted(Side::Neither).is_empty());
    }

    /// With a table the rule leads each shard to its owner's queue, by our key; without it leaves both to the device.
    #[test]
    fn what_a_rule_brings_along() {
        let map = ShardMap::dealt(3);
        let queues = table(&map, ENTRIES, 3);
        let rss = wanted(Side::Inside)[0].action(&queues);
        assert_eq!((rss.queue_num, rss.key_len, rss.func), (64, 40, dpdk_sys::RTE_ETH_HASH_FUNCTION_TOEPLITZ));
        // SAFETY: the action points to the table and to the static key, of these sizes.
        let (key, table) =
            unsafe { (std::slice::from_raw_parts(rss.key, 40), std::slice::from_raw_parts(rss.queue, 64)) };
        assert_eq!(key, &KEY[..40]);
        for (entry, queue) in table.iter().enumerate() {
            assert_eq!(u16::from(map.owner(rss::shard_of_entry(entry)).0), *queue);
        }
        assert!(ShardId::all().all(|shard| table.contains(&u16::from(map.owner(shard).0))));
        let rss = wanted(Side::Inside)[0].action(&[]);
        assert_eq!((rss.queue_num, rss.key_len, rss.key.is_null(), rss.queue.is_null()), (0, 0, true, true));
    }
}
