//! The control socket as its clients see it: the real server and the real client, with a control thread made for the test.
//! tests/netns asks a whole gateway, as several users.
#![allow(missing_docs, clippy::cast_possible_truncation)]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use control::api::types::*;
use control::api::{Client, ClientError, NEIGHBOURS, Neighbours, REQUESTS, Request, Server, Socket, View, Walked};
use control::config::{Config, Control};
use control::host::{Neighbour as Known, NudState};
use control::metrics::{MempoolSample, PortSample, Sample};
use crossbeam_channel::{Receiver, bounded};
use dataplane::counters::{Counters, Drop as Reason, SessionClass};
use dataplane::plan::{InterfaceId, MacAddr, Plan, PortId};
use dataplane::pool::{Leases, Proto};
use dataplane::session::walk::{Action, MappingRow, STEP, SessionRow};
use dataplane::session::{Counts, Tuple4};
use dataplane::steer::{ShardId, ShardMap};
use dataplane::time::Time;
use dataplane::trace::RuleRef;
use hyper::Method;

const CONFIG: &str = r#"
version: 1
ports: {lan: {device: "net_ring0"}, wan: {device: "net_ring1"}}
interfaces:
  inside: {port: lan, zone: inside, addresses: [192.168.1.1/24, 192.168.1.2/24, "2001:db8:1::1/64"]}
  guests: {port: lan, vlan: 20, zone: inside, addresses: [192.168.20.1/24]}
  uplink: {port: wan, zone: outside, addresses: [198.51.100.2/24], mtu: 1400}
routes:
  - {to: 0.0.0.0/0, via: 198.51.100.1}
  - {to: 10.0.0.0/8, unreachable: true}
pools: {public: {addresses: [203.0.113.0/30], ports: 1024-2047}}
nat44:
  rules:
    everyone: {from: inside, to: outside, pool: public}
    web: {from: inside, to: outside, pool: public}
  forwards:
    web: {from: outside, to: inside, protocol: tcp, external: "203.0.113.9:80", inside: "192.168.1.10:80"}
"#;

/// What the control thread made for the test does and knows.
struct Gateway {
    client: Client,
    path: PathBuf,
    counters: Vec<Arc<Counters>>,
    /// Steps that walks were taken.
    steps: Arc<AtomicU64>,
    server: Option<Server>,
    _dir: tempfile::TempDir,
}

/// A gateway of two workers, each with this many sessions and mappings.
fn gateway(sessions: u64) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let config = Config::parse(CONFIG, "test.yaml".as_ref()).unwrap();
    let mac = |port: PortId| MacAddr([2, 0, 0, 0, 0, port.0 as u8]);
    let mut spec = config.spec(&mac, [1; 16], 7);
    spec.links_down = vec![PortId(1)];
    let plan = Arc::new(Plan::compile(spec).unwrap());
    let counters: Vec<_> = (0..2).map(|_| Arc::new(Counters::among(2, 3))).collect();
    let ports = [true, false].map(|up| PortSample { up, ..PortSample::default() });
    let view = View {
        files: config.files.clone(),
        renumbered: Vec::new(),
        uptime: Duration::from_secs(90),
        ready: true,
        leases: Arc::new(Leases::new(&plan)),
        plan,
        map: Arc::new(ShardMap::dealt(2)),
        workers: counters.iter().zip(4..).map(|(counters, core)| (core, Arc::clone(counters))).collect(),
        sample: Sample {
            ports: ports.into(),
            mempools: vec![MempoolSample { free: 5, size: 9 }; 2],
            ..Sample::default()
        },
    };
    let (sender, requests) = bounded(REQUESTS);
    let steps = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&steps);
    thread::spawn(move || control_thread(&requests, &view, sessions, &counted));
    let socket = Socket::claim(&settings(&path)).unwrap().unwrap();
    let server = Some(Server::start(socket, sender).unwrap());
    Gateway { client: Client::new(&path).unwrap(), path, counters, steps, server, _dir: dir }
}

/// Whoever runs the test may read, and root all.
fn settings(path: &std::path::Path) -> Control {
    let group = String::from_utf8(Command::new("id").arg("-gn").output().unwrap().stdout).unwrap();
    Control { socket: Some(path.to_owned()), group: Some(group.trim().to_owned()) }
}

fn am_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn session(worker: usize, n: u64) -> SessionRow {
    let tuple = |source, source_port| Tuple4 {
        source: Ipv4Addr::from(source).to_bits(),
        destination: Ipv4Addr::new(198, 18, 0, 1).to_bits() + n as u32,
        source_port,
        destination_port: 53,
    };
    SessionRow {
        shard: ShardId(3),
        proto: Proto::Udp,
        class: SessionClass::Udp,
        inside: tuple([192, 168, 1, 10], 5000 + worker as u16),
        outside: tuple([203, 0, 113, 1], 1024),
        opened_inside: true,
        rule: RuleRef::Nat44(0),
        remaining: Duration::from_millis(299_900),
        counts: Some(Counts { packets: [3, 2], bytes: [300, 200] }),
    }
}

fn mapping(n: u64) -> MappingRow {
    MappingRow {
        shard: ShardId(3),
        proto: Proto::Tcp,
        inside: Ipv4Addr::new(192, 168, 1, 10).to_bits(),
        inside_port: 5000,
        external: Ipv4Addr::new(203, 0, 113, 1).to_bits(),
        external_port: 1024,
        sessions: (n % 2) as u32,
        rule: RuleRef::Nat44(1),
    }
}

/// Answers as the real one does, with rows of its own making.
fn control_thread(requests: &Receiver<Request>, view: &View, sessions: u64, steps: &AtomicU64) {
    for request in requests {
        match request {
            Request::View(answer) => drop(answer.send(view.clone())),
            Request::Neighbours { after, answer } => {
                let first = after.map_or(0, |(_, address)| match address {
                    IpAddr::V4(address) => address.to_bits() + 1,
                    IpAddr::V6(_) => panic!("not given out"),
                });
                let neighbours = (first..600).take(NEIGHBOURS).map(|n| Known {
                    interface: InterfaceId(2),
                    address: Ipv4Addr::from_bits(n).into(),
                    mac: (n > 0).then_some(MacAddr([2, 0, 0, 0, 0, 9])),
                    state: NudState::Stale,
                    since: Time::from_secs(5),
                });
                let (plan, now) = (Arc::clone(&view.plan), Time::from_secs(65));
                let _ = answer.send(Neighbours { plan, now, neighbours: neighbours.collect() });
            }
            Request::Walk { worker, answer, .. } if worker >= view.workers.len() => drop(answer.send(None)),
            Request::Walk { worker, mut walk, answer } => {
                steps.fetch_add(1, Ordering::Relaxed);
                walk.begin_step();
                let until = (walk.met + STEP as u64).min(sessions);
                match walk.action {
                    Action::ListSessions => walk.sessions.extend((walk.met..until).map(|n| session(worker, n))),
                    Action::ListMappings => walk.mappings.extend((walk.met..until).map(mapping)),
                    Action::CountSessions | Action::EndSessions => {}
                }
                (walk.met, walk.done) = (until, until == sessions);
                let _ = answer.send(Some(Walked { plan: Arc::clone(&view.plan), walk }));
            }
            Request::Reload { check_only: true, answer } => {
                let change = Change { key: "pools.public".into(), what: "grows".into(), flows: String::new() };
                let report = ReloadReport { generation: 7, applied: false, changes: vec![change] };
                let _ = answer.send(Ok(report));
            }
            Request::MoveShard { shard, to, answer } if to.index() < view.workers.len() => {
                let from = view.map.owner(shard).0;
                let _ = answer.send(Ok(Moved { shard: shard.0, from, to: to.0 }));
            }
            Request::MoveShard { answer, .. } => drop(answer.send(Err("there is no such worker".to_owned()))),
            Request::Renumber { rule, outside, answer } => {
                let change = Change { key: rule, what: format!("{outside:?}"), flows: String::new() };
                let _ = answer.send(Ok(ReloadReport { generation: 8, applied: true, changes: vec![change] }));
            }
            Request::Reload { check_only: false, answer } => drop(answer.send(Err("timers.udp: no".to_owned()))),
        }
    }
}

impl Gateway {
    fn list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let mut reply = self.client.request(Method::GET, path).unwrap();
        let mut rows = Vec::new();
        while let Some(lines) = reply.lines().unwrap() {
            let lines = std::str::from_utf8(&lines).unwrap();
            rows.extend(lines.lines().map(|line| serde_json::from_str::<T>(line).unwrap()));
        }
        rows
    }

    fn refused(&self, method: Method, path: &str) -> (u16, String) {
        match self.client.request(method, path) {
            Err(error @ ClientError::Refused { status, .. }) => (status, error.to_string()),
            other => panic!("{path}: {other:?}"),
        }
    }

    /// What a client that sends these bytes reads.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

#[test]
fn every_object_is_documented() {
    let manual = include_str!("../../docs/control-socket.md");
    let documented = |name: &str| -> Vec<&str> {
        let (_, section) = manual.split_once(&format!("\n### {name}\n")).unwrap_or_else(|| panic!("no {name}"));
        let section = section.split("\n### ").next().unwrap();
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(field, _)| field)).collect()
    };
    for (name, fields) in [
        ("Status", Status::FIELDS),
        ("Session", Session::FIELDS),
        ("Mapping", Mapping::FIELDS),
        ("Pool", Pool::FIELDS),
        ("Pool address", PoolAddress::FIELDS),
        ("Interface", Interface::FIELDS),
        ("Neighbour", Neighbour::FIELDS),
        ("Route", Route::FIELDS),
        ("Worker", Worker::FIELDS),
        ("Shard", Shard::FIELDS),
        ("Moved", Moved::FIELDS),
        ("Prefix", Prefix::FIELDS),
        ("Drop reason", DropReason::FIELDS),
        ("Count", Count::FIELDS),
        ("Flushed", Flushed::FIELDS),
        ("Reload report", ReloadReport::FIELDS),
        ("Change", Change::FIELDS),
        ("Refusal", Refusal::FIELDS),
    ] {
        assert_eq!(documented(name), fields, "{name}");
    }
    // And every verb.
    let gateway = gateway(0);
    let (_, error) = gateway.refused(Method::GET, "/v1");
    let paths: Vec<&str> = error.split_once("answers to ").unwrap().1.split(", ").collect();
    assert!(paths.len() > 10 && paths.iter().all(|path| manual.contains(&format!("{path}` |"))), "{paths:?}");
}

#[test]
fn status_says_how_the_gateway_is() {
    let gateway = gateway(0);
    gateway.counters[0].sessions[SessionClass::Udp as usize].add(3);
    gateway.counters[1].sessions[SessionClass::TcpOpening as usize].add(4);
    gateway.counters[1].mappings[2].add(5);
    let status: Status = gateway.client.request(Method::GET, "/v1/status").unwrap().object().unwrap();
    assert_eq!((status.version.as_str(), status.pid), (env!("CARGO_PKG_VERSION"), std::process::id()));
    assert_eq!((status.uptime_seconds, status.ready, status.generation), (90, true, 7));
    assert_eq!(status.config, ["test.yaml"]);
    assert_eq!((status.workers, status.ports, status.ports_up), (2, 2, 1));
    assert_eq!((status.sessions, status.session_limit), (7, 262_144));
    assert_eq!((status.mappings, status.mapping_limit), (5, 262_144));
}

#[test]
fn interfaces_routes_pools_neighbours_workers_and_drops_are_listed_by_their_names() {
    let gateway = gateway(0);
    for (worker, packets) in gateway.counters.iter().zip([2, 40]) {
        worker.interfaces[2].received_packets.add(packets);
        worker.interfaces[2].transmitted_bytes.add(1000 * packets);
        worker.dropped[Reason::NoRoute as usize].add(packets);
        worker.received.add(packets);
    }
    let interfaces: Vec<Interface> = gateway.list("/v1/interfaces");
    assert_eq!(interfaces.iter().map(|it| it.interface.as_str()).collect::<Vec<_>>(), ["inside", "guests", "uplink"]);
    let guests = &interfaces[1];
    assert_eq!((guests.port.as_str(), guests.vlan, guests.zone.as_str(), guests.up), ("lan", Some(20), "inside", true));
    let uplink = &interfaces[2];
    assert_eq!((uplink.mac.as_str(), uplink.mtu, uplink.up), ("02:00:00:00:00:01", 1400, false));
    assert_eq!((uplink.addresses.join(" "), uplink.vlan), ("198.51.100.2/24".to_owned(), None));
    assert_eq!((uplink.received_packets, uplink.transmitted_bytes, uplink.transmitted_packets), (42, 42_000, 0));

    let routes: Vec<Route> = gateway.list("/v1/routes");
    let text = |it: &Route| {
        let via = it.via.map_or("-".to_owned(), |via| via.to_string());
        let interface = it.interface.as_deref().unwrap_or("-");
        format!("{} {} {via} {interface}{}", it.to, it.kind, if it.withdrawn { " withdrawn" } else { "" })
    };
    assert_eq!(
        routes.iter().map(text).collect::<Vec<_>>(),
        [
            "192.168.1.0/24 connected - inside",
            "2001:db8:1::/64 connected - inside",
            "192.168.20.0/24 connected - guests",
            "198.51.100.0/24 connected - uplink withdrawn",
            "0.0.0.0/0 static 198.51.100.1 uplink withdrawn",
            "10.0.0.0/8 unreachable - -",
        ]
    );

    let pools: Vec<Pool> = gateway.list("/v1/pools");
    assert_eq!((pools.len(), pools[0].pool.as_str(), pools[0].addresses), (1, "public", 4));
    assert_eq!((pools[0].ports, pools[0].blocks, pools[0].blocks_free), (4 * 1024, 4 * 16, 4 * 16));
    let addresses: Vec<PoolAddress> = gateway.list("/v1/pools/addresses");
    let addresses: Vec<String> = addresses.iter().map(|it| format!("{} {}", it.address, it.blocks)).collect();
    assert_eq!(addresses, ["203.0.113.0 16", "203.0.113.1 16", "203.0.113.2 16", "203.0.113.3 16"]);

    let neighbours: Vec<Neighbour> = gateway.list("/v1/neighbours");
    assert!(neighbours.iter().zip(0..600).all(|(it, n)| it.address == Ipv4Addr::from_bits(n)), "all, once, in order");
    let first = &neighbours[0];
    assert_eq!((neighbours.len(), first.interface.as_str(), first.mac.as_deref()), (600, "uplink", None));
    assert_eq!((neighbours[1].mac.as_deref(), neighbours[1].age_seconds), (Some("02:00:00:00:00:09"), 60));

    let workers: Vec<Worker> = gateway.list("/v1/workers");
    let workers: Vec<_> =
        workers.iter().map(|it| (it.worker, it.core, it.received, it.dropped, it.buffers_free, it.shards)).collect();
    assert_eq!(workers, [(0, 4, 2, 2, 5, 32), (1, 5, 40, 40, 5, 32)]);
    let shards: Vec<Shard> = gateway.list("/v1/shards");
    assert!(shards.iter().map(|it| (it.shard, it.worker)).eq((0..64).map(|shard| (shard, shard % 2))));

    let stats: Vec<DropReason> = gateway.list("/v1/stats");
    assert_eq!(stats.len(), Reason::ALL.len());
    assert!(stats.iter().all(|it| it.meaning.ends_with('.') && it.advice.len() > 8 && !it.advice.ends_with('.')));
    let drops: Vec<_> = stats.iter().filter(|it| it.packets > 0).map(|it| (it.reason.as_str(), it.packets)).collect();
    assert_eq!(drops, [("no-route", 42)]);
}

#[test]
fn a_shard_moves_to_a_worker_that_there_is() {
    if !am_root() {
        return; // only root may change anything
    }
    let gateway = gateway(0);
    let mut reply = gateway.client.request(Method::POST, "/v1/shards?shard=17&worker=0").unwrap();
    let Moved { shard, from, to } = reply.object().unwrap();
    assert_eq!((shard, from, to), (17, 1, 0));
    for (query, said) in [
        ("", "needs a shard and a worker"),
        ("?shard=17", "needs a shard and a worker"),
        ("?shard=64&worker=0", "`shard=64` does not do"),
        ("?shard=1&worker=x", "`worker=x` does not do"),
        ("?shard=1&worker=2", "no such worker"),
    ] {
        let (_, error) = gateway.refused(Method::POST, &format!("/v1/shards{query}"));
        assert!(error.contains(said), "{query}: {error}");
    }
}

#[test]
fn a_long_list_waits_for_its_reader_and_for_nobody_else() {
    const SESSIONS: u64 = 100_000;
    let gateway = gateway(SESSIONS);
    let mut reply = gateway.client.request(Method::GET, "/v1/sessions").unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let mut read = lines(&reply.lines().unwrap().unwrap());
    // The reader rests: the walk goes on until what is between it and the reader is full, and then rests too.
    let mut steps = 0;
    while steps != gateway.steps.load(Ordering::Relaxed) {
        steps = gateway.steps.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(300));
    }
    assert!(steps * (STEP as u64) < SESSIONS / 4, "{steps} steps without a reader");
    let other = Client::new(&gateway.path).unwrap();
    assert!(other.request(Method::GET, "/v1/status").is_ok(), "others are served");
    let mut last = Vec::new();
    while let Some(more) = reply.lines().unwrap() {
        read += lines(&more);
        last = more;
    }
    assert_eq!(read, 2 * SESSIONS, "both workers'");
    let last: Session =
        serde_json::from_slice(last[..last.len() - 1].rsplit(|&byte| byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((last.proto.as_str(), last.state.as_str(), last.opened.as_str()), ("udp", "active", "inside"));
    assert_eq!((last.inside, last.inside_port), (Ipv4Addr::new(192, 168, 1, 10), 5001));
    assert_eq!((last.external, last.external_port), (Ipv4Addr::new(203, 0, 113, 1), 1024));
    assert_eq!((last.remote, last.remote_port), (Ipv4Addr::from_bits(0xc612_0001 + 99_999), 53));
    assert_eq!((last.kind.as_str(), last.rule.as_str(), last.expires_seconds), ("rule", "everyone", 299));
    let carried = [last.packets_out, last.bytes_out, last.packets_in, last.bytes_in];
    assert_eq!(carried, [Some(3), Some(300), Some(2), Some(200)]);
}

#[test]
fn a_walk_ends_with_its_client_and_a_user_has_two_at_most() {
    let gateway = gateway(1_000_000);
    let clients: Vec<_> = (0..2).map(|_| Client::new(&gateway.path).unwrap()).collect();
    let replies: Vec<_> = clients.iter().map(|client| client.request(Method::GET, "/v1/sessions").unwrap()).collect();
    let (status, error) = gateway.refused(Method::GET, "/v1/sessions/count");
    assert_eq!(status, 503);
    assert!(error.contains("other listings") && error.contains("try again"), "{error}");
    drop(replies);
    drop(clients);
    // Their places are free as soon as the server has noticed.
    let counted = (0..100).find_map(|_| {
        thread::sleep(Duration::from_millis(50));
        gateway.client.request(Method::GET, "/v1/sessions/count").ok()
    });
    let count: Count = counted.expect("a place").object().unwrap();
    assert_eq!(count.sessions, 2_000_000);
    let steps = gateway.steps.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(gateway.steps.load(Ordering::Relaxed), steps, "nobody walks any more");
}

#[test]
fn mappings_are_listed_and_sessions_ended() {
    let gateway = gateway(300);
    let mappings: Vec<Mapping> = gateway.list("/v1/mappings?proto=tcp");
    assert_eq!(mappings.len(), 600);
    assert_eq!((mappings[0].sessions, mappings[0].held_down, mappings[1].held_down), (0, true, false));
    assert_eq!((mappings[0].proto.as_str(), mappings[0].rule.as_str()), ("tcp", "web"));
    let flush = |path| gateway.client.request(Method::DELETE, path).map(|mut reply| reply.object::<Flushed>().unwrap());
    if am_root() {
        assert_eq!(flush("/v1/sessions?all=true").unwrap().sessions, 600);
        assert_eq!(flush("/v1/sessions?inside=192.168.1.0/24").unwrap().sessions, 600);
        let check: ReloadReport =
            gateway.client.request(Method::POST, "/v1/reload?check=true").unwrap().object().unwrap();
        assert_eq!((check.generation, check.applied, check.changes[0].key.as_str()), (7, false, "pools.public"));
        let (status, error) = gateway.refused(Method::POST, "/v1/reload");
        assert_eq!((status, error.as_str()), (422, "timers.udp: no"));
    } else {
        for (method, path) in [(Method::DELETE, "/v1/sessions?all=true"), (Method::POST, "/v1/reload")] {
            let (status, error) = gateway.refused(method, path);
            assert!(status == 403 && error.contains("only root may change anything"), "{status} {error}");
        }
    }
}

#[test]
fn a_wrong_request_is_told_what_is_wrong_and_what_to_do() {
    let gateway = gateway(0);
    for (path, words) in [
        ("/v1/sessions?proto=sctp", "proto: `sctp` is no protocol that is translated; write tcp, udp or icmp"),
        ("/v1/sessions?inside=192.168.1.0/33", "inside: `192.168.1.0/33` is no IPv4 address or prefix; write it like"),
        ("/v1/sessions?external-port=65536", "external-port: `65536` is no port; write a number from 0 to 65535"),
        ("/v1/sessions?rule=everone", "no rule, forward or static entry `everone`; there are everyone, web, web"),
        ("/v1/sessions?rule=web", "`web` is in both nat44.rules and nat44.forwards; write rules.web or forwards.web"),
        ("/v1/sessions?all=true", "`all=true` is no filter here; filters are proto, inside"),
        ("/v1/mappings?remote=198.18.0.1", "`remote=198.18.0.1` is no filter here; filters are proto, inside"),
        ("/v1/status?verbose", "`verbose`: nothing is to be said here; leave it out"),
    ] {
        let (status, error) = gateway.refused(Method::GET, path);
        assert!(status == 400 && error.contains(words), "{path}: {status} {error}");
    }
    for (query, words) in [
        ("", "nothing says which sessions are to end; give a filter, or `all` to end every session"),
        ("?all=true&proto=udp", "`all` and a filter contradict each other"),
    ] {
        let (status, error) = gateway.refused(Method::DELETE, &format!("/v1/sessions{query}"));
        assert!(!am_root() || (status == 400 && error.contains(words)), "{query}: {status} {error}");
    }
    for rule in ["rules.web", "forwards.web", "everyone"] {
        assert!(gateway.client.request(Method::GET, &format!("/v1/sessions/count?rule={rule}")).is_ok(), "{rule}");
    }
    let (status, error) = gateway.refused(Method::GET, "/v2/status");
    assert!(status == 404 && error.contains("there is no /v2/status; this gateway answers to /v1/status,"), "{error}");
    let answer = gateway.raw(b"POST /v1/pools HTTP/1.1\r\nHost: x\r\n\r\n");
    if am_root() {
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET\r\n"), "{answer}");
    }
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
}

#[test]
fn what_is_no_request_is_refused_in_bounded_time_and_memory() {
    let gateway = gateway(0);
    let silent: Vec<_> = (0..4).map(|_| UnixStream::connect(&gateway.path).unwrap()).collect();
    assert!(gateway.raw(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = [b"GET /v1/status?".as_slice(), &vec![b'x'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    let mut stream = UnixStream::connect(&gateway.path).unwrap();
    let refused = stream.write_all(&long).is_err();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(refused || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // A body is not read, whatever its length is said to be.
    let answer = gateway.raw(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // One user has eight connections; those that say nothing are closed in the end.
    let more: Vec<_> = (0..4).map(|_| UnixStream::connect(&gateway.path).unwrap()).collect();
    assert!(gateway.client.request(Method::GET, "/v1/status").is_err(), "the ninth");
    let mut nothing = [0];
    silent.iter().chain(&more).for_each(|mut stream| assert!(matches!(stream.read(&mut nothing), Ok(0) | Err(_))));
    assert!(gateway.client.request(Method::GET, "/v1/status").is_ok());
}

#[test]
fn a_gateway_that_stops_says_so_and_takes_its_socket_along() {
    let mut gateway = gateway(u64::MAX);
    let mut reply = gateway.client.request(Method::GET, "/v1/sessions").unwrap();
    assert!(reply.lines().unwrap().is_some());
    drop(gateway.server.take());
    let end = loop {
        match reply.lines() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    let error = end.expect_err("half a list is no list").to_string();
    assert!(error.contains("so this is not all"), "{error}");
    let error = gateway.client.request(Method::GET, "/v1/status").unwrap_err().to_string();
    let path = gateway.path.display();
    assert!(error.contains(&format!("no turnpike answers on {path}: there is no such socket; start it")), "{error}");
}

#[test]
fn the_socket_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/if/missing/control.sock");
    let wanted = settings(&path);
    let socket = Socket::claim(&wanted).unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666, "everyone may connect");
    let error = Socket::claim(&wanted).unwrap_err().to_string();
    assert!(error.contains(&format!("another turnpike runs: it answers on {}", path.display())), "{error}");
    drop(socket);
    assert!(!path.exists());

    // What a process that was killed leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::new(&path).unwrap().request(Method::GET, "/v1/status").unwrap_err().to_string();
    assert!(error.contains("it is the socket of one that has ended; start it"), "{error}");
    let socket = Socket::claim(&wanted).unwrap().unwrap();
    // And what has taken our place meanwhile is not ours to remove.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(socket);
    let error = Socket::claim(&wanted).unwrap_err().to_string();
    assert!(error.contains("is no socket; move it away") && fs::read(&path).unwrap() == b"precious", "{error}");

    let below = settings(&path.join("control.sock"));
    let error = Socket::claim(&below).unwrap_err().to_string();
    assert!(error.starts_with("control.socket: ") && error.contains("or `off`"), "{error}");
    let error = Socket::claim(&Control { group: Some("no-such-group".to_owned()), ..wanted }).unwrap_err().to_string();
    assert!(error.starts_with("control.group: this machine has no group `no-such-group`"), "{error}");
    assert!(Socket::claim(&Control { socket: None, group: None }).unwrap().is_none());
}
