"""Random packets for the translators of prefixes: of every kind, in both directions, right and wrong; equal seeds give equal packets.

Each datagram has a tag by which its packets are found again on the other side: the flow label of IPv6; of IPv4 the
identification, and the upper six bits of the type of service.
"""

from __future__ import annotations

import ipaddress
import random
from collections import deque
from dataclasses import dataclass, field

from reference import (
    AUTHENTICATION,
    DCCP,
    ERRORS,
    FRAGMENT,
    ICMP,
    ICMP_OF,
    ICMP_V6,
    TCP,
    UDP,
    UDP_LITE,
    Exchange,
    Network,
    checksum,
    ends,
    layout,
    translated,
    words,
)  # fmt: skip

GRE, ESP, NO_NEXT, OSPF, SCTP, EXPERIMENT = 47, 50, 59, 89, 132, 253
HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY = 0, 43, 60, 135
FAR = {4: ipaddress.ip_network("198.18.0.0/16"), 6: ipaddress.ip_network("2001:db8:ff00::/40")}
"""Where the hosts outside are."""
STRANGERS = {4: ipaddress.ip_network("10.8.0.0/16"), 6: ipaddress.ip_network("fd02::/16")}
"""Hosts inside that no rule covers."""
SYN, PSH, ACK, URG = 0x02, 0x08, 0x10, 0x20
QUERIES = {4: (8, 13, 15, 17), 6: (128, 139)}
"""The ICMP queries that open a flow for Linux."""
WITH_LENGTH = {4: (3, 11, 12), 6: (1, 3)}
"""The ICMP errors that say how long their quote is, where an extension follows (RFC 4884)."""

Header = tuple[int, bytes]
"""An extension header: its number, and itself; its first byte is written when it is known what follows."""


@dataclass
class Item:
    """A datagram."""

    tag: int
    outbound: bool
    whole: bytes = b""
    """As it is in one packet."""
    packets: list[bytes] = field(default_factory=list)
    """As it is sent."""
    traits: set[str] = field(default_factory=set)
    """What is special about it."""


def tag_of(packet: bytes) -> int:
    """The tag of a packet."""
    if packet[0] >> 4 == 6:
        return int.from_bytes(packet[1:4], "big") & 0xFFFFF
    return packet[1] >> 2 << 16 | int.from_bytes(packet[4:6], "big")


def chained(headers: list[Header], following: int, payload: bytes) -> tuple[int, bytes]:
    """Puts extension headers before a payload of this protocol."""
    for number, header in reversed(headers):
        payload, following = bytes([following]) + header[1:] + payload, number
    return following, payload


class Traffic:
    """A source of datagrams for one pair of prefixes."""

    def __init__(self, exchange: Exchange, seed: int, tiny: bool) -> None:
        self.exchange = exchange
        self.version = exchange.inside.version
        self.chance = random.Random(f"{exchange}{seed}")
        self.tiny = tiny
        """Whether first fragments may end within the transport header."""
        self.flows: deque[tuple[bool, bytes]] = deque(maxlen=200)
        """Datagrams that others may be errors about: their direction, and how they are seen where they arrive."""

    def item(self, tag: int) -> Item:
        """The next datagram."""
        item = Item(tag, self.chance.random() < 0.5)
        if self.flows and self.chance.random() < 0.15:
            protocol, segment, source, destination = self.error_about_a_flow(item)
        else:
            source, destination = self.ends(item)
            make = self.chance.choices((self.tcp, self.udp, self.icmp, self.other), (28, 28, 28, 16))[0]
            protocol, segment = make(item)
        segment = self.checked(item, protocol, segment, words(source) + words(destination))
        self.pack(item, protocol, segment, source, destination)
        if self.opens(item, protocol, segment):
            seen = translated(self.exchange, item.whole, item.outbound)
            if seen:
                self.flows.append((item.outbound, seen))
        return item

    def opens(self, item: Item, protocol: int, segment: bytes) -> bool:
        """Whether others may be errors about it: everybody translates it, and it has nothing peculiar."""
        if item.traits & {"uncovered", "fragments", "broken", "extensions", "error"}:
            return False
        if protocol == TCP:
            return segment[13] in (SYN, ACK, ACK | PSH)
        return protocol == UDP or (protocol == ICMP_OF[self.version] and segment[0] in QUERIES[self.version])

    # --- addresses --------------------------------------------------------------------------------------------------

    def within(self, network: Network) -> bytes:
        """Any address of a prefix."""
        host = self.chance.getrandbits(network.max_prefixlen) & int(network.hostmask)
        return (int(network.network_address) | host).to_bytes(network.max_prefixlen // 8, "big")

    def near(self, outbound: bool) -> Network:
        """The prefix on the side that packets of a direction come from, or their answers."""
        return self.exchange.inside if outbound else self.exchange.outside

    def ends(self, item: Item) -> tuple[bytes, bytes]:
        """Source and destination; that of the prefix may be peculiar."""
        far = self.within(FAR[self.version])
        if self.chance.random() < 0.03:
            # Nothing to translate: from a host that no rule covers, or straight to the inside.
            item.traits.add("uncovered")
            address = self.within(STRANGERS[self.version] if item.outbound else self.exchange.inside)
        elif self.version == 4:
            address = self.within(self.near(item.outbound))
        else:
            address = self.peculiar(item, self.near(item.outbound))
        return (address, far) if item.outbound else (far, address)

    def peculiar(self, item: Item, network: Network) -> bytes:
        """An IPv6 address of a prefix, now and then with words of ones or zeros."""
        value, dice = int.from_bytes(self.within(network), "big"), self.chance.random()
        subnet, identifier = 0xFFFF << 64 & int(network.hostmask), (1 << 64) - 1
        if dice < 0.02:
            value |= subnet
        elif dice < 0.04:
            value &= ~subnet
        elif dice < 0.06:
            value &= ~identifier
        elif dice < 0.12:
            value |= identifier ^ identifier >> 16 * self.chance.randrange(1, 5)
        if network.prefixlen <= 48 and value >> 64 & 0xFFFF == 0xFFFF:
            item.traits.add("subnet of ones")
        if network.prefixlen > 48 and value & identifier == 0:
            item.traits.add("identifier of zeros")
        return value.to_bytes(16, "big")

    # --- transports -------------------------------------------------------------------------------------------------

    def data(self) -> bytes:
        """Some bytes, an odd or even number; mostly few."""
        return self.chance.randbytes(self.chance.randrange(1200 if self.chance.random() < 0.1 else 80))

    def ports(self) -> bytes:
        """Two ports, neither of them zero."""
        return b"".join(self.chance.randrange(1, 65536).to_bytes(2, "big") for _ in range(2))

    def tcp(self, item: Item) -> tuple[int, bytes]:
        """A segment, whose flags are most often those of a SYN or an ACK."""
        chance = self.chance
        flags = chance.choice((SYN, ACK, ACK | PSH)) if chance.random() < 0.7 else chance.getrandbits(8)
        options, data = bytes([1] * 4 * chance.choice((0, 0, 0, 1, 3, 5))), self.data()
        offset = 5 + len(options) // 4
        if chance.random() < 0.02:
            item.traits.add("broken")
            offset, options, data = chance.choice((0, 4, 15)), b"", data[:8]
        fixed = self.ports() + chance.randbytes(8) + bytes([offset << 4, flags]) + chance.randbytes(2) + bytes(4)
        return TCP, fixed + options + data

    def udp(self, item: Item) -> tuple[int, bytes]:
        """A datagram; its length may say less than there is, or be wrong."""
        chance, data = self.chance, self.data()
        length = 8 + len(data)
        if chance.random() < 0.02:
            item.traits.add("broken")
            length = chance.choice((0, 7, length + 1, length + 100))
        elif chance.random() < 0.03:
            length = chance.randrange(8, length + 1)
        return UDP, self.ports() + length.to_bytes(2, "big") + bytes(2) + data

    def icmp(self, item: Item) -> tuple[int, bytes]:
        """A message of any type and code; errors quote packets that never were."""
        chance, version = self.chance, self.version
        kind, code = chance.getrandbits(8), chance.getrandbits(8)
        if chance.random() < 0.5:
            kind = chance.choice((*QUERIES[version], *sorted(ERRORS[version])))
        body = chance.randbytes(4) + self.data()
        if kind in ERRORS[version]:
            item.traits.update(("error", "unknown flow"))
            mine = self.within(self.near(item.outbound) if chance.random() < 0.7 else STRANGERS[version])
            far = self.within(FAR[version])
            source, destination = (far, mine) if item.outbound else (mine, far)
            payload = self.ports() + chance.randbytes(chance.choice((0, 4, 8, 16)))
            quote = self.header(0, 0, chance.choice((TCP, UDP, 99)), len(payload), source, destination, 9) + payload
            body = self.unused(kind) + quote
            if chance.random() < 0.05:
                body = body[: chance.randrange(4, 24)]  # not even a header
        return ICMP_OF[version], bytes([kind, code, 0, 0]) + body

    def unused(self, kind: int) -> bytes:
        """The four bytes before a quote without extensions."""
        return bytes(4) if kind in WITH_LENGTH[self.version] else self.chance.randbytes(4)

    def other(self, _: Item) -> tuple[int, bytes]:
        """Whatever else there is."""
        chance, data = self.chance, self.data()
        # ICMPv6 means nothing in IPv4, nor ICMP in IPv6.
        strange = (NO_NEXT, ICMP) if self.version == 6 else (ICMP_V6,)
        protocol = chance.choice((DCCP, GRE, ESP, OSPF, SCTP, UDP_LITE, EXPERIMENT, *strange))
        if protocol == GRE:
            return GRE, b"\0\0\x08\0" + data
        if protocol == SCTP:  # an INIT (RFC 9260 §3.3.2), with any checksum
            return SCTP, self.ports() + bytes(4) + chance.randbytes(4) + b"\1\0\0\x14\1" + chance.randbytes(15)
        if protocol == UDP_LITE:  # all is covered, or the header (RFC 3828 §3.1)
            return UDP_LITE, self.ports() + chance.choice((0, 8)).to_bytes(2, "big") + bytes(2) + data
        if protocol == DCCP:  # a request, of which the header is covered (RFC 4340 §5.1)
            return DCCP, self.ports() + b"\x05\1\0\0\1" + chance.randbytes(11) + data
        return protocol, b"" if protocol == NO_NEXT else chance.randbytes(4) + data

    def error_about_a_flow(self, item: Item) -> tuple[int, bytes, bytes, bytes]:
        """An ICMP error about a datagram that has passed, from its receiver or from a router there."""
        chance, version = self.chance, self.version
        passed_outbound, packet = chance.choice(self.flows)
        item.outbound = not passed_outbound
        item.traits.add("error")
        start, size = ends(packet)
        back, source = packet[start : start + size], packet[start + size : start + 2 * size]
        if chance.random() < 0.3:
            item.traits.add("other source")
            source = self.router(item.outbound)
        kind = chance.choice(sorted(ERRORS[version]))
        header = layout(packet)
        assert header is not None
        least, most = header.at + 8, min(len(packet), 1232 if version == 6 else 548)
        wanted = chance.choice((least, least + 4, least + 12, most, most, chance.randrange(least, most + 1) // 4 * 4))
        quote, unused = packet[: max(min(wanted, most), least)], self.unused(kind)
        if chance.random() < 0.04:
            # Less than is promised (RFC 792): who looks a flow up needs the ports, or an identifier behind them.
            size = chance.choice((0, 4))
            quote = packet[: header.at + size]
            item.traits.add("ports alone" if size and header.protocol in (TCP, UDP) else "unknown flow")
        elif kind in WITH_LENGTH[version] and chance.random() < 0.2:
            quote = quote[:128].ljust(128, b"\0")
            unused = bytes([16, 0, 0, 0]) if version == 6 else bytes([0, 32, 0, 0])
            extension = b"\x20\0\0\0" + b"\0\x08\1\1" + chance.randbytes(4)
            quote += extension[:2] + checksum(extension).to_bytes(2, "big") + extension[4:]
        message = bytes([kind, chance.randrange(16), 0, 0]) + unused + quote
        return ICMP_OF[version], message, source, back

    def router(self, outbound: bool) -> bytes:
        """A router that reports an error: inside, or outside."""
        while True:
            address = self.within(self.exchange.inside if outbound else FAR[self.version])
            if not outbound or self.exchange.map(address, outbound):
                return address

    def checked(self, item: Item, protocol: int, segment: bytes, addresses: int) -> bytes:
        """Writes the checksum: mostly the right one, sometimes another, or none."""
        at = {TCP: 16, UDP: 6, DCCP: 6, UDP_LITE: 6, ICMP: 2, ICMP_V6: 2}.get(protocol)
        if at is None or len(segment) < at + 2:
            return segment
        pseudo = 0 if protocol == ICMP else (addresses + protocol + len(segment)) % 0xFFFF
        covered = segment
        if protocol == DCCP:
            covered = segment[:20]
        elif protocol == UDP_LITE and segment[5] == 8:
            covered = segment[:8]
        right = -(words(covered) + pseudo) % 0xFFFF
        value = right or (0xFFFF if protocol in (UDP, UDP_LITE) else 0)
        dice = self.chance.random()
        if dice < 0.1:
            # What a sender leaves to its hardware, the sum of the pseudo-header, would be finished: it is not wrong.
            while value in (right, pseudo, 0, 0xFFFF):
                value = self.chance.getrandbits(16)
            item.traits.add("wrong checksum")
        elif dice < 0.15 and protocol == UDP:
            value = 0
        return segment[:at] + value.to_bytes(2, "big") + segment[at + 2 :]

    # --- packets ----------------------------------------------------------------------------------------------------

    def header(
        self,
        service: int,
        tag: int,
        protocol: int,
        length: int,
        source: bytes,
        destination: bytes,
        hops: int,
        options: bytes = b"",
        cut: int = 0,
    ) -> bytes:
        """An IP header before `length` bytes. `options` and `cut`, the flags and offset of a fragment, are IPv4's."""
        if self.version == 6:
            first = (6 << 28 | service << 20 | tag).to_bytes(4, "big")
            return first + length.to_bytes(2, "big") + bytes([protocol, hops]) + source + destination
        head = bytearray([0x45 + len(options) // 4, (tag >> 16) << 2 | service & 3])
        head += (20 + len(options) + length).to_bytes(2, "big") + (tag & 0xFFFF).to_bytes(2, "big")
        head += cut.to_bytes(2, "big") + bytes([hops, protocol, 0, 0]) + source + destination + options
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
        return bytes(head)

    def extension(self, number: int) -> Header:
        """An extension header that means nothing to anybody on the way."""
        chance = self.chance
        if number == FRAGMENT:  # an atomic one (RFC 6946)
            return number, bytes(4) + chance.randbytes(4)
        if number == AUTHENTICATION:
            return number, b"\0\4\0\0" + chance.randbytes(20)
        if number == ROUTING:  # nothing left to visit (RFC 4727 §3.2)
            return number, b"\0\0\xfd\0" + chance.randbytes(4)
        if number == MOBILITY or chance.random() < 0.5:  # the options are padding
            return number, b"\0\0\1\4" + bytes(4)
        return number, b"\0\1\x1e\x0c" + chance.randbytes(12)  # an experimental option, to be skipped (RFC 4727 §3.4)

    def pack(self, item: Item, protocol: int, segment: bytes, source: bytes, destination: bytes) -> None:
        """Puts a segment into a packet, or into fragments."""
        chance = self.chance
        hops, service = chance.randrange(2, 256), chance.getrandbits(8)
        pieces = self.cut(item, protocol, segment)
        if self.version == 4:
            self.pack4(item, protocol, pieces, (source, destination, hops), service)
        else:
            self.pack6(item, protocol, pieces, (source, destination, hops), service)
        if "fragments" in item.traits:
            if chance.random() < 0.05:
                item.packets.pop(chance.randrange(len(item.packets)))
                item.traits.add("incomplete")
            if chance.random() < 0.2:
                chance.shuffle(item.packets)

    def cut(self, item: Item, protocol: int, segment: bytes) -> list[bytes]:
        """Cuts a segment into pieces for fragments, or leaves it whole. The first has the transport header, or too little."""
        chance = self.chance
        if chance.random() > 0.12 or len(segment) < 48 or "broken" in item.traits:
            return [segment]
        at = 8 * chance.randrange(3, len(segment) // 8)
        if self.tiny and protocol == TCP and chance.random() < 0.2:
            at = chance.choice((8, 16))
            item.traits.add("tiny fragment")
        item.traits.add("fragments")
        pieces = [segment[:at]]
        while at < len(segment):
            size = 8 * chance.randrange(1, len(segment) // 8) if len(pieces) < 3 else len(segment)
            pieces.append(segment[at : at + size])
            at += size
        return pieces

    def pack4(self, item: Item, protocol: int, pieces: list[bytes], ends: tuple[bytes, bytes, int], service: int) -> None:
        """IPv4: options, or fragments."""
        chance, payload, options, at = self.chance, b"".join(pieces), b"", 0
        if len(pieces) == 1 and chance.random() < 0.05:
            # No operations, and an experimental option (RFC 4727 §3.3).
            options = chance.choice((b"\1\1\1\1", b"\x5e\4\1\2", b"\1\x5e\6\1\2\3\4\1"))
        cut = 0 if len(pieces) > 1 else chance.choice((0, 0x4000))
        item.whole = self.header(service, item.tag, protocol, len(payload), *ends, options, cut) + payload
        item.packets = [item.whole]
        if len(pieces) == 1:
            return
        item.packets = []
        for piece in pieces:
            more = 0x2000 if at + len(piece) < len(payload) else 0
            head = self.header(service, item.tag, protocol, len(piece), *ends, cut=more | at // 8)
            item.packets.append(head + piece)
            at += len(piece)

    def pack6(self, item: Item, protocol: int, pieces: list[bytes], ends: tuple[bytes, bytes, int], service: int) -> None:
        """IPv6: extension headers, and fragments."""
        chance, front, behind = self.chance, [], []
        if chance.random() < 0.15:
            front = [self.extension(number) for number in (HOP_BY_HOP, ROUTING) if chance.random() < 0.4]
            if len(pieces) == 1:
                behind = [self.extension(number) for number in (FRAGMENT, DESTINATION) if chance.random() < 0.4]
                if chance.random() < 0.1 and "broken" not in item.traits:
                    behind = [self.extension(chance.choice((AUTHENTICATION, MOBILITY)))]
                    item.traits.add("unusual header")
        if front or behind:
            item.traits.add("extensions")
        if any(number == FRAGMENT for number, _ in behind):
            item.traits.add("atomic fragment")
            if len(behind) == 1 and not pieces[0]:
                item.traits.add("empty fragment")

        def packet(headers: list[Header], payload: bytes) -> bytes:
            following, rest = chained(headers, protocol, payload)
            return self.header(service, item.tag, following, len(rest), *ends) + rest

        item.whole = packet(front + behind, b"".join(pieces))
        item.packets = [item.whole]
        if len(pieces) == 1:
            return
        item.packets, at, identification = [], 0, chance.randbytes(4)
        for number, piece in enumerate(pieces):
            more = number < len(pieces) - 1
            fragment = FRAGMENT, b"\0\0" + (at | more).to_bytes(2, "big") + identification
            item.packets.append(packet([*front, fragment], piece))
            at += len(piece)
