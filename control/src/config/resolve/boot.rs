//! `boot`.

use dataplane::dpdk::MempoolConfig;
use dataplane::plan::Limits;
use dataplane::steer::WORKERS_MAX;

use super::Resolver;
use crate::config::decode::Text;
use crate::config::file;
use crate::config::text::{Number, Size};
use crate::config::{Boot, Cpu, Memory, Poll, Port};
use crate::run::RING;

/// What a packet buffer takes besides the frame, in bytes: headroom, descriptor and the pool's share, rounded up.
const BUFFER_OVERHEAD: u64 = 512;
/// Buffers per worker beyond those that wait in rings: bursts, held packets, packets for the host.
const BUFFERS_SPARE: u32 = 2048;

impl Resolver<'_> {
    /// After the interfaces, whose largest MTU it must hold.
    pub(super) fn boot(&mut self, boot: &file::Boot, ports: &[Port]) -> Boot {
        let mut workers: Vec<u16> = Vec::new();
        for (i, &Text(core)) in boot.cpu.workers.iter() {
            if workers.contains(&core) {
                self.problem(
                    format_args!("boot.cpu.workers[{i}]"),
                    format_args!("core {core} is named twice; each worker has a core of its own"),
                );
            }
            workers.push(core);
        }
        if workers.len() > WORKERS_MAX {
            let key = "boot.cpu.workers";
            self.problem(key, format_args!("{} cores are named; name at most {WORKERS_MAX}", workers.len()));
        }
        let poll = boot.cpu.poll.map(|poll| poll.0);
        let control = boot.cpu.control.map(|core| core.0);
        if let Some(core) = control.filter(|core| poll == Some(Poll::Busy) && workers.contains(core)) {
            self.problem(
                "boot.cpu.control",
                format_args!(
                    "core {core} is a worker's, which leaves it nothing with `poll: busy`; name another core, \
                     or write `poll: adaptive`"
                ),
            );
        }

        let Text(Number(packets)) = boot.packets;
        let descriptors: u32 =
            ports.iter().map(|port| u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors)).sum();
        // At most 63.
        let others = u32::try_from(workers.len().saturating_sub(1).min(WORKERS_MAX)).unwrap_or(0);
        let rings = descriptors + others * RING;
        let Text(Number(fragments)) = boot.tables.fragments;
        let packets_min = rings + fragments + BUFFERS_SPARE;
        if packets < packets_min {
            self.problem(
                "boot.packets",
                format_args!(
                    "{packets} buffers do not do: the ports' descriptors and the rings to {others} other workers hold up to \
                     {rings}, {fragments} fragments may wait (boot.tables.fragments), and {BUFFERS_SPARE} more are needed; write a number from {packets_min} to 4194304"
                ),
            );
        }
        let Text(Size(size)) = boot.memory.size;
        let mtu = self.spec.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(0);
        let buffer = u64::from(MempoolConfig::frame_size_for(mtu)) + BUFFER_OVERHEAD;
        let size_min = u64::from(packets) * buffer * workers.len().max(1) as u64;
        if size < size_min {
            self.problem(
                "boot.memory.size",
                format_args!(
                    "{}M is too little for {packets} packets per worker; write at least {}M",
                    size >> 20,
                    (size_min >> 20) + 1
                ),
            );
        }

        let tables = &boot.tables;
        let [sessions, mappings, neighbours] =
            [tables.sessions, tables.mappings, tables.neighbours].map(|Text(Number(entries))| entries);
        let Text(session_counters) = tables.session_counters;
        self.spec.limits = Limits { sessions, mappings, neighbours, fragments, session_counters, ..Limits::default() };
        let Text(hugepages) = boot.memory.hugepages;
        Boot { cpu: Cpu { workers, control, poll }, memory: Memory { hugepages, size }, packets }
    }
}
