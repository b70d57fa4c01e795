//! `turnpike run` as a service manager sees it: it starts, is ready, stops when told to; and a start that can't work says
//! why, and what to do. On ring devices: no privileges, no network. tests/netns drives it with real traffic.
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::run::service::Service;

const CONFIG: &str = r#"
version: 1
boot:
  cpu: {poll: adaptive}
  memory: {size: 128M}
  packets: 8191
ports:
  lan: {device: "net_ring0"}
  wan: {device: "net_ring1"}
interfaces:
  inside: {port: lan, zone: inside, addresses: [192.168.1.1/24]}
  uplink: {port: wan, zone: outside, addresses: [198.51.100.2/24]}
metrics: {listen: "METRICS"}
control: {socket: "SOCKET"}
"#;

/// Starts `turnpike run` with this configuration.
fn start(dir: &tempfile::TempDir, config: &str) -> Child {
    start_under(dir, config, &[])
}

/// The same, with more in its environment.
fn start_under(dir: &tempfile::TempDir, config: &str, environment: &[(&str, &str)]) -> Child {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let socket = dir.path().join("control.sock");
    let config = config.replace("METRICS", &free).replace("SOCKET", socket.to_str().unwrap());
    let path = dir.path().join("turnpike.yaml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    command.envs(environment.iter().copied());
    command.args(["run", "-c"]).arg(path).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code, within ten seconds.
fn exit_code(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("still running after ten seconds");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_starts_is_ready_and_stops_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let mut child = start(&dir, CONFIG);
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let (mut address, mut seen) = (None, Vec::new());
        for line in log.by_ref() {
            if let Some((_, url)) = line.split_once("url=http://") {
                address = url.strip_suffix("/metrics").map(str::to_owned);
            }
            let ready = line.contains("message=\"forwarding packets\" workers=1 ports=2");
            seen.push(line);
            if ready {
                break;
            }
        }
        let address = address.unwrap_or_else(|| panic!("no metrics, but {seen:#?}"));
        assert!(get(&address, "/readyz").starts_with("HTTP/1.1 200"));
        let metrics = get(&address, "/metrics");
        let has = ["turnpike_ready 1", "turnpike_mempool_size{worker=\"0\"} 8191", "turnpike_port_up{port=\"lan\"} 1"];
        assert!(has.iter().all(|line| metrics.contains(&format!("\n{line}\n"))), "{metrics}");

        Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
        assert_eq!(exit_code(&mut child), Some(0));
        let said: Vec<_> = log.collect();
        assert!(said[0].ends_with(&format!("message=stopping reason=SIG{signal}")), "{said:#?}");
        assert!(said.iter().all(|line| line.contains(" level=info ")), "{said:#?}");
    }
}

#[test]
fn a_start_that_can_not_work_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    for (from, to, code, words) in [
        ("size: 128M", "size: 4095G", 1, "MiB are free: lower boot.memory.size, or free some"),
        ("poll: adaptive", "workers: [1023]", 1, "core 1023 does not exist: this machine has"),
        (
            "net_ring0",
            "net_af_packet0,iface=nosuch0",
            1,
            "ports.lan: device `net_af_packet0`: there is no interface `nosuch0`",
        ),
        ("net_ring1", "net_nosuch1", 1, "ports.wan: device `net_nosuch1`"),
        ("METRICS", &busy, 1, "Address already in use (os error 98); choose another address or port"),
        ("192.168.1.1/24]", "192.168.1.1/24], mtu: 9000", 1, "ports.lan: device `net_ring0`"),
    ] {
        let mut child = start(&dir, &CONFIG.replace(from, to));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(exit_code(&mut child), Some(code), "{to}: {said}");
        let last = said.trim_end().lines().rev().find(|line| line.contains(words));
        assert!(last.is_some(), "{to}: {said}");
    }
}

/// sd_notify(3): a socket by its path, and one by an abstract name, as systemd and containers give.
#[test]
fn the_service_manager_hears_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let name = format!("turnpike-test-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    for (manager, address) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&by_name).unwrap(), format!("@{name}")),
    ] {
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let hear = || {
            let mut buffer = [0; 1024];
            let len = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };
        let mut child = start_under(&dir, CONFIG, &[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "400000")]);
        assert_eq!(hear(), "READY=1\nSTATUS=Forwarding packets between 2 ports");
        let began = Instant::now();
        assert!((0..5).all(|_| hear() == "WATCHDOG=1"), "the watchdog alone is to be heard");
        assert!(began.elapsed() >= Duration::from_millis(700), "more often than at half of its time");
        Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
        let last = std::iter::repeat_with(hear).find(|said| said != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1\nSTATUS=Stopping"));
        assert_eq!(exit_code(&mut child), Some(0));
    }
    // A watchdog for another process is none for this one, and a socket that nobody listens on is no hindrance.
    let manager = UnixDatagram::bind(dir.path().join("other.sock")).unwrap();
    let address = dir.path().join("other.sock").to_str().unwrap().to_owned();
    let for_another = [("NOTIFY_SOCKET", &*address), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut child = start_under(&dir, CONFIG, &for_another);
    let mut buffer = [0; 1024];
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(manager.recv(&mut buffer).is_ok());
    manager.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(manager.recv(&mut buffer).is_err(), "no word of a watchdog");
    drop(manager);
    Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert_eq!(exit_code(&mut child), Some(0));
}

/// What a reload says, in between: `Type=notify-reload` wants to know when it began, by the monotonic clock.
#[test]
fn the_service_manager_hears_of_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    let service = Service::new(Some(path.into()), None);
    let mut buffer = [0; 1024];
    let mut micros = || {
        service.reloading();
        let len = manager.recv(&mut buffer).unwrap();
        let said = std::str::from_utf8(&buffer[..len]).unwrap();
        said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u128>().unwrap()
    };
    // Rust's own clock is that one too, but does not tell what it shows.
    let (before, began) = (micros(), Instant::now());
    std::thread::sleep(Duration::from_millis(20));
    let (passed, after) = (began.elapsed().as_micros(), micros());
    assert!(after - before >= passed, "{before} to {after} in {passed}");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!(after as f64 / 1e6 <= uptime + 0.02, "{after} of {uptime} s");
    service.ready("Forwarding packets");
    let len = manager.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"READY=1\nSTATUS=Forwarding packets");
}
