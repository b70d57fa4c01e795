"""The lines of the demonstration's table: each tries one thing with real clients and gives what the other side saw.

A check takes a `Scene` and gives a `Seen`; it raises when what it tried does not work. Addresses and ports come from
the side that was reached: the server's log, or tcpdump there. What the gateway says of itself proves nothing here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from capture import ICMP, TCP, UDP, Capture, Packet, endpoint
from gateway import FORWARDED_TCP, Gateway
from lab import (
    GW_INSIDE,
    GW_INSIDE_V6,
    GW_OUTSIDE,
    GW_OUTSIDE_V6,
    H1,
    H1_V6,
    NARROW,
    NARROW_MTU,
    NARROW_V6,
    POOL,
    ROUTER,
    ROUTER_V6,
    SERVER,
    SERVER_V6,
    UPLINK_MTU,
    Lab,
    Namespace,
    in_parallel,
    wait_for,
)  # fmt: skip

FILE_BYTES = 10_000_000
ZONE = "turnpike.example"


class Failed(Exception):
    """What was tried does not work as it should. The text says how."""


def expect(condition: object, message: str) -> None:
    """Raises `Failed` unless the condition holds."""
    if not condition:
        raise Failed(message)


@dataclass(frozen=True)
class Seen:
    """The result of a check that passed."""

    by_peer: str
    """What the side that was reached saw."""
    note: str = ""
    """What else is worth knowing."""


class Scene:
    """The laboratory with its servers running and its wires watched."""

    def __init__(self, lab: Lab, gateway: Gateway) -> None:
        self.lab, self.gateway = lab, gateway
        self.file = lab.work / "file"
        self.file.write_bytes(secrets.token_bytes(FILE_BYTES))
        self.digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.start_servers()
        self.at_server = Capture(lab, lab.server, "server")
        self.at_h1 = Capture(lab, lab.h1, "h1")
        self.at_h2 = Capture(lab, lab.h2, "h2")

    def start_servers(self) -> None:
        """Starts web servers (outside and on h1), iperf3 and unbound, and waits until they listen."""
        lab, web = self.lab, str(Path(__file__).with_name("server.py"))
        lab.spawn(lab.server, "web", "python3", web, str(self.file))
        lab.spawn(lab.h1, "web-h1", "python3", web, str(self.file))
        lab.spawn(lab.server, "iperf3", "iperf3", "-s")
        settings = lab.work / "unbound.conf"
        settings.write_text(
            f"""\
server:
    interface: {SERVER}
    interface: {SERVER_V6}
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    do-daemonize: no
    use-syslog: no
    log-queries: yes
    chroot: ""
    username: ""
    directory: "{lab.work}"
    pidfile: ""
    module-config: "iterator"
    local-zone: "{ZONE}." static
    local-data: "www.{ZONE}. A {SERVER}"
    local-data: "www.{ZONE}. AAAA {SERVER_V6}"
remote-control:
    control-enable: no
""",
            encoding="utf-8",
        )
        lab.spawn(lab.server, "unbound", lab.unconfined("unbound"), "-d", "-p", "-c", str(settings))
        for space, address, port in ((lab.server, SERVER, 80), (lab.server, SERVER, 5201), (lab.server, SERVER, 53),
                                     (lab.h1, H1, 80)):  # fmt: skip
            wait_for(partial(answers, space, address, port), 15, f"port {port} of {space.name} listens")

    def first(self, capture: Capture, since: int, wanted: Callable[[Packet], bool], what: str) -> Packet:
        """The first packet that fits, of those that a capture recorded after a mark. It may still be on its way to the
        file."""
        found: list[Packet] = []

        def look() -> bool:
            found[:] = [packet for packet in capture.packets(since) if wanted(packet)]
            return bool(found)

        with contextlib.suppress(TimeoutError):
            wait_for(look, 2, what)
        expect(found, f"{capture.name} did not see {what}")
        return found[0]

    def requests(self, space: Namespace, path: str) -> list[tuple[str, int]]:
        """Who asked the web server of a namespace for a path: addresses and ports, from its log."""
        log = self.lab.log("web" if space is self.lab.server else "web-h1")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return [(line["peer"], line["port"]) for line in lines if line["request"] == path and line["status"] == 200]


def answers(space: Namespace, address: str, port: int) -> bool:
    """Whether a TCP port can be connected to from its own host."""
    with space.entered():
        probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


CHECKS: list[tuple[str, Callable[[Scene], Seen]]] = []


def check(title: str) -> Callable[[Callable[[Scene], Seen]], Callable[[Scene], Seen]]:
    """Adds a check to the table."""

    def add(function: Callable[[Scene], Seen]) -> Callable[[Scene], Seen]:
        CHECKS.append((title, function))
        return function

    return add


def attempt(function: Callable[[Scene], Seen], scene: Scene) -> tuple[Seen | None, str]:
    """Runs a check: what was seen, or why not."""
    try:
        return function(scene), ""
    except subprocess.TimeoutExpired as timeout:
        return None, f"{timeout.cmd[4] if len(timeout.cmd) > 4 else timeout.cmd}: no end within {timeout.timeout:g} s"
    except (Failed, OSError, RuntimeError, ValueError, KeyError, subprocess.CalledProcessError) as failure:
        return None, " ".join(str(failure).split()) or type(failure).__name__


def translated(address: str) -> None:
    """Expects an address of the pool."""
    expect(address in POOL, f"the other side saw {address}, which is not in the pool")


# --- ping -----------------------------------------------------------------------------------------------------------


def ping(space: Namespace, target: str, *options: str, count: int = 3) -> str:
    """Pings, expects every answer, the first one too, and gives ping's summary."""
    # With a deadline ping waits for the answers; without one it gives up after twice the usual time, and calls lost what a
    # busy machine only delays. It may send one more meanwhile.
    done = space.run("ping", "-n", "-c", str(count), "-i", "0.2", "-w", "5", *options, target)
    answered = set(re.findall(r"bytes from .* icmp_seq=(\d+) ", done.stdout))
    missing = [str(seq) for seq in range(1, count + 1) if str(seq) not in answered]
    expect(not missing, f"ping {target}: no answer to number {', '.join(missing)}: {done.stdout.strip()[-200:]}")
    times = re.search(r"= [\d.]+/([\d.]+)/", done.stdout)
    return f"{count} of {count} answered" + (f", {times[1]} ms" if times else "")


@check("ping to the gateway")
def _ping_gateway(scene: Scene) -> Seen:
    return Seen("(the gateway itself)", ping(scene.lab.h1, GW_INSIDE))


@check("ping to the gateway, IPv6")
def _ping_gateway_v6(scene: Scene) -> Seen:
    return Seen("(the gateway itself)", ping(scene.lab.h1, GW_INSIDE_V6))


@check("ping to the gateway from outside, both families")
def _ping_gateway_outside(scene: Scene) -> Seen:
    ping(scene.lab.server, GW_OUTSIDE)
    return Seen("(the gateway itself)", ping(scene.lab.server, GW_OUTSIDE_V6))


def echo_seen(scene: Scene, mark: int, target: str) -> Packet:
    """The first echo request that the server got."""
    return scene.first(
        scene.at_server, mark, lambda p: p.icmp in ((8, 0), (128, 0)) and p.destination == target, "an echo request"
    )


@check("ping h1 -> server")
def _ping(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    note = ping(scene.lab.h1, SERVER)
    seen = echo_seen(scene, mark, SERVER)
    translated(seen.source)
    return Seen(f"{seen.source} id {seen.source_port}", note)


@check("ping h1 and h2 -> server, same identifier")
def _ping_same_id(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    in_parallel(*(lambda space=space: ping(space, SERVER, "-e", "4242") for space in (scene.lab.h1, scene.lab.h2)))
    packets = [p for p in scene.at_server.packets(mark) if p.icmp == (8, 0)]
    seen = sorted({(p.source, p.source_port) for p in packets})
    expect(len(seen) == 2, f"two pings look like {len(seen)} to the server: {seen}")
    for address, _ in seen:
        translated(address)
    return Seen(", ".join(f"{address} id {identifier}" for address, identifier in seen))


@check("ping h1 -> server, IPv6 (routed)")
def _ping_v6(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    note = ping(scene.lab.h1, SERVER_V6)
    seen = echo_seen(scene, mark, SERVER_V6)
    expect(seen.source == H1_V6, f"the server saw {seen.source}")
    return Seen(seen.source, note)


def ethernet(space: Namespace, device: str) -> str:
    """A device's Ethernet address."""
    return str(re.findall(r"link/ether (\S+)", space.ip("link", "show", device))[0])


# --- traceroute -----------------------------------------------------------------------------------------------------


def traceroute(space: Namespace, target: str, hops: Iterable[str], *options: str) -> str:
    """Expects these hops, then the target, and gives the way."""
    done = space.run("traceroute", "-n", "-q", "1", "-w", "2", "-m", "6", *options, target)
    found = re.findall(r"^ *\d+ +(\S+)", done.stdout, re.MULTILINE)
    wanted = [*hops, target]
    expect(found == wanted, f"hops {found or done.stdout.strip()}, not {wanted}")
    return f"{len(wanted)} hops"


@check("traceroute, UDP")
def _traceroute_udp(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    note = traceroute(scene.lab.h1, SERVER, (GW_INSIDE, ROUTER), "-U", "-p", "33500")
    seen = scene.first(scene.at_server, mark, lambda p: p.protocol == UDP and p.destination_port == 33500, "the probe")
    translated(seen.source)
    return Seen(seen.sender, note)


@check("traceroute, ICMP")
def _traceroute_icmp(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    note = traceroute(scene.lab.h1, SERVER, (GW_INSIDE, ROUTER), "-I")
    seen = echo_seen(scene, mark, SERVER)
    translated(seen.source)
    return Seen(f"{seen.source} id {seen.source_port}", note)


@check("traceroute, IPv6 (routed)")
def _traceroute_v6(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    note = traceroute(scene.lab.h1, SERVER_V6, (GW_INSIDE_V6, ROUTER_V6), "-6", "-I")
    return Seen(echo_seen(scene, mark, SERVER_V6).source, note)


# --- curl -----------------------------------------------------------------------------------------------------------


def curl(space: Namespace, *arguments: str, seconds: float = 30) -> str:
    """Runs curl, expects success, and gives its standard output."""
    done = space.run("curl", "-sS", "-f", "-m", str(seconds), "-g", *arguments, seconds=seconds + 5)
    expect(done.returncode == 0, f"curl: {done.stdout.strip()}")
    return done.stdout


def web_seen(scene: Scene, path: str) -> tuple[str, int]:
    """The client of the newest request for a path, from the server's log."""
    seen = scene.requests(scene.lab.server, path)
    expect(seen, f"the server's log has no {path}")
    return seen[-1]


def rate(transferred: int, seconds: float) -> str:
    """A transfer in words."""
    return f"{transferred / 1e6:g} MB, same SHA-256, {transferred * 8 / seconds / 1e6:.0f} Mbit/s"


def download(scene: Scene, url: str, name: str) -> tuple[str, int, str]:
    """Downloads the file, compares it, and gives the client as the server saw it, and a note."""
    copy, began = scene.lab.work / name, time.monotonic()
    curl(scene.lab.h1, "-o", str(copy), f"{url}/file?{name}")
    took = time.monotonic() - began
    expect(hashlib.sha256(copy.read_bytes()).hexdigest() == scene.digest, "the copy differs from the server's file")
    copy.unlink()
    return *web_seen(scene, f"/file?{name}"), rate(FILE_BYTES, took)


def upload(scene: Scene, space: Namespace, url: str, name: str) -> tuple[str, int, str]:
    """Uploads the file, has the server compare it, and gives the client as the server saw it, and a note."""
    began = time.monotonic()
    digest = curl(space, "-H", "Expect:", "--data-binary", f"@{scene.file}", f"{url}/upload?{name}").strip()
    took = time.monotonic() - began
    expect(digest == scene.digest, f"the server got something else: {digest}")
    return *web_seen(scene, f"/upload?{name}"), rate(FILE_BYTES, took)


@check("curl, 10 MB down")
def _curl_down(scene: Scene) -> Seen:
    address, port, note = download(scene, f"http://{SERVER}", "down")
    translated(address)
    return Seen(endpoint(address, port), note)


@check("curl, 10 MB up")
def _curl_up(scene: Scene) -> Seen:
    address, port, note = upload(scene, scene.lab.h1, f"http://{SERVER}", "up")
    translated(address)
    return Seen(endpoint(address, port), note)


@check("curl, 10 MB down, IPv6 (routed)")
def _curl_v6(scene: Scene) -> Seen:
    address, port, note = download(scene, f"http://[{SERVER_V6}]", "down-v6")
    expect(address == H1_V6, f"the server saw {address}")
    return Seen(endpoint(address, port), note)


# --- iperf3 ---------------------------------------------------------------------------------------------------------


def iperf3(scene: Scene, *options: str) -> tuple[Packet, dict[str, dict[str, float]]]:
    """Runs iperf3 for two seconds, and gives the first packet that the server saw, and the client's totals."""
    mark = scene.at_server.mark()
    done = scene.lab.h1.run("iperf3", "-c", SERVER, "-t", "2", "-J", "--connect-timeout", "3000", *options, seconds=25)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    expect("error" not in report, f"iperf3: {report.get('error')}")
    protocol = UDP if "-u" in options else TCP
    seen = scene.first(
        scene.at_server, mark, lambda p: p.protocol == protocol and p.destination_port == 5201, "iperf3's client"
    )
    translated(seen.source)
    return seen, report["end"]


@check("iperf3, TCP up")
def _iperf3_up(scene: Scene) -> Seen:
    seen, end = iperf3(scene)
    speed = end["sum_received"]["bits_per_second"]
    expect(speed > 1e6, f"only {speed:.0f} bit/s")
    return Seen(seen.sender, f"{speed / 1e6:.0f} Mbit/s")


@check("iperf3, TCP down")
def _iperf3_down(scene: Scene) -> Seen:
    seen, end = iperf3(scene, "-R")
    speed = end["sum_received"]["bits_per_second"]
    expect(speed > 1e6, f"only {speed:.0f} bit/s")
    return Seen(seen.sender, f"{speed / 1e6:.0f} Mbit/s")


@check("iperf3, UDP at 10 Mbit/s")
def _iperf3_udp(scene: Scene) -> Seen:
    seen, end = iperf3(scene, "-u", "-b", "10M", "-l", "1200")
    lost, sent = end["sum"]["lost_packets"], end["sum"]["packets"]
    expect(sent > 1000 and lost / sent < 0.05, f"{lost} of {sent} datagrams lost")
    return Seen(seen.sender, f"{lost} of {sent} datagrams lost")


# --- dig ------------------------------------------------------------------------------------------------------------


def dig(scene: Scene, kind: str, answer: str, *options: str) -> Packet:
    """Asks the resolver, and gives the first packet of the question as it got there."""
    mark = scene.at_server.mark()
    done = scene.lab.h1.run("dig", f"@{SERVER}", "+short", "+tries=1", "+time=3", *options, f"www.{ZONE}", kind)
    expect(done.stdout.strip() == answer, f"dig says: {done.stdout.strip()}")
    seen = scene.first(scene.at_server, mark, lambda p: p.destination_port == 53, "the question")
    translated(seen.source)
    return seen


@check("dig, UDP")
def _dig(scene: Scene) -> Seen:
    return Seen(dig(scene, "A", SERVER).sender, f"www.{ZONE} A {SERVER}")


@check("dig, TCP")
def _dig_tcp(scene: Scene) -> Seen:
    return Seen(dig(scene, "AAAA", SERVER_V6, "+tcp").sender, f"www.{ZONE} AAAA {SERVER_V6}")


# --- many at once ---------------------------------------------------------------------------------------------------


@check("200 connections at the same time, h1 and h2")
def _parallel(scene: Scene) -> Seen:
    path = f"/meet?n=200&at={time.monotonic_ns()}"
    urls = [word for _ in range(100) for word in ("-o", "/dev/null", f"http://{SERVER}{path}")]
    options = ("-Z", "--parallel-immediate", "--parallel-max", "100")
    in_parallel(*(lambda space=space: curl(space, *options, *urls) for space in (scene.lab.h1, scene.lab.h2)))
    seen = scene.requests(scene.lab.server, path)
    ports = {port for _, port in seen}
    expect(len(set(seen)) == 200, f"the server saw {len(set(seen))} different clients")
    for address, _ in seen:
        translated(address)
    addresses = ", ".join(sorted({address for address, _ in seen}))
    return Seen(f"{addresses}, {len(ports)} ports", "200 answered together")


# --- path MTU -------------------------------------------------------------------------------------------------------


def learned_mtu(space: Namespace, target: str) -> int:
    """The path MTU that a host's kernel has learned."""
    found = re.search(r"\bmtu (\d+)", space.ip("route", "get", target))
    return int(found[1]) if found else 1500


def told_too_big(space: Namespace, target: str, size: int, mtu: int) -> None:
    """Sends an echo request in an IP packet of `size` bytes that nobody may fragment. Expects to be told `mtu`."""
    done = echo(space, target, size)
    expect(re.search(rf"mtu[ =]+{mtu}\b", done), f"a packet of {size} bytes: {done}")
    wait_for(lambda: learned_mtu(space, target) == mtu, 2, f"the host learns path MTU {mtu}")


def too_big(space: Namespace, target: str, size: int, mtu: int) -> None:
    """The same, and a packet of that size then passes, and so does the answer."""
    told_too_big(space, target, size, mtu)
    done = echo(space, target, mtu)
    expect(" 1 received" in done, f"a packet of {mtu} bytes: {done}")


def echo(space: Namespace, target: str, size: int) -> str:
    """Pings once by an IP packet of this size that nobody may fragment, and gives what ping says."""
    payload = size - (48 if ":" in target else 28)
    return space.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(payload), target).stdout.strip()


@check(f"oversized, don't fragment: the gateway's link takes {UPLINK_MTU}")
def _mtu_gateway(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    too_big(scene.lab.h2, SERVER, 1500, UPLINK_MTU)
    seen = echo_seen(scene, mark, SERVER)
    translated(seen.source)
    return Seen(f"{seen.source} id {seen.source_port}", f"told {UPLINK_MTU}; then it passes")


@check(f"the same, IPv6 (routed): the gateway's link takes {UPLINK_MTU}")
def _mtu_gateway_v6(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    too_big(scene.lab.h2, SERVER_V6, 1500, UPLINK_MTU)
    return Seen(echo_seen(scene, mark, SERVER_V6).source, f"told {UPLINK_MTU}; then it passes")


@check(f"the same: a link behind the router takes {NARROW_MTU}")
def _mtu_router(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    too_big(scene.lab.h2, NARROW, UPLINK_MTU, NARROW_MTU)
    seen = echo_seen(scene, mark, NARROW)
    translated(seen.source)
    return Seen(f"{seen.source} id {seen.source_port}", f"told {NARROW_MTU}; then it passes")


@check(f"the same, IPv6 (routed): a link behind the router takes {NARROW_MTU}")
def _mtu_router_v6(scene: Scene) -> Seen:
    mark = scene.at_server.mark()
    too_big(scene.lab.h2, NARROW_V6, UPLINK_MTU, NARROW_MTU)
    return Seen(echo_seen(scene, mark, NARROW_V6).source, f"told {NARROW_MTU}; then it passes")


@check("curl, 10 MB up over that link: TCP learns the path MTU")
def _mtu_tcp(scene: Scene) -> Seen:
    expect(learned_mtu(scene.lab.h1, NARROW) == 1500, "h1 knew the path MTU before")
    address, port, note = upload(scene, scene.lab.h1, f"http://{NARROW}", "narrow")
    translated(address)
    expect(learned_mtu(scene.lab.h1, NARROW) == NARROW_MTU, f"h1 believes in {learned_mtu(scene.lab.h1, NARROW)}")
    return Seen(endpoint(address, port), note)


# --- from outside ---------------------------------------------------------------------------------------------------


@check(f"port forward: server -> {POOL[0]}:{FORWARDED_TCP}")
def _forward(scene: Scene) -> Seen:
    path = f"/file?forward{time.monotonic_ns()}"
    copy = scene.lab.work / "forward"
    curl(scene.lab.server, "-o", str(copy), f"http://{POOL[0]}:{FORWARDED_TCP}{path}")
    expect(hashlib.sha256(copy.read_bytes()).hexdigest() == scene.digest, "the copy differs from h1's file")
    copy.unlink()
    seen = scene.requests(scene.lab.h1, path)
    expect(seen, "the web server on h1 was not asked")
    expect(seen[0][0] == SERVER, f"h1 saw {seen[0][0]}, not the client's own address")
    return Seen(f"h1 saw {endpoint(*seen[0])}", "10 MB, same SHA-256")


def blocked(scene: Scene, target: str, port: int) -> None:
    """Sends a UDP datagram and a SYN from the server. Expects silence: nothing inside, no answer outside."""
    marks = scene.at_h1.mark(), scene.at_h2.mark(), scene.at_server.mark()
    with scene.lab.server.entered():
        udp, tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    with udp, tcp:
        udp.sendto(b"unsolicited", (target, port))
        tcp.settimeout(1.2)
        result = tcp.connect_ex((target, port))
        expect(result not in (0, 111), f"a SYN to {endpoint(target, port)} was answered")
    for capture, mark in ((scene.at_h1, marks[0]), (scene.at_h2, marks[1])):
        inside = [p for p in capture.packets(mark) if p.source == SERVER and p.protocol in (TCP, UDP)]
        expect(not inside, f"{capture.name} saw {inside and inside[0]}")
    answered = [
        p for p in scene.at_server.packets(marks[2])
        if (p.protocol in (TCP, UDP) and p.source == target) or (p.protocol == ICMP and p.icmp and p.icmp[0] in (3, 11))
    ]  # fmt: skip
    expect(not answered, f"the sender was answered: {answered and answered[0]}")


@check("unsolicited UDP and TCP to a pool address: blocked")
def _unsolicited_pool(scene: Scene) -> Seen:
    blocked(scene, POOL[0], 44444)
    return Seen("no answer; nothing on h1 or h2", "blocked")


@check("unsolicited UDP and TCP to h1's own address: blocked")
def _unsolicited_inside(scene: Scene) -> Seen:
    blocked(scene, H1, 80)
    return Seen("no answer; nothing on h1 or h2", "blocked")
