//! External addresses and ports: who owns them, and how one is chosen.
//!
//! Ports are leased, not dealt. The unit is an external address; a block is 64 consecutive ports, the same block for
//! TCP, UDP and ICMP identifiers. [`Leases`] is the table of all blocks, shared by all workers: a shard takes a free
//! block by one compare-and-swap, and from then on only its worker writes that block's bits, until it gives the block
//! back. [`Ports`] is a shard's own side: the list of its blocks at each address, and the choice of a port in them.
//! Blocks that hold a static port are marked and never leased, so that no port has two owners.

pub mod lease;
pub mod ports;

pub use lease::{BLOCK_PORTS, Leases, Owner};
pub use ports::{Ports, Proto, Want};

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // of random numbers
mod tests {
    use std::collections::HashSet;
    use std::ops::RangeInclusive;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::plan::{Filtering, ForwardProtocol, Plan, PoolSpec, PortForward, Spec, ZoneId};
    use crate::steer::{SHARDS, ShardId};

    /// Leases of a pool of `addresses` addresses, where the ports 8080 and 8081 of the first are forwarded.
    fn leases(addresses: u8) -> Leases {
        let pool = PoolSpec {
            name: "public".into(),
            addresses: vec![[203, 0, 113, 1].into()..=[203, 0, 113, addresses].into()],
            ports: 1..=65535,
            proxy_arp: false,
            answer_echo: false,
        };
        let forward = PortForward {
            name: "web".into(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(0),
            protocol: ForwardProtocol::Tcp,
            external: [203, 0, 113, 1].into(),
            external_ports: 8080..=8081,
            inside: [192, 168, 1, 10].into(),
            inside_port: 80,
            filtering: Filtering::EndpointIndependent,
        };
        let spec = Spec { zones: vec!["all".into()], pools: vec![pool], forwards: vec![forward], ..Spec::default() };
        Leases::new(&Plan::compile(spec).expect("a plan"))
    }

    /// Ports of the first address that may be given out: all but port 0 and the block of the forwarded ones.
    const AVAILABLE: usize = 65_535 - BLOCK_PORTS;

    fn shard(number: usize) -> ShardId {
        ShardId(number as u8)
    }

    fn want(port: u16) -> Want {
        Want { proto: Proto::Udp, port, preserve: false, parity: false, range: 1..=65535 }
    }

    /// A generator of random numbers (Steele, Lea, Flood 2014: SplitMix64).
    fn noise(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }
    }

    /// 64 shards take turns until there is nothing left: every port is given out once, for each protocol, and none that is
    /// forwarded. When all are given back the address is as it was.
    #[test]
    fn an_address_is_used_to_its_last_port() {
        let leases = leases(1);
        let mut noise = noise(1);
        let mut shards: Vec<_> = (0..SHARDS).map(|number| Ports::new(shard(number), 1)).collect();
        let mut given = Vec::new();
        for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
            let mut ports = HashSet::new();
            let mut hungry: Vec<usize> = (0..SHARDS).collect();
            while !hungry.is_empty() {
                hungry.retain(|&number| {
                    let want = Want { proto, ..want(noise() as u16) };
                    let Some(port) = shards[number].allocate(&leases, 0, &want, |_| noise()) else { return false };
                    assert!(ports.insert(port), "port {port} is given out twice");
                    assert_eq!(leases.owner(0, port), Owner::Shard(shard(number)));
                    given.push((number, proto, port));
                    true
                });
            }
            assert_eq!(ports.len(), AVAILABLE);
            assert!(!ports.contains(&0) && !ports.contains(&8080) && !ports.contains(&8081));
            assert_eq!(leases.ports_used(0)[proto.index()] as usize, AVAILABLE);
        }
        assert_eq!(leases.free_blocks(0), (0, 1023));
        assert_eq!(leases.owner(0, 8080), Owner::Static);
        while !given.is_empty() {
            let at = noise() as usize % given.len();
            let (number, proto, port) = given.swap_remove(at);
            shards[number].release(&leases, 0, proto, port);
        }
        assert_eq!((leases.free_blocks(0), leases.ports_used(0)), ((1023, 1023), [0; 3]));
        assert!((0..=u16::MAX).all(|port| port / 64 == 8080 / 64 || leases.owner(0, port) == Owner::Free));
    }

    /// Workers that reach for the same free blocks at the same time: each block is one worker's, and counted once.
    #[test]
    fn a_block_is_leased_once() {
        const WORKERS: usize = 2;
        const ROUNDS: usize = 3000;
        let leases = leases(1);
        let address = leases.address(0).expect("an address");
        let arrived = AtomicUsize::new(0);
        // Waits busily, so that all go on at the same time.
        let meet = |turn: usize| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < turn * WORKERS {
                std::thread::yield_now();
            }
        };
        let faults: usize = std::thread::scope(|scope| {
            let workers = (0..WORKERS).map(|worker| {
                let (leases, meet) = (&leases, &meet);
                scope.spawn(move || {
                    let mut faults = 0;
                    for round in 0..ROUNDS {
                        meet(3 * round + 1);
                        let won: Vec<usize> = (0..128).filter(|&block| address.lease(block, shard(worker))).collect();
                        meet(3 * round + 2);
                        faults += won.iter().filter(|&&block| !address.owned_by(block, shard(worker))).count();
                        faults += usize::from(leases.free_blocks(0).0 != 1023 - 127); // 126 is the forwarded ports'
                        meet(3 * round + 3);
                        won.into_iter().for_each(|block| address.release(block));
                    }
                    faults
                })
            });
            let workers: Vec<_> = workers.collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!((faults, leases.free_blocks(0)), (0, (1023, 1023)));
    }

    /// A worker gives blocks back while reloads close and open them: in the end all can be leased, and are counted once.
    #[test]
    fn no_block_is_lost_between_reloads_and_workers() {
        let spec = |last: u16| {
            let pool = PoolSpec {
                name: "public".into(),
                addresses: vec![[203, 0, 113, 1].into()..=[203, 0, 113, 1].into()],
                ports: 1024..=last,
                proxy_arp: false,
                answer_echo: false,
            };
            Spec { zones: vec!["all".into()], pools: vec![pool], ..Spec::default() }
        };
        let wide = Plan::compile(spec(1535)).expect("a plan"); // eight blocks
        let leases = Leases::new(&wide);
        let narrow = Plan::succeed(&wide, &leases, spec(1087)).expect("a plan"); // one
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut noise = noise(7);
                let mut ports = Ports::new(shard(0), 1);
                while !done.load(Ordering::Relaxed) {
                    let mut want = want(1024 + (noise() % 512) as u16);
                    (want.range, want.preserve) = (1024..=1535, true);
                    if let Some(port) = ports.allocate(&leases, 0, &want, |_| noise()) {
                        ports.release(&leases, 0, Proto::Udp, port);
                    }
                }
            });
            for _ in 0..20_000 {
                let closed = leases.succeed(&wide, &narrow);
                let opened = closed.succeed(&narrow, &wide);
                opened.open(&wide);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(leases.free_blocks(0), (8, 8));
        assert!(!leases.is_leased(0));
    }

    /// Several workers lease and give back at once, from few blocks: no port ever has two owners, and in the end no block
    /// is lost.
    #[test]
    fn workers_never_share_a_port() {
        const WORKERS: usize = 4;
        const RANGE: RangeInclusive<u16> = 1024..=1535; // eight blocks
        let leases = leases(2);
        let taken: Vec<AtomicBool> = (0..2 * 65_536).map(|_| AtomicBool::new(false)).collect();
        let start = Barrier::new(WORKERS);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (leases, taken, start) = (&leases, &taken, &start);
                scope.spawn(move || {
                    let mut noise = noise(worker as u64);
                    let mut shards: Vec<_> = (0..4).map(|n| Ports::new(shard(worker * 16 + n), 2)).collect();
                    let mut own = Vec::new();
                    let mark = |external: u32, port: u16| &taken[external as usize * 65_536 + usize::from(port)];
                    start.wait();
                    for step in 0..40_000u64 {
                        // Waves: more is taken, then more is given back.
                        let takes = noise() % 8 < if step / 200 % 2 == 0 { 7 } else { 1 };
                        if takes {
                            let (number, external) = ((noise() % 4) as usize, (noise() % 2) as u32);
                            let mut want = Want { range: RANGE, ..want(1024 + (noise() % 512) as u16) };
                            want.preserve = noise() & 1 == 0;
                            let got = shards[number].allocate(leases, external, &want, |_| noise());
                            if let Some(port) = got {
                                let owned = mark(external, port).swap(true, Ordering::Relaxed);
                                assert!(!owned, "port {port} has two owners");
                                own.push((number, external, port));
                            }
                        } else if !own.is_empty() {
                            let at = noise() as usize % own.len();
                            let (number, external, port) = own.swap_remove(at);
                            mark(external, port).store(false, Ordering::Relaxed);
                            shards[number].release(leases, external, Proto::Udp, port);
                        }
                    }
                    for (number, external, port) in own {
                        mark(external, port).store(false, Ordering::Relaxed);
                        shards[number].release(leases, external, Proto::Udp, port);
                    }
                });
            }
        });
        assert_eq!((leases.free_blocks(0), leases.free_blocks(1)), ((1023, 1023), (1024, 1024)));
        assert_eq!((leases.ports_used(0), leases.ports_used(1)), ([0; 3], [0; 3]));
    }

    /// N44-09, design rule 3: the inside port is kept while more than half of the blocks are free; after that only in the
    /// blocks that the shard has, so that preservation does not scatter the leases.
    #[test]
    fn n44_09_ports_are_kept_while_there_is_plenty() {
        let leases = leases(1);
        let mut noise = noise(2);
        let (mut first, mut second) = (Ports::new(shard(1), 1), Ports::new(shard(2), 1));
        let keep = |port| Want { preserve: true, ..want(port) };
        let mut kept = 0;
        // 512 of 1023 is not more than half: the 512th block is the last that preservation opens.
        for block in 100..700u16 {
            let port = block * 64 + 5;
            kept += u16::from(first.allocate(&leases, 0, &keep(port), |_| noise()) == Some(port));
        }
        assert_eq!(kept, 512);
        assert_eq!(leases.free_blocks(0).0, 1023 - 512);
        assert_ne!(second.allocate(&leases, 0, &keep(60_000), |_| noise()), Some(60_000));
        assert_eq!(leases.free_blocks(0).0, 1023 - 513, "a block of its own, but not that one");
        assert_eq!(leases.owner(0, 60_000), Owner::Free);
        assert_eq!(first.allocate(&leases, 0, &keep(6406), |_| noise()), Some(6406), "a block that it has");
        assert_ne!(first.allocate(&leases, 0, &keep(6406), |_| noise()), Some(6406), "but not twice");
    }

    /// N44-07, N44-08: parity and the side of 1024 are kept as long as there is such a port; then the side alone; then
    /// the parity alone.
    #[test]
    fn n44_07_sides_and_parity_are_kept_while_they_last() {
        let leases = leases(1);
        let mut noise = noise(3);
        let mut ports = Ports::new(shard(7), 1);
        let even_low = Want { parity: true, ..want(500) };
        let mut take = |want: &Want| ports.allocate(&leases, 0, want, |_| noise()).expect("a port");
        let first: Vec<u16> = (0..511).map(|_| take(&even_low)).collect();
        assert!(first.iter().all(|port| port % 2 == 0 && *port < 1024), "2 to 1022");
        let then: Vec<u16> = (0..512).map(|_| take(&even_low)).collect();
        assert!(then.iter().all(|port| port % 2 == 1 && *port < 1024), "then 1 to 1023");
        let last: Vec<u16> = (0..200).map(|_| take(&even_low)).collect();
        assert!(last.iter().all(|port| port % 2 == 0 && *port >= 1024));
        let odd_high = Want { parity: true, ..want(5001) };
        assert!((0..200).map(|_| take(&odd_high)).all(|port| port % 2 == 1 && port >= 1024));
        let high = want(5000);
        assert!((0..2000).map(|_| take(&high)).all(|port| port >= 1024));
    }

    /// What a pool may give is respected to the port, and an empty block is everybody's again.
    #[test]
    fn a_range_is_kept_and_an_empty_block_is_given_back() {
        let leases = leases(1);
        let mut noise = noise(4);
        let (mut first, mut second) = (Ports::new(shard(1), 1), Ports::new(shard(2), 1));
        let want = Want { range: 2040..=2050, ..want(7) };
        let mut got: Vec<u16> = std::iter::from_fn(|| first.allocate(&leases, 0, &want, |_| noise())).collect();
        got.sort_unstable();
        assert_eq!(got, (2040..=2050).collect::<Vec<_>>());
        assert_eq!(second.allocate(&leases, 0, &want, |_| noise()), None, "both blocks are the other's");
        (2040..=2047).for_each(|port| first.release(&leases, 0, Proto::Udp, port));
        assert_eq!((leases.owner(0, 2047), leases.owner(0, 2048)), (Owner::Free, Owner::Shard(shard(1))));
        assert!(second.allocate(&leases, 0, &want, |_| noise()).is_some_and(|port| port < 2048));
        assert_eq!(leases.owner(0, 2047), Owner::Shard(shard(2)));
    }
}
