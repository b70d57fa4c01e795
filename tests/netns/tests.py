#!/usr/bin/env python3
"""Tests of the whole program with real clients, in network namespaces, one at a time.

    tests.py --binary target/debug/turnpike [--only WORD]
    tests.py --gateway kernel           the rig's own check: the tests that Linux as the gateway can pass

Each group of tests runs against one configuration, for which the gateway is started and afterwards stopped. The last
line is `N passed, N failed`; the exit status is 0 if none failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import lab as laboratory
from capture import ACK, ICMP, SYN, TCP, Capture, Packet
from checks import CHECKS, Failed, Scene, Seen, attempt, curl, dig, ethernet, expect, ping, translated
from ctl_tests import CTL_GROUPS
from differential import DIFFERENTIAL
from fault_tests import FAULT_GROUPS
from file_tests import FILE_GROUPS
from fragment_tests import FRAGMENT_GROUPS
from gateway import FORWARDED_TCP, FORWARDED_UDP, METRICS, Kernel, Turnpike, configuration, cores
from group import Endpoint, Group, Test, accepted, bound, listener, sockets, turnpike
from lab import H1, H2, POOL, SERVER, SERVER2, SERVER_V6, UPLINK_MTU, Lab, Namespace, in_parallel
from link_tests import LINK_GROUPS
from prefix_tests import PREFIX_GROUPS
from reload_tests import RELOAD_GROUPS
from tayga_differential import TAYGA
from watch_tests import WATCH_GROUPS
from worker_tests import WORKER_GROUPS

# --- probes ---------------------------------------------------------------------------------------------------------


def seen_by(outside: socket.socket, inside: socket.socket) -> Endpoint:
    """Sends a datagram out, and gives the sender's address and port as the receiver sees them."""
    token = os.urandom(8)
    inside.sendto(token, outside.getsockname())
    data, (address, port) = outside.recvfrom(64)
    expect(data == token, f"{outside.getsockname()} received something else")
    return address, port


def gets_in(outside: socket.socket, target: Endpoint, inside: socket.socket) -> bool:
    """Sends a datagram in, and tells whether it arrives. Silence is believed after 0.7 s."""
    token = os.urandom(8)
    outside.sendto(token, target)
    inside.settimeout(0.7)
    try:
        return inside.recv(64) == token
    except TimeoutError:
        return False
    finally:
        inside.settimeout(2)


WIRES = ("lan0", "wan0")
"""The gateway's devices."""


# --- the default configuration --------------------------------------------------------------------------------------

DEFAULT = Group(lambda _: configuration(), kernel=True)
DEFAULT.tests.extend((f"demo: {title}", function) for title, function in CHECKS)


@DEFAULT.test("UDP: one mapping for every destination (RFC 4787 REQ-1)")
def _udp_mapping(scene: Scene) -> Seen:
    with sockets() as use:
        inside = use(bound(scene.lab.h1, H1))
        servers = [use(bound(scene.lab.server, *where)) for where in ((SERVER, 7001), (SERVER, 7002), (SERVER2, 7001))]
        seen = {seen_by(server, inside) for server in servers}
    expect(len(seen) == 1, f"three destinations saw {sorted(seen)}")
    address, port = seen.pop()
    translated(address)
    return Seen(f"{address}:{port} three times")


@DEFAULT.test("TCP: one mapping for every destination (RFC 5382 REQ-1)")
def _tcp_mapping(scene: Scene) -> Seen:
    with sockets() as use:
        servers = [use(listener(scene.lab.server, address)) for address in (SERVER, SERVER2)]
        first = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        second = use(bound(scene.lab.h1, H1, first.getsockname()[1], socket.SOCK_STREAM))
        seen = set()
        for server, client in zip(servers, (first, second), strict=True):
            connection, peer = accepted(server, client)
            use(connection)
            seen.add(peer)
    expect(len(seen) == 1, f"two destinations saw {sorted(seen)}")
    return Seen(str(seen.pop()))


@DEFAULT.test("UDP: parity, and the well-known range (RFC 4787 REQ-3a, REQ-4)")
def _parity(scene: Scene) -> Seen:
    return parity(scene, [500, 501, *random.sample(range(1024, 65536), 30)])


def parity(scene: Scene, ports: list[int]) -> Seen:
    """Expects that even ports stay even, odd ones odd, and those below 1024 there."""
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER))
        for port in ports:
            address, outside = seen_by(server, use(bound(scene.lab.h1, H1, port)))
            translated(address)
            expect(outside % 2 == port % 2, f"port {port} became {outside}")
            expect((outside < 1024) == (port < 1024), f"port {port} became {outside}")
    return Seen(f"{len(ports)} ports")


@DEFAULT.test("UDP: the same port on h1 and h2 (RFC 4787 REQ-3)")
def _no_overloading(scene: Scene) -> Seen:
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER))
        seen = [
            seen_by(server, use(bound(space, host, 5004))) for space, host in ((scene.lab.h1, H1), (scene.lab.h2, H2))
        ]
    expect(len(set(seen)) == 2, f"both are {seen[0]}")
    expect(all(port % 2 == 0 for _, port in seen), f"parity lost: {seen}")
    return Seen(" and ".join(f"{address}:{port}" for address, port in seen))


def udp_filtering(scene: Scene, other_port: bool, other_address: bool) -> Seen:
    """Opens a mapping toward one server endpoint, and tries to get in from it, from another port and from another
    address."""
    with sockets() as use:
        inside = use(bound(scene.lab.h1, H1))
        same, port, address = (
            use(bound(scene.lab.server, *where)) for where in ((SERVER, 7001), (SERVER, 7002), (SERVER2, 7001))
        )
        mapped = seen_by(same, inside)
        results = [gets_in(sender, mapped, inside) for sender in (same, port, address)]
    expect(results == [True, other_port, other_address], f"same endpoint, other port, other address: {results}")
    return Seen("same endpoint, other port, other address: " + ", ".join("in" if r else "blocked" for r in results))


@DEFAULT.test("UDP filtering is address and port dependent unless told otherwise")
def _filtering_default(scene: Scene) -> Seen:
    return udp_filtering(scene, other_port=False, other_address=False)


def tcp_filtering(scene: Scene, admitted: bool) -> Seen:
    """Opens a TCP mapping toward one server, listens on the same port inside, and connects from another server."""
    with sockets() as use:
        server = use(listener(scene.lab.server, SERVER))
        client = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        connection, mapped = accepted(server, client)
        use(connection)
        with scene.lab.h1.entered():
            inside = use(socket.socket())
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        inside.bind(client.getsockname())
        inside.listen(1)
        stranger = use(bound(scene.lab.server, SERVER2, kind=socket.SOCK_STREAM))
        stranger.settimeout(1.5)
        try:
            stranger.connect(mapped)
            came_in = True
        except TimeoutError:
            came_in = False
    expect(came_in == admitted, f"a SYN from another address {'came in' if came_in else 'was not admitted'}")
    return Seen("a SYN from another address: " + ("in" if came_in else "blocked, no answer"))


def opens(packet: Packet, flags: int) -> bool:
    """Whether these are TCP's flags of an opening connection in a packet."""
    return packet.protocol == TCP and packet.flags & (SYN | ACK) == flags


@DEFAULT.test("TCP: simultaneous open (RFC 5382 REQ-2a)")
def _simultaneous_open(scene: Scene) -> Seen:
    with sockets() as use:
        helper = use(listener(scene.lab.server, SERVER2))
        first = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        connection, mapped = accepted(helper, first)
        use(connection)
        inside = use(bound(scene.lab.h1, H1, first.getsockname()[1], socket.SOCK_STREAM))
        outside = use(bound(scene.lab.server, SERVER, kind=socket.SOCK_STREAM))
        port = outside.getsockname()[1]
        marks = scene.at_server.mark(), scene.at_h1.mark()

        # The inside's SYN goes out and finds a server that can't answer yet; the server's SYN then crosses it.
        inside.setblocking(False)
        scene.lab.server.ip("route", "add", "blackhole", f"{mapped[0]}/32")
        try:
            inside.connect_ex(outside.getsockname())
            scene.first(scene.at_server, marks[0], lambda p: opens(p, SYN) and p.destination_port == port, "h1's SYN")
        finally:
            scene.lab.server.ip("route", "delete", "blackhole", f"{mapped[0]}/32")
        outside.connect(mapped)
        inside.setblocking(True)
        inside.settimeout(2)
        for sender, receiver in ((inside, outside), (outside, inside)):
            sender.sendall(b"crossed")
            expect(receiver.recv(16) == b"crossed", "the connection carries something else")
        scene.first(scene.at_h1, marks[1], lambda p: opens(p, SYN) and p.source_port == port, "the server's SYN")
        seen = scene.first(
            scene.at_server, marks[0], lambda p: opens(p, SYN | ACK) and p.destination_port == port, "h1's SYN-ACK"
        )
    expect((seen.source, seen.source_port) == mapped, f"the SYN-ACK came from {seen.sender}, not {mapped}")
    return Seen(seen.sender)


@DEFAULT.test("a range of UDP ports is forwarded, in order")
def _forward_range(scene: Scene) -> Seen:
    with sockets() as use:
        client = use(bound(scene.lab.server, SERVER))
        for port in (FORWARDED_UDP[0], FORWARDED_UDP[5], FORWARDED_UDP[-1]):
            inside = use(bound(scene.lab.h2, H2, port))
            client.sendto(b"hello", (POOL[0], port))
            data, peer = inside.recvfrom(16)
            expect((data, peer) == (b"hello", client.getsockname()), f"h2 received {data!r} from {peer}")
            inside.sendto(b"answer", peer)
            data, peer = client.recvfrom(16)
            expect((data, peer) == (b"answer", (POOL[0], port)), f"the answer came from {peer}")
    return Seen(f"{POOL[0]}:{FORWARDED_UDP[0]}-{FORWARDED_UDP[-1]}")


@DEFAULT.test("an ICMP error from inside quotes what the outside sent (RFC 5508 REQ-5)")
def _error_from_inside(scene: Scene) -> Seen:
    with sockets() as use:
        client = use(bound(scene.lab.server, SERVER))
        target = (POOL[0], FORWARDED_UDP[3])
        client.connect(target)
        mark = scene.at_server.mark()
        client.send(b"nobody listens")
        try:
            client.recv(16)
            raise Failed("h2 answered on a port where nobody listens")
        except ConnectionRefusedError:  # the server's kernel found its own socket by the quoted packet
            pass
        error = scene.first(scene.at_server, mark, lambda p: p.icmp == (3, 3), "port unreachable")
    translated(error.source)
    return Seen(f"port unreachable from {error.source}")


@DEFAULT.test("hosts that leave checksums to hardware: curl both ways, IPv6, DNS")
def _unfinished_checksums(scene: Scene) -> Seen:
    lab = scene.lab
    captures = [Capture(lab, lab.gw, f"unfinished-{device}", device, "ip and tcp port 80") for device in WIRES]
    for url in (f"http://{SERVER}/who", f"http://[{SERVER_V6}]/who"):
        curl(lab.h1, url)
    curl(lab.h1, "-o", "/dev/null", f"http://{SERVER}/file?bytes=1000000")
    curl(lab.server, f"http://{POOL[0]}:{FORWARDED_TCP}/who")
    dig(scene, "A", SERVER)
    time.sleep(0.3)  # the last ACKs
    for capture in captures:
        capture.stop()
    unfinished = [sum(not packet.checksums_good for packet in tshark(capture.path)) for capture in captures]
    expect(all(unfinished), f"nothing to finish: {unfinished} packets on {WIRES}")
    return Seen(f"{sum(unfinished)} packets came unfinished")


@DEFAULT.test("a neighbour that does not exist: host unreachable, in both families")
def _no_neighbour(scene: Scene) -> Seen:
    def probe(target: str, wanted: str) -> None:
        done = scene.lab.h1.run("ping", "-n", "-c", "1", "-W", "8", target)
        expect(wanted in done.stdout, f"ping {target}: {done.stdout.strip()}")

    in_parallel(
        lambda: probe("198.51.100.77", "Destination Host Unreachable"),
        lambda: probe("2001:db8:f::77", "Destination unreachable: Address unreachable"),
    )
    return Seen("told by the gateway")


# --- what only Turnpike has -----------------------------------------------------------------------------------------

OWN = Group(lambda _: configuration(pool=POOL[0]))


@OWN.test("/metrics passes promtool's lint")
def _promtool(scene: Scene) -> Seen:
    ping(scene.lab.h1, SERVER, count=1)
    text = turnpike(scene).fetch("/metrics")
    done = scene.lab.gw.run("promtool", "check", "metrics", stdin=text)
    expect(done.returncode == 0 and not done.stdout.strip(), f"promtool: {done.stdout.strip()}")
    return Seen(f"{sum(line.startswith('# TYPE') for line in text.splitlines())} metrics")


@OWN.test("/healthz and /readyz answer 200, other pages 404")
def _health(scene: Scene) -> Seen:
    for page, wanted in (("/healthz", "200"), ("/readyz", "200"), ("/metrics", "200"), ("/nothing", "404")):
        url = f"http://{METRICS}{page}"
        got = scene.lab.gw.run("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url).stdout
        expect(got == wanted, f"{page} answers {got}, not {wanted}")
    return Seen("")


@OWN.test("a recorded curl session, replayed, has no checksum or length error (tshark)")
def _replay(scene: Scene) -> Seen:
    gateway, lab = turnpike(scene), scene.lab
    captures = {
        "inside": Capture(lab, lab.gw, "curl-inside", "lan0", "tcp port 80"),
        "uplink": Capture(lab, lab.gw, "curl-uplink", "wan0", "tcp port 80"),
    }
    curl(lab.h1, "-o", "/dev/null", f"http://{SERVER}/file?bytes=1000000")
    time.sleep(0.3)  # the last ACKs
    for capture in captures.values():
        capture.stop()
    out = lab.work / "replayed"
    arguments = [word for name, capture in captures.items() for word in ("--in", f"{name}={capture.path}")]
    done = lab.gw.run(
        str(gateway.binary), "replay", "-c", str(gateway.path), *arguments, "--out-dir", str(out), seconds=30
    )
    expect(done.returncode == 0, f"turnpike replay: {done.stdout.strip()}")

    packets = 0
    for name, opposite in (("uplink", "inside"), ("inside", "uplink")):
        came = tshark(captures[opposite].path)
        left = tshark(out / f"{name}.pcap")
        bad = [packet for packet in left if not packet.checksums_good or packet.errors]
        expect(not bad, f"{name}.pcap: {len(bad)} packets with errors, the first: {bad and bad[0]}")
        payload = sum(packet.payload for packet in came), sum(packet.payload for packet in left)
        expect(len(came) == len(left) > 5, f"{len(came)} packets came in on {opposite}, {len(left)} left on {name}")
        expect(payload[0] == payload[1], f"{payload[0]} bytes came in on {opposite}, {payload[1]} left on {name}")
        packets += len(left)
    sources = {packet.source for packet in tshark(out / "uplink.pcap")}
    expect(sources == {POOL[0]}, f"packets left from {sources}")
    return Seen(f"{packets} packets")


@dataclass(frozen=True)
class Dissected:
    """What tshark says of a TCP packet."""

    source: str
    payload: int
    """Bytes of TCP payload."""
    checksums_good: bool
    errors: str
    """Wireshark's expert messages, if one of them is an error."""


def tshark(path: Path) -> list[Dissected]:
    """Dissects a capture of TCP over IPv4, with every checksum verified."""
    fields = "ip.src tcp.len ip.checksum.status tcp.checksum.status _ws.expert.severity _ws.expert.message"
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    command += [word for name in fields.split() for word in ("-e", name)]
    command += [word for protocol in ("ip", "tcp") for word in ("-o", f"{protocol}.check_checksum:TRUE")]
    done = subprocess.run(command, timeout=30, capture_output=True, text=True)
    expect(done.returncode == 0, f"tshark {path.name}: {done.stderr.strip()}")
    packets = []
    for line in done.stdout.splitlines():
        source, payload, ip, tcp, severities, messages = line.split("|", 5)
        # Wireshark's numbers: a checksum is 0 bad, 1 good; the severity of an error is 0x800000.
        wrong = any(int(word) >= 0x80_0000 for word in severities.split(",") if word)
        packets.append(Dissected(source, int(payload or 0), (ip, tcp) == ("1", "1"), messages if wrong else ""))
    return packets


# --- other configurations -------------------------------------------------------------------------------------------

ENDPOINT_INDEPENDENT = Group(lambda _: configuration(rule="filtering: endpoint-independent"))
ADDRESS_DEPENDENT = Group(lambda _: configuration(rule="filtering: address-dependent"))
BY_PROTOCOL = Group(
    lambda _: configuration(rule="filtering: {tcp: endpoint-independent, udp: address-and-port-dependent}")
)
SCATTERED = Group(lambda _: configuration(rule="port-preservation: false; port-parity: true"))
CLAMPED = Group(lambda _: configuration(mss_clamp="from-mtu"))
SHARED_LAN = Group(lambda _: configuration(pool="198.51.100.17-198.51.100.18", proxy_arp=True))
VLAN = Group(lambda scene: configuration(guests=ethernet(scene.lab.h2, "eth0")))


@ENDPOINT_INDEPENDENT.test("UDP filtering, endpoint independent")
def _filtering_independent(scene: Scene) -> Seen:
    return udp_filtering(scene, other_port=True, other_address=True)


@ENDPOINT_INDEPENDENT.test("TCP filtering, endpoint independent")
def _filtering_independent_tcp(scene: Scene) -> Seen:
    return tcp_filtering(scene, admitted=True)


@ADDRESS_DEPENDENT.test("UDP filtering, address dependent")
def _filtering_address(scene: Scene) -> Seen:
    return udp_filtering(scene, other_port=True, other_address=False)


@ADDRESS_DEPENDENT.test("TCP filtering, address dependent")
def _filtering_address_tcp(scene: Scene) -> Seen:
    return tcp_filtering(scene, admitted=False)


@BY_PROTOCOL.test("filtering is chosen for each protocol: TCP endpoint independent (RFC 5382 REQ-3)")
def _filtering_by_protocol_tcp(scene: Scene) -> Seen:
    return tcp_filtering(scene, admitted=True)


@BY_PROTOCOL.test("filtering is chosen for each protocol: UDP address and port dependent")
def _filtering_by_protocol_udp(scene: Scene) -> Seen:
    return udp_filtering(scene, other_port=False, other_address=False)


@SCATTERED.test("UDP: parity and range, without port preservation")
def _parity_scattered(scene: Scene) -> Seen:
    return parity(scene, [500, 501, *range(20000, 20030)])


@SCATTERED.test("UDP: consecutive ports do not become consecutive ports (RFC 6056)")
def _unpredictable(scene: Scene) -> Seen:
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER))
        seen = [seen_by(server, use(bound(scene.lab.h1, H1, port)))[1] for port in range(21000, 21060, 2)]
    steps = [after - before for before, after in zip(seen, seen[1:], strict=False)]
    expect(len(set(seen)) == 30, "a port was given twice")
    expect(len(set(steps)) > 10, f"the ports can be guessed: {seen}")
    return Seen(f"{len(set(steps))} different steps of 29")


@CLAMPED.test(f"TCP: the segment size is clamped to the uplink's MTU of {UPLINK_MTU}, in both families")
def _clamp(scene: Scene) -> Seen:
    sizes = []
    for url in (f"http://{SERVER}/who", f"http://[{SERVER_V6}]/who"):
        marks = scene.at_server.mark(), scene.at_h1.mark()
        curl(scene.lab.h1, url)
        out = scene.first(scene.at_server, marks[0], lambda p: opens(p, SYN), "a SYN")
        back = scene.first(scene.at_h1, marks[1], lambda p: opens(p, SYN | ACK), "a SYN-ACK")
        sizes += [out.mss, back.mss]
    expect(sizes == [UPLINK_MTU - 40] * 2 + [UPLINK_MTU - 60] * 2, f"segment sizes {sizes}")
    return Seen(f"segment sizes {sizes}")


@SHARED_LAN.test("pool addresses on the uplink's own network are answered for by ARP")
def _shared_lan(scene: Scene) -> Seen:
    address, port = curl(scene.lab.h1, f"http://{SERVER}/who").split()
    expect(address in ("198.51.100.17", "198.51.100.18"), f"the server saw {address}")
    scene.lab.router.ip("neighbour", "flush", "dev", "up0")
    curl(scene.lab.h1, f"http://{SERVER}/who")
    entry = scene.lab.router.ip("neighbour", "show", address)
    expect(ethernet(scene.lab.gw, "wan0") in entry, f"the router's neighbour: {entry.strip() or 'none'}")
    return Seen(f"{address}:{port}")


@VLAN.test("a tagged interface: ping to the gateway and through it (802.1Q)")
def _vlan(scene: Scene) -> Seen:
    guest, gateway = ethernet(scene.lab.h2, "eth0"), ethernet(scene.lab.gw, "lan0")
    with scene.lab.h2.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    tagged = Capture(scene.lab, scene.lab.h2, "vlan", "eth0", "vlan 20 and icmp")
    at_server = scene.at_server.mark()
    with wire:
        wire.bind(("eth0", 0))
        for target in ("192.168.20.1", SERVER):
            mark = tagged.mark()
            wire.send(bytes.fromhex((gateway + guest).replace(":", "")) + echo_request_vlan20("192.168.20.9", target))
            answer = scene.first(tagged, mark, lambda p: p.icmp == (0, 0), f"an answer of {target}, tagged")
            expect((answer.source, answer.destination) == (target, "192.168.20.9"), f"the answer is {answer}")
            expect(answer.source_port == 20, f"the answer has identifier {answer.source_port}")
    seen = scene.first(scene.at_server, at_server, lambda p: p.icmp == (8, 0), "the echo request")
    translated(seen.source)
    return Seen(f"{seen.source} id {seen.source_port}")


def echo_request_vlan20(source: str, target: str) -> bytes:
    """An Ethernet frame's tag, type and content: an ICMP echo request with identifier 20."""
    echo = struct.pack("!BBHHH", 8, 0, internet_checksum(struct.pack("!BBHHH", 8, 0, 0, 20, 1)), 20, 1)
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, ICMP, 0) + addresses
    header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
    return struct.pack("!HHH", 0x8100, 20, 0x0800) + header + echo


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --- starting and stopping ------------------------------------------------------------------------------------------

LIFE = Group(None)


@LIFE.test("SIGTERM and SIGINT stop it cleanly; after each, and after a kill, it starts again")
def _stops(scene: Scene) -> Seen:
    gateway, times = turnpike(scene), []
    for how, wanted in (
        (signal.SIGTERM, 0),
        (signal.SIGINT, 0),
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGTERM, 0),
    ):
        times.append(gateway.start(configuration()))
        ping(scene.lab.h1, SERVER, count=1)
        began = time.monotonic()
        status = gateway.stop(how)
        expect(status == wanted, f"exit status {status} after {how.name}, not {wanted}\n{gateway.last_words()}")
        expect(time.monotonic() - began < 5, f"{how.name} took {time.monotonic() - began:.1f} s")
    return Seen(f"ready in {max(times):.1f} s at most")


def refused(scene: Scene, text: str, status: int, *words: str, wrapper: tuple[str, ...] = ()) -> Seen:
    """Expects that a start fails with this exit status, and says these words."""
    gateway = turnpike(scene)
    gateway.path.write_text(text, encoding="utf-8")
    done = scene.lab.gw.run(*wrapper, *gateway.run_line(), seconds=20)
    expect(done.returncode == status, f"exit status {done.returncode}, not {status}: {done.stdout.strip()[-300:]}")
    for word in words:
        expect(word in done.stdout, f"does not name {word!r}: {done.stdout.strip()[-300:]}")
    expect("panicked" not in done.stdout, f"panics: {done.stdout.strip()[-300:]}")
    return Seen(done.stdout.strip().splitlines()[-1])


@LIFE.test("no start: the device does not exist")
def _no_device(scene: Scene) -> Seen:
    return refused(scene, configuration(lan_device="nosuch0"), 1, "lan", "nosuch0")


@LIFE.test("no start: the file does not exist")
def _no_file(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    done = scene.lab.gw.run(str(gateway.binary), "run", "-c", "/nonexistent.yaml")
    expect(done.returncode == 2, f"exit status {done.returncode}: {done.stdout.strip()}")
    expect("/nonexistent.yaml" in done.stdout, f"does not name the file: {done.stdout.strip()}")
    return Seen(done.stdout.strip().splitlines()[-1])


@LIFE.test("no start: an unknown key")
def _unknown_key(scene: Scene) -> Seen:
    return refused(scene, configuration() + "\nnat-44: {}\n", 2, "nat-44")


@LIFE.test("no start: a core is named twice")
def _core_twice(scene: Scene) -> Seen:
    worker, _ = cores()
    return refused(scene, configuration(workers=f"[{worker}, {worker}]"), 2, f"{worker}", "twice")


@LIFE.test("no start: a core that does not exist")
def _core_offline(scene: Scene) -> Seen:
    return refused(scene, configuration(workers="[1023]"), 1, "1023")


@LIFE.test("no start: a core outside our cpuset")
def _core_outside(scene: Scene) -> Seen:
    worker, first = cores()
    if worker == first:
        return Seen("this machine gives us one core only: nothing to leave out")
    return refused(scene, configuration(), 1, str(worker), wrapper=("taskset", "-c", str(first)))


GROUPS = [
    DEFAULT, OWN, ENDPOINT_INDEPENDENT, ADDRESS_DEPENDENT, BY_PROTOCOL, SCATTERED, CLAMPED, SHARED_LAN, VLAN, LIFE,
    *FRAGMENT_GROUPS, *FAULT_GROUPS, *WATCH_GROUPS, *CTL_GROUPS, *LINK_GROUPS, *RELOAD_GROUPS, *WORKER_GROUPS,
    *PREFIX_GROUPS, DIFFERENTIAL, *FILE_GROUPS, TAYGA,
]  # fmt: skip


# --- the runner -----------------------------------------------------------------------------------------------------


class Report:
    """Prints results as they come, and counts them."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def add(self, title: str, seen: Seen | None, why: str) -> None:
        """One test's result."""
        if seen:
            self.passed += 1
            note = ", ".join(word for word in (seen.by_peer, seen.note) if word)
            print(f"ok    {title}" + (f"  ({note})" if note else ""), flush=True)
        else:
            self.failed += 1
            print(f"FAIL  {title}: {why}", flush=True)


def run(group: Group, tests: list[tuple[str, Test]], scene: Scene, report: Report) -> None:
    """Runs some of a group's tests against its configuration."""
    gateway = scene.gateway
    if group.configuration:
        try:
            gateway.start(group.configuration(scene))
        except (RuntimeError, OSError) as failure:
            for title, _ in tests:
                report.add(title, None, f"the gateway does not start: {failure}")
            return
    for title, function in tests:
        report.add(title, *attempt(function, scene))
    if group.configuration and isinstance(gateway, Turnpike):
        alive = gateway.process is not None and gateway.process.poll() is None
        status = gateway.stop()
        if not alive or status != 0:
            what = "stops with" if alive else "had ended before, with"
            report.add("the gateway's end", None, f"it {what} status {status}\n{gateway.last_words()}")


def main() -> int:
    """Runs the tests; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/debug/turnpike"), help="the program")
    parser.add_argument("--gateway", choices=["turnpike", "kernel"], default="turnpike", help="what stands in between")
    parser.add_argument("--only", default="", metavar="WORD", help="only tests whose title contains this")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("These tests make network namespaces: run them as root.", file=sys.stderr)
        return 1
    laboratory.stop_on_signals()
    laboratory.tidy()
    report, began = Report(), time.monotonic()
    lab = Lab()
    try:
        scene = Scene(lab, Kernel(lab) if options.gateway == "kernel" else Turnpike(lab, options.binary))
        for group in GROUPS:
            chosen = [test for test in group.tests if options.only in test[0]]
            if chosen and (group.kernel or options.gateway == "turnpike"):
                run(group, chosen, scene, report)
        if "panicked" in lab.log("turnpike"):
            report.add("the log", None, "something panicked")
    finally:
        laboratory.ignore_signals()
        lab.close()
        if not report.failed:
            shutil.rmtree(lab.work)
        else:
            print(f"Logs and captures: {lab.work}", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
