"""Random packets for a translator between IPv4 and IPv6, of every kind, right and wrong; equal seeds give equal packets.

Their addresses are those of siit_reference.py: hosts in IPv4 are embedded in its prefix, those in IPv6 are mapped or embedded.
"""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address

from siit_reference import (
    DESTINATION,
    ECHO,
    ERRORS,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMP_V6,
    MOVED,
    PREFIX,
    ROUTING,
    ROWS,
    TCP,
    UDP,
    ones_sum,
    other,
)  # fmt: skip

FAR, EMBEDDED = int(IPv4Address("198.18.0.0")), int(IPv4Address("198.19.0.0"))
"""Hosts in IPv4, and hosts in IPv6 whose addresses are embedded: 65,000 each."""
STRANGE = ("0.1.2.3", "127.0.0.1", "169.254.7.7", "224.0.0.5", "240.0.0.1", "255.255.255.255")
STRANGE_V6 = ("0" * 32, "0" * 31 + "1", "fe80" + "0" * 27 + "7", "ff02" + "0" * 27 + "1")
OTHERS = (2, 4, 33, 41, 47, 50, 51, 59, 89, 103, 115, 132, 135, 136, 139, 140, 253, 255)
"""Transport protocols that a translator does not know."""


class Traffic:
    """A source of packets."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def packet(self) -> bytes:
        """The next packet."""
        version = self.chance.choice((4, 6))
        source, destination = self.ends(version)
        protocol, segment = self.transport(version, source, destination)
        packet = self.header(version, source, destination, protocol, segment)
        if self.chance.random() < 0.01:
            packet = self.broken(packet)
        elif self.chance.random() < 0.02:
            packet += bytes(self.chance.randrange(1, 30))  # a short frame is padded
        return packet[:1500]

    def often(self, share: float) -> bool:
        """True in so many cases."""
        return self.chance.random() < share

    # --- addresses --------------------------------------------------------------------------------------------------

    def far(self) -> bytes:
        """A host in IPv4."""
        return (FAR + self.chance.randrange(65000)).to_bytes(4, "big")

    def near(self) -> bytes:
        """The IPv4 address of a host in IPv6."""
        if self.often(0.3):
            return (EMBEDDED + self.chance.randrange(65000)).to_bytes(4, "big")
        network = self.chance.choice(ROWS)[0]
        return (int(network[0]) + self.chance.randrange(network.num_addresses)).to_bytes(4, "big")

    def as_v6(self, address: bytes) -> bytes:
        """An address in IPv6."""
        made = other(address)
        assert made is not None
        return made

    def ends(self, version: int) -> tuple[bytes, bytes]:
        """Source and destination of a packet to the other family. Now and then a source is none."""
        dice = self.chance.random()
        if version == 4:
            return IPv4Address(self.chance.choice(STRANGE)).packed if dice < 0.01 else self.far(), self.near()
        source, destination = self.as_v6(self.near()), self.as_v6(self.far())
        if dice < 0.01:
            source = bytes.fromhex(self.chance.choice(STRANGE_V6))
        elif dice < 0.03:
            source = bytes.fromhex("20010db80009") + self.chance.randbytes(10)  # without an address in IPv4
        elif dice < 0.04:
            destination = PREFIX[0].packed[:12] + IPv4Address(self.chance.choice(STRANGE)).packed
        return source, destination

    def quoted_ends(self, version: int) -> tuple[bytes, bytes]:
        """Those of a packet that an error is about: it went the other way."""
        source, destination = self.near(), self.far()
        if self.often(0.03):
            source = IPv4Address(self.chance.choice(STRANGE)).packed
        if version == 4:
            return source, destination
        return self.as_v6(destination), self.as_v6(source)

    # --- headers ----------------------------------------------------------------------------------------------------

    def hops(self) -> int:
        """A hop count: enough, or one with which it is about to end."""
        return self.chance.choices((64, self.chance.randrange(3, 256), 2, 1, 0), (50, 40, 4, 5, 1))[0]

    def header(self, version: int, source: bytes, destination: bytes, protocol: int, segment: bytes) -> bytes:
        """A packet; some are fragments, or have options or extension headers."""
        return (self.header4 if version == 4 else self.header6)(source, destination, protocol, segment)

    def part(self, segment: bytes) -> tuple[int, bool, bytes]:
        """A part of a datagram: its offset in units of 8 bytes, whether there are more, and what it holds."""
        more, offset = self.often(0.6), self.chance.choice((0, 0, 1, 2, 185, self.chance.randrange(8000), 8191))
        if more and not self.often(0.05):
            segment = segment[: max(len(segment) // 8 * 8, 8)].ljust(8, b"\0")
        return offset, more, segment

    def header4(self, source: bytes, destination: bytes, protocol: int, segment: bytes) -> bytes:
        """An IPv4 packet."""
        options = self.options() if self.often(0.06) else b""
        segment = segment[: 1480 - len(options)]
        field = 0x4000 if self.often(0.5) else 0
        if self.often(0.12):
            offset, more, segment = self.part(segment)
            field |= offset | more << 13
        total, service, identification = 20 + len(options) + len(segment), self.chance.randrange(256), self.chance.randrange(65536)
        head = struct.pack(
            "!BBHHHBBH", 0x45 + len(options) // 4, service, total, identification, field, self.hops(), protocol, 0
        ) + source + destination + options  # fmt: skip
        return head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:] + segment

    def options(self) -> bytes:
        """IPv4 options, padded."""
        chance, made = self.chance, b""
        for _ in range(chance.choice((1, 1, 2))):
            kind = chance.choice((1, 7, 68, 131, 131, 137, 148, 30))
            if kind == 1:
                made += b"\1"
            elif kind == 148:
                made += b"\x94\4\0\0"
            else:
                made += bytes([kind, 11, chance.choice((4, 8, 12, 16))]) + chance.randbytes(8)
        if self.often(0.05):
            made = b"\x44\1" + made  # a length that can't be
        return made[:40].ljust(-(-len(made[:40]) // 4) * 4, b"\0")

    def header6(self, source: bytes, destination: bytes, protocol: int, segment: bytes) -> bytes:
        """An IPv6 packet."""
        chance, headers = self.chance, []
        if self.often(0.15):
            count = 12 if self.often(0.03) else chance.choice((1, 1, 2, 3))
            headers = [self.extension() for _ in range(count)]
        if self.often(0.12):
            if self.often(0.15):
                offset, more = 0, False  # atomic
            else:
                offset, more, segment = self.part(segment)
            if self.often(0.1) and headers:
                protocol, segment = self.chained([headers.pop()], protocol, segment)
            field = (offset << 3 | more).to_bytes(2, "big")
            headers.append((FRAGMENT, b"\0\0" + field + chance.randbytes(4)))
        protocol, segment = self.chained(headers, protocol, segment)
        segment = segment[:1460]
        first = 6 << 28 | chance.randrange(256) << 20 | chance.choice((0, chance.getrandbits(20)))
        return struct.pack("!IHBB", first, len(segment), protocol, self.hops()) + source + destination + segment

    def chained(self, headers: list[tuple[int, bytes]], protocol: int, segment: bytes) -> tuple[int, bytes]:
        """Puts extension headers before a payload."""
        for number, header in reversed(headers):
            protocol, segment = number, bytes([protocol]) + header[1:] + segment
        return protocol, segment

    def extension(self) -> tuple[int, bytes]:
        """An extension header, without the number of what follows."""
        number, units = self.chance.choice((HOP_BY_HOP, DESTINATION, DESTINATION, ROUTING)), self.chance.choice((0, 0, 1, 2))
        if number == ROUTING:
            left = self.chance.choice((0, 0, 0, 1, 2))
            return ROUTING, bytes([0, units * 2, self.chance.choice((0, 2, 3, 4, 253)), left]) + bytes(4 + units * 16)
        size = 8 * units + 4
        return number, bytes([0, units, 1, size]) + bytes(size)

    def broken(self, packet: bytes) -> bytes:
        """A packet whose header does not fit."""
        chance = self.chance
        place = 2 if packet[0] >> 4 == 4 else 4
        if packet[0] >> 4 == 4 and self.often(0.5):
            return packet[:10] + chance.randbytes(2) + packet[12:]
        if self.often(0.3):
            return packet[: chance.randrange(20, len(packet) + 1)]
        size = int.from_bytes(packet[place : place + 2], "big") + chance.choice((-25, -1, 1, 100))
        changed = bytearray(packet[:place] + max(size, 0).to_bytes(2, "big") + packet[place + 2 :])
        if place == 2:
            changed[10:12] = b"\0\0"
            changed[10:12] = (ones_sum(bytes(changed[: (changed[0] & 15) * 4])) ^ 0xFFFF).to_bytes(2, "big")
        return bytes(changed)

    # --- transports -------------------------------------------------------------------------------------------------

    def data(self) -> bytes:
        """Some bytes, an odd or even number; mostly few."""
        return self.chance.randbytes(self.chance.randrange(1460 if self.often(0.12) else 80))

    def transport(self, version: int, source: bytes, destination: bytes, quoted: bool = False) -> tuple[int, bytes]:
        """A protocol and what belongs to it, under a checksum that is mostly right."""
        protocol = self.chance.choices((TCP, UDP, ICMP, 0), (25, 27, 38, 10))[0]
        chance, ports = self.chance, self.chance.randbytes(4)
        if protocol == TCP:
            options = bytes([1] * 4 * chance.choice((0, 0, 1, 3, 5)))
            offset = 5 + len(options) // 4
            if self.often(0.02):
                offset, options = chance.choice((0, 4, 15)), b""
            segment = ports + chance.randbytes(8) + bytes([offset << 4, chance.randrange(256)]) + chance.randbytes(2) + bytes(4)
            segment += options + self.data()
        elif protocol == UDP:
            data = self.data()
            length = 8 + len(data)
            if self.often(0.04):
                length = chance.choice((0, 7, length + 1, chance.randrange(8, length + 1)))
            segment = ports + length.to_bytes(2, "big") + bytes(2) + data
        elif protocol == ICMP:
            protocol, segment = (ICMP if version == 4 else ICMP_V6), self.icmp(version, quoted)
        else:
            protocol = chance.choice((*OTHERS, ICMP_V6 if version == 4 else ICMP))
            size = chance.choice((0, 1, 7, 8, 20, 60))
            # An extension header of IPv6, with nothing behind it.
            return protocol, bytes([59, 0]) + chance.randbytes(6) if protocol in MOVED else chance.randbytes(size)
        if self.often(0.01):
            segment = segment[: chance.randrange(len(segment))]
        return protocol, self.checked(protocol, segment, source + destination)

    def checked(self, protocol: int, segment: bytes, addresses: bytes) -> bytes:
        """Writes a checksum: mostly the right one."""
        at = {TCP: 16, UDP: 6}.get(protocol, 2)
        if len(segment) < at + 2:
            return segment
        covered = segment[: int.from_bytes(segment[4:6], "big")] if protocol == UDP else segment
        pseudo = 0 if protocol == ICMP else ones_sum(addresses, protocol + len(covered))
        value = ones_sum(covered, pseudo) ^ 0xFFFF
        if self.often(0.08):
            right, unfinished = value, pseudo
            # What a sender leaves to its hardware, the sum of the pseudo-header, would be finished.
            while value in (right, unfinished, 0, 0xFFFF):
                value = self.chance.randrange(65536)
        elif protocol == UDP:
            value = 0 if self.often(0.06) else value or 0xFFFF
        return segment[:at] + value.to_bytes(2, "big") + segment[at + 2 :]

    # --- ICMP -------------------------------------------------------------------------------------------------------

    def icmp(self, version: int, quoted: bool) -> bytes:
        """A message: an echo, an error about a packet, or anything."""
        chance, dice = self.chance, self.chance.random()
        if dice < (0.9 if quoted else 0.35):
            kind = chance.choice(list(ECHO[version])) if not quoted or self.often(0.3) else (8 if version == 4 else 128)
            return bytes([kind, 0 if self.often(0.98) else 3, 0, 0]) + chance.randbytes(4) + self.data()
        if dice > 0.93 or quoted:
            return bytes([chance.randrange(256), chance.randrange(256), 0, 0]) + chance.randbytes(4) + self.data()
        return self.error(version)

    def error(self, version: int) -> bytes:
        """An error of any type, code and pointer."""
        chance = self.chance
        kind = chance.choice((3, 3, 3, 11, 12, 12, 4, 5) if version == 4 else (1, 1, 2, 2, 3, 4, 4, 100, 127))
        assert kind in ERRORS[version]
        code = chance.choice((0, 1, chance.randrange(17), chance.randrange(17), chance.randrange(256)))
        rest = 0
        if (version, kind) == (4, 12):
            rest = chance.choice((chance.randrange(24), chance.randrange(256))) << 24
        elif (version, kind) == (6, 4):
            rest = chance.choice((chance.randrange(48), chance.randrange(48), chance.getrandbits(32), 1 << chance.randrange(32)))
        elif (version, kind, code) == (4, 3, 4) or (version, kind) == (6, 2):
            rest = chance.choice((0, 1, 68, 576, 1259, 1260, 1279, 1280, 1400, 1480, 1492, 1500, 1501, 9000, 65535))
            rest = chance.getrandbits(32) if version == 6 and self.often(0.05) else rest
        if (version, kind) == (4, 3) and self.often(0.25):
            code, rest = 4, chance.choice((0, 0, 67, 576, 1280, 1400, 1500))
        ends = self.quoted_ends(version)
        packet = self.header(version, *ends, *self.transport(version, *ends, quoted=True))
        size = chance.choice((28, 48, 68, 128, 528, 552, 1232, 1500, chance.randrange(20, 300)))
        packet = packet[:size] if not self.often(0.02) else packet[: chance.randrange(40)]
        has_length = kind in ((3, 11, 12) if version == 4 else (1, 3)) and (version, kind, code) != (4, 3, 4)
        if has_length and len(packet) >= 48 and self.often(0.15):
            unit, place = (4, 16) if version == 4 else (8, 24)
            packet = packet[:512]
            packet = packet.ljust(max(-(-len(packet) // unit) * unit, 128), b"\0")
            rest |= len(packet) // unit << place
            if self.often(0.05):
                rest |= 0x80 << place  # longer than the message
            packet += b"\x20\0" + chance.randbytes(2) + b"\0\x08\1\1" + chance.randbytes(4)
        return bytes([kind, code, 0, 0]) + rest.to_bytes(4, "big") + packet
