"""Links: VLAN and QinQ, Ethernet addresses of the gateway's own, several addresses, jumbo frames, pings of pool addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from capture import SYN, TCP, Capture
from checks import Failed, Scene, Seen, curl, expect, iperf3, learned_mtu, ping, too_big, translated
from gateway import configuration
from group import Group, turnpike
from lab import (
    GW_INSIDE,
    GW_INSIDE_V6,
    GW_OUTSIDE,
    GW_OUTSIDE_V6,
    H1,
    NARROW,
    NARROW_MTU,
    NARROW_V6,
    POOL,
    SERVER,
    SERVER_V6,
    UPLINK_MTU,
    Lab,
    Namespace,
    wait_for,
)  # fmt: skip

CUSTOMER, CUSTOMER_V6 = "192.168.30", "2001:db8:30:"
CUSTOMER_MAC, UPLINK_MAC = "02:00:00:00:00:c0", "02:00:00:00:00:ee"
CUSTOMER_LINK_LOCAL = "fe80::ff:fe00:c0"
"""RFC 4291 appendix A, from the Ethernet address."""

TAGGED_INTERFACES = f"""\
  guests: {{port: lan, vlan: 20, zone: inside, addresses: [192.168.20.1/24]}}
  customer:
    port: lan
    outer-vlan: 200
    vlan: 20
    mac: "{CUSTOMER_MAC}"
    zone: inside
    addresses: [{CUSTOMER}.1/24, "{CUSTOMER_V6}:1/64"]
"""

SEVERAL = '192.168.1.2/24, 10.9.0.1/24, "2001:db8:1::2/64", "2001:db8:9::1/64"'
RINGS = ("framesz=2048,blocksz=4096", "framesz=9216,blocksz=36864")
JUMBO = 9000


def changed(text: str, *changes: tuple[str, str]) -> str:
    """A configuration with parts of it replaced."""
    for old, new in changes:
        if old not in text:
            raise ValueError(f"the configuration has no {old!r}")
        text = text.replace(old, new)
    return text


def tagged_configuration(_: Scene) -> str:
    """With interfaces on a VLAN, and on one within a service VLAN; that one and the uplink have their own Ethernet addresses."""
    return changed(
        configuration(),
        ("  uplink:\n    port: wan\n", f'{TAGGED_INTERFACES}  uplink:\n    port: wan\n    mac: "{UPLINK_MAC}"\n'),
    )


def jumbo_configuration(uplink: int, ring: str = RINGS[1]) -> str:
    """The inside takes 9000 bytes; the uplink as many as given."""
    return changed(
        configuration(), (RINGS[0], ring), ("    mtu: 1500\n", f"    mtu: {JUMBO}\n"), (f"mtu: {UPLINK_MTU}", f"mtu: {uplink}")
    )


TAGGED = Group(tagged_configuration)
ADDRESSES = Group(lambda _: changed(configuration(), (f'"{GW_INSIDE_V6}/64"]', f'"{GW_INSIDE_V6}/64", {SEVERAL}]')))
ECHO = Group(lambda _: configuration(pool=f"{POOL[0]}, {GW_OUTSIDE}"))
NO_ECHO = Group(
    lambda _: changed(
        configuration(pool=f"{POOL[0]}, {GW_OUTSIDE}"), ("    proxy-arp: false\n", "    proxy-arp: false\n    answer-echo: false\n")
    )
)
WIDE = Group(None)
LINK_GROUPS = [TAGGED, ADDRESSES, ECHO, NO_ECHO, WIDE]


def neighbour(space: Namespace, address: str) -> str:
    """The Ethernet address that a host has for a neighbour."""
    shown = space.ip(*(["-6"] if ":" in address else []), "neighbour", "show", address)
    found = re.search(r"lladdr (\S+)", shown)
    expect(found, f"{space.name} knows no {address}: {shown.strip()}")
    return found[1] if found else ""


def mtu(space: Namespace, device: str) -> int:
    """A device's MTU."""
    return int(re.findall(r"mtu (\d+)", space.ip("link", "show", device))[0])


@contextlib.contextmanager
def mtus(*devices: tuple[Namespace, str, int]) -> Iterator[None]:
    """Within this context these devices have these MTUs."""
    before = [(space, device, mtu(space, device)) for space, device, _ in devices]
    try:
        for space, device, size in devices:
            space.ip("link", "set", device, "mtu", str(size))
        yield
    finally:
        for space, device, size in before:
            space.ip("link", "set", device, "mtu", str(size))


@contextlib.contextmanager
def tagged(lab: Lab, name: str, *tags: str) -> Iterator[None]:
    """Within this context h2 has a device with tags on the LAN, which carries packets of 1500 bytes and all their tags."""
    wide = [(space, device, 1500 + 4 * len(tags)) for space, device in ((lab.h2, "eth0"), (lab.lan, "h2"), (lab.lan, "gw"))]
    script = str(Path(__file__).with_name("tagger.py"))
    with mtus(*wide):
        process = lab.spawn(lab.h2, f"tagger-{name}", "python3", script, name, "eth0", *tags)
        try:
            wait_for(lambda: f" {name}:" in lab.h2.ip("-o", "link", "show"), 10, f"{name} is there")
            lab.h2.sysctl(f"ipv6/conf/{name}/accept_dad", 0)
            lab.h2.ip("link", "set", name, "up")
            yield
        finally:
            lab.end(process)


@contextlib.contextmanager
def routed_by(space: Namespace, target: str, via: str) -> Iterator[None]:
    """Within this context a host reaches another by this router."""
    family = ["-6"] if ":" in target else []
    space.ip(*family, "route", "add", target, "via", via)
    try:
        yield
    finally:
        space.ip(*family, "route", "delete", target, "via", via)


# --- tags and Ethernet addresses ------------------------------------------------------------------------------------


@TAGGED.test("VLAN: ping of 1500 bytes to the gateway, ping and curl through it (802.1Q)")
def _vlan(scene: Scene) -> Seen:
    lab = scene.lab
    with tagged(lab, "guest0", "8100:20"):
        lab.host(lab.h2, "guest0", "192.168.20.9/24")
        ping(lab.h2, "192.168.20.1", "-M", "do", "-s", "1472")
        with routed_by(lab.h2, SERVER, "192.168.20.1"):
            ping(lab.h2, SERVER)
            client = curl(lab.h2, f"http://{SERVER}/who").split()[0]
        translated(client)
        port, own = neighbour(lab.h2, "192.168.20.1"), re.findall(r"link/ether (\S+)", lab.gw.ip("link", "show", "lan0"))[0]
        expect(port == own, f"the gateway is at {port}, not at its port's {own}")
    return Seen(client)


@TAGGED.test("QinQ: ping of 1500 bytes to the gateway, ping and curl through it (802.1ad)")
def _qinq(scene: Scene) -> Seen:
    lab = scene.lab
    with tagged(lab, "cust0", "88a8:200", "8100:20"):
        lab.host(lab.h2, "cust0", f"{CUSTOMER}.9/24", f"{CUSTOMER_V6}:9/64")
        ping(lab.h2, f"{CUSTOMER}.1", "-M", "do", "-s", "1472")
        ping(lab.h2, f"{CUSTOMER_V6}:1", "-M", "do", "-s", "1452")
        with routed_by(lab.h2, SERVER, f"{CUSTOMER}.1"):
            ping(lab.h2, SERVER)
            client = curl(lab.h2, f"http://{SERVER}/who").split()[0]
            curl(lab.h2, "-o", "/dev/null", f"http://{SERVER}/file?bytes=2000000")
        translated(client)
    return Seen(client, "2 MB down")


@TAGGED.test("an interface with an Ethernet address of its own: ARP, neighbour discovery, its link-local address")
def _mac(scene: Scene) -> Seen:
    lab = scene.lab
    with tagged(lab, "cust0", "88a8:200", "8100:20"):
        lab.host(lab.h2, "cust0", f"{CUSTOMER}.9/24", f"{CUSTOMER_V6}:9/64")
        for target in (f"{CUSTOMER}.1", f"{CUSTOMER_V6}:1"):
            ping(lab.h2, target)
            expect(neighbour(lab.h2, target) == CUSTOMER_MAC, f"{target} is at {neighbour(lab.h2, target)}")
        ping(lab.h2, f"{CUSTOMER_LINK_LOCAL}%cust0")
    for target in (GW_OUTSIDE, GW_OUTSIDE_V6):
        ping(lab.router, target)
        expect(neighbour(lab.router, target) == UPLINK_MAC, f"{target} is at {neighbour(lab.router, target)}")
    device = re.findall(r"link/ether (\S+)", lab.gw.ip("link", "show", "wan0"))[0]
    expect(device != UPLINK_MAC, "the device's own address has changed")
    ping(lab.h1, SERVER)
    translated(curl(lab.h1, f"http://{SERVER}/who").split()[0])
    return Seen(f"the router sees {UPLINK_MAC}, the device's is {device}")


# --- several addresses ----------------------------------------------------------------------------------------------


@ADDRESSES.test("several addresses of each family on an interface: each is found and answers")
def _addresses(scene: Scene) -> Seen:
    lab = scene.lab
    more = "10.9.0.10/24", "2001:db8:9::10/64"
    lab.host(lab.h1, "eth0", *more)
    try:
        own = re.findall(r"link/ether (\S+)", lab.gw.ip("link", "show", "lan0"))[0]
        targets = [GW_INSIDE, "192.168.1.2", "10.9.0.1", GW_INSIDE_V6, "2001:db8:1::2", "2001:db8:9::1"]
        for target in targets:
            ping(lab.h1, target)
            expect(neighbour(lab.h1, target) == own, f"{target} is at {neighbour(lab.h1, target)}")
        # From either subnet the gateway is the same first hop.
        for source in (H1, "10.9.0.10"):
            said = lab.h1.run("ping", "-n", "-c", "1", "-W", "3", "-t", "1", "-I", source, SERVER).stdout
            expect(f"From {GW_INSIDE} icmp_seq=1 Time to live exceeded" in said, f"from {source}: {said.strip()}")
    finally:
        for address in more:
            lab.h1.ip("address", "delete", address, "dev", "eth0")
    return Seen(f"{len(targets)} addresses")


# --- pings of pool addresses ----------------------------------------------------------------------------------------


@ECHO.test("pool addresses answer pings, from both sides; so do they as the gateway's own")
def _echo(scene: Scene) -> Seen:
    for space in (scene.lab.server, scene.lab.h1):
        for target in (POOL[0], GW_OUTSIDE):
            ping(space, target)
    return Seen(f"{POOL[0]}, {GW_OUTSIDE}")


@NO_ECHO.test("pool addresses do not answer pings where the pool says so; the gateway's own still does")
def _no_echo(scene: Scene) -> Seen:
    for space in (scene.lab.server, scene.lab.h1):
        done = space.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", POOL[0])
        expect("100% packet loss" in done.stdout, f"{POOL[0]}: {done.stdout.strip()}")
        ping(space, GW_OUTSIDE)
    # Its translations are not touched by it.
    address = curl(scene.lab.h1, f"http://{SERVER}/who").split()[0]
    expect(address in (*POOL, GW_OUTSIDE), f"the other side saw {address}, which is not in the pool")
    return Seen(f"{POOL[0]} is silent, {GW_OUTSIDE} is not")


# --- jumbo frames ---------------------------------------------------------------------------------------------------


def forget_paths(*spaces: Namespace) -> None:
    """Has hosts forget the path MTUs that they have learned."""
    for space in spaces:
        for family in ("-4", "-6"):
            space.ip(family, "route", "flush", "cache")


@contextlib.contextmanager
def jumbo(scene: Scene, uplink: int) -> Iterator[None]:
    """Within this context a gateway runs whose inside takes 9000 bytes, and all networks but the narrow one do; the uplink as
    many as given. The gateway's own devices are its own business."""
    lab = scene.lab
    inside = [(lab.h1, "eth0", JUMBO), (lab.lan, "h1", JUMBO), (lab.lan, "gw", JUMBO)]
    outside = [(lab.router, "up0", uplink), (lab.router, "srv0", JUMBO), (lab.server, "eth0", JUMBO)]
    own = [(lab.gw, device, mtu(lab.gw, device)) for device in ("lan0", "wan0")]
    gateway = turnpike(scene)
    with mtus(*own, *inside, *outside):
        gateway.start(jumbo_configuration(uplink))
        # What other tests have taught them of paths.
        forget_paths(lab.h1, lab.server)
        try:
            expect(mtu(lab.gw, "lan0") == JUMBO, f"the gateway's device has an MTU of {mtu(lab.gw, 'lan0')}")
            yield
        finally:
            status = gateway.stop()
            forget_paths(lab.h1, lab.server)
            if status != 0:
                raise Failed(f"the gateway stopped with {status}: {gateway.last_words()}")


@WIDE.test("jumbo: pings of 9000 bytes, iperf3 both ways, in both families")
def _jumbo(scene: Scene) -> Seen:
    lab = scene.lab
    with jumbo(scene, JUMBO):
        for target in (GW_INSIDE, GW_OUTSIDE, SERVER):
            ping(lab.h1, target, "-M", "do", "-s", str(JUMBO - 28))
        for target in (GW_INSIDE_V6, SERVER_V6):
            ping(lab.h1, target, "-M", "do", "-s", str(JUMBO - 48))
        mark = scene.at_server.mark()
        large = Capture(lab, lab.server, "jumbo", "eth0", f"tcp and greater {JUMBO + 14}")
        speeds = []
        for options in ((), ("-R",)):
            seen, end = iperf3(scene, *options)
            translated(seen.source)
            speeds.append(end["sum_received"]["bits_per_second"])
        syn = scene.first(scene.at_server, mark, lambda p: p.protocol == TCP and p.flags & SYN != 0, "a SYN")
        expect(syn.mss == JUMBO - 40, f"the client announces segments of {syn.mss} bytes")
        full = len(large.packets())
        large.stop()
        expect(full > 100, f"{full} full packets came to the server")
        curl(lab.h1, "-o", "/dev/null", f"http://[{SERVER_V6}]/file?bytes=2000000")
    return Seen(seen.sender, f"{speeds[0] / 1e6:.0f} and {speeds[1] / 1e6:.0f} Mbit/s")


@WIDE.test("jumbo: a link behind the router takes 1280: its errors reach the host, in both families")
def _jumbo_narrow(scene: Scene) -> Seen:
    with jumbo(scene, JUMBO):
        too_big(scene.lab.h1, NARROW, JUMBO, NARROW_MTU)
        too_big(scene.lab.h1, NARROW_V6, JUMBO, NARROW_MTU)
        ping(scene.lab.h1, NARROW, "-M", "do", "-s", str(NARROW_MTU - 28))
        learned = learned_mtu(scene.lab.h1, NARROW)
    return Seen(f"path MTU {learned}")


@WIDE.test("jumbo: the gateway's own uplink takes less: it answers with its MTU, in both families")
def _jumbo_uplink(scene: Scene) -> Seen:
    with jumbo(scene, UPLINK_MTU):
        too_big(scene.lab.h1, SERVER, JUMBO, UPLINK_MTU)
        too_big(scene.lab.h1, SERVER_V6, JUMBO, UPLINK_MTU)
        ping(scene.lab.h1, GW_INSIDE, "-M", "do", "-s", str(JUMBO - 28))
        curl(scene.lab.h1, "-o", "/dev/null", f"http://{SERVER}/file?bytes=2000000")
    return Seen(f"path MTU {UPLINK_MTU}")


@WIDE.test("jumbo: no start where the device's arguments have no room for it")
def _jumbo_refused(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    gateway.path.write_text(jumbo_configuration(JUMBO, RINGS[0]), encoding="utf-8")
    done = scene.lab.gw.run(*gateway.run_line(), seconds=20)
    expect(done.returncode == 1, f"exit status {done.returncode}: {done.stdout.strip()[-300:]}")
    for words in ("ports.lan", "MTU of 9000", "framesz=9216,blocksz=36864"):
        expect(words in done.stdout, f"does not say {words!r}: {done.stdout.strip()[-300:]}")
    return Seen(done.stdout.strip().splitlines()[-1])
