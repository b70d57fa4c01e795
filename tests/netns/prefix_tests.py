"""Stateless prefix translation with real clients: NPTv6 beside NETMAP, on a gateway that does NAT44 too.

What an address becomes is computed here (reference.py); the gateway is not asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from capture import Capture, Packet
from checks import Scene, Seen, answers, curl, ethernet, expect, ping
from fragment_tests import by_xdp, pieces, sent
from group import Group, sockets, turnpike
from lab import (
    GW_INSIDE,
    GW_INSIDE_V6,
    GW_OUTSIDE,
    GW_OUTSIDE_V6,
    NARROW,
    NARROW_MTU,
    NARROW_V6,
    ROUTER,
    ROUTER_V6,
    SERVER,
    SERVER_V6,
    UPLINK_MTU,
    Lab,
    Namespace,
    wait_for,
)  # fmt: skip
from link_tests import changed, forget_paths
from reference import Exchange
from reload_tests import keys, reload


@dataclass(frozen=True)
class Family:
    """The laboratory in one address family: an inside network whose prefix is translated, and whom it speaks to."""

    exchange: Exchange
    later: Exchange
    """With the outside prefix that comes in its place."""
    h1: str
    h2: str
    link: int
    """The length of the prefix of the LAN."""
    deep: str
    """A host behind h2 ..."""
    deep_prefix: str
    """... and its network, which takes 1280 bytes."""
    server: str
    narrow: str
    gateways: tuple[str, str]
    """The gateway, inside and outside."""
    routers: tuple[str, str]
    """The router, as it is seen from the gateway and from the server."""

    def outside(self, address: str, exchange: Exchange | None = None) -> str:
        """What an inside address is outside."""
        found = (exchange or self.exchange).map(ipaddress.ip_address(address).packed, outbound=True)
        assert found is not None
        return str(ipaddress.ip_address(found))

    def host(self, address: str) -> str:
        """An address as URLs have it."""
        return f"[{address}]" if ":" in address else address


def exchange(inside: str, outside: str) -> Exchange:
    """A pair of prefixes: of IPv6 as RFC 6296 has it, of IPv4 with the bits kept."""
    return Exchange(ipaddress.ip_network(inside), ipaddress.ip_network(outside), adjusts=":" in inside)


SIX = Family(
    exchange("fd01:203:405::/48", "2001:db8:4::/48"),
    exchange("fd01:203:405::/48", "2001:db8:5::/48"),
    "fd01:203:405:1::10", "fd01:203:405:1::20", 64, "fd01:203:405:2::99", "fd01:203:405:2::/64",
    SERVER_V6, NARROW_V6, (GW_INSIDE_V6, GW_OUTSIDE_V6), (ROUTER_V6, "2001:db8:51::1"),
)  # fmt: skip
FOUR = Family(
    exchange("10.7.7.0/24", "198.19.7.0/24"),
    exchange("10.7.7.0/24", "198.19.8.0/24"),
    "10.7.7.10", "10.7.7.20", 24, "10.7.7.199", "10.7.7.128/25",
    SERVER, NARROW, (GW_INSIDE, GW_OUTSIDE), (ROUTER, "198.18.1.1"),
)  # fmt: skip
FAMILIES = (SIX, FOUR)
GATEWAY_ADDRESSES = '10.7.7.1/24, "fd01:203:405:1::1/64"'


def prefixes(scene: Scene, six: Exchange = SIX.exchange, four: Exchange = FOUR.exchange) -> str:
    """The configuration, by AF_XDP as for all tests with fragments."""
    return changed(
        by_xdp(scene),
        (f'"{GW_INSIDE_V6}/64"]', f'"{GW_INSIDE_V6}/64", {GATEWAY_ADDRESSES}]'),
        ("routes:\n", "routes:\n" + "".join(f'  - {{to: "{it.deep_prefix}", via: "{it.h2}"}}\n' for it in FAMILIES)),
        (
            "metrics:\n",
            f"""\
nptv6:
  home: {{from: inside, to: outside, inside: "{six.inside}", outside: "{six.outside}"}}

netmap:
  branch: {{from: inside, to: outside, inside: {four.inside}, outside: {four.outside}}}

metrics:
""",
        ),
    )


def settled(scene: Scene) -> str:
    """Gives the inside hosts their further addresses, which they use when told to, and the router its routes. They stay."""
    lab = scene.lab
    for family in FAMILIES:
        for space, address in ((lab.h1, family.h1), (lab.h2, family.h2)):
            space.ip("address", "replace", f"{address}/{family.link}", "dev", "eth0", *(["nodad"] if ":" in address else []))
        for pair in (family.exchange, family.later):
            lab.router.ip("route", "replace", str(pair.outside), "via", family.gateways[1])
    return prefixes(scene)


PREFIX = Group(settled)
PREFIX_GROUPS = [PREFIX]


def echo(scene: Scene, capture: Capture, mark: int, target: str) -> Packet:
    """The first echo request to an address that a host got."""
    return scene.first(capture, mark, lambda p: p.icmp in ((8, 0), (128, 0)) and p.destination == target, "an echo request")


@PREFIX.test("prefix: ping and curl, out and in, of NPTv6 and NETMAP (RFC 6296 section 3)")
def _ping_curl(scene: Scene) -> Seen:
    lab, seen = scene.lab, []
    for it in FAMILIES:
        outside = it.outside(it.h1)
        marks = scene.at_server.mark(), scene.at_h1.mark()
        ping(lab.h1, it.server, "-I", it.h1)
        source = echo(scene, scene.at_server, marks[0], it.server).source
        expect(source == outside, f"the server saw {source}, not {outside}")
        ping(lab.server, outside)
        source = echo(scene, scene.at_h1, marks[1], it.h1).source
        expect(source == it.server, f"h1 saw {source}, not the server")

        client = curl(lab.h1, "--interface", it.h1, f"http://{it.host(it.server)}/who").split()[0]
        expect(client == outside, f"the web server saw {client}, not {outside}")
        path, copy = f"/file?prefix={it.host(outside)}", lab.work / "prefix"
        for space, target, own in ((lab.h1, it.server, ("--interface", it.h1)), (lab.server, outside, ())):
            curl(space, *own, "-o", str(copy), f"http://{it.host(target)}{path}")
            expect(hashlib.sha256(copy.read_bytes()).hexdigest() == scene.digest, "the copy differs from the file")
        client = scene.requests(lab.h1, path)[0][0]
        expect(client == it.server, f"h1's web server saw {client}, not the server")
        seen.append(f"{it.h1} is {outside}")
    return Seen("; ".join(seen))


def megabits(space: Namespace, target: str, *options: str) -> float:
    """Sends some megabytes by iperf3, and gives the speed."""
    # Of UDP no more than a veth pair holds, were it all sent at once.
    amount = ("-n", "250K", "-b", "5M", "-l", "1200") if "-u" in options else ("-n", "4M")
    done = space.run("iperf3", "-c", target, *amount, "-J", "--connect-timeout", "3000", *options, seconds=20)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    expect("error" not in report, f"iperf3: {report.get('error')}")
    end = report["end"]
    if "-u" in options:
        lost, count = end["sum"]["lost_packets"], end["sum"]["packets"]
        expect(count > 200 and lost / count < 0.05, f"{lost} of {count} datagrams lost")
        return float(end["sum"]["bits_per_second"]) / 1e6
    received = end["sum_received"]
    expect(received["bytes"] > 1e6, f"only {received['bytes']} bytes arrived")
    return float(received["bits_per_second"]) / 1e6


@PREFIX.test("prefix: iperf3, TCP and UDP, out and in, of NPTv6 and NETMAP")
def _iperf3(scene: Scene) -> Seen:
    lab, speeds = scene.lab, []
    for it in FAMILIES:
        # Bound: it would answer UDP from whatever address it likes.
        process = lab.spawn(lab.h1, "iperf3-h1", "iperf3", "-s", "-B", it.h1)
        try:
            wait_for(lambda it=it: answers(lab.h1, it.h1, 5201), 10, "iperf3 on h1 listens")
            for options in ((), ("-u",)):
                speeds.append(megabits(lab.h1, it.server, "-B", it.h1, *options))
                speeds.append(megabits(lab.server, it.outside(it.h1), *options))
        finally:
            lab.end(process)
    return Seen("", f"{', '.join(f'{speed:.0f}' for speed in speeds)} Mbit/s")


def hops(space: Namespace, source: str, target: str, *options: str) -> list[str]:
    """The way to a host, as traceroute says."""
    done = space.run("traceroute", "-n", "-q", "1", "-w", "2", "-m", "6", "-s", source, *options, target)
    return re.findall(r"^ *\d+ +(\S+)", done.stdout, re.MULTILINE)


@PREFIX.test("prefix: traceroute by UDP and ICMP, out and in: the gateway is one hop, quotes are translated")
def _traceroute(scene: Scene) -> Seen:
    lab, way = scene.lab, []
    for it in FAMILIES:
        outside = it.outside(it.h1)
        for options in ((), ("-I",)):
            way = hops(lab.h1, it.h1, it.server, *options)
            wanted = [it.gateways[0], it.routers[0], it.server]
            expect(way == wanted, f"out: hops {way}, not {wanted}")
            way = hops(lab.server, it.server, outside, *options)
            wanted = [it.routers[1], it.gateways[1], outside]
            expect(way == wanted, f"in: hops {way}, not {wanted}")
    return Seen(" ".join(way), "and three more")


# --- path MTU -------------------------------------------------------------------------------------------------------


def learned(space: Namespace, source: str, target: str) -> int:
    """The path MTU that a host has learned for its packets with this source."""
    found = re.search(r"\bmtu (\d+)", space.ip("route", "get", target, "from", source))
    return int(found[1]) if found else 1500


@PREFIX.test("prefix: path MTU: outward 1400 by the gateway, 1280 by a router there; TCP learns it from a translated quote")
def _path_mtu(scene: Scene) -> Seen:
    lab = scene.lab
    forget_paths(lab.h1, lab.server)
    for it in FAMILIES:
        # The gateway's own error quotes the packet as h1 has sent it.
        done = ping_whole(lab.h1, it.server, 1500, "-I", it.h1)
        expect(re.search(rf"{re.escape(it.gateways[0])} .*mtu ?= ?{UPLINK_MTU}\b", done), f"1500 bytes: {done}")
        digest = curl(lab.h1, "--interface", it.h1, "-H", "Expect:", "--data-binary", f"@{scene.file}",
                      f"http://{it.host(it.narrow)}/upload?prefix").strip()  # fmt: skip
        expect(digest == scene.digest, f"the server got something else: {digest}")
        mtu = learned(lab.h1, it.h1, it.narrow)
        expect(mtu == NARROW_MTU, f"h1 believes in {mtu} toward {it.narrow}")
    forget_paths(lab.h1, lab.server)
    return Seen("", f"10 MB up to {NARROW} and {NARROW_V6}")


def ping_whole(space: Namespace, target: str, size: int, *options: str) -> str:
    """Sends an echo request in an IP packet of `size` bytes that nobody may fragment, and gives what ping says."""
    headers = 48 if ":" in target else 28
    return space.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(size - headers), *options, target).stdout.strip()


@contextlib.contextmanager
def network_behind_h2(lab: Lab) -> Iterator[None]:
    """Within this context h2 is the router of a network that takes 1280 bytes, and speaks of it by its translated addresses."""
    lab.link(lab.h2, "deep0", lab.lan, "deep1", NARROW_MTU)
    try:
        for it, forwarding in ((SIX, "ipv6/conf/all/forwarding"), (FOUR, "ipv4/ip_forward")):
            lab.h2.sysctl(forwarding, 1)
            lab.h2.ip("route", "add", it.deep_prefix, "dev", "deep0")
            lab.h2.ip("route", "add", it.server, "via", it.gateways[0], "src", it.h2)
        yield
    finally:
        for it, forwarding in ((SIX, "ipv6/conf/all/forwarding"), (FOUR, "ipv4/ip_forward")):
            lab.h2.sysctl(forwarding, 0)
            lab.h2.ip("route", "delete", it.server)
        lab.h2.ip("link", "delete", "deep0")


@PREFIX.test("prefix: path MTU: inward 1280 by an inside router, which is seen by its outside address")
def _path_mtu_inward(scene: Scene) -> Seen:
    lab = scene.lab
    with network_behind_h2(lab):
        for it in FAMILIES:
            target = it.outside(it.deep)
            said = ping_whole(lab.server, target, UPLINK_MTU)
            expect(re.search(rf"From {re.escape(it.outside(it.h2))} .*mtu ?= ?{NARROW_MTU}\b", said), said)
            wait_for(lambda it=it, target=target: learned(lab.server, it.server, target) == NARROW_MTU, 2, "it is learned")
    forget_paths(lab.server)
    return Seen(f"{SIX.outside(SIX.h2)} and {FOUR.outside(FOUR.h2)}", f"told {NARROW_MTU}")


# --- hairpin, fragments ---------------------------------------------------------------------------------------------


@PREFIX.test("prefix: hairpin: h1 and h2 by their outside addresses, both ends translated (RFC 6296 section 4.3)")
def _hairpin(scene: Scene) -> Seen:
    lab = scene.lab
    for it in FAMILIES:
        outside = it.outside(it.h1), it.outside(it.h2)
        mark = scene.at_h2.mark()
        ping(lab.h1, outside[1], "-I", it.h1)
        source = echo(scene, scene.at_h2, mark, it.h2).source
        expect(source == outside[0], f"h2 saw {source}, not {outside[0]}")
        client = curl(lab.h2, "--interface", it.h2, f"http://{it.host(outside[0])}/who").split()[0]
        expect(client == outside[1], f"h1 saw {client}, not {outside[1]}")
    return Seen(f"h1 saw {SIX.outside(SIX.h2)} and {FOUR.outside(FOUR.h2)}")


def end_at(space: Namespace, address: str, port: int = 0) -> socket.socket:
    """A UDP socket of either family."""
    with space.entered():
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(3)
    made.bind((address, port))
    return made


@PREFIX.test("prefix: fragments: datagrams of 4000 bytes, the first from outside, and their answers")
def _fragments(scene: Scene) -> Seen:
    lab = scene.lab
    for it, what in ((SIX, "ip6[6] = 44"), (FOUR, "udp and ip[6:2] & 0x3fff != 0")):
        captures = [
            Capture(lab, space, f"prefix-fragments-{name}", what=what) for space, name in ((lab.server, "server"), (lab.h1, "h1"))
        ]
        outside = it.outside(it.h1)
        with sockets() as use:
            server, inside = use(end_at(lab.server, it.server, 7800)), use(end_at(lab.h1, it.h1, 7800))
            # In IPv6 the sender alone makes fragments, so it must know how large.
            for space, source, target in ((lab.server, it.server, outside), (lab.h1, it.h1, it.server)):
                ping_whole(space, target, 1500, "-I", source)
                expect(learned(space, source, target) == UPLINK_MTU, f"the path to {target} takes {learned(space, source, target)}")
            for _ in range(5):
                # Nobody inside has spoken yet.
                expect(sent(server, (outside, 7800), inside)[:2] == (it.server, 7800), "the datagram comes from somebody else")
                end = sent(inside, (it.server, 7800), server)
                expect(end[:2] == (outside, 7800), f"the server saw {end[:2]}")
        for capture in captures:
            pieces(capture, 5 * 3)
    return Seen(f"{SIX.outside(SIX.h1)} and {FOUR.outside(FOUR.h1)}")


# --- no state -------------------------------------------------------------------------------------------------------


def numbered(source: socket.socket, target: tuple[str, int], receiver: socket.socket, count: int = 50) -> None:
    """Sends datagrams one by one, and expects each of them."""
    for _ in range(count):
        token = os.urandom(8)
        source.sendto(token, target)
        try:
            got = receiver.recv(64)
        except TimeoutError:
            got = b"nothing"
        expect(got == token, f"{target[0]}: {got!r} came, not what was sent")


@PREFIX.test("prefix: a restart in mid-flow: connections go on, what is sent before and after arrives; there is no state")
def _restart(scene: Scene) -> Seen:
    lab, gateway = scene.lab, turnpike(scene)
    with sockets() as use:
        flows = []
        for it in FAMILIES:
            inside, server = use(end_at(lab.h1, it.h1)), use(end_at(lab.server, it.server))
            with lab.server.entered():
                listening = use(socket.create_server((it.server, 7801), family=inside.family))
            with lab.h1.entered():
                client = use(socket.socket(inside.family))
            listening.settimeout(5)
            client.settimeout(10)
            client.bind((it.h1, 0))
            client.connect((it.server, 7801))
            connection = use(listening.accept()[0])
            connection.settimeout(10)
            flows.append((it, inside, server, client, connection))
            numbered(inside, server.getsockname()[:2], server)
        status = gateway.stop()
        expect(status == 0, f"it stopped with {status}")
        for _, inside, server, _, _ in flows:
            inside.sendto(b"lost", server.getsockname()[:2])
        took = gateway.start(prefixes(scene))
        for it, inside, server, client, connection in flows:
            # From outside first: nobody inside has spoken since.
            numbered(server, (it.outside(it.h1), inside.getsockname()[1]), inside)
            numbered(inside, server.getsockname()[:2], server)
            for one, other in ((connection, client), (client, connection)):
                one.sendall(b"still here")
                expect(other.recv(64) == b"still here", "the connection carries something else")
    return Seen("", f"ready again after {took:.1f} s")


@PREFIX.test("prefix: a reload with another outside prefix takes effect at once, and the old one leads nowhere")
def _reload(scene: Scene) -> Seen:
    lab = scene.lab
    with sockets() as use:
        flows = [(it, use(end_at(lab.h1, it.h1)), use(end_at(lab.server, it.server))) for it in FAMILIES]

        def source_seen(inside: socket.socket, server: socket.socket) -> str:
            inside.sendto(b"who", server.getsockname()[:2])
            return str(server.recvfrom(16)[1][0])

        for it, inside, server in flows:
            source = source_seen(inside, server)
            expect(source == it.outside(it.h1), f"the server saw {source} before")
        report = reload(scene, prefixes(scene, SIX.later, FOUR.later))
        expect(sorted(keys(report)) == ["netmap.branch.outside", "nptv6.home.outside"], f"it says that {keys(report)} changed")
        for it, inside, server in flows:
            source, new = source_seen(inside, server), it.outside(it.h1, it.later)
            expect(source == new, f"the server saw {source} afterwards, not {new}")
            numbered(server, (new, inside.getsockname()[1]), inside, 5)
            inside.settimeout(0.5)
            server.sendto(b"old", (it.outside(it.h1), inside.getsockname()[1]))
            with contextlib.suppress(TimeoutError):
                expect(inside.recv(16) != b"old", "the old address still leads inside")
        reload(scene, prefixes(scene))
        for it, inside, server in flows:
            source = source_seen(inside, server)
            expect(source == it.outside(it.h1), f"the server saw {source} when all was as before")
    return Seen(f"{SIX.outside(SIX.h1)} becomes {SIX.outside(SIX.h1, SIX.later)}")


@PREFIX.test("prefix: turnpikectl renumbers an outside prefix at run time, a reload keeps it, and unset gives the file's back")
def _renumber(scene: Scene) -> Seen:
    lab, gateway = scene.lab, turnpike(scene)
    former = 'turnpike_drops_total{function="prefix",reason="prefix-former"}'
    before = gateway.metrics()[former]
    with sockets() as use:
        inside, server = use(end_at(lab.h1, SIX.h1)), use(end_at(lab.server, SIX.server))

        def source_seen() -> str:
            inside.sendto(b"who", server.getsockname()[:2])
            return str(server.recvfrom(16)[1][0])

        def ctl(*arguments: str) -> str:
            done = gateway.ctl(*arguments)
            expect(done.returncode == 0, f"turnpikectl {' '.join(arguments)}: {done.stderr.strip()}")
            return done.stdout

        old, new = SIX.outside(SIX.h1), SIX.outside(SIX.h1, SIX.later)
        expect(source_seen() == old, "the server saw another source before")
        ctl("prefix", "set", "nptv6.home", str(SIX.later.outside))
        expect(source_seen() == new, f"the server does not see {new} afterwards")
        numbered(server, (new, inside.getsockname()[1]), inside, 5)
        for _ in range(3):
            server.sendto(b"old", (old, inside.getsockname()[1]))
        wait_for(lambda: gateway.metrics()[former] == before + 3, 5, "three packets to the former prefix are counted")
        expect(str(SIX.later.outside) in ctl("prefix", "list"), "turnpikectl prefix list does not tell the new one")
        ctl("reload")
        expect(source_seen() == new, "a reload has forgotten the prefix")
        done = gateway.ctl("prefix", "set", "nptv6.home", "192.0.2.0/24")
        expect(done.returncode == 1 and "192.0.2.0/24" in done.stderr, f"a prefix of IPv4: {done.stderr.strip()}")
        ctl("prefix", "unset", "nptv6.home")
        expect(source_seen() == old, "the file's prefix is not back")
    return Seen(f"{old} becomes {new}", "3 packets to the former one counted")


@PREFIX.test("prefix: outside addresses within the uplink's network are answered for by ARP and neighbour discovery")
def _shared_network(scene: Scene) -> Seen:
    lab = scene.lab
    rules = """\
netmap:
  shared: {from: inside, to: outside, inside: 10.7.7.0/28, outside: 198.51.100.32/28}
  shared-six: {from: inside, to: outside, inside: "fd01:203:405:1::/120", outside: "2001:db8:f::7700/120"}
"""
    reload(scene, changed(prefixes(scene), ("netmap:\n", rules)))
    known = {FOUR.h1: "198.51.100.42", SIX.h1: "2001:db8:f::7710"}
    for it in FAMILIES:
        address = known[it.h1]
        lab.router.ip("neighbour", "flush", "dev", "up0")
        ping(lab.router, address)
        ping(lab.h1, it.routers[0], "-I", it.h1)

        def entry(address: str = address) -> str:
            return lab.router.ip("neighbour", "show", address).strip()

        expect(ethernet(lab.gw, "wan0") in entry(), f"the router's neighbour: {entry() or 'none'}")
        # Asked once more, by unicast.
        lab.router.ip("neighbour", "change", address, "dev", "up0", "nud", "probe")
        wait_for(lambda entry=entry: "REACHABLE" in entry(), 5, f"the router finds {address} reachable again")
    reload(scene, prefixes(scene))
    return Seen(", ".join(f"{host} is {address}" for host, address in known.items()))
