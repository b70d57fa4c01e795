#!/usr/bin/env python3
"""Random packets through tayga and through `turnpike replay`, with the same prefix and mappings: packet by packet the same comes out.

    tayga_differential.py --binary target/debug/turnpike [--packets N] [--seed N]

Tayga 0.9.2, which is Debian 12's, speaks RFC 6145. So two things are left out of the comparison: identification and don't-fragment
flag of IPv4 packets that are no fragments (RFC 7915 section 5.1), and how the two's own errors look, but for what they say. Every
other difference has a name here, and all that Turnpike does is also held against siit_reference.py. Names and numbers are printed;
the exit status is 1 if a difference has no name, or something is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lab as laboratory
import tayga
from checks import Scene, Seen, expect
from group import Group, turnpike
from lab import Lab
from siit_reference import (
    CHAIN_MAX,
    IGMP,
    OWN,
    OWN_V6,
    PASS,
    PREFIX,
    ROWS,
    SILENCE,
    TCP,
    UDP,
    Error,
    Read,
    Verdict,
    checksum,
    fault,
    has_source_route,
    is_broken,
    is_extended,
    is_strange,
    is_strange_v6,
    ones_sum,
    other,
    quote,
    read,
    verdict,
)  # fmt: skip
from siit_traffic import Traffic

PACKETS = 3000
"""How many the suite sends."""
STEP = 10_000
"""Microseconds between two packets: enough for an error about each."""

Outcome = list[bytes]
"""The packets that have come of one."""


# --- tayga ----------------------------------------------------------------------------------------------------------

MARK = bytes.fromhex("c612fffe")
"""Source of the packets by which those that came before are known to be done with: 198.18.255.254."""
MARK_V6 = bytes(PREFIX[0].packed[:12]) + MARK


def mark(number: int) -> bytes:
    """Such a packet, which tayga translates."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 24, 0, 0x4000, 64, 253, 0) + MARK + ROWS[0][0][1].packed
    return head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:] + number.to_bytes(4, "big")


class Tayga:
    """Tayga in a namespace, whose kernel has nothing to say: packets are put on its device, and taken from there."""

    BATCH = 16

    def __init__(self, lab: Lab) -> None:
        space = lab.bare_space("tayga")
        maps = "".join(f"map {four} {six}\n" for four, six in ROWS)
        self.process = tayga.start(lab, space, f"ipv4-addr {OWN}\nipv6-addr {OWN_V6}\nprefix {PREFIX}\n{maps}")
        sol_packet, ignore_outgoing, every, rcvbufforce = 263, 23, 3, 33
        with space.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, rcvbufforce, 16 << 20)
        self.socket.setsockopt(sol_packet, ignore_outgoing, 1)
        self.socket.bind((tayga.DEVICE, every))
        self.socket.settimeout(5)

    def send(self, packet: bytes) -> None:
        """Gives tayga a packet."""
        self.socket.sendto(packet, (tayga.DEVICE, 0x0800 if packet[0] >> 4 == 4 else 0x86DD))

    def outcomes(self, packets: list[bytes]) -> Iterator[Outcome]:
        """What comes of each packet."""
        for start in range(0, len(packets), self.BATCH):
            batch = packets[start : start + self.BATCH]
            for number, packet in enumerate(batch, start):
                self.send(packet)
                self.send(mark(number))
            for number in range(start, start + len(batch)):
                out: Outcome = []
                while True:
                    got = self.socket.recv(65536)
                    if got[8:24] == MARK_V6:
                        break
                    out.append(got)
                if int.from_bytes(got[40:44], "big") != number:
                    raise RuntimeError(f"tayga: packet {number} is followed by the mark of another one")
                yield out


# --- turnpike -------------------------------------------------------------------------------------------------------


def configuration() -> str:
    """The same translator as a configuration file."""
    mappings = "".join(f'      - {{ipv4: {four}, ipv6: "{six}"}}\n' for four, six in ROWS)
    embedded = PREFIX[0] + int.from_bytes(bytes([198, 19, 0, 0]), "big")
    return f"""\
version: 1
ports:
  four: {{device: net_null0}}
  six: {{device: net_null1}}
interfaces:
  four: {{port: four, zone: four, addresses: [{OWN}/24]}}
  six: {{port: six, zone: six, addresses: ["{OWN_V6}/64"]}}
routes:
  - {{to: 0.0.0.0/0, via: 198.51.100.1}}
  - {{to: "::/0", via: "2001:db8:f::1"}}
  - {{to: "{embedded}/112", via: "2001:db8:f::1"}}
siit:
  both:
    ipv4: four
    ipv6: six
    prefixes: ["{PREFIX}"]
    destinations: [198.19.0.0/16]
    hairpin: none
    mappings:
{mappings}"""


def replayed(binary: Path, work: Path, packets: list[bytes]) -> list[Outcome]:
    """What comes of each packet by `turnpike replay`: it has left at the moment of that packet."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / "turnpike.yaml"
    file.write_text(configuration(), encoding="utf-8")
    captures = {4: bytearray(), 6: bytearray()}
    for number, packet in enumerate(packets):
        seconds, rest = divmod(number * STEP, 1_000_000)
        captures[packet[0] >> 4] += struct.pack("<IIII", 1_000_000_000 + seconds, rest, len(packet), len(packet)) + packet
    inputs = []
    for name, version in (("four", 4), ("six", 6)):
        path = work / f"{name}.pcap"
        path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101) + captures[version])
        inputs += ["--in", f"{name}={path}"]
    done = subprocess.run(
        [str(binary), "replay", "-c", str(file), *inputs, "--out-dir", str(work / "out")],
        timeout=600, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"turnpike replay: {done.stdout.strip()[-500:]}")
    out: list[Outcome] = [[] for _ in packets]
    for name in ("four", "six"):
        for microseconds, frame in frames(work / "out" / f"{name}.pcap"):
            out[(microseconds - 1_000_000_000_000_000) // STEP].append(frame[14:])
    return out


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """The frames of a capture, with their times in microseconds."""
    data, at = path.read_bytes(), 24
    divisor = 1000 if data[:4] == b"\x4d\x3c\xb2\xa1" else 1
    while at < len(data):
        seconds, rest, length, _ = struct.unpack_from("<IIII", data, at)
        yield seconds * 1_000_000 + rest // divisor, data[at + 16 : at + 16 + length]
        at += 16 + length


# --- the comparison -------------------------------------------------------------------------------------------------


def normal(packet: bytes, sent: int) -> object:
    """A packet as it is compared. `sent` is the version of the one that it has come of: in that are the translator's own errors."""
    it = read(packet)
    if it is None:
        return packet
    if it.version == sent:
        return "answer", it.destination, it.payload[:2], it.payload[4:]
    head = (it.version, it.source, it.destination, it.service, it.hops, it.options, it.fragment)
    if not it.is_error:
        return *head, it.protocol, it.payload
    inner = read(it.payload[8:], quoted=True)
    # Its checksum covers what is left out of the quoted packet.
    return *head, it.payload[:2], it.payload[4:8], checksum(it), inner and (
        inner.source, inner.destination, inner.service, inner.hops, inner.protocol, inner.length, inner.fragment, inner.payload,
        inner.version == 6 or ones_sum(it.payload[8 : 8 + inner.header]),
    )  # fmt: skip


@dataclass
class Case:
    """A packet, and what has come of it."""

    packet: Read
    wanted: Verdict
    theirs: Outcome
    inner: Read | None = None
    """What an ICMP error quotes."""

    @property
    def silent(self) -> bool:
        """Whether tayga has dropped it."""
        return not self.theirs

    @property
    def passed(self) -> bool:
        """Whether tayga has translated it."""
        return bool(self.theirs) and self.theirs[0][0] >> 4 != self.packet.version

    @property
    def answered(self) -> bool:
        """Whether tayga has answered it by an error."""
        return bool(self.theirs) and not self.passed

    @property
    def is_expired(self) -> bool:
        """Whether it should be answered as one whose hops have run out."""
        return self.wanted in (Error(11, 0), Error(3, 0)) and self.packet.hops <= 1

    @property
    def equivalent(self) -> str:
        """The type and code of an ICMP error."""
        return f"{self.packet.version}: {self.packet.payload[0]}/{self.packet.payload[1]}"


def without_checksum(packet: Read | None) -> bool:
    """Whether it is a UDP datagram, or the first part of one, without a checksum."""
    return packet is not None and packet.protocol == UDP and not packet.is_later and packet.payload[6:8] == b"\0\0"


def is_cut_off(packet: Read | None) -> bool:
    """Whether not all of the transport's header is there."""
    least = {TCP: 20, UDP: 8}.get(packet.protocol, 0) if packet else 0
    return packet is not None and not packet.is_later and len(packet.payload) < least


def is_invalid(packet: Read) -> bool:
    """Whether tayga takes an address for invalid."""
    return any(
        is_strange(address, address) if packet.version == 4 else is_strange_v6(address) or strange_inside(address)
        for address in (packet.source, packet.destination)
    )


def strange_inside(address: bytes) -> bool:
    """Whether an IPv6 address embeds an IPv4 address that is nobody's."""
    return address[:12] == PREFIX[0].packed[:12] and is_strange(address[12:], address[12:])


def is_uneven(packet: Read | None) -> bool:
    """Whether more follows behind a fragment that does not end at a multiple of 8 bytes, or it ends beyond 65535."""
    if packet is None or packet.fragment is None:
        return False
    offset, more, _ = packet.fragment
    size = min(len(packet.payload), packet.length)
    return more and size % 8 != 0 or offset + size > 65535


RULES: list[tuple[str, Callable[[Case], object]]] = [
    ("hops run out: tayga answers before it looks further, and fragments", lambda it: (
        it.packet.hops == 1 and it.answered and not it.is_expired)),
    ("ICMP that is no echo request: tayga tells nobody", lambda it: (
        isinstance(it.wanted, Error) and it.silent and it.packet.is_icmp and it.packet.payload[:1] not in (b"\x08", b"\x80"))),
    ("hops of zero on arrival: tayga is silent", lambda it: it.silent and it.packet.hops == 0),
    ("ICMP with a wrong checksum: tayga drops it", lambda it: (
        it.silent and it.packet.is_icmp and checksum(it.packet) == "wrong")),
    ("UDP without a checksum: tayga drops it", lambda it: it.silent and without_checksum(it.packet)),
    ("transport header that does not fit: tayga does not look", lambda it: it.wanted == SILENCE and is_broken(it.packet)),
    ("fragment of an impossible length: tayga drops it before it looks further", lambda it: it.silent and is_uneven(it.packet)),
    ("fragment without payload: tayga translates it to IPv4", lambda it: it.passed and it.packet.is_part and not it.packet.payload),
    ("fragment of ICMP: tayga does not answer", lambda it: it.silent and it.packet.is_icmp and it.packet.is_part),
    ("fragment that may not be fragmented: tayga cuts it", lambda it: (
        it.passed and it.packet.version == 4 and it.packet.is_part and it.packet.keep)),
    ("source route: tayga ignores it", lambda it: has_source_route(it.packet.options)),
    ("IGMP: tayga translates it", lambda it: it.passed and it.packet.version == 4 and it.packet.protocol == IGMP),
    ("source that is nobody's: tayga takes it, or answers", lambda it: (
        not it.silent and it.wanted == SILENCE and is_invalid(it.packet))),
    ("source without an IPv4 address: tayga answers by 1/5, or is silent about ICMP", lambda it: (
        it.packet.version == 6 and other(it.packet.source) is None and not it.passed)),
    ("extension header behind a fragment header: tayga translates it", lambda it: it.passed and is_extended(it.packet)),
    ("routing header with segments left: tayga ignores it", lambda it: it.passed and it.packet.segments_left),
    ("long chain of extension headers: tayga follows it", lambda it: it.passed and len(it.packet.skipped) > CHAIN_MAX),
    ("error: a longer quote than there is: tayga drops it", lambda it: it.silent and it.inner and is_overlong(it.packet)),
    ("error: parameter problem: tayga drops it", lambda it: it.silent and it.equivalent[:5] in ("4: 12", "6: 4/")),
    ("error: address unreachable: tayga drops it", lambda it: it.silent and it.equivalent == "6: 1/3"),
    ("error: an MTU of less than 68: tayga drops it", lambda it: (
        it.silent and it.equivalent[:5] == "6: 2/" and int.from_bytes(it.packet.payload[4:8], "big") < 68)),
    ("error: about an echo reply: tayga drops it", lambda it: (
        it.silent and it.inner and it.inner.is_icmp and it.inner.payload[:1] in (b"\0", b"\x81"))),
    ("error: about ICMP that is cut off, or a fragment: tayga drops it", lambda it: (
        it.silent and it.inner and it.inner.is_icmp and (len(it.inner.payload) < 8 or it.inner.is_part))),
    ("error: about TCP or UDP that is cut off: tayga drops it", lambda it: it.silent and is_cut_off(it.inner)),
    ("error: about UDP without a checksum: tayga drops it", lambda it: it.silent and without_checksum(it.inner)),
    ("error: about an address that is nobody's: tayga drops it", lambda it: it.silent and it.inner and is_invalid(it.inner)),
    ("error: about a fragment of an impossible length: tayga drops it", lambda it: it.silent and is_uneven(it.inner)),
    ("error: about IGMP, or headers that do not translate: tayga translates it", lambda it: (
        it.passed and it.wanted == SILENCE and it.inner and (
            it.inner.protocol == IGMP or it.inner.segments_left or is_extended(it.inner) or len(it.inner.skipped) > CHAIN_MAX))),
    ("error: of a router without an IPv4 address: tayga does not tell the one that it has", lambda it: (
        it.passed and it.packet.version == 6 and other(it.packet.source) is None)),
    ("error: with padding or an extension: tayga leaves that out", lambda it: (
        it.passed and it.inner and (quote(it.packet)[1] or len(it.inner.payload) > it.inner.length))),
    ("error: about a fragment: tayga quotes no fragment header", lambda it: (
        it.passed and it.packet.version == 4 and it.inner and it.inner.is_part)),
    ("error: of the MTU: tayga adds to plateaus, and believes in less than 1280", lambda it: (
        it.passed and (it.equivalent == "4: 3/4" or it.equivalent[:5] == "6: 2/"))),
]  # fmt: skip
"""What tayga does otherwise; the first name that fits is that of a difference."""


def is_overlong(packet: Read) -> bool:
    """Whether an ICMP error says that its quote is longer than the message."""
    if packet.version == 4:
        size = packet.payload[5] * 4 if packet.payload[0] in (3, 11, 12) else 0
    else:
        size = packet.payload[4] * 8 if packet.payload[0] in (1, 3) else 0
    return size > len(packet.payload) - 8


def name(raw: bytes, theirs: Outcome) -> str:
    """The name of a difference; nothing if it has none."""
    packet = read(raw)
    if packet is None:
        return ""
    is_error = packet.is_error and not packet.is_part and len(packet.payload) >= 8
    case = Case(packet, verdict(raw), theirs, read(quote(packet)[0], quoted=True) if is_error else None)
    rules = RULES if is_error else [rule for rule in RULES if not rule[0].startswith("error:")]
    return next((title for title, applies in rules if applies(case)), "")


@dataclass
class Result:
    """What came of a comparison, in packets."""

    passed: int = 0
    """Translated, and the same."""
    refused: int = 0
    """Dropped or answered, and the same."""
    different: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = "".join(f"\n  {count:7,}  {title}" for title, count in self.different.most_common())
        return f"{self.passed:,} translated to the same, {self.refused:,} refused by both, {len(self.faults)} faults{rows}"


def compared(lab: Lab, binary: Path, count: int, seed: int) -> Result:
    """Sends packets through both, and compares what comes out."""
    traffic, result = Traffic(seed), Result()
    packets = [traffic.packet() for _ in range(count)]
    ours = replayed(binary, lab.work / "tayga-differential", packets)
    peer = Tayga(lab)
    for packet, our, their in zip(packets, ours, peer.outcomes(packets), strict=True):
        judge(packet, our, their, result)
    lab.end(peer.process)
    return result


def judge(packet: bytes, ours: Outcome, theirs: Outcome, result: Result) -> None:
    """Compares what came of one packet."""
    version = packet[0] >> 4
    what = fault(packet, ours)
    if not what:
        if [normal(it, version) for it in ours] == [normal(it, version) for it in theirs]:
            if verdict(packet) == PASS:
                result.passed += 1
            else:
                result.refused += 1
            return
        if title := name(packet, theirs):
            result.different[title] += 1
            return
        what = "a difference without a name"
    rows = [("sent", [packet]), ("turnpike", ours), ("tayga", theirs)]
    shown = "".join(f"\n    {who}: {' '.join(it.hex() for it in packets) or 'nothing'}" for who, packets in rows)
    result.faults.append(f"{what}; wanted: {verdict(packet)}{shown}")


TAYGA = Group(None)


@TAYGA.test(f"differential: SIIT against tayga, {PACKETS:,} random packets")
def _tayga(scene: Scene) -> Seen:
    result = compared(scene.lab, turnpike(scene).binary, PACKETS, 1)
    expect(not result.faults, f"{len(result.faults)} faults, the first: {''.join(result.faults[:1])}")
    expect(result.passed > PACKETS / 3, f"too few passed: {result}")
    return Seen("", f"{result.passed:,} translated to the same, {result.different.total():,} named differences")


def main() -> int:
    """Runs the comparison; the exit status is 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/debug/turnpike"), help="the program")
    parser.add_argument("--packets", type=int, default=100_000, help="how many packets")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other packets")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("This makes network namespaces: run it as root.", file=sys.stderr)
        return 1
    laboratory.stop_on_signals()
    began = time.monotonic()
    lab = Lab()
    try:
        result = compared(lab, options.binary.resolve(), options.packets, options.seed)
        print(f"{result}\n{time.monotonic() - began:.0f} s")
        for text in result.faults[:10]:
            print(f"  {text}")
    finally:
        laboratory.ignore_signals()
        lab.close()
        shutil.rmtree(lab.work)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
