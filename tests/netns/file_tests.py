"""Files of configs/ as they are, each between hosts that have the addresses that it speaks of.

Each has a site of its own, namespaces in which the gateway's devices have the file's names. What a machine decides is in a second
file. By which address a host is known on the other side is computed here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType

import tayga
from capture import Capture
from checks import Failed, Scene, Seen, answers, curl, expect, ping, told_too_big, too_big, traceroute
from fragment_tests import pieces, sent
from gateway import CONTROL, METRICS, Turnpike, cores
from group import Group, bound, sockets, turnpike
from lab import Namespace, remove, wait_for

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = Group(None)
FILE_GROUPS = [FILES]

BYTES = 1_000_000
"""How much a client downloads."""
NARROW = 1280
"""The MTU of links that have less than the others, and no less than IPv6 wants."""


def machine() -> str:
    """What a machine decides, and a file to start from leaves open."""
    worker, first = cores()
    return f"""\
version: 1
boot:
  cpu: {{workers: [{worker}], control: {first}, poll: adaptive}}
metrics: {{listen: "{METRICS}"}}
control: {{socket: {CONTROL}}}
"""


# --- addresses ------------------------------------------------------------------------------------------------------


def embedded(prefix: str, address: str) -> str:
    """An IPv4 address in a prefix of 96 bits (RFC 6052 section 2.2)."""
    return str(IPv6Address(int(IPv6Address(prefix)) + int(IPv4Address(address))))


def words(address: str) -> list[int]:
    """The eight words of an IPv6 address."""
    packed = IPv6Address(address).packed
    return [int.from_bytes(packed[at : at + 2], "big") for at in range(0, 16, 2)]


def neutral(address: str, prefix: str, count: int) -> str:
    """An address with the first words of another prefix, and the word behind them such that the sum of all stays what it was
    (RFC 6296 section 3.2)."""
    old = words(address)
    new = words(prefix)[:count] + old[count:]
    new[count] = (new[count] + sum(old) - sum(new)) % 0xFFFF
    return str(IPv6Address(b"".join(word.to_bytes(2, "big") for word in new)))


# --- sites ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """A host, and how it is known on the other side of the gateway."""

    space: Namespace
    device: str
    address: str
    known: str


class Site:
    """The gateway and the hosts around it. They are gone with the context."""

    def __init__(self, scene: Scene, file: str, by_xdp: bool = False) -> None:
        """`by_xdp`: the ports are AF_XDP sockets. Those of net_af_packet get of IPv4 what the kernel has put together."""
        self.lab, self.prefix = scene.lab, f"{scene.lab.prefix}-{file}"
        self.name = file
        self.gw = self.lab.bare_space(f"{file}-gw")
        path = CONFIGS / f"{file}.yaml"
        if by_xdp:
            text = re.sub(r"net_af_packet(\d),iface", r"net_af_xdp\1,iface", path.read_text(encoding="utf-8"))
            path = self.lab.work / f"{file}.yaml"
            path.write_text(text, encoding="utf-8")
        self.gateway = Turnpike(self.lab, turnpike(scene).binary, self.gw, path)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            lost, status = 0.0, 0
            if self.gateway.process and kind is None:
                lost = self.gateway.metrics()["turnpike_packets_imbalance"]
            if self.gateway.process:
                status = self.gateway.stop()
        finally:
            remove(self.prefix)
        if kind is None and (lost or status):
            raise Failed(f"{lost:g} packets are missing, and the gateway stopped with {status}: {self.gateway.last_words()}")

    def space(self, name: str) -> Namespace:
        """A namespace for a host or a router."""
        return self.lab.space(f"{self.name}-{name}")

    def start(self, more: str = "") -> None:
        """Starts the gateway, whose file says `more`: everything around it is there."""
        self.gateway.start(machine() + more)

    def serve(self, scene: Scene, *spaces: Namespace) -> None:
        """Starts a web server and iperf3 on hosts."""
        web = str(Path(__file__).with_name("server.py"))
        for space in spaces:
            self.lab.spawn(space, f"web-{space.name}", "python3", web, str(scene.file))
            self.lab.spawn(space, f"iperf3-{space.name}", "iperf3", "-s")
        for space in spaces:
            for port in (80, 5201):
                wait_for(lambda space=space, port=port: answers(space, "127.0.0.1", port), 15, f"{space.name} serves port {port}")

    def behind(self, router: Namespace, wide: str, narrow: str) -> Namespace:
        """A host behind a router, by two links, of which one is narrow. Of each network the router has the first address, and the
        host the tenth."""
        host = self.space("server")
        for device, network, mtu in (("wide0", wide, 1500), ("narrow0", narrow, NARROW)):
            self.lab.link(router, device, host, device, mtu)
            length = 64 if ":" in network else 24
            self.lab.host(router, device, f"{network}1/{length}")
            self.lab.host(host, device, f"{network}10/{length}")
        router.forward()
        self.lab.route(host, "default", f"{wide}1")
        return host


def talk(scene: Scene, client: End, server: End, hops: Iterable[str]) -> None:
    """A host reaches another by ping, traceroute (these hops and then the target), curl and iperf3; that one knows it by its
    address on the other side."""
    where = f"[{server.known}]" if ":" in server.known else server.known
    ping(client.space, server.known, "-I", client.address)
    traceroute(client.space, server.known, hops, "-s", client.address)
    by = ("--interface", client.address)
    seen = curl(client.space, *by, f"http://{where}/who").split()[0]
    expect(seen == client.known, f"{server.space.name} saw {seen}, not {client.known}")
    copy = scene.lab.work / "copy"
    curl(client.space, *by, "-o", str(copy), f"http://{where}/file?bytes={BYTES}")
    expect(copy.read_bytes() == scene.file.read_bytes()[:BYTES], f"what came from {server.known} is not what is there")
    copy.unlink()
    options = ("-B", client.address, "-n", "2M", "-J", "--connect-timeout", "3000")
    done = client.space.run("iperf3", "-c", server.known, *options, seconds=25)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    expect("error" not in report, f"iperf3: {report.get('error')}")
    speed = report["end"]["sum_received"]["bits_per_second"]
    expect(speed > 1e6, f"iperf3: only {speed:.0f} bit/s")


def upload(scene: Scene, client: End, server: str) -> None:
    """A host sends a file to a web server, which receives all of it."""
    data = scene.file.read_bytes()[:BYTES]
    part = scene.lab.work / "part"
    part.write_bytes(data)
    said = curl(client.space, "-H", "Expect:", "--data-binary", f"@{part}", f"http://{server}/upload").strip()
    expect(said == hashlib.sha256(data).hexdigest(), f"{server} got something else: {said}")


def both_ways(scene: Scene, one: End, other: End, out: Iterable[str], back: Iterable[str]) -> None:
    """Each of two hosts calls the other; these hops are on its way."""
    talk(scene, one, other, out)
    talk(scene, other, one, back)


def in_fragments(scene: Scene, one: End, other: End, least: tuple[int, int]) -> Seen:
    """Two hosts send each other datagrams of 4000 bytes, of which each arrives in so many fragments at least: at the first host, at
    the second."""
    times, captures = 5, []
    for end, name in ((one, "one"), (other, "other")):
        # The fragments of one family are fewer than the other's.
        what = "ip6[6] == 44" if ":" in end.address else "ip[6:2] & 0x3fff != 0"
        captures.append(Capture(scene.lab, end.space, f"fragments-{name}", end.device, what))
    # Who is whose neighbour is known then.
    ping(one.space, other.known, "-I", one.address)
    ping(other.space, one.known, "-I", other.address)
    with sockets() as use:
        left, right = (use(bound(end.space, end.address, 7600)) for end in (one, other))
        for _ in range(times):
            for source, target, receiver, known in (
                (left, other.known, right, one.known),
                (right, one.known, left, other.known),
            ):
                seen = sent(source, (target, 7600), receiver)[:2]
                expect(seen == (known, 7600), f"{target} saw {seen}, not {known}")
    counts = [pieces(capture, times * count) for capture, count in zip(captures, least, strict=True)]
    return Seen("", f"{times} each way: {counts[1]} fragments at {other.address}, {counts[0]} at {one.address}")


Build = Callable[[Site], tuple[End, End]]


def fragments(scene: Scene, file: str, build: Build, least: tuple[int, int]) -> Seen:
    """A file's site on AF_XDP sockets, and datagrams in fragments there."""
    with Site(scene, file, by_xdp=True) as here:
        one, other = build(here)
        here.start()
        return in_fragments(scene, one, other, least)


# --- windows-napt.yaml ----------------------------------------------------------------------------------------------

NAPT_GATEWAY, NAPT_GATEWAY_V6 = "192.0.2.1", "fd00:6::1"
STAND_IN = "fd00::2ff:0:0"
"""What YOWZA has in the place of ::ffff:0:0/96 (mapped.py)."""
TRANSLATED = "::ffff:0:0:0"


def napt(here: Site) -> tuple[End, End]:
    """GACK, the IPv4 host, which is 192.0.2.77 too; and YOWZA, the IPv6 host, which is a router as well."""
    lab, gack, yowza = here.lab, here.space("gack"), here.space("yowza")
    lab.link(here.gw, "eth1", gack, "eth0")
    lab.link(here.gw, "eth2", yowza, "eth0")
    lab.host(gack, "eth0", "192.0.2.10/24", "192.0.2.77/24")
    for network in ("198.51.100.0/24", "203.0.113.0/24"):
        lab.route(gack, network, NAPT_GATEWAY)
    yowza.sysctl("ipv6/conf/eth0/disable_ipv6", 1)
    script = str(Path(__file__).with_name("mapped.py"))
    lab.spawn(yowza, f"mapped-{yowza.name}", "python3", script, "napt0", "eth0")
    wait_for(lambda: " napt0:" in yowza.ip("-o", "link", "show"), 10, "napt0 is there")
    yowza.ip("link", "set", "napt0", "up")
    own = embedded(TRANSLATED, "198.51.100.20")
    lab.host(yowza, "napt0", "fd00:6::2/64", f"{own}/120")
    for network in (f"{STAND_IN}/96", "fd00:beef::/64"):
        lab.route(yowza, network, NAPT_GATEWAY_V6)
    return (
        End(gack, "eth0", "192.0.2.10", embedded(STAND_IN, "192.0.2.10")),
        End(yowza, "napt0", own, "198.51.100.20"),
    )


@FILES.test("windows-napt.yaml: an IPv4 and an IPv6 host reach each other by ping, traceroute, curl, iperf3; path MTU")
def _napt(scene: Scene) -> Seen:
    with Site(scene, "windows-napt") as here:
        gack, yowza = napt(here)
        # Two that are known by pairs: an IPv4 host under any address, and an IPv6 host that has any, behind a narrow link.
        other, far = here.space("far"), "fd00:6::20"
        here.lab.link(yowza.space, "far0", other, "eth0", NARROW)
        here.lab.host(yowza.space, "far0", "fd00:7::1/64")
        here.lab.host(other, "eth0", "fd00:7::2/64", f"{far}/128")
        here.lab.route(other, "default", "fd00:7::1")
        here.lab.route(yowza.space, f"{far}/128", "fd00:7::2")
        yowza.space.forward()
        yowza.space.sysctl("ipv6/conf/napt0/proxy_ndp", 1)
        yowza.space.ip("-6", "neighbour", "add", "proxy", far, "dev", "napt0")
        pair = End(gack.space, "eth0", "192.0.2.77", "fd00:beef::77"), End(other, "eth0", far, "203.0.113.20")
        here.serve(scene, gack.space, yowza.space, other)
        here.start()
        both_ways(scene, gack, yowza, [NAPT_GATEWAY], [NAPT_GATEWAY_V6])
        # YOWZA as a router speaks from an address that IPv4 has none for: there it is the gateway (RFC 6791).
        both_ways(scene, *pair, [NAPT_GATEWAY, NAPT_GATEWAY], ["fd00:7::1", NAPT_GATEWAY_V6])
        too_big(gack.space, yowza.known, 1500, 1480)
        too_big(gack.space, "203.0.113.20", 1480, NARROW - 20)
    return Seen(f"{yowza.address} is {yowza.known}", f"path MTU {NARROW - 20} over an IPv6 link of {NARROW}")


@FILES.test("windows-napt.yaml: datagrams of 4000 bytes in fragments, both ways")
def _napt_fragments(scene: Scene) -> Seen:
    # Of 1480 bytes each in IPv4, and of 1232 in IPv6; those from IPv6 are not cut again.
    return fragments(scene, "windows-napt", napt, (3, 5))


# --- map66.yaml and nptv6-firewall.yaml -----------------------------------------------------------------------------


@FILES.test("map66.yaml: by both uplinks, both ways: ping, traceroute, curl, iperf3; path MTU")
def _map66(scene: Scene) -> Seen:
    uplinks = {
        # The gateway there and the router, a server behind it, and what our network is called there.
        "sixxs": ("eth2", "2001:4dd0:ff00:2ee::2", "2001:4dd0:ff00:2ee::1", "2001:db8:51::10", "2001:4dd0:fe77:1::"),
        "tun6to4": ("eth3", "2002:4d57:3007::1", "2002:4d57:3007::2", "2002:c000:204::10", "2002:4d57:3007:1::"),
    }
    own, gateway = "fdca:ffee:babe::10", "fdca:ffee:babe::1"
    with Site(scene, "map66") as here:
        mesh = here.space("mesh")
        here.lab.link(here.gw, "eth1", mesh, "eth0")
        here.lab.host(mesh, "eth0", f"{own}/64")
        here.lab.route(mesh, "default", gateway)
        ends, known = [], []
        for name, (device, ours, router, server, prefix) in uplinks.items():
            space = here.space(name)
            here.lab.link(here.gw, device, space, "eth0", NARROW)
            here.lab.host(space, "eth0", f"{router}/64")
            here.lab.host(space, "lo", f"{server}/128")
            here.lab.route(space, f"{prefix}/64", ours)
            known.append(neutral(own, prefix, 4))
            ends.append((End(mesh, "eth0", own, known[-1]), End(space, "eth0", server, server), ours))
        here.serve(scene, mesh, *(server.space for _, server, _ in ends))
        here.start()
        for host, server, ours in ends:
            both_ways(scene, host, server, [gateway], [ours])
            too_big(mesh, server.address, 1500, NARROW)
    return Seen(f"{own} is {' and '.join(known)}", f"path MTU {NARROW}")


@FILES.test("nptv6-firewall.yaml: both ways: ping, traceroute, curl, iperf3; path MTU")
def _nptv6(scene: Scene) -> Seen:
    own, gateway, uplink, router = "fda3:5:6:1::10", "fda3:5:6:1::1", "2001:db8:f::2", "2001:db8:f::1"
    known, server = neutral(own, "2001:db8:2607::", 3), "2001:db8:51::10"
    with Site(scene, "nptv6-firewall") as here:
        inside, outside = here.space("inside"), here.space("router")
        here.lab.link(here.gw, "eth1", inside, "eth0")
        here.lab.host(inside, "eth0", f"{own}/64")
        here.lab.route(inside, "default", gateway)
        here.lab.link(here.gw, "eth2", outside, "up0")
        here.lab.host(outside, "up0", f"{router}/64")
        here.lab.route(outside, "2001:db8:2607::/48", uplink)
        far = here.behind(outside, "2001:db8:51::", "2001:db8:52::")
        here.serve(scene, inside, far)
        here.start()
        ends = End(inside, "eth0", own, known), End(far, "wide0", server, server)
        both_ways(scene, *ends, [gateway, router], ["2001:db8:51::1", uplink])
        too_big(inside, "2001:db8:52::10", 1500, NARROW)
    return Seen(f"{own} is {known}", f"path MTU {NARROW}")


# --- siit-dc.yaml ---------------------------------------------------------------------------------------------------

DC = "2001:db8:46::"


def data_centre(here: Site) -> tuple[End, End]:
    """A client in the IPv4 Internet and a server that has IPv6 only."""
    lab, router, servers = here.lab, here.space("router"), here.space("servers")
    lab.link(here.gw, "eth1", router, "up0")
    lab.host(router, "up0", "198.51.100.1/24")
    lab.route(router, "203.0.113.0/24", "198.51.100.2")
    client = here.behind(router, "198.18.1.", "198.18.2.")
    lab.link(here.gw, "eth2", servers, "eth0")
    lab.host(servers, "eth0", "2001:db8:12::10/64", "2001:db8:12::20/64")
    lab.route(servers, "default", "2001:db8:12::1")
    return (
        End(client, "wide0", "198.18.1.10", embedded(DC, "198.18.1.10")),
        End(servers, "eth0", "2001:db8:12::10", "203.0.113.10"),
    )


@FILES.test("siit-dc.yaml: IPv4 clients and IPv6 servers reach each other by ping, traceroute, curl, iperf3; path MTU")
def _data_centre(scene: Scene) -> Seen:
    with Site(scene, "siit-dc") as here:
        client, server = data_centre(here)
        here.serve(scene, client.space, server.space)
        here.start()
        router = embedded(DC, "198.51.100.1")
        both_ways(scene, client, server, ["198.18.1.1", "198.51.100.2"], ["2001:db8:12::1", router])
        ping(client.space, "203.0.113.20")
        too_big(client.space, server.known, 1500, 1480)
        too_big(server.space, embedded(DC, "198.18.2.10"), 1500, NARROW + 20)
    return Seen(f"{server.address} is {server.known}", f"path MTU {NARROW + 20} over an IPv4 link of {NARROW}")


@FILES.test("siit-dc.yaml: datagrams of 4000 bytes in fragments, both ways")
def _data_centre_fragments(scene: Scene) -> Seen:
    # Of 1480 bytes each in IPv4; IPv6 packets of 1500 bytes have room for 1448.
    return fragments(scene, "siit-dc", data_centre, (3, 5))


@FILES.test("siit-dc.yaml: a table of 100,000 mappings is replaced five times under traffic, and nothing is lost")
def _data_centre_table(scene: Scene) -> Seen:
    rows = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255},2001:db8:12:1::{n >> 16:x}:{n & 0xFFFF:x}" for n in range(1, 100_000)]
    later, times, packets = "203.0.113.30", 5, 5000
    with Site(scene, "siit-dc") as here, ThreadPoolExecutor() as pool:
        client, server = data_centre(here)
        here.lab.host(server.space, "eth0", "2001:db8:12::30/64")
        table = here.lab.work / "services.csv"
        table.write_text("\n".join(rows), encoding="utf-8")
        here.start(f"siit: {{dc: {{mappings-file: {table}}}}}\n")
        ping(client.space, server.known)
        options = ("-n", "-q", "-i", "0.002", "-c", str(packets), "-w", "60")
        done = pool.submit(client.space.run, "ping", *options, server.known, seconds=70)
        for n in range(times):
            is_there = n % 2 == 0
            table.write_text("\n".join([*rows, f"{later},2001:db8:12::30"] if is_there else rows), encoding="utf-8")
            reloaded = here.gateway.ctl("reload")
            expect(reloaded.returncode == 0, f"turnpikectl reload: {reloaded.stderr.strip()}")
            expect(not done.done(), f"the traffic ended before the {n + 1}th reload")
            if is_there:
                ping(client.space, later, count=1)
            else:
                said = client.space.run("ping", "-n", "-c", "1", "-W", "1", later)
                expect(" 0 received" in said.stdout, f"{later} is still there: {said.stdout.strip()}")
        said = done.result().stdout
        expect(f" {packets} received" in said, f"of {packets} pings: {said.strip()}")
    return Seen(f"{len(rows) + 3} rows", f"{packets} pings answered")


# --- 464xlat-clat.yaml ----------------------------------------------------------------------------------------------

PROVIDER = "2001:db8:64::"
PLAT = "198.18.0.1"
"""The provider's translator, tayga."""


def clat(here: Site) -> tuple[End, End]:
    """A host at home and a server in the IPv4 Internet, which has an IPv6 network before it."""
    lab, home, plat = here.lab, here.space("home"), here.space("plat")
    lab.link(here.gw, "eth1", home, "eth0")
    lab.host(home, "eth0", "192.168.4.10/24")
    lab.route(home, "default", "192.168.4.1")
    lab.link(here.gw, "eth2", plat, "eth0")
    lab.host(plat, "eth0", "2001:db8:c1a7::1/64")
    lab.route(plat, "2001:db8:c1a7:464::/64", "2001:db8:c1a7::2")
    server = here.behind(plat, "198.18.1.", "198.18.2.")
    # The home network has addresses there that its NAT64 would give it; so has the link to it, for its routers to be seen. (Debian
    # 12's tayga takes no single addresses.)
    maps = "map 203.0.113.0/24 2001:db8:c1a7:464::/120\nmap 203.0.112.0/24 2001:db8:c1a7::/120\n"
    tayga.start(lab, plat, f"ipv4-addr {PLAT}\nprefix {PROVIDER}/96\n{maps}")
    lab.host(plat, tayga.DEVICE, "198.18.0.2/32")
    for network in (f"{PLAT}/32", "203.0.112.0/23", f"{PROVIDER}/96"):
        plat.ip(*(["-6"] if ":" in network else []), "route", "add", network, "dev", tayga.DEVICE)
    return End(home, "eth0", "192.168.4.10", "203.0.113.10"), End(server, "wide0", "198.18.1.10", "198.18.1.10")


@FILES.test("464xlat-clat.yaml: with tayga as the provider's side, both ways: ping, traceroute, curl, iperf3; path MTU")
def _clat(scene: Scene) -> Seen:
    with Site(scene, "464xlat-clat") as here:
        home, server = clat(here)
        here.serve(scene, home.space, server.space)
        here.start()
        # The IPv6 router between has no IPv4 address for us, and is seen as the gateway (RFC 6791). Behind it: tayga, the router again.
        out = ["192.168.4.1", "192.168.4.1", PLAT, "198.18.0.2"]
        both_ways(scene, home, server, out, ["198.18.1.1", PLAT, "203.0.112.1", "203.0.112.2"])
        # It is named all the same, in an extension (RFC 5837).
        done = home.space.run("traceroute", "-n", "-e", "-q", "1", "-w", "2", "-m", "2", server.known)
        named = re.search(r"^ 2 +192\.168\.4\.1 <(2/4:[0-9a-f,]+)>", done.stdout, re.MULTILINE)
        expect(named and named[1] == "2/4:00020000,20010db8,c1a70000,00000000,00000001", f"traceroute -e: {done.stdout}")
        # Answers of that size may be fragmented, and tayga does; fragments of ICMP are not translated back. TCP's may not.
        told_too_big(home.space, server.known, 1500, 1480)
        told_too_big(home.space, "198.18.2.10", 1480, NARROW)
        upload(scene, home, "198.18.2.10")
    return Seen(f"{home.address} is {home.known}", f"path MTU {NARROW}")


@FILES.test("464xlat-clat.yaml: datagrams of 4000 bytes in fragments, both ways")
def _clat_fragments(scene: Scene) -> Seen:
    # Of 1480 bytes each when they are sent; in IPv6 there is room for 1448, and tayga cuts into 1232.
    return fragments(scene, "464xlat-clat", clat, (5, 5))
