//! The safe layer against the real DPDK, without huge pages and without a NIC. EAL starts once in a process, so the
//! tests share it; those that need a start of their own run this program again.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{INSIDE, OUTSIDE};
use dataplane::counters::{Counters, Drop};
use dataplane::dpdk::{
    CoreError, Eal, EalConfig, Error, Mbuf, Mempool, MempoolConfig, Offloads, Port, PortConfig, Queue, Side, Steering,
    WorkerThread, available_cores, wire,
};
use dataplane::engine::Engine;
use dataplane::message::{NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{Packet, PacketPool, RxChecksum};
use dataplane::plan::{MacAddr, Plan};
use dataplane::pool::Leases;
use dataplane::steer::ShardMap;
use dataplane::time::Time;
use dataplane::worker::{BURST, Burst, Device, Worker};
use nix::sched::{CloneFlags, unshare};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| Eal::start(&EalConfig { memory_mib: 512, ..EalConfig::default() }).expect("EAL starts"))
}

fn pool(packets: u32) -> Mempool {
    Mempool::new(eal(), &MempoolConfig { packets, ..MempoolConfig::default() }).expect("memory for a pool")
}

/// A pool for packets of up to 9,000 bytes.
fn jumbo_pool(packets: u32) -> Mempool {
    let frame_size = MempoolConfig::frame_size_for(9000);
    assert_eq!(frame_size, 9216);
    Mempool::new(eal(), &MempoolConfig { packets, frame_size, ..MempoolConfig::default() }).expect("memory for a pool")
}

/// The device, for packets of up to 9,000 bytes.
fn jumbo(device: &str) -> PortConfig {
    PortConfig { mtu: Some(9000), ..few(device) }
}

/// The device with few descriptors: each takes a buffer of a TAP device.
fn few(device: &str) -> PortConfig {
    PortConfig { rx_descriptors: 64, tx_descriptors: 64, ..PortConfig::new(device) }
}

fn open_with(config: &PortConfig, pool: &Mempool) -> (Port, Queue) {
    let (port, mut queues) = Port::open(eal(), config, &[pool]).unwrap_or_else(|error| panic!("{error}"));
    (port, queues.remove(0))
}

fn open(device: &str, pool: &Mempool) -> (Port, Queue) {
    let (port, mut queues) =
        Port::open(eal(), &PortConfig::new(device), &[pool]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(queues.len(), 1);
    (port, queues.remove(0))
}

fn open_error(config: &PortConfig, pool: &Mempool) -> String {
    Port::open(eal(), config, &[pool]).expect_err("can't be opened").to_string()
}

/// A frame that can be told from others: broadcast, of an experimental type (IEEE 802), with `tag` all over it.
fn frame(tag: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    let words = (0u32..).map(|i| tag.wrapping_mul(2_654_435_761).wrapping_add(i));
    frame.extend(words.flat_map(u32::to_be_bytes).take(len - 14));
    frame
}

fn mbuf(pool: &mut Mempool, frame: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().expect("a free buffer");
    assert!(mbuf.append(frame.len()));
    mbuf.data_mut().copy_from_slice(frame);
    mbuf
}

/// Polls until `count` frames of our type came, and gives their bytes.
fn receive(queue: &mut Queue, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    eventually("the frames come", || {
        poll(queue, &mut frames);
        frames.len() >= count
    });
    frames
}

/// Polls once, and adds the frames of our type.
fn poll(queue: &mut Queue, frames: &mut Vec<Vec<u8>>) {
    let mut burst = Burst::new();
    queue.receive(&mut burst);
    assert!(burst.iter().all(Packet::is_contiguous));
    frames.extend(burst.iter().map(|mbuf| mbuf.data().to_vec()).filter(|data| data[12..14] == [0x88, 0xb5]));
}

/// Sends `frames` and sees all of them arrive as they were. The first attempts may find no room: a memif server has
/// none before its client has polled.
fn carry(frames: &[Vec<u8>], from: &mut Queue, pool: &mut Mempool, to: &mut Queue) {
    let mut burst: Burst<Mbuf> = frames.iter().map(|frame| mbuf(pool, frame)).collect();
    let mut arrived = Vec::new();
    eventually("the frames come", || {
        from.transmit(&mut burst);
        poll(to, &mut arrived);
        arrived.len() >= frames.len()
    });
    assert_eq!(arrived, frames);
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// A directory of the test's own, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("turnpike-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("temporary directory");
        Directory(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").into()
    }
}

impl std::ops::Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `ip`, and gives what it says.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Puts the calling thread into a network namespace of its own, with a veth pair `near0`, `far0` in it.
fn network_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    ip("link add name near0 type veth peer name far0");
    for end in ["near0", "far0"] {
        // No address, hence no neighbour discovery of the kernel's.
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
}

/// A capture file as libpcap writes it: microseconds, little endian, Ethernet.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        file.extend([&[0; 8][..], &len, &len, frame].concat());
    }
    file
}

/// The frames of such a file.
fn pcap_frames(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut frames, mut rest) = (Vec::new(), &file[24..]);
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

/// Runs the test `name` of this program again, by itself, as a child that knows it is one, after a shell's `prelude`.
fn again(name: &str, prelude: &str) -> Output {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{prelude} && exec \"$0\" --exact {name} --nocapture --test-threads=1")])
        .arg(std::env::current_exe().expect("this program"))
        .env("TURNPIKE_TEST_CHILD", name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("a child");
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its output")
}

fn is_child(name: &str) -> bool {
    std::env::var("TURNPIKE_TEST_CHILD").is_ok_and(|child| child == name)
}

#[test]
fn every_kind_of_vdev_opens() {
    network_namespace();
    let directory = Directory::new("vdevs");
    let (rx, tx) = (directory.file("rx.pcap"), directory.file("tx.pcap"));
    fs::write(&rx, pcap(&[])).expect("capture");
    let (memif, vhost) = (directory.file("memif.sock"), directory.file("vhost.sock"));
    let devices = [
        ("net_null", "net_null0".to_owned()),
        ("net_ring", "net_ring9".to_owned()),
        ("net_pcap", format!("net_pcap9,rx_pcap={rx},tx_pcap={tx}")),
        ("net_tap", "net_tap0,iface=tap7".to_owned()),
        ("net_af_packet", "net_af_packet0,iface=near0".to_owned()),
        ("net_af_xdp", "net_af_xdp0,iface=far0".to_owned()),
        ("net_memif", format!("net_memif9,role=server,socket={memif},socket-abstract=no")),
        ("net_vhost", format!("net_vhost0,iface={vhost}")),
        // Its handshake is with the vhost port before it.
        ("net_virtio_user", format!("net_virtio_user0,path={vhost}")),
    ];
    let mut ports = Vec::new();
    for (driver, device) in &devices {
        // net_af_xdp alone takes 2,048 buffers to start.
        let pool = pool(4095);
        let (port, queue) = open(device, &pool);
        assert_eq!(port.info().driver, *driver);
        ports.push((port, queue, pool));
    }
    // What they made, as the kernel sees it.
    ip("link show tap7");
    assert!(fs::exists(&memif).expect("readable") && fs::exists(&vhost).expect("readable"));
    // Their buffers come back when they close, but those that af_xdp's driver has lent the kernel.
    for (port, queue, pool) in ports {
        let driver = port.info().driver.clone();
        drop((port, queue));
        assert!(pool.in_use() == 0 || driver == "net_af_xdp", "{driver}: {}", pool.in_use());
    }
}

#[test]
fn drivers_of_nics_are_loaded() {
    eal();
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    for driver in ["e1000", "ixgbe", "i40e", "iavf", "ice", "mlx5", "ena", "vmxnet3", "virtio"] {
        assert!(maps.contains(&format!("/librte_net_{driver}.so")), "{driver}");
    }
    for other in ["bus_pci", "bus_vdev", "mempool_ring"] {
        assert!(maps.contains(&format!("/librte_{other}.so")), "{other}");
    }
}

#[test]
fn ring_gives_back_what_it_got() {
    let mut pool = pool(1023);
    let (port, mut queue) = open("net_ring0", &pool);
    let frames: Vec<_> = (0..5u32).map(|n| frame(n, 60 + 300 * n as usize)).collect();
    let mut burst: Burst<Mbuf> = frames.iter().map(|frame| mbuf(&mut pool, frame)).collect();
    assert_eq!(pool.in_use(), 5);
    queue.transmit(&mut burst);
    assert!(burst.is_empty());
    assert_eq!(receive(&mut queue, 5), frames);
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_missed, stats.tx_errors), (5, 5, 0, 0));
    assert!(port.link().up);
    assert_eq!(pool.in_use(), 0);
    // A port that was closed can be opened again; one that is open can't.
    assert_eq!(
        open_error(&PortConfig::new("net_ring0"), &pool),
        "device `net_ring0` is already open: each port needs a device of its own"
    );
    drop((port, queue));
    open("net_ring0", &pool);
}

#[test]
fn a_wire_leads_from_each_end_to_the_other() {
    let mut pool = pool(4095);
    let [mut near, mut far] = wire(eal(), 30, &pool).expect("a wire");
    let frames: Vec<_> = (0..40u32).map(|n| frame(n, 60 + 30 * n as usize)).collect();
    let (out, back) = frames.split_at(20);
    carry(out, &mut near, &mut pool, &mut far);
    carry(back, &mut far, &mut pool, &mut near);
    let mut burst = Burst::new();
    for end in [&mut near, &mut far] {
        end.receive(&mut burst);
        assert!(burst.is_empty(), "nothing leads back to where it came from");
    }
    assert_eq!(pool.in_use(), 0);
    // Full one way, it carries the other way all the same.
    let mut sent = 0;
    while burst.is_empty() {
        burst.extend((0..BURST as u32).map(|n| mbuf(&mut pool, &frame(n, 64))));
        near.transmit(&mut burst);
        sent += BURST - burst.len();
    }
    assert_eq!(sent, 1023);
    carry(back, &mut far, &mut pool, &mut near);
    let Err(error) = wire(eal(), 30, &pool) else { panic!("it is laid") };
    assert_eq!(error.to_string(), "device `net_ring30` is already open: each port needs a device of its own");
    // It goes with its last end.
    drop((near, far));
    wire(eal(), 30, &pool).expect("a wire");
}

#[test]
fn unsent_frames_stay_in_order() {
    let mut pool = pool(4095);
    let (port, mut queue) = open("net_ring1", &pool);
    let (mut next, mut sent) = (0u32, 0);
    let mut left = loop {
        let mut burst = Burst::new();
        while !burst.is_full() {
            burst.push(mbuf(&mut pool, &frame(next, 64)));
            next += 1;
        }
        queue.transmit(&mut burst);
        sent += BURST - burst.len();
        if !burst.is_empty() {
            break burst;
        }
        assert!(sent < 4000, "the ring never fills");
    };
    let unsent: Vec<_> = (sent as u32..next).map(|n| frame(n, 64)).collect();
    assert!(left.iter().map(Mbuf::data).eq(unsent.iter()));
    assert_eq!(port.stats().tx_packets, sent as u64);
    assert_eq!(pool.in_use() as usize, sent + left.len());
    // With some room, the rest goes behind what went before.
    let mut all = receive(&mut queue, 32);
    queue.transmit(&mut left);
    assert!(left.is_empty());
    all.extend(receive(&mut queue, next as usize - all.len()));
    assert_eq!(all, (0..next).map(|n| frame(n, 64)).collect::<Vec<_>>());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn receiving_appends_as_far_as_there_is_room() {
    let mut pool = pool(1023);
    let (_port, mut queue) = open("net_ring2", &pool);
    let mut burst: Burst<Mbuf> = (0..BURST as u32).map(|n| mbuf(&mut pool, &frame(n, 64))).collect();
    queue.transmit(&mut burst);
    let mut burst: Burst<Mbuf> = (100..130).map(|n| mbuf(&mut pool, &frame(n, 64))).collect();
    queue.receive(&mut burst);
    let expected: Vec<_> = (100..130).chain(0..2).map(|n| frame(n, 64)).collect();
    assert!(burst.iter().map(Mbuf::data).eq(expected.iter()));
    queue.receive(&mut burst);
    assert_eq!(burst.len(), BURST);
    Mbuf::free_bulk(&mut burst);
    assert!(burst.is_empty());
    queue.receive(&mut burst);
    assert_eq!(burst.len(), BURST - 2);
    Packet::discard(&mut burst);
    assert_eq!((burst.len(), pool.in_use()), (0, 0));
}

#[test]
fn memif_carries_frames_both_ways() {
    let directory = Directory::new("memif");
    let socket = directory.file("m.sock");
    let (mut east_pool, mut west_pool) = (pool(4095), pool(4095));
    let end = |role: &str, n: u8| format!("net_memif{n},role={role},id=0,socket={socket},socket-abstract=no");
    let (east_port, mut east) = open(&end("server", 0), &east_pool);
    let (west_port, mut west) = open(&end("client", 1), &west_pool);
    eventually("the link comes up", || east_port.link().up && west_port.link().up);
    let frames: Vec<_> = (0..20u32).map(|n| frame(n, 60 + 70 * n as usize)).collect();
    carry(&frames, &mut east, &mut east_pool, &mut west);
    carry(&frames, &mut west, &mut west_pool, &mut east);
    assert_eq!((east_port.stats().rx_packets, west_port.stats().rx_packets), (20, 20));
    // One end goes; the other sees it.
    drop((west, west_port));
    eventually("the link goes down", || !east_port.link().up);
    drop((east, east_port));
    assert_eq!((east_pool.in_use(), west_pool.in_use()), (0, 0));
}

#[test]
fn pcap_files_in_and_out() {
    let directory = Directory::new("pcap");
    let (rx, tx) = (directory.file("rx.pcap"), directory.file("tx.pcap"));
    let frames: Vec<_> = (0..40u32).map(|n| frame(n, 60 + 36 * n as usize)).collect();
    fs::write(&rx, pcap(&frames)).expect("capture");
    let pool = pool(1023);
    let (port, mut queue) = open(&format!("net_pcap0,rx_pcap={rx},tx_pcap={tx}"), &pool);
    let (start, mut count, mut burst) = (Instant::now(), 0, Burst::new());
    while count < frames.len() {
        assert!(start.elapsed() < PATIENCE);
        queue.receive(&mut burst);
        for mbuf in &burst {
            assert_eq!(mbuf.data(), frames[count]);
            assert_eq!(mbuf.rx_checksum(), RxChecksum::Unknown);
            count += 1;
        }
        queue.transmit(&mut burst);
        assert!(burst.is_empty());
    }
    assert_eq!(port.stats().tx_packets, 40);
    assert_eq!(port.stats().tx_bytes, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
    drop((port, queue));
    assert_eq!(pcap_frames(&fs::read(&tx).expect("capture")), frames);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn af_packet_on_a_veth() {
    network_namespace();
    let (mut near_pool, mut far_pool) = (pool(2047), pool(2047));
    let mac = MacAddr([2, 0, 0, 0, 0xab, 1]);
    let device = |rest: &str| format!("net_af_packet{rest},framecnt=512,framesz=2048,blocksz=4096");
    let config = PortConfig { mac: Some(mac), mtu: Some(1400), ..PortConfig::new(&device("1,iface=near0")) };
    let (near, mut queues) = Port::open(eal(), &config, &[&near_pool]).unwrap_or_else(|error| panic!("{error}"));
    let mut near_queue = queues.remove(0);
    // What was set is what the kernel sees.
    let shown = ip("link show near0");
    assert!(shown.contains(&mac.to_string()) && shown.contains("mtu 1400"), "{shown}");
    assert_eq!((near.mac(), near.mtu()), (mac, 1400));

    let (far, mut far_queue) = open(&device("2,iface=far0"), &far_pool);
    eventually("the link is up", || near.link().up && far.link().up);
    let frames: Vec<_> = (0..BURST as u32).map(|n| frame(n, 60 + 40 * n as usize)).collect();
    carry(&frames, &mut near_queue, &mut near_pool, &mut far_queue);
    carry(&frames, &mut far_queue, &mut far_pool, &mut near_queue);
    // The driver itself would never notice.
    ip("link set far0 down");
    eventually("the link is down", || !near.link().up && !far.link().up);
    ip("link set far0 up");
    eventually("the link is up again", || near.link().up && far.link().up);
    drop((near, near_queue, far, far_queue));
    assert_eq!((near_pool.in_use(), far_pool.in_use()), (0, 0));
}

/// Frames of 9,000-byte packets, with and without two tags, over a veth pair, as they were; and what the arguments must say.
#[test]
fn jumbo_frames_through_af_packet() {
    network_namespace();
    let (mut near_pool, mut far_pool) = (jumbo_pool(511), jumbo_pool(511));
    let device = |rest: &str, more: &str| format!("net_af_packet{rest}{more}");
    let ring = ",framecnt=256,framesz=9216,blocksz=36864";
    let two_tags = |device: &str| PortConfig { two_tags: true, ..jumbo(device) };
    let (near, mut near_queue) = open_with(&two_tags(&device("21,iface=near0", ring)), &near_pool);
    let (far, mut far_queue) = open_with(&two_tags(&device("22,iface=far0", ring)), &far_pool);
    assert_eq!((near.mtu(), far.mtu(), near.mtu_with_two_tags()), (9000, 9000, 9000));
    // The kernel allows for one tag of its own accord, and only for 802.1Q's.
    assert!(ip("link show near0").contains("mtu 9008") && ip("link show far0").contains("mtu 9008"));
    eventually("the link is up", || near.link().up && far.link().up);
    let mut frames: Vec<_> = [60, 1514, 9013, 9014].into_iter().zip(0..).map(|(len, n)| frame(n, len)).collect();
    carry(&frames, &mut near_queue, &mut near_pool, &mut far_queue);
    // The kernel takes the outer tag off; the driver puts it on again, with 802.1Q's type.
    let tags = [&[0x81, 0, 0, 200, 0x81, 0, 0, 20][..], &[0x88, 0xa8, 0, 200, 0x81, 0, 0, 20]];
    let with = |tags: &[u8], frame: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
    let full = frames.remove(3);
    for sent in tags {
        let mut burst: Burst<Mbuf> = [mbuf(&mut far_pool, &with(sent, &full))].into_iter().collect();
        far_queue.transmit(&mut burst);
        let mut arrived = Burst::new();
        eventually("the frame comes", || {
            near_queue.receive(&mut arrived);
            !arrived.is_empty()
        });
        assert_eq!(arrived[0].data(), with(tags[0], &full));
    }
    drop((near, near_queue, far, far_queue));

    let refused = |arguments: &str| open_error(&jumbo(&device("23,iface=near0", arguments)), &near_pool);
    let expected = "device `net_af_packet23` can't have an MTU of 9000 bytes: its arguments have room for frames of 1982 bytes; \
                    for 9022 write framesz=9216,blocksz=36864";
    assert_eq!(refused(""), expected);
    let unequal = refused(",framesz=9216,blocksz=40960");
    assert!(
        unequal.ends_with(
            "make blocksz a multiple of framesz and of 4096, as framesz=2048,blocksz=4096 or framesz=9216,blocksz=36864"
        ),
        "{unequal}"
    );
    let small = pool(63);
    let error = open_error(&PortConfig { mtu: Some(9000), ..PortConfig::new("net_af_packet24,iface=near0") }, &small);
    assert!(error.ends_with("frames of 9022 bytes don't fit buffers for 2048"), "{error}");
    // What the kernel refuses is said with its reason: RFC 791's least is 68.
    let config = PortConfig { mtu: Some(67), ..few(&device("25,iface=near0", ring)) };
    let expected = "interface `near0` does not take 67: Invalid argument (os error 22)";
    let error = open_error(&config, &near_pool);
    assert_eq!(error, format!("device `net_af_packet25` can't have an MTU of 67 bytes: {expected}"));
}

/// A TAP device of this DPDK carries 1,504 bytes and no more; with two tags 1,500.
#[test]
fn a_tap_device_has_its_limit() {
    network_namespace();
    let pool = jumbo_pool(511);
    let error = open_error(&jumbo("net_tap21,iface=tap21"), &pool);
    assert_eq!(error, "device `net_tap21` can't have an MTU of 9000 bytes: it takes 1504 at most");
    let (port, _queue) = open_with(&PortConfig { mtu: Some(1504), ..few("net_tap22,iface=tap22") }, &pool);
    assert!(port.mtu() == 1504 && ip("link show tap22").contains("mtu 1504"));
    let two_tags = PortConfig { mtu: Some(1500), two_tags: true, ..few("net_tap23,iface=tap23") };
    assert_eq!(open_with(&two_tags, &pool).0.mtu(), 1500);
}

/// memif's buffers are `bsize` bytes. A frame that is larger comes in several, which makes several segments of it if it does
/// not fit one of the pool's: so `bsize` is to be right, and a start without it is refused.
#[test]
fn jumbo_frames_through_memif() {
    let directory = Directory::new("memif-jumbo");
    let socket = directory.file("m.sock");
    let (mut east_pool, mut west_pool) = (jumbo_pool(511), jumbo_pool(511));
    let end = |role: &str, n: u8, more: &str| {
        format!("net_memif{n},role={role},id=0,rsize=8,socket={socket},socket-abstract=no{more}")
    };
    let error = open_error(&jumbo(&end("client", 20, "")), &west_pool);
    let expected = "device `net_memif20` can't have an MTU of 9000 bytes: its arguments have room for frames of 2048 bytes; \
                    for 9022 write bsize=9216 at both ends";
    assert_eq!(error, expected);
    let two_tags = |device: &str| PortConfig { two_tags: true, ..jumbo(device) };
    let (east_port, mut east) = open_with(&two_tags(&end("server", 21, ",bsize=9216")), &east_pool);
    let (west_port, mut west) = open_with(&two_tags(&end("client", 22, ",bsize=9216")), &west_pool);
    assert_eq!((east_port.mtu(), west_port.mtu()), (9194, 9194));
    eventually("the link comes up", || east_port.link().up && west_port.link().up);
    let frames: Vec<_> = [60, 2049, 9014, 9022].into_iter().zip(0..).map(|(len, n)| frame(n, len)).collect();
    carry(&frames, &mut east, &mut east_pool, &mut west);
    carry(&frames, &mut west, &mut west_pool, &mut east);
}

/// A frame that does not fit a buffer of ours comes in several segments, and says so; the engine drops it by that name.
#[test]
fn a_frame_larger_than_a_buffer_is_not_contiguous() {
    let directory = Directory::new("memif-segments");
    let socket = directory.file("m.sock");
    let (mut large, small) = (jumbo_pool(511), pool(511));
    let end = |role: &str, n: u8| {
        format!("net_memif{n},role={role},id=0,rsize=8,bsize=9216,socket={socket},socket-abstract=no")
    };
    let (east_port, mut east) = open(&end("server", 23), &large);
    let (west_port, mut west) = open(&end("client", 24), &small);
    eventually("the link comes up", || east_port.link().up && west_port.link().up);
    for (len, contiguous) in [(2048, true), (2049, false), (9000, false)] {
        let mut arrived = Burst::new();
        let mut burst = Burst::new();
        eventually("the frame comes", || {
            if burst.is_empty() {
                burst.push(mbuf(&mut large, &frame(1, len)));
            }
            east.transmit(&mut burst);
            west.receive(&mut arrived);
            !arrived.is_empty()
        });
        assert!(arrived.iter().all(|mbuf| mbuf.is_contiguous() == contiguous), "{len}");
        assert!(arrived.iter().all(|mbuf| mbuf.data().len() == len.min(2048)), "{len}");
        Mbuf::free_bulk(&mut arrived);
    }
}

/// Frames to another address than the device's are received, where interfaces have addresses of their own, whatever the driver
/// can be told.
#[test]
fn frames_to_further_addresses_are_received() {
    network_namespace();
    let directory = Directory::new("macs");
    let socket = directory.file("m.sock");
    let more = [MacAddr([2, 0, 0, 0, 0xc0, 1]), MacAddr([2, 0, 0, 0, 0xc0, 2])];
    let (near_pool, mut far_pool) = (pool(511), pool(511));
    let memif = |role: &str, n: u8| format!("net_memif{n},role={role},id=0,socket={socket},socket-abstract=no");
    let pairs = [
        ("net_af_packet26,iface=near0,framecnt=512".to_owned(), "net_af_packet27,iface=far0,framecnt=512".to_owned()),
        (memif("server", 25), memif("client", 26)),
    ];
    for (near, far) in pairs {
        let (near, mut near_queue) = open(&near, &near_pool);
        let (far, mut far_queue) = open(&far, &far_pool);
        assert!(near.receive_for(&[]).expect("nothing to do"));
        // Neither driver can be told.
        assert!(!near.receive_for(&more).expect("it receives everything"));
        eventually("the link is up", || near.link().up && far.link().up);
        let own = [near.mac(), more[0], more[1], near.mac()];
        let frames: Vec<_> = (0..).zip(own).map(|(n, mac)| [&mac.0[..], &frame(n, 100)[6..]].concat()).collect();
        carry(&frames, &mut far_queue, &mut far_pool, &mut near_queue);
        let is_on_veth = near.info().if_index.is_some();
        assert_eq!(ip("link show near0").contains("PROMISC"), is_on_veth);
        drop((near, near_queue, far, far_queue));
        assert!(!ip("link show near0").contains("PROMISC"), "nothing is left switched on");
    }
    // A TAP device's own address is the kernel's end's too; with another one, the two can speak to each other.
    let (tap, mut queue) = open_with(&few("net_tap24,iface=tap24"), &near_pool);
    tap.receive_for(&more).expect("it receives everything");
    ip("link set tap24 addrgenmode none");
    ip("address add 192.0.2.1/24 dev tap24");
    ip(&format!("neighbour add 192.0.2.9 lladdr {} dev tap24", more[1]));
    UdpSocket::bind("192.0.2.1:0").expect("a socket").send_to(b"hello", "192.0.2.9:9").expect("sent");
    eventually("the datagram", || {
        let mut burst = Burst::new();
        queue.receive(&mut burst);
        burst.iter().any(|mbuf| mbuf.data()[..6] == more[1].0 && mbuf.data().ends_with(b"hello"))
    });
    // One that has no filter takes it all the same.
    let (ring, mut ring_queue) = open("net_ring21", &far_pool);
    ring.receive_for(&more).expect("it receives everything");
    let own = [&more[0].0[..], &frame(1, 60)[6..]].concat();
    let mut burst: Burst<Mbuf> = [mbuf(&mut far_pool, &own)].into_iter().collect();
    ring_queue.transmit(&mut burst);
    assert_eq!(receive(&mut ring_queue, 1), [own]);
}

#[test]
fn af_xdp_on_a_veth() {
    network_namespace();
    let (mut near_pool, mut far_pool) = (pool(8191), pool(8191));
    let (near, mut near_queue) = open("net_af_xdp1,iface=near0", &near_pool);
    let (far, mut far_queue) = open("net_af_xdp2,iface=far0", &far_pool);
    eventually("the link is up", || near.link().up && far.link().up);
    let frames: Vec<_> = (0..BURST as u32).map(|n| frame(n, 60 + 40 * n as usize)).collect();
    carry(&frames, &mut near_queue, &mut near_pool, &mut far_queue);
    carry(&frames, &mut far_queue, &mut far_pool, &mut near_queue);
}

/// Where the device looks at checksums, a port lets it; where it does not, it does without.
#[test]
fn a_device_that_looks_at_checksums_is_asked_to() {
    network_namespace();
    let pool = pool(1023);
    let (tap, mut queue) = open_with(&few("net_tap26,iface=tap26"), &pool);
    assert_eq!(tap.info().offloads.rx_checksums, [true, true]);
    ip("link set tap26 addrgenmode none");
    ip("address add 192.0.2.1/24 dev tap26");
    ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev tap26");
    UdpSocket::bind("192.0.2.1:0").expect("a socket").send_to(b"hello", "192.0.2.9:9").expect("sent");
    eventually("the datagram, judged", || {
        let mut burst = Burst::new();
        queue.receive(&mut burst);
        burst.iter().any(|mbuf| mbuf.data().ends_with(b"hello") && mbuf.rx_checksum() == RxChecksum::Good)
    });
    let (ring, _queue) = open("net_ring26", &pool);
    assert_eq!(ring.info().offloads, Offloads::default());
}

/// What a kernel's interface receives is not merged (GRO) while a port sits on it, and is again afterwards.
#[test]
fn the_kernel_merges_nothing_that_a_port_receives() {
    network_namespace();
    let ethtool = |arguments: &[&str]| {
        let output = Command::new("ethtool").args(arguments).output().expect("ethtool");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let merges = || ethtool(&["-k", "near0"]).contains("generic-receive-offload: on");
    let pool = pool(1023);
    for on in [true, false] {
        ethtool(&["-K", "near0", "gro", if on { "on" } else { "off" }]);
        assert_eq!(merges(), on);
        let device = "net_af_packet31,iface=near0,framecnt=512,framesz=2048,blocksz=4096";
        let (port, queue) = open(device, &pool);
        assert!(!merges() && port.info().offloads.merging.is_none());
        drop((port, queue));
        assert_eq!(merges(), on);
    }
}

/// A guest of `net_vhost` is not asked for TCP segments that no link can carry.
#[test]
fn a_guest_cuts_its_own_segments() {
    let error = open_error(&PortConfig::new("net_vhost31,iface=/nowhere/v.sock,tso=1"), &pool(63));
    assert!(error.ends_with("leave tso out: the guest cuts its segments itself then"), "{error}");
}

/// A kernel that sends over a veth pair leaves the checksums of UDP and TCP to a card that there is none of, and the driver
/// does not say so. They are right all the same when the frames are ours.
fn kernel_checksums_are_finished(device: &str, pool: &Mempool) {
    let (_port, mut queue) = open(device, pool);
    let payloads = [&b""[..], b"odd", b"even", &[0xff; 1200]];
    for (own, peer, length) in [("192.0.2.1", "192.0.2.2", 24), ("2001:db8::1", "2001:db8::2", 64)] {
        ip(&format!("address add {own}/{length} dev far0{}", if length > 32 { " nodad" } else { "" }));
        ip(&format!("neighbour add {peer} lladdr 02:00:00:00:00:02 dev far0"));
        let peer: IpAddr = peer.parse().expect("an address");
        let socket = UdpSocket::bind((own.parse::<IpAddr>().expect("an address"), 0)).expect("a socket");
        for payload in payloads {
            socket.send_to(payload, (peer, 9)).expect("sent");
        }
        // Its SYN is all that we want of it.
        TcpStream::connect_timeout(&SocketAddr::from((peer, 80)), Duration::from_millis(50)).expect_err("no answer");
        let (mut udp, mut tcp) = (Vec::new(), 0);
        eventually("what the sockets have sent", || {
            let mut burst = Burst::new();
            queue.receive(&mut burst);
            for frame in burst.iter().map(Mbuf::data) {
                // These verify the checksums.
                let (protocol, transport) = if peer.is_ipv4() && frame[12..14] == [8, 0] {
                    let read = common::read(frame);
                    (read.protocol, read.transport)
                } else if peer.is_ipv6() && frame[12..14] == [0x86, 0xdd] {
                    let read = common::read6(frame);
                    (read.next_header, read.transport)
                } else {
                    continue;
                };
                match protocol {
                    17 => udp.push(transport[8..].to_vec()),
                    6 => tcp += 1,
                    _ => {}
                }
            }
            udp.len() >= payloads.len() && tcp > 0
        });
        assert_eq!(udp, payloads);
    }
}

#[test]
fn af_packet_finishes_checksums_of_the_kernel() {
    network_namespace();
    kernel_checksums_are_finished("net_af_packet3,iface=near0,framecnt=512,framesz=2048,blocksz=4096", &pool(2047));
}

#[test]
fn af_xdp_finishes_checksums_of_the_kernel() {
    network_namespace();
    kernel_checksums_are_finished("net_af_xdp3,iface=near0", &pool(8191));
}

#[test]
fn virtio_user_to_vhost() {
    let directory = Directory::new("vhost");
    let socket = directory.file("v.sock");
    let (mut host_pool, mut guest_pool) = (pool(2047), pool(2047));
    let (host, mut host_queue) = open(&format!("net_vhost1,iface={socket}"), &host_pool);
    let (guest, mut guest_queue) = open(&format!("net_virtio_user1,path={socket}"), &guest_pool);
    eventually("the link is up", || host.link().up && guest.link().up);
    let frames: Vec<_> = (0..BURST as u32).map(|n| frame(n, 60 + 40 * n as usize)).collect();
    carry(&frames, &mut host_queue, &mut host_pool, &mut guest_queue);
    carry(&frames, &mut guest_queue, &mut guest_pool, &mut host_queue);
    drop((guest, guest_queue, host, host_queue));
    assert_eq!((host_pool.in_use(), guest_pool.in_use()), (0, 0));
}

#[test]
fn mbufs_grow_and_shrink_at_both_ends() {
    let mut pool = pool(63);
    let mut mbuf = pool.alloc().expect("a free buffer");
    assert_eq!((mbuf.data(), mbuf.headroom(), mbuf.tailroom()), (&[][..], 128, 2048));
    assert!(mbuf.append(100));
    for (byte, n) in mbuf.data_mut().iter_mut().zip(0..) {
        *byte = n;
    }
    assert!(mbuf.prepend(20) && mbuf.trim_front(25));
    assert_eq!((mbuf.data()[0], mbuf.data().len(), mbuf.headroom(), mbuf.tailroom()), (5, 95, 133, 1948));
    mbuf.truncate(96);
    assert_eq!(mbuf.data().len(), 95);
    mbuf.truncate(10);
    assert_eq!(mbuf.data(), (5..15).collect::<Vec<u8>>());
    // What can't be changes nothing.
    assert!(!mbuf.prepend(134) && !mbuf.trim_front(11) && !mbuf.append(2034));
    assert!(!mbuf.prepend(70_000) && !mbuf.trim_front(70_000) && !mbuf.append(70_000));
    assert_eq!((mbuf.data().len(), mbuf.headroom(), mbuf.tailroom()), (10, 133, 2033));
    assert!(mbuf.prepend(133) && mbuf.append(2033));
    assert_eq!((mbuf.data().len(), mbuf.headroom(), mbuf.tailroom()), (2176, 0, 0));
}

#[test]
fn pools_end_and_recover() {
    let mut pool = pool(63);
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((taken.len(), pool.size(), pool.in_use()), (63, 63, 63));
    let other = taken.split_off(30);
    thread::spawn(move || drop(other)).join().expect("freed in another thread");
    assert_eq!(pool.in_use(), 30);
    drop(taken);
    assert_eq!(pool.in_use(), 0);
    assert_eq!(pool.alloc().map(|mbuf| mbuf.data().len()), Some(0));
    let config = MempoolConfig { packets: 1 << 22, ..MempoolConfig::default() };
    let error = Mempool::new(eal(), &config).expect_err("9 GiB").to_string();
    assert!(error.starts_with("no pool of 4194304 packets of 2048 bytes: "), "{error}");
    assert!(error.contains("raise boot.memory.size or lower boot.packets"), "{error}");
}

/// A pool without a free buffer, behind a device that can't wait: it loses what it has taken from the kernel, and counts it
/// (`nombuf`). When buffers come back, it receives again, first what still waits in the kernel.
#[test]
fn tap_without_buffers_counts_and_recovers() {
    network_namespace();
    let mut pool = pool(255);
    let config = PortConfig { rx_descriptors: 64, ..PortConfig::new("net_tap8,iface=tap8") };
    let (port, mut queues) = Port::open(eal(), &config, &[&pool]).expect("a TAP port");
    ip("link set tap8 addrgenmode none");
    ip("address add 192.0.2.1/24 dev tap8");
    ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap8");
    let socket = UdpSocket::bind("192.0.2.1:0").expect("a socket");
    let send = |tag: u8| (0..10).for_each(|_| assert_eq!(socket.send_to(&[tag; 32], "192.0.2.2:9").expect("sent"), 32));
    // Adds the tags of the datagrams that have come.
    let mut poll = |tags: &mut Vec<u8>| {
        let mut burst = Burst::new();
        queues[0].receive(&mut burst);
        tags.extend(burst.iter().map(Mbuf::data).filter(|it| it.len() == 42 + 32).map(|it| it[42]));
    };
    for round in 0..3 {
        let mut tags = Vec::new();
        let before = port.stats().rx_no_buffer;
        let taken: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(pool.in_use(), pool.size());
        send(1);
        eventually("a loss is counted", || {
            poll(&mut tags);
            port.stats().rx_no_buffer > before
        });
        assert!(tags.is_empty());
        drop(taken);
        send(2);
        eventually("the later ones come", || {
            poll(&mut tags);
            tags.iter().filter(|&&tag| tag == 2).count() == 10
        });
        let lost = usize::try_from(port.stats().rx_no_buffer - before).expect("a few");
        // The kernel has said something of its own too, perhaps.
        assert!(tags.len() + lost >= 20, "round {round}: each was lost and counted, or came");
    }
}

/// The same behind a device that can wait: nothing is lost as long as its ring has room.
#[test]
fn memif_without_buffers_waits() {
    let directory = Directory::new("memif-empty");
    let socket = directory.file("m.sock");
    let (mut east_pool, mut west_pool) = (pool(127), pool(127));
    let end = |role: &str, n: u8| format!("net_memif{n},role={role},id=0,socket={socket},socket-abstract=no");
    let (east_port, mut east) = open(&end("server", 4), &east_pool);
    let (west_port, mut west) = open(&end("client", 5), &west_pool);
    eventually("the link comes up", || east_port.link().up && west_port.link().up);
    let frames: Vec<_> = (0..20u32).map(|n| frame(n, 60 + 70 * n as usize)).collect();
    carry(&frames, &mut east, &mut east_pool, &mut west);
    for _ in 0..3 {
        let taken: Vec<_> = std::iter::from_fn(|| west_pool.alloc()).collect();
        let mut burst: Burst<Mbuf> = frames.iter().map(|frame| mbuf(&mut east_pool, frame)).collect();
        east.transmit(&mut burst);
        assert!(burst.is_empty());
        let mut arrived = Vec::new();
        for _ in 0..10 {
            poll(&mut west, &mut arrived);
        }
        assert!(arrived.is_empty());
        drop(taken);
        assert_eq!(receive(&mut west, 20), frames);
    }
}

/// A worker on real buffers, whose pool is empty: packets that came in other buffers cross it as ever, what it would have to
/// send itself fails by name, and with buffers it sends again. None is lost on the way.
#[test]
fn a_worker_without_buffers_recovers() {
    let (mut own, mut wire) = (pool(63), pool(63));
    let plan = Arc::new(Plan::compile(common::spec()).expect("a plan"));
    let (leases, counters) = (Arc::new(Leases::new(&plan)), Arc::new(Counters::new(2)));
    let engine = Engine::new(plan, leases, Arc::clone(&counters), Time::ZERO);
    let ((to_worker, inbox), (outbox, _events)) = (crossbeam_channel::unbounded(), crossbeam_channel::bounded(64));
    let mut worker = Worker::new(engine, vec![Wires::default(), Wires::default()], own.clone(), inbox, outbox);
    for (interface, address) in [(INSIDE, "192.168.1.10"), (OUTSIDE, "198.51.100.1")] {
        let address = address.parse().expect("an address");
        let update = NeighbourUpdate { interface, address, state: NeighbourState::Reachable(common::PEER) };
        to_worker.send(ToWorker::Neighbour(update)).expect("a worker");
    }
    let (host, server) = (common::end("192.168.1.10:4000"), common::end("198.18.0.1:53"));
    let expired = common::udp_ttl(INSIDE, host, server, b"", 1);
    let crossing = common::udp(INSIDE, host, server, b"");
    let reply = common::echo(INSIDE, "192.168.1.1".parse().expect("an address"), host.0, false, 1, 1);
    // One packet that crosses, one that is to be answered, one of the host's: how many leave inside and outside.
    let mut turn = || {
        worker.devices_mut()[0].rx.extend([mbuf(&mut wire, &crossing), mbuf(&mut wire, &expired)]);
        to_worker.send(ToWorker::Packet { packet: reply[14..].into() }).expect("a worker");
        worker.poll_once(Time::from_secs(1));
        assert_eq!(counters.imbalance(), 0);
        [0, 1].map(|port| worker.devices_mut()[port].tx.drain(..).count())
    };
    for round in 1..=3 {
        let taken: Vec<_> = std::iter::from_fn(|| own.alloc()).collect();
        assert_eq!(turn(), [0, 1]);
        assert_eq!((counters.originate_failures.get(), counters.drops(Drop::PoolEmpty)), (round, round));
        drop(taken);
        assert_eq!(turn(), [2, 1]);
    }
    assert_eq!((own.in_use(), wire.in_use()), (0, 0));
}

/// A port whose wire is two arrays of real buffers.
#[derive(Debug, Default)]
struct Wires {
    rx: Vec<Mbuf>,
    tx: Vec<Mbuf>,
}

impl Device for Wires {
    type Packet = Mbuf;

    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        burst.extend(self.rx.drain(..));
    }

    fn transmit(&mut self, burst: &mut Burst<Mbuf>) {
        self.tx.extend(burst.drain(..));
    }
}

#[test]
fn workers_are_pinned_and_registered() {
    let core = *available_cores().last().expect("a core");
    let (eal, mut pool) = (eal(), pool(1023));
    let (_port, mut queue) = open("net_ring3", &pool);
    let worker = thread::spawn(move || {
        let registered = WorkerThread::enter(eal, core).expect("an available core");
        let status = fs::read_to_string("/proc/thread-self/status").expect("procfs");
        assert!(status.contains(&format!("Cpus_allowed_list:\t{core}\n")), "{status}");
        let reason = "it is registered already".into();
        assert_eq!(WorkerThread::enter(eal, core).expect_err("twice"), CoreError::Register { core, reason });
        let mut burst: Burst<Mbuf> = (0..8).map(|n| mbuf(&mut pool, &frame(n, 64))).collect();
        queue.transmit(&mut burst);
        assert_eq!(receive(&mut queue, 8).len(), 8);
        drop(registered);
        assert!(WorkerThread::enter(eal, core).is_ok());
        // What the thread's cache holds is not in use.
        assert_eq!(pool.in_use(), 0);
    });
    worker.join().expect("the worker's assertions hold");
    let missing = thread::spawn(move || WorkerThread::enter(eal, 5000).map(drop)).join().expect("no panic");
    assert!(matches!(missing, Err(CoreError::Absent { core: 5000, .. })), "{missing:?}");
}

#[test]
fn ports_that_can_not_be_opened_say_why() {
    network_namespace();
    let pool = pool(1023);
    let error = |device: &str| open_error(&PortConfig::new(device), &pool);
    assert_eq!(
        error("net_af_packet7,iface=lan0"),
        "device `net_af_packet7`: there is no interface `lan0` in this network namespace"
    );
    let pci = error("0000:ff:1f.7");
    assert!(pci.starts_with("PCI device 0000:ff:1f.7: there is no such device; `lspci -D` lists"), "{pci}");
    let unknown = error("net_nothing0");
    assert!(unknown.starts_with("device `net_nothing0`: opening it failed: "), "{unknown}");
    assert!(unknown.contains("\n  "), "DPDK's words are missing: {unknown}");
    let argument = error("net_af_packet6,iface=near0,blocksz=1000");
    assert!(argument.starts_with("device `net_af_packet6`: opening it failed: "), "{argument}");
    assert!(argument.contains("\n  ") && argument.contains("block"), "the driver's words are missing: {argument}");
    let empty = error("");
    assert!(empty.starts_with("`` is no DPDK device: write a vdev like"), "{empty}");
    let mtu = PortConfig { mtu: Some(9000), ..PortConfig::new("net_ring4") };
    assert_eq!(
        open_error(&mtu, &pool),
        "device `net_ring4` can't have an MTU of 9000 bytes: frames of 9022 bytes don't fit buffers for 2048"
    );
    let config = PortConfig::new("net_af_packet8,iface=near0");
    let (port, queues) = Port::open(eal(), &config, &[&pool, &pool]).expect("a port");
    assert_eq!((queues.len(), port.info().queues), (1, 1), "as many as the device has");
    drop((port, queues));
    // One that hashes, though not as we would like best: it takes our key and our table.
    let config = PortConfig { side: Side::Inside, ..PortConfig::new("net_null9") };
    let (port, queues) = Port::open(eal(), &config, &[&pool, &pool]).expect("a port");
    assert_eq!((queues.len(), port.info().steering, port.info().reta_size), (2, Steering::Hash, 128));
    // Its driver has no flow rules, and says so.
    let said = port.info().flow_rules.as_ref().expect("asked for").as_ref().expect_err("it has none");
    assert!(said.starts_with("Function not implemented"), "{said}");
    assert!(port.steer(&ShardMap::dealt(2)));
    drop((port, queues));
    // Nothing of these is left.
    assert_eq!(pool.in_use(), 0);
    open("net_ring4", &pool);
}

#[test]
fn eal_starts_once() {
    eal();
    assert!(matches!(Eal::start(&EalConfig::default()), Err(Error::AlreadyStarted)));
    let directory = format!("/var/run/dpdk/turnpike-{}", std::process::id());
    assert!(!fs::exists(directory).expect("readable"), "EAL left a directory");
}

#[test]
fn more_than_there_is() {
    let start = |hugepages| Eal::start(&EalConfig { memory_mib: 1 << 30, hugepages, ..EalConfig::default() });
    let config = EalConfig { control_core: Some(100_000), ..EalConfig::default() };
    let error = Eal::start(&config).expect_err("no such core").to_string();
    assert!(error.starts_with("core 100000 does not exist: this machine has 0"), "{error}");
    let error = start(false).expect_err("1 PiB").to_string();
    assert!(error.starts_with("DPDK is to have 1073741824 MiB of memory and "), "{error}");
    assert!(error.ends_with(" MiB are free: lower boot.memory.size, or free some"), "{error}");
    let error = start(true).expect_err("1 PiB").to_string();
    assert!(error.starts_with("DPDK is to have 1073741824 MiB of huge pages and "), "{error}");
    assert!(error.ends_with("(sysctl vm.nr_hugepages), or set boot.memory.hugepages to false"), "{error}");
}

/// EAL finds out for itself that it can't have the memory; its own words must reach the error.
#[test]
fn start_that_fails_says_why() {
    let name = "start_that_fails_says_why";
    if is_child(name) {
        let config = EalConfig { memory_mib: 1024, ..EalConfig::default() };
        println!("<{}>", Eal::start(&config).expect_err("no room"));
        let directory = format!("/var/run/dpdk/turnpike-{}", std::process::id());
        assert!(!fs::exists(directory).expect("readable"), "EAL left a directory");
        return;
    }
    let output = again(name, "ulimit -v 1000000");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let error = printed.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).expect("an error").0;
    assert!(error.starts_with("DPDK did not start: "), "{error}");
    assert!(error.contains("\n  EAL: ") && error.contains("Cannot allocate memory"), "{error}");
}

/// With huge pages where the machine has some free.
#[test]
fn huge_pages() {
    let name = "huge_pages";
    let config = EalConfig { memory_mib: 64, hugepages: true, ..EalConfig::default() };
    if is_child(name) {
        let eal = match Eal::start(&config) {
            Ok(eal) => eal,
            Err(Error::NoMemory { wanted_mib: 64, huge: true, .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let mut pool = Mempool::new(eal, &MempoolConfig { packets: 1023, ..MempoolConfig::default() }).expect("a pool");
        let (_port, mut queues) = Port::open(eal, &PortConfig::new("net_ring0"), &[&pool]).expect("a ring");
        let smaps = fs::read_to_string("/proc/self/smaps").expect("procfs");
        let huge = |line: &str| line.contains("_Hugetlb:") && !line.ends_with(" 0 kB");
        assert!(smaps.lines().any(huge), "no huge page is in use");
        queues[0].transmit(&mut Burst::from_iter([mbuf(&mut pool, &frame(1, 64))]));
        assert_eq!(receive(&mut queues[0], 1), [frame(1, 64)]);
        assert_eq!(pool.in_use(), 0);
        return;
    }
    let output = again(name, "true");
    assert!(output.status.success(), "{output:?}");
}
