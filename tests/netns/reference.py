"""Prefix translation as the RFCs have it, of addresses and of packets, in arithmetic of its own: no line of the gateway's.

Packets are whole IP packets without a link-layer header. Checksums are one's complement sums, which are sums modulo 65,535:
65,536 is 1 there, so the sum of a packet's words is the packet itself, taken as one large number.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ICMP, TCP, UDP, DCCP, FRAGMENT, AUTHENTICATION, ICMP_V6, UDP_LITE = 1, 6, 17, 33, 44, 51, 58, 136
ICMP_OF = {4: ICMP, 6: ICMP_V6}
"""The ICMP of each version of IP."""
CHECKSUM_AT = {TCP: 16, UDP: 6, DCCP: 6, UDP_LITE: 6, ICMP_V6: 2}
"""Where the transports that cover addresses have their checksums."""
EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})
"""Hop-by-hop options, routing, destination options (RFC 8200), mobility, HIP, Shim6: there may be a transport behind them."""
ERRORS = {4: frozenset({3, 4, 5, 11, 12}), 6: frozenset({1, 2, 3, 4})}
"""The ICMP types that quote a packet."""


def words(data: bytes) -> int:
    """The one's complement sum of 16-bit words, below 65,535."""
    return int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    return -words(data) % 0xFFFF


@dataclass(frozen=True)
class Exchange:
    """A pair of prefixes."""

    inside: Network
    outside: Network
    adjusts: bool
    """Whether a word is adjusted (RFC 6296); otherwise the bits behind the prefix stay."""

    def covers(self, address: bytes, outbound: bool) -> bool:
        """Whether an address of the near side is in the prefix there."""
        return ipaddress.ip_address(address) in (self.inside if outbound else self.outside)

    def map(self, address: bytes, outbound: bool, lenient: bool = False) -> bytes | None:
        """The counterpart of an address that is covered; None if it has none. `lenient`: as if RFC 6296 §3.7 did not forbid any,
        as far as the arithmetic goes."""
        near, far = (self.inside, self.outside) if outbound else (self.outside, self.inside)
        length = max(near.prefixlen, far.prefixlen)
        bits = 8 * len(address)
        value = int.from_bytes(address, "big")
        new = int(far.network_address) | value & ((1 << bits - length) - 1)
        if self.adjusts:
            if (value ^ int(near.network_address)) >> bits - length:
                return None  # the shorter of two prefixes leaves it out (RFC 6296 §4.2)
            places = [64] if length <= 48 else [48, 32, 16, 0]
            place = next((place for place in places if value >> place & 0xFFFF != 0xFFFF), None)
            if not lenient and length > 48 and value & (1 << 64) - 1 == 0:
                return None
            if place is None and lenient and length <= 48:
                place = 64
            if place is None:
                return None
            change = words(near.network_address.packed) - words(far.network_address.packed)
            word = ((new >> place & 0xFFFF) + change) % 0xFFFF
            new = new & ~(0xFFFF << place) | word << place
        return new.to_bytes(len(address), "big")


@dataclass(frozen=True)
class Layout:
    """Where the transport header of a packet is."""

    at: int
    protocol: int
    fragment: str
    """`whole`, `first` or `later`."""


def layout(packet: bytes, extensions: Collection[int] = EXTENSIONS) -> Layout | None:
    """Finds the transport header, looking behind these extension headers. None: the packet ends before it."""
    if packet[0] >> 4 == 4:
        flags = int.from_bytes(packet[6:8], "big")
        return Layout(packet[0] % 16 * 4, packet[9], part(flags & 0x1FFF, flags & 0x2000))
    following, at, fragment = packet[6], 40, "whole"
    while following in extensions or following == FRAGMENT:
        header = packet[at : at + 8]
        if len(header) < 8:
            return None
        if following == FRAGMENT:
            offset = int.from_bytes(header[2:4], "big")
            fragment, size = part(offset & 0xFFF8, offset & 1), 8
        else:
            size = (header[1] + 2) * 4 if following == AUTHENTICATION else (header[1] + 1) * 8
        following, at = header[0], at + size
        if fragment == "later":
            break
    return Layout(at, following, fragment)


def part(offset: int, more: int) -> str:
    """What a fragment's offset and its bit for more to come make of it."""
    return "later" if offset else "first" if more else "whole"


def checksum_place(protocol: int, size: int) -> int | None:
    """Where a transport that covers addresses of so many bytes has its checksum."""
    return None if protocol == ICMP_V6 and size == 4 else CHECKSUM_AT.get(protocol)


def adjust(packet: bytearray, at: int, change: int, protocol: int) -> None:
    """Lets a checksum follow a change of what it covers (RFC 1624), if it is there. UDP's may be none at all, zero."""
    old = int.from_bytes(packet[at : at + 2], "big")
    optional = protocol in (UDP, UDP_LITE)
    if change % 0xFFFF and len(packet) >= at + 2 and not (optional and old == 0):
        new = (old - change) % 0xFFFF
        packet[at : at + 2] = (0xFFFF if optional and new == 0 else new).to_bytes(2, "big")


def head_right(packet: bytearray) -> None:
    """Writes the right checksum into an IPv4 header."""
    packet[10:12] = bytes(2)
    packet[10:12] = checksum(bytes(packet[: packet[0] % 16 * 4])).to_bytes(2, "big")


def routed(packet: bytes) -> bytes:
    """One hop on, and nothing else."""
    new = bytearray(packet)
    if packet[0] >> 4 == 6:
        new[7] -= 1
    else:
        new[8] -= 1
        head_right(new)
    return bytes(new)


def ends(packet: bytes) -> tuple[int, int]:
    """Where the source address is, and how long an address is."""
    return (8, 16) if packet[0] >> 4 == 6 else (12, 4)


def translated(
    exchange: Exchange,
    packet: bytes,
    outbound: bool,
    *,
    lenient: bool = False,
    quotes: bool = True,
    alone: bool = True,
    extensions: Collection[int] = EXTENSIONS,
    untouched: Collection[int] = (),
) -> bytes | None:
    """What leaves when a packet comes that is not dropped for anything else: None if an address has no counterpart. The keywords
    are for those who do it otherwise: without quotes, or those of senders that are not translated, behind other extension headers,
    without some protocols' checksums."""
    start, size = ends(packet)
    at = start if outbound else start + size
    old = packet[at : at + size]
    if not exchange.covers(old, outbound):
        return requoted(exchange, packet, lenient) if outbound and alone else routed(packet)
    address = exchange.map(old, outbound, lenient)
    if address is None:
        return None
    new = bytearray(routed(packet))
    new[at : at + size] = address
    change = words(address) - words(old)
    found = layout(packet, extensions)
    if found and found.fragment != "later" and found.protocol not in untouched:
        place = checksum_place(found.protocol, size)
        if quotes and quoted(packet, found) is not None:
            before = words(bytes(new[found.at + 4 :]))
            requote(exchange, new, found.at + 8, outbound, lenient)
            message = words(bytes(new[found.at + 4 :])) - before
        else:
            message = 0
        if found.protocol == ICMP and size == 4:
            place, change = 2, 0  # no pseudo-header
        if place is not None:
            adjust(new, found.at + place, change + message, found.protocol)
    if size == 4:
        head_right(new)
    return bytes(new)


def requoted(exchange: Exchange, packet: bytes, lenient: bool) -> bytes:
    """An outbound packet whose source stays as it is: what it quotes, if it is an ICMP error, is as its receiver knows it."""
    new, found = bytearray(routed(packet)), layout(packet)
    if found and quoted(packet, found) is not None:
        before = words(bytes(new[found.at + 4 :]))
        requote(exchange, new, found.at + 8, True, lenient)
        adjust(new, found.at + 2, words(bytes(new[found.at + 4 :])) - before, found.protocol)
    return bytes(new)


def quoted(packet: bytes, found: Layout) -> bytes | None:
    """The packet that an ICMP error quotes, as far as it does; None if it is none, or quotes no whole IP header."""
    version = packet[0] >> 4
    if found.protocol != ICMP_OF[version] or found.fragment != "whole" or packet[found.at] not in ERRORS[version]:
        return None
    inner = packet[found.at + 8 :]
    if len(inner) < (20 if version == 4 else 40) or inner[0] >> 4 != version:
        return None
    return inner


def requote(exchange: Exchange, packet: bytearray, start: int, outbound: bool, lenient: bool) -> None:
    """Translates a quoted packet: inbound it went out before, and its source is seen from outside; outbound the other way round."""
    inner = packet[start:]
    first, size = ends(inner)
    at = first + size if outbound else first
    old = bytes(inner[at : at + size])
    address = exchange.map(old, outbound, lenient) if exchange.covers(old, outbound) else None
    if address is None:
        return
    change = words(address) - words(old)
    found = layout(bytes(inner))
    inner[at : at + size] = address
    if size == 4:
        adjust(inner, 10, change, 0)
    if found and found.fragment != "later" and (place := checksum_place(found.protocol, size)) is not None:
        adjust(inner, found.at + place, change, found.protocol)
    packet[start:] = inner


def fragment_header(packet: bytes) -> tuple[int, int] | None:
    """Where an IPv6 packet has a fragment header, and where the byte is that announces it."""
    announced, at = 6, 40
    while packet[announced] in EXTENSIONS:
        announced, at = at, at + (packet[at + 1] + 1) * 8
    return (at, announced) if packet[announced] == FRAGMENT else None


def assembled(packets: list[bytes]) -> list[bytes]:
    """The datagram that these fragments are of, without a fragment header; what is none, as it is."""
    if not packets:
        return []
    if packets[0][0] >> 4 == 4:
        header = packets[0][0] % 16 * 4
        if not int.from_bytes(packets[0][6:8], "big") & 0x3FFF:
            return packets
        pieces = sorted(packets, key=lambda packet: int.from_bytes(packet[6:8], "big") & 0x1FFF)
        new = bytearray(pieces[0][:header] + b"".join(piece[header:] for piece in pieces))
        new[2:4] = len(new).to_bytes(2, "big")
        new[6:8] = (int.from_bytes(new[6:8], "big") & 0x4000).to_bytes(2, "big")
        head_right(new)
        return [bytes(new)]
    place = fragment_header(packets[0])
    if place is None:
        return packets
    at, announced = place
    pieces = sorted(packets, key=lambda packet: int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8)
    new = bytearray(pieces[0][:at] + b"".join(piece[at + 8 :] for piece in pieces))
    new[announced] = pieces[0][at]
    new[4:6] = (len(new) - 40).to_bytes(2, "big")
    return [bytes(new)]
