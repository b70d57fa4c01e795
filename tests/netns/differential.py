#!/usr/bin/env python3
"""Compares the gateway's stateless prefix translation with the Linux kernel's, packet by packet and byte for byte (as root).

    differential.py --binary target/debug/turnpike [--packets 100000] [--seed 1] [--only WORD]

The same random datagrams (traffic.py) go through both: through the kernel of this machine, as the router between two veth
pairs in a network namespace, and through `turnpike replay`. Where the two differ, this file has a name for it, says exactly
what the kernel makes of the packet instead, and that the gateway's packet is what the RFC wants (reference.py). Any other
difference is a failure. What the names mean is in docs/rfc-compliance.md, under "Known differences".
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lab as laboratory
from checks import Scene, Seen, expect
from group import Group, turnpike
from lab import Lab, Namespace
from reference import (
    AUTHENTICATION,
    DCCP,
    EXTENSIONS,
    ICMP,
    ICMP_OF,
    ICMP_V6,
    TCP,
    UDP,
    Exchange,
    Layout,
    adjust,
    assembled,
    ends,
    layout,
    routed,
    translated,
    words,
)  # fmt: skip
from traffic import ACK, GRE, NO_NEXT, QUERIES, SCTP, SYN, URG, Item, Traffic, tag_of

PACKETS = 10_000
"""Datagrams of each comparison in `make netns`."""
BATCH = 64
"""Datagrams that are under way in the kernel at a time: no queue there is as short."""

# The router's addresses, the next hops', and the links that they are on.
INSIDE, INSIDE_HOP, OUTSIDE, OUTSIDE_HOP = "192.0.2.1", "192.0.2.2", "192.0.2.5", "192.0.2.6"
INSIDE_V6, INSIDE_HOP_V6, OUTSIDE_V6, OUTSIDE_HOP_V6 = "2001:db8:a::1", "2001:db8:a::2", "2001:db8:b::1", "2001:db8:b::2"
OWN = {ipaddress.ip_address(address).packed for address in (INSIDE, OUTSIDE, INSIDE_V6, OUTSIDE_V6)}
MARKS = {4: 0x3FFFFF, 6: 0xFFFFF}
"""The tags of packets that say: all before has passed."""

Outcome = dict[int, list[bytes]]
"""The packets that came out, by their datagram's tag."""


@dataclass(frozen=True)
class Comparison:
    """A pair of prefixes, translated by both."""

    title: str
    exchange: Exchange
    section: str
    """Of the gateway's configuration."""
    tracks: bool
    """Whether the kernel does it by its connection tracking."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return int(self.exchange.inside.version)


def comparison(title: str, inside: str, outside: str, section: str) -> Comparison:
    """A comparison of two prefixes."""
    pair = ipaddress.ip_network(inside), ipaddress.ip_network(outside)
    assert pair[0].version == pair[1].version
    return Comparison(title, Exchange(*pair, section == "nptv6"), section, section == "netmap")


COMPARISONS = [
    comparison("NPTv6 /48", "fd01:203:405::/48", "2001:db8:4::/48", "nptv6"),
    comparison("NPTv6 /60", "fd01:203:405:10::/60", "2001:db8:4:20::/60", "nptv6"),
    comparison("NETMAP IPv4", "10.7.7.0/24", "198.19.7.0/24", "netmap"),
    comparison("NETMAP IPv6", "fd01:203:405:1::/64", "2001:db8:4:1::/64", "netmap"),
]


def datagrams(what: Comparison, count: int, seed: int) -> list[Item]:
    """The datagrams of a comparison. The kernel's connection tracking is not asked about datagrams that can't be followed for want
    of ports in their first fragment: it would put them together."""
    source = Traffic(what.exchange, seed, tiny=not what.tracks)
    return [source.item(tag) for tag in range(1, count + 1)]


# --- the kernel -----------------------------------------------------------------------------------------------------


class Router:
    """A namespace as router, and another for both its neighbours, with a socket on each link."""

    def __init__(self, lab: Lab, what: Comparison) -> None:
        self.what = what
        self.spaces = [Namespace(f"{lab.prefix}-{name}") for name in ("judge", "ends")]
        self.sockets: list[socket.socket] = []
        try:
            self.build(lab)
        except BaseException:
            self.close()
            raise

    def build(self, lab: Lab) -> None:
        """Makes links, addresses, neighbours and routes, and the rules that translate."""
        router, far_ends = self.spaces
        far_ends.sysctl("ipv6/conf/default/disable_ipv6", 1)
        for scope in ("all", "default"):
            router.sysctl(f"ipv4/conf/{scope}/rp_filter", 0)
            router.sysctl(f"ipv4/conf/{scope}/send_redirects", 0)
            router.sysctl(f"ipv6/conf/{scope}/accept_dad", 0)
        router.sysctl("ipv4/ip_forward", 1)
        router.sysctl("ipv6/conf/all/forwarding", 1)
        links = (("in", INSIDE, INSIDE_HOP, INSIDE_V6, INSIDE_HOP_V6), ("out", OUTSIDE, OUTSIDE_HOP, OUTSIDE_V6, OUTSIDE_HOP_V6))
        self.heads = []
        for name, own, hop, own_v6, hop_v6 in links:
            lab.link(router, f"{name}0", far_ends, f"{name}1")
            lab.host(router, f"{name}0", f"{own}/30", f"{own_v6}/64")
            here, there = (ether(space, f"{name}{end}") for space, end in ((router, 0), (far_ends, 1)))
            for address in (hop, hop_v6):
                router.ip("neighbour", "add", address, "lladdr", there, "nud", "permanent", "dev", f"{name}0")
            self.heads.append(bytes.fromhex((here + there).replace(":", "")) + (b"\x08\0" if self.what.version == 4 else b"\x86\xdd"))
            self.sockets.append(raw(far_ends, f"{name}1"))
        lab.route(router, str(self.what.exchange.inside), INSIDE_HOP if self.what.version == 4 else INSIDE_HOP_V6)
        lab.route(router, "default", OUTSIDE_HOP)
        lab.route(router, "default", OUTSIDE_HOP_V6)
        for rule in self.rules():
            done = router.run(*rule.split())
            if done.returncode != 0:
                raise RuntimeError(f"{rule}: {done.stdout.strip()}")
        if self.what.tracks:
            # Wrong checksums are to be translated too.
            router.sysctl("netfilter/nf_conntrack_checksum", 0)

    def rules(self) -> list[str]:
        """As the manual of iptables-extensions has them."""
        inside, outside = self.what.exchange.inside, self.what.exchange.outside
        if self.what.section == "nptv6":
            return [
                "ip6tables -t raw -A PREROUTING -j CT --notrack",
                f"ip6tables -t mangle -A POSTROUTING -s {inside} -o out0 -j SNPT --src-pfx {inside} --dst-pfx {outside}",
                f"ip6tables -t mangle -A PREROUTING -i out0 -d {outside} -j DNPT --src-pfx {outside} --dst-pfx {inside}",
            ]
        tables = "iptables" if self.what.version == 4 else "ip6tables"
        return [
            f"{tables} -t nat -A POSTROUTING -s {inside} -o out0 -j NETMAP --to {outside}",
            f"{tables} -t nat -A PREROUTING -i out0 -d {outside} -j NETMAP --to {inside}",
        ]

    def pass_through(self, items: list[Item]) -> Outcome:
        """Sends datagrams, some at a time, and waits for each time's end before the next. All is done on one core, where packets
        are forwarded while they are sent, in order."""
        out: Outcome = {}
        home = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(home)})
        try:
            for at in range(0, len(items), BATCH):
                for item in items[at : at + BATCH]:
                    side = 0 if item.outbound else 1
                    for packet in item.packets:
                        self.sockets[side].send(self.heads[side] + packet)
                self.catch_up(out)
        finally:
            os.sched_setaffinity(0, home)
        return out

    def catch_up(self, out: Outcome) -> None:
        """Takes what has come out, until a mark has come through in each direction."""
        for side, mark in enumerate(self.marks()):
            self.sockets[side].send(self.heads[side] + mark)
        marks, deadline = 2, time.monotonic() + 10
        while marks:
            ready, _, _ = select.select(self.sockets, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError("the kernel has lost a packet that should pass untranslated")
            for end in ready:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        marks -= keep(end.recv(65536), out)

    def marks(self) -> list[bytes]:
        """A datagram that no rule covers, out and in."""
        source = Traffic(self.what.exchange, 0, tiny=False)
        hops = (INSIDE_HOP, OUTSIDE_HOP) if self.what.version == 4 else (INSIDE_HOP_V6, OUTSIDE_HOP_V6)
        near, far = (ipaddress.ip_address(hop).packed for hop in hops)
        datagram, tag = b"\x04\0\x04\0\0\x08\0\0", MARKS[self.what.version]
        return [source.header(0, tag, UDP, 8, *pair, 9) + datagram for pair in ((near, far), (far, near))]

    def close(self) -> None:
        """Removes the namespaces."""
        for end in self.sockets:
            end.close()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "delete", space.name], timeout=10, check=False)


def keep(frame: bytes, out: Outcome) -> bool:
    """Puts a frame's packet where it belongs; whether it was a mark. What the router itself says is nobody's packet."""
    packet = frame[14:]
    if frame[12:14] not in (b"\x08\0", b"\x86\xdd"):
        return False
    start, size = ends(packet)
    if packet[start : start + size] in OWN or packet[start : start + 2] == b"\xfe\x80":
        return False
    tag = tag_of(packet)
    if tag == MARKS[packet[0] >> 4]:
        return True
    out.setdefault(tag, []).append(packet)
    return False


def ether(space: Namespace, device: str) -> str:
    """A device's Ethernet address."""
    return re.findall(r"link/ether (\S+)", space.ip("link", "show", device))[0]


def raw(space: Namespace, device: str) -> socket.socket:
    """A socket that sends frames by a device, and gets those that come, and has room for all of a batch."""
    sol_packet, ignore_outgoing, every, so_rcvbufforce = 263, 23, 3, 33
    with space.entered():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, 16 << 20)
    made.setsockopt(sol_packet, ignore_outgoing, 1)
    made.bind((device, every))
    made.setblocking(False)
    return made


# --- the gateway ----------------------------------------------------------------------------------------------------


def configuration(what: Comparison) -> str:
    """The same router as a configuration file."""
    rule = f'{{from: inside, to: outside, inside: "{what.exchange.inside}", outside: "{what.exchange.outside}"}}'
    hop = INSIDE_HOP if what.version == 4 else INSIDE_HOP_V6
    return f"""\
version: 1
ports:
  lan: {{device: net_null0}}
  wan: {{device: net_null1}}
interfaces:
  inside:
    port: lan
    zone: inside
    addresses: [{INSIDE}/30, "{INSIDE_V6}/64"]
    neighbours: {{{INSIDE_HOP}: "02:00:00:00:00:02", "{INSIDE_HOP_V6}": "02:00:00:00:00:02"}}
  uplink:
    port: wan
    zone: outside
    addresses: [{OUTSIDE}/30, "{OUTSIDE_V6}/64"]
    neighbours: {{{OUTSIDE_HOP}: "02:00:00:00:00:06", "{OUTSIDE_HOP_V6}": "02:00:00:00:00:06"}}
routes:
  - {{to: "{what.exchange.inside}", via: "{hop}"}}
  - {{to: 0.0.0.0/0, via: {OUTSIDE_HOP}}}
  - {{to: "::/0", via: "{OUTSIDE_HOP_V6}"}}
{what.section}:
  rule: {rule}
"""


def replayed(binary: Path, work: Path, what: Comparison, items: list[Item]) -> Outcome:
    """Sends the datagrams through `turnpike replay`, a microsecond apart."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "turnpike.yaml"
    file.write_text(configuration(what), encoding="utf-8")
    ethernet = bytes.fromhex("020000000001 0200000000ee") + (b"\x08\0" if what.version == 4 else b"\x86\xdd")
    start = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    captures, moment = (bytearray(start), bytearray(start)), 0
    for item in items:
        for packet in item.packets:
            size = len(ethernet) + len(packet)
            seconds, rest = divmod(moment, 1_000_000)
            captures[0 if item.outbound else 1].extend(
                struct.pack("<IIII", 1_700_000_000 + seconds, rest, size, size) + ethernet + packet
            )
            moment += 1
    inputs = []
    for name, capture in zip(("inside", "uplink"), captures, strict=True):
        path = work / f"{name}.pcap"
        path.write_bytes(capture)
        inputs += ["--in", f"{name}={path}"]
    done = subprocess.run(
        [str(binary), "replay", "-c", str(file), *inputs, "--out-dir", str(work / "out")],
        timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"turnpike replay: {done.stdout.strip()[-500:]}")
    out: Outcome = {}
    for name in ("inside", "uplink"):
        for frame in frames(work / "out" / f"{name}.pcap"):
            keep(frame, out)
    return out


def frames(path: Path) -> Iterator[bytes]:
    """The frames of a capture."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack_from(f"{order}I", data, at + 8)[0]
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


# --- what each is to do ---------------------------------------------------------------------------------------------


def wanted(what: Comparison, item: Item) -> list[bytes]:
    """What leaves the gateway: all that the RFC lets through, but for packets that end within their transport header."""
    if "broken" in item.traits:
        return []
    translations = [translated(what.exchange, packet, item.outbound) for packet in item.packets if not is_tiny(packet)]
    return [packet for packet in translations if packet is not None]


def is_tiny(packet: bytes) -> bool:
    """Whether it is a first fragment that ends within TCP's header (RFC 7112 §5)."""
    found = layout(packet)
    return found is not None and found.fragment == "first" and found.protocol == TCP and len(packet) < found.at + 20


UNCOVERED = "error of a sender that no rule covers"


def by_npt(what: Comparison, item: Item) -> tuple[str, list[bytes]]:
    """What ip6t_NPT makes of a datagram, and the name of what is different about that."""
    reasons = {
        "broken": "broken transport",
        "tiny fragment": "tiny first fragment",
        "identifier of zeros": "identifier of zeros",
        "subnet of ones": "subnet of ones",
        "error": "quote behind extension headers",
    }
    reason = next((name for trait, name in reasons.items() if trait in item.traits), "")
    if {"error", "uncovered"} <= item.traits:
        reason = UNCOVERED
    made = [
        translated(what.exchange, packet, item.outbound, lenient=True, quotes=packet[6] == ICMP_V6, alone=False)
        for packet in item.packets
    ]
    return reason, [packet for packet in made if packet is not None]


BEHIND = frozenset(EXTENSIONS & {0, 43, 60} | {AUTHENTICATION})
"""The extension headers that Linux's connection tracking looks behind."""


def by_conntrack(what: Comparison, item: Item) -> tuple[str, list[bytes]]:
    """What NETMAP makes of a datagram by connection tracking, put together, and the name of what is different about that."""
    traits = item.traits
    [whole] = assembled([item.whole])
    if "incomplete" in traits:
        return "incomplete datagram", []
    if "broken" in traits:
        return "broken transport", [routed(whole)]
    found = layout(whole, BEHIND)
    assert found is not None
    reason = "datagram put together" if traits & {"fragments", "atomic fragment"} else ""
    if "empty fragment" in traits:
        return "empty fragment", []
    if "uncovered" in traits:
        return UNCOVERED if "error" in traits else reason, [routed(whole)]
    if "error" in traits and found.protocol == ICMP_OF[what.version]:
        if "unknown flow" in traits:
            return "error about an unknown flow", [routed(whole)]
        if "ports alone" in traits:
            return "quote of less than eight bytes", []
        if "wrong checksum" in traits:
            return "error with a wrong checksum", []
        if what.version == 4 and whole[found.at] == 5:
            return "redirect", []
        if "fragments" in traits:
            reason = "error in fragments"
        if "other source" in traits and item.outbound:
            reason, whole = "error of another host", from_destination(whole, found.at)
    elif not opens(what, whole, found):
        return "not tracked", [routed(whole)]
    if found.protocol == GRE and len(whole) < found.at + 8:
        return "short GRE", []
    if found.protocol in (DCCP, SCTP):
        reason = "DCCP" if found.protocol == DCCP else "SCTP"
    if "unusual header" in traits:
        reason = "transport behind an unusual header"
    made = translated(what.exchange, whole, item.outbound, alone=False, extensions=BEHIND, untouched={DCCP})
    assert made is not None
    if found.protocol == SCTP:
        at = found.at + 8
        zero = made[:at] + bytes(4) + made[at + 4 :]
        made = made[:at] + crc32c(zero[found.at :]).to_bytes(4, "little") + made[at + 4 :]
    return reason, [made]


def opens(what: Comparison, packet: bytes, found: Layout) -> bool:
    """Whether the kernel tracks a flow that begins with this packet."""
    if found.protocol == TCP:
        return packet[found.at + 13] & 0x37 in (SYN, SYN | URG, ACK, ACK | URG)
    if found.protocol == ICMP_OF[what.version]:
        return packet[found.at] in QUERIES[what.version]
    return found.protocol not in (NO_NEXT, ICMP, ICMP_V6)


def from_destination(packet: bytes, at: int) -> bytes:
    """An ICMP error as if it came from the host that the quoted packet was for."""
    start, size = ends(packet)
    inner = packet[at + 8 :]
    first, _ = ends(inner)
    source = inner[first + size : first + 2 * size]
    new = bytearray(packet)
    new[start : start + size] = source
    if size == 16:
        adjust(new, at + 2, words(source) - words(packet[start : start + size]), ICMP_V6)
    return bytes(new)


def crc32c(data: bytes) -> int:
    """The CRC of SCTP (RFC 9260 appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


# --- the comparison -------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of a comparison, in datagrams."""

    same: int = 0
    refused: int = 0
    """Of the same ones, those of which nothing came out."""
    different: Counter[str] = field(default_factory=Counter)
    """By the name of the difference."""
    unexplained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        differences = ", ".join(f"{name} {count:,}" for name, count in self.different.most_common())
        return f"{self.same:,} the same (of which {self.refused:,} refused); {differences or 'no difference'}"


def compared(lab: Lab, binary: Path, what: Comparison, count: int, seed: int) -> Result:
    """Sends datagrams through both, and compares what comes out."""
    items = datagrams(what, count, seed)
    router = Router(lab, what)
    try:
        theirs = router.pass_through(items)
    finally:
        router.close()
    ours = replayed(binary, lab.work / "differential", what, items)
    result = Result()
    for item in items:
        judge(what, item, ours.get(item.tag, []), theirs.get(item.tag, []), result)
    return result


def judge(what: Comparison, item: Item, ours: list[bytes], theirs: list[bytes], result: Result) -> None:
    """Compares what came of one datagram."""
    if ours == theirs:
        result.same += 1
        result.refused += not ours
        return
    reason, made = (by_conntrack if what.tracks else by_npt)(what, item)
    right = wanted(what, item)
    if reason and ours == right and (assembled(theirs) if what.tracks else theirs) == made:
        result.different[reason] += 1
        return
    rows = [("sent", item.packets), ("turnpike", ours), ("reference", right), ("Linux", theirs), (f"model ({reason})", made)]
    shown = "".join(f"\n    {name}: {' '.join(packet.hex() for packet in packets) or 'nothing'}" for name, packets in rows)
    result.unexplained.append(f"datagram {item.tag}, {'out' if item.outbound else 'in'}, {sorted(item.traits)}{shown}")


DIFFERENTIAL = Group(None)


def add(what: Comparison) -> None:
    """Makes a test of a comparison."""

    @DIFFERENTIAL.test(f"differential: {what.title} against Linux, {PACKETS:,} random datagrams")
    def _compare(scene: Scene) -> Seen:
        result = compared(scene.lab, turnpike(scene).binary, what, PACKETS, 1)
        expect(not result.unexplained, f"{len(result.unexplained)} unexplained, the first: {''.join(result.unexplained[:1])}")
        expect(result.same - result.refused > PACKETS / 3, f"too few passed: {result}")
        return Seen("", str(result))


for each in COMPARISONS:
    add(each)


def main() -> int:
    """Runs the comparisons; the exit status is 1 if a difference is unexplained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/debug/turnpike"), help="the program")
    parser.add_argument("--packets", type=int, default=100_000, help="datagrams of each comparison, 1,000,000 at most")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other datagrams")
    parser.add_argument("--only", default="", metavar="WORD", help="only comparisons whose title contains this")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("This makes network namespaces: run it as root.", file=sys.stderr)
        return 1
    laboratory.stop_on_signals()
    failed = False
    lab = Lab()
    try:
        for what in COMPARISONS:
            if options.only in what.title:
                began = time.monotonic()
                result = compared(lab, options.binary.resolve(), what, options.packets, options.seed)
                print(f"{what.title}: {result}; {len(result.unexplained)} unexplained  ({time.monotonic() - began:.0f} s)", flush=True)
                for text in result.unexplained[:5]:
                    print(f"  {text}")
                failed = failed or bool(result.unexplained)
    finally:
        laboratory.ignore_signals()
        lab.close()
        shutil.rmtree(lab.work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
