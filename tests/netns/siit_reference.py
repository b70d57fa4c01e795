"""What a translator between IPv4 and IPv6 is to do with a packet (RFC 7915), written down from the RFC once more, to judge one by.

Of both interfaces the MTU is 1500. A packet is bytes from its IP header on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network

ICMP, IGMP, TCP, UDP, FRAGMENT, AUTHENTICATION, ICMP_V6 = 1, 2, 6, 17, 44, 51, 58
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60
MOVED = (135, 139, 140)
"""Mobility, HIP and Shim6: extension headers that a translator does not skip."""
ERRORS = {4: (3, 4, 5, 11, 12), 6: tuple(range(128))}
ECHO = {4: {8: 128, 0: 129}, 6: {128: 8, 129: 0}}
MTU, MTU_MIN = 1500, 1280
CHAIN_MAX = 8
"""Extension headers that are followed."""

PREFIX = ip_network("2001:db8:46::/96")
ROWS = [
    (ip_network(four), ip_network(six))
    for four, six in (
        ("203.0.113.0/24", "2001:db8:5::/120"),
        ("203.0.113.64/26", "2001:db8:5:3::40/122"),
        ("203.0.112.128/25", "2001:db8:5:1::80/121"),
        ("192.0.2.64/31", "2001:db8:5:2::c/127"),
    )
]
"""Explicit mappings (RFC 7757). The second lies within the first."""
OWN, OWN_V6 = IPv4Address("198.51.100.2"), IPv6Address("2001:db8:f::2")
"""The translator's own addresses."""


# --- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A packet, or as much as there is of one that an error quotes."""

    version: int
    source: bytes
    destination: bytes
    service: int
    hops: int
    protocol: int
    """What follows the headers."""
    payload: bytes
    length: int
    """How long the payload is, by the header."""
    header: int
    """Bytes before the payload."""
    fragment: tuple[int, bool, int] | None = None
    """Offset in bytes, whether there are more, identification; of an IPv4 packet that is whole, none."""
    keep: bool = False
    """IPv4's don't-fragment flag."""
    options: bytes = b""
    """IPv4's."""
    skipped: tuple[int, ...] = ()
    """IPv6's extension headers, the fragment header not among them."""
    segments_left: int | None = None
    """Where in the packet an IPv6 routing header says that it has segments left."""

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a datagram."""
        return self.fragment is not None and self.fragment[:2] != (0, False)

    @property
    def is_later(self) -> bool:
        """Whether it is a part without the transport's header."""
        return self.fragment is not None and self.fragment[0] > 0

    @property
    def is_icmp(self) -> bool:
        """Whether it is a message of its own family's ICMP."""
        return self.protocol == (ICMP if self.version == 4 else ICMP_V6)

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error."""
        return self.is_icmp and not self.is_later and self.payload[:1] != b"" and self.payload[0] in ERRORS[self.version]


def read(packet: bytes, quoted: bool = False) -> Read | None:
    """Reads a packet; none if it has no proper header, or if something is missing of one that is not quoted."""
    return (read4 if packet[:1] and packet[0] >> 4 == 4 else read6)(packet, quoted)


def read4(packet: bytes, quoted: bool) -> Read | None:
    """Reads an IPv4 packet. Of a quoted one the checksum does not matter."""
    if len(packet) < 20:
        return None
    first, service, total, identification, field, hops, protocol = struct.unpack_from("!BBHHHBB", packet)
    header = (first & 15) * 4
    if first >> 4 != 4 or header < 20 or len(packet) < header or total < header:
        return None
    if not quoted and (total > len(packet) or ones_sum(packet[:header]) != 0xFFFF):
        return None
    fragment = ((field & 0x1FFF) * 8, bool(field & 0x2000), identification) if field & 0x3FFF else None
    payload = packet[header:total] if not quoted else packet[header:]
    return Read(
        4, packet[12:16], packet[16:20], service, hops, protocol, payload, total - header, header,
        fragment, bool(field & 0x4000), packet[20:header],
    )  # fmt: skip


def read6(packet: bytes, quoted: bool) -> Read | None:
    """Reads an IPv6 packet up to what a translator takes for its payload."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    length, protocol, hops = struct.unpack_from("!HBB", packet, 4)
    if not quoted:
        if 40 + length > len(packet):
            return None
        packet = packet[: 40 + length]
    at, fragment, skipped, segments_left = 40, None, [], None
    while protocol in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT):
        if at + 8 > len(packet):
            return None
        if protocol == FRAGMENT:
            field, identification = struct.unpack_from("!HI", packet, at + 2)
            fragment = (field & 0xFFF8, bool(field & 1), identification)
            protocol, at = packet[at], at + 8
            break
        if protocol == ROUTING and packet[at + 3] and segments_left is None:
            segments_left = at + 3
        skipped.append(protocol)
        protocol, at = packet[at], at + 8 + packet[at + 1] * 8
        if at > len(packet):
            return None
    if length < at - 40:
        return None
    service = int.from_bytes(packet[:2], "big") >> 4 & 0xFF
    return Read(
        6, packet[8:24], packet[24:40], service, hops, protocol, packet[at:], length - (at - 40), at,
        fragment, skipped=tuple(skipped), segments_left=segments_left,
    )  # fmt: skip


# --- checksums ------------------------------------------------------------------------------------------------------


def ones_sum(data: bytes, start: int = 0) -> int:
    """The ones' complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    total = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


CHECKSUM = {TCP: 16, UDP: 6, ICMP: 2, ICMP_V6: 2}
"""Where a transport's checksum is."""


def has_checksum(packet: Read) -> bool:
    """Whether it is of a protocol whose checksum follows the addresses; ICMP only in its own family."""
    return packet.is_icmp or packet.protocol in (TCP, UDP)


def checksum(packet: Read) -> str:
    """Whether the transport's checksum is right, wrong, or none; nothing if that can't be said of a packet."""
    at = CHECKSUM.get(packet.protocol)
    if at is None or packet.is_part or len(packet.payload) < at + 2 or not has_checksum(packet):
        return ""
    covered = packet.payload
    if packet.protocol == UDP:
        if covered[6:8] == b"\0\0":
            return "none"
        covered = covered[: int.from_bytes(covered[4:6], "big")]
    pseudo = 0 if packet.protocol == ICMP else ones_sum(packet.source + packet.destination, packet.protocol + len(covered))
    return "right" if ones_sum(covered, pseudo) == 0xFFFF else "wrong"


# --- addresses ------------------------------------------------------------------------------------------------------


def other(address: bytes) -> bytes | None:
    """An address in the other family (RFC 6052, RFC 7757)."""
    value, four = int.from_bytes(address, "big"), len(address) == 4
    found = [(a, b) if four else (b, a) for a, b in ROWS if value & int((a if four else b).netmask) == int((a if four else b)[0])]
    if found:
        old, new = max(found, key=lambda row: row[0].prefixlen)
        return (int(new[0]) + value - int(old[0])).to_bytes(16 if four else 4, "big")
    if four:
        return (int(PREFIX[0]) + value).to_bytes(16, "big")
    return address[12:] if address[:12] == PREFIX[0].packed[:12] else None


def is_strange(source: bytes, destination: bytes) -> bool:
    """Whether one of these IPv4 addresses is nobody's."""
    return (
        source[0] in (0, 127) or source[0] >= 224 or destination[0] in (0, 127) or destination[0] >= 224
        or b"\xa9\xfe" in (source[:2], destination[:2])
    )  # fmt: skip


def is_strange_v6(source: bytes) -> bool:
    """Whether an IPv6 address is no host's, or one's on its link alone."""
    return source[0] == 0xFF or source[0] == 0xFE and source[1] & 0xC0 == 0x80 or int.from_bytes(source, "big") <= 1


# --- ICMP errors ----------------------------------------------------------------------------------------------------

CODES_4TO6 = {**dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), 0), 3: 4, **dict.fromkeys((9, 10, 13, 15), 1)}
CODES_6TO4 = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}
POINTERS_4TO6 = {0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, **dict.fromkeys(range(12, 16), 8), **dict.fromkeys(range(16, 20), 24)}
POINTERS_6TO4 = {0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8, **dict.fromkeys(range(8, 24), 12), **dict.fromkeys(range(24, 40), 16)}
PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)


@dataclass(frozen=True)
class Error:
    """An ICMP error, but for what it quotes."""

    kind: int
    code: int
    rest: int = 0


def quote(packet: Read) -> tuple[bytes, bytes]:
    """What an ICMP error quotes, and what stands behind that (RFC 4884)."""
    kind, body = packet.payload[0], packet.payload[8:]
    if packet.version == 4:
        size = packet.payload[5] * 4 if kind in (3, 11, 12) else 0
    else:
        size = packet.payload[4] * 8 if kind in (1, 3) else 0
    return (body[:size], body[size:]) if size else (body, b"")


def equivalent(packet: Read, inner: Read) -> Error | None:
    """The ICMP error in the other family, if there is one."""
    kind, code = packet.payload[:2]
    rest = int.from_bytes(packet.payload[4:8], "big")
    if packet.version == 4:
        if kind == 3 and code in CODES_4TO6:
            return Error(1, CODES_4TO6[code])
        if (kind, code) == (3, 2):
            return Error(4, 1, 6)
        if (kind, code) == (3, 4):
            total = inner.header + inner.length
            likely = (rest & 0xFFFF) + 20 if rest & 0xFFFF else next((it for it in PLATEAUS if it < total), 0)
            return Error(2, 0, max(MTU_MIN, min(likely, MTU)))
        if kind == 11:
            return Error(3, code)
        pointer = POINTERS_4TO6.get(rest >> 24) if kind == 12 and code in (0, 2) else None
        return None if pointer is None else Error(4, 0, pointer)
    if kind == 1 and code in CODES_6TO4:
        return Error(3, CODES_6TO4[code])
    if kind == 2:
        return Error(3, 4, min(max(rest, MTU_MIN), MTU) - (28 if inner.fragment else 20))
    if kind == 3:
        return Error(11, code)
    if (kind, code) == (4, 1):
        return Error(3, 2)
    pointer = POINTERS_6TO4.get(rest) if (kind, code) == (4, 0) else None
    return None if pointer is None else Error(12, 0, pointer << 24)


def quotes_translatable(packet: Read) -> Read | None:
    """The packet that an ICMP error quotes, if it has an equivalent in the other family."""
    inner = read(quote(packet)[0], quoted=True)
    if inner is None or inner.version != packet.version or inner.protocol == IGMP and inner.version == 4:
        return None
    if inner.is_icmp and not inner.is_later and inner.payload and inner.payload[0] not in ECHO[inner.version]:
        return None
    if inner.version == 6 and (inner.segments_left or is_extended(inner) or inner.length > 65515 or len(inner.skipped) > CHAIN_MAX):
        return None
    return None if other(inner.source) is None or other(inner.destination) is None else inner


def is_extended(packet: Read) -> bool:
    """Whether another extension header follows an IPv6 fragment header (RFC 7915 section 5.1.1)."""
    behind = (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT, AUTHENTICATION, *MOVED)
    return packet.version == 6 and packet.fragment is not None and packet.protocol in behind


# --- the verdict ----------------------------------------------------------------------------------------------------

SILENCE = "silence"
PASS = "pass"

Verdict = str | Error
"""Nothing comes of a packet; it passes; or its sender is told by an error in its own family."""


def verdict(raw: bytes) -> Verdict:
    """What is to become of a packet that is for somebody on the other side."""
    packet = read(raw)
    if packet is None or is_broken(packet):
        return SILENCE
    return verdict4(packet) if packet.version == 4 else verdict6(packet)


def is_broken(packet: Read) -> bool:
    """Whether the transport's header is not all there, or does not fit the packet."""
    data, size = packet.payload, len(packet.payload)
    if packet.is_later:
        return False
    if is_extended(packet) and packet.protocol not in (AUTHENTICATION, FRAGMENT, *MOVED) and size >= 8:
        behind = data[8 + data[1] * 8 :]
        return is_broken(replace(packet, protocol=data[0], payload=behind, length=len(behind)))
    if packet.protocol == TCP:
        return size < 20 or data[12] >> 4 < 5 or not packet.is_part and (data[12] >> 4) * 4 > size
    if packet.protocol == UDP:
        length = int.from_bytes(data[4:6], "big")
        return size < 8 or length < 8 or not packet.is_part and length > size
    return packet.is_icmp and size < 8


def is_crafted(packet: Read) -> bool:
    """Whether it is a fragment that no sender would cut: empty, broken off within 8 bytes, or beyond the largest datagram."""
    if not packet.is_part or packet.fragment is None:
        return False
    offset, more, _ = packet.fragment
    size = len(packet.payload)
    return size == 0 or more and size % 8 != 0 or offset + size > 65535


def behind(packet: Read) -> int:
    """The protocol behind all extension headers, those too that follow a fragment header of a first fragment."""
    protocol, data = packet.protocol, packet.payload
    while packet.version == 6 and not packet.is_later and protocol in (HOP_BY_HOP, ROUTING, DESTINATION, *MOVED) and len(data) >= 8:
        protocol, data = data[0], data[8 + data[1] * 8 :]
    return protocol


def answered(packet: Read, error: Error) -> Verdict:
    """An error, unless there may be none about such a packet (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e)."""
    return SILENCE if packet.is_error or packet.is_later and packet.version == 4 else error


def verdict4(packet: Read) -> Verdict:
    """Of an IPv4 packet."""
    prohibited = answered(packet, Error(3, 13))
    if is_strange(packet.source, packet.destination):
        return SILENCE
    if has_source_route(packet.options):
        return answered(packet, Error(3, 5))
    if is_crafted(packet):
        return SILENCE
    size = 40 + packet.length
    if packet.protocol == IGMP:
        return SILENCE
    if packet.is_icmp:
        if packet.is_part:
            return prohibited
        if packet.is_error:
            inner = quotes_translatable(packet)
            if inner is None or equivalent(packet, inner) is None:
                return SILENCE
            size = 0  # no longer than 1280 bytes
        elif packet.payload[0] not in ECHO[4]:
            return SILENCE
    if packet.protocol == UDP and packet.is_part and not packet.is_later and packet.payload[6:8] == b"\0\0":
        return prohibited
    if packet.hops <= 1:
        return answered(packet, Error(11, 0))
    surplus = 8 if packet.is_part else 0
    if packet.keep and size and max(size + surplus, packet.header + packet.length + 20) > MTU:
        return answered(packet, Error(3, 4, MTU - 20 - surplus))
    return PASS


def has_source_route(options: bytes) -> bool:
    """Whether there is a source route that has not expired."""
    while options and options[0]:
        if options[0] == 1:
            options = options[1:]
            continue
        if len(options) < 2 or options[1] < 2:
            return False
        if options[0] in (131, 137) and options[1] >= 3 and len(options) >= 3 and options[2] <= options[1]:
            return True
        options = options[options[1] :]
    return False


def verdict6(packet: Read) -> Verdict:
    """Of an IPv6 packet."""
    if is_strange_v6(packet.source):
        return SILENCE
    # About no ICMPv6 message (RFC 7915 section 5.4), if it can be seen that it is one.
    prohibited: Verdict = Error(1, 1)
    if len(packet.skipped) <= CHAIN_MAX:
        prohibited = SILENCE if behind(packet) == ICMP_V6 else answered(packet, Error(1, 1))
    source, destination = other(packet.source), other(packet.destination)
    if source is None and packet.is_error and not packet.is_part and len(packet.skipped) <= CHAIN_MAX:
        source = OWN.packed
    if source is None:
        return prohibited
    assert destination is not None
    if is_strange(source, destination):
        return SILENCE
    if len(packet.skipped) > CHAIN_MAX:
        return SILENCE
    if is_extended(packet):
        return prohibited
    if packet.segments_left:
        return SILENCE if packet.is_icmp else answered(packet, Error(4, 0, packet.segments_left))
    if is_crafted(packet):
        return SILENCE
    if packet.is_icmp:
        if packet.is_part:
            return SILENCE
        if packet.is_error:
            inner = quotes_translatable(packet)
            if inner is None or equivalent(packet, inner) is None:
                return SILENCE
        elif packet.payload[0] not in ECHO[6]:
            return SILENCE
    return answered(packet, Error(3, 0)) if packet.hops <= 1 else PASS


# --- what comes out -------------------------------------------------------------------------------------------------


def fault(raw: bytes, out: list[bytes]) -> str:
    """What is wrong with what has come of a packet; nothing if all is right."""
    packet, wanted = read(raw), verdict(raw)
    if wanted == SILENCE:
        return "should be dropped in silence" if out else ""
    assert packet is not None
    if isinstance(wanted, Error):
        return fault_of_answer(packet, raw, out, wanted)
    reads = [read(it) for it in out]
    if not reads:
        return "should pass"
    pieces = [it for it in reads if it is not None and it.version != packet.version]
    if len(pieces) < len(reads):
        return "does not come out as a packet of the other family"
    for piece in pieces:
        if piece.service != packet.service or piece.hops != packet.hops - 1:
            return "another service or number of hops"
        if piece.source != (other(packet.source) or OWN.packed) or piece.destination != other(packet.destination):
            return "other addresses"
        # What had a fragment header may be fragmented again; else what is longer than every IPv6 link takes may not.
        keep = packet.fragment is None and piece.header + piece.length > MTU_MIN - 20
        if piece.version == 4 and (piece.options or piece.keep != keep):
            return "the header of an IPv4 packet is wrong"
        if piece.version == 6 and (piece.skipped or piece.header + piece.length > (MTU if packet.keep else MTU_MIN)):
            return "the header of an IPv6 packet is wrong"
    if packet.is_error and packet.is_icmp:
        return fault_of_error(packet, pieces)
    return fault_of_pieces(packet, pieces)


def fault_of_answer(packet: Read, raw: bytes, out: list[bytes], wanted: Error) -> str:
    """What is wrong with an error to the sender."""
    answer = read(out[0]) if len(out) == 1 else None
    if answer is None or not answer.is_error or answer.version != packet.version:
        return f"should be answered by {wanted}"
    kind, code = answer.payload[:2]
    said = Error(kind, code, int.from_bytes(answer.payload[4:8], "big"))
    own = OWN.packed if packet.version == 4 else OWN_V6.packed
    if said != wanted or answer.source != own or answer.destination != packet.source or checksum(answer) != "right":
        return f"should be answered by {wanted}, not {said}"
    quoted, most = answer.payload[8:], 576 if packet.version == 4 else MTU_MIN
    whole = raw[: packet.header + packet.length]
    enough = min(len(whole), most - 8 - (20 if packet.version == 4 else 40))
    return "" if quoted == whole[:enough] else "the answer quotes something else"


def fault_of_pieces(packet: Read, pieces: list[Read]) -> str:
    """What is wrong with the translation of a packet that is no ICMP error."""
    if packet.version == 4:
        # Whole or as it came, if it fits; else cut as for any link.
        size = 40 + len(packet.payload) + (8 if packet.is_part else 0)
        if (len(pieces) > 1) != (size > MTU_MIN and not packet.keep):
            return "cut, or not cut"
        if (len(pieces) > 1 or packet.is_part) != (pieces[0].fragment is not None):
            return "a fragment header where none should be, or none"
    elif len(pieces) > 1 or (packet.fragment is not None and packet.is_part) != pieces[0].is_part:
        return "cut, or not cut"
    at, more, identification = packet.fragment or (0, False, 0)
    data = b""
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        if piece.fragment is None:
            break
        offset, more_follow, named = piece.fragment
        if offset != at + len(b"".join(it.payload for it in pieces[:number])) or more_follow != (more or not last):
            return "offsets or flags of fragments are wrong"
        if packet.fragment is not None and named != identification & 0xFFFF:
            return "another identification"
    data = b"".join(piece.payload for piece in pieces)
    protocol = {ICMP: ICMP_V6, ICMP_V6: ICMP}.get(packet.protocol, packet.protocol) if packet.is_icmp else packet.protocol
    if {piece.protocol for piece in pieces} != {protocol}:
        return "another protocol"
    old, at = packet.payload, CHECKSUM.get(packet.protocol)
    if at is not None and not packet.is_later and has_checksum(packet) and len(old) >= at + 2:
        # But for the checksum, and the type of an echo.
        start = 1 if packet.is_icmp else 0
        if packet.is_icmp and data[0] != ECHO[packet.version][old[0]]:
            return "another type"
        same = data[start:at] == old[start:at] and data[at + 2 :] == old[at + 2 :]
    else:
        same = data == old
    if not same:
        return "another payload"
    whole = Read(pieces[0].version, pieces[0].source, pieces[0].destination, 0, 0, protocol, data, len(data), 0)
    before, after = (checksum(packet), checksum(whole)) if has_checksum(packet) and not packet.is_part else ("", "")
    if before == "none" and packet.version == 4:
        before = "right"  # computed
    return "" if before == after else f"the checksum was {before} and is {after}"


def tells_source(packet: Read, made: Read) -> bool:
    """Whether an error is to tell its source, which has no address of its own in IPv4, in an object behind its quote (RFC 6791 section
    4): there is room, and the router has not told of an interface itself, or something that can't be read."""
    if made.version == 6 or other(packet.source) is not None:
        return False
    before = behind_quote(packet, made)
    at, readable = 4, not before or (len(before) >= 4 and before[0] >> 4 == 2)
    while readable and at < len(before):
        size = int.from_bytes(before[at : at + 2], "big")
        readable = len(before) - at >= max(size, 4) and size >= 4 and before[at + 2] != 2
        at += size
    return readable and len(before) + (24 if before else 28) <= 576 - 20 - 8 - 128


def behind_quote(packet: Read, made: Read) -> bytes:
    """What goes along of what stands behind the quote of an ICMPv6 error: nothing, if that has no place for it."""
    return quote(packet)[1] if made.payload[0] in (3, 11) and made.payload[:2] != bytes([3, 4]) else b""


def fault_of_told(packet: Read, before: bytes, behind: bytes) -> str:
    """What is wrong with extensions that tell an error's source (RFC 5837 section 4): its address, of family 2, in an object of class
    2, of the interface that the datagram came by."""
    told = bytes([0, 24, 2, 4, 0, 2, 0, 0]) + packet.source
    head = before or bytes([0x20, 0, 0, 0])
    if behind[:2] != head[:2] or behind[4:] != head[4:] + told:
        return "the extension does not tell the source"
    # None at all stays none, and a wrong one wrong.
    wanted = 0xFFFF if not before else ones_sum(before)
    if before and before[2:4] == bytes(2):
        return "" if behind[2:4] == bytes(2) else "the extension has a checksum"
    return "" if ones_sum(behind) % 0xFFFF == wanted % 0xFFFF else "the extension's checksum is another"


def fault_of_error(packet: Read, pieces: list[Read]) -> str:
    """What is wrong with the translation of an ICMP error."""
    made, inner = pieces[0], quotes_translatable(packet)
    assert inner is not None
    wanted = equivalent(packet, inner)
    most = MTU_MIN if made.version == 6 else 576
    if len(pieces) > 1 or not made.is_error or made.is_part or made.header + made.length > most:
        return "does not come out as an ICMP error"
    kind, code = made.payload[:2]
    attribute = made.payload[4] * 8 if made.version == 6 else made.payload[5] * 4
    has_length = kind in (1, 3) if made.version == 6 else kind in (3, 11) and (kind, code) != (3, 4)
    tells = tells_source(packet, made)
    rest = 0 if has_length else int.from_bytes(made.payload[4:8], "big") & (0xFF00FFFF if tells else 0xFFFFFFFF)
    if Error(kind, code, rest) != wanted:
        return f"says {Error(kind, code, rest)}, not {wanted}"
    if checksum(packet) != checksum(made):
        return f"the checksum was {checksum(packet)} and is {checksum(made)}"
    quoted, behind = quote(made) if has_length or tells else (made.payload[8:], b"")
    new, old_behind = read(quoted, quoted=True), quote(packet)[1]
    if new is None or new.version != made.version:
        return "quotes no packet of its family"
    if (new.source, new.destination, new.service, new.hops) != (
        other(inner.source), other(inner.destination), inner.service, inner.hops,
    ):  # fmt: skip
        return "the quoted header is wrong"
    if new.length != inner.length or new.is_part != inner.is_part or (inner.is_part and new.fragment != narrow(inner)):
        return "the quoted packet has another length or is another fragment"
    if made.version == 4 and ones_sum(quoted[: new.header]) != 0xFFFF:
        return "the quoted header's checksum is wrong"
    if tells:
        if told := fault_of_told(packet, behind_quote(packet, made), behind):
            return told
    elif has_length and bool(behind) != bool(old_behind) or not old_behind.startswith(behind):
        return "the extension is another"
    return fault_of_quoted(inner, new, bool(attribute and (has_length or tells)), most - made.header - 8 - new.header)


def narrow(packet: Read) -> tuple[int, bool, int] | None:
    """A fragment's place, with an identification that IPv4 has room for."""
    return packet.fragment and (*packet.fragment[:2], packet.fragment[2] & 0xFFFF)


def fault_of_quoted(inner: Read, new: Read, extended: bool, room: int) -> str:
    """What is wrong with the payload of a quoted packet: it is what there is room for, with a checksum that has followed."""
    old, data = inner.payload, new.payload
    if extended:
        # Padded with zeros, or cut off before them.
        shared = min(len(old), len(data))
        if data[shared:].strip(b"\0"):
            return "something stands behind the quoted packet"
        old, data = old[:shared], data[:shared]
    elif len(data) != min(len(old), room):
        return f"{len(data)} bytes of the quoted payload, of {len(old)}"
    old, at = old[: len(data)], CHECKSUM.get(inner.protocol)
    if at is not None and has_checksum(inner) and not inner.is_later:
        start = 1 if inner.is_icmp else 0
        if inner.is_icmp and data and data[0] != ECHO[inner.version][old[0]]:
            return "another type in the quoted packet"
        same = data[start:at] == old[start:at] and data[at + 2 :] == old[at + 2 :]
        if same and len(data) >= at + 2:
            change = ones_sum(data[at : at + 2], 0xFFFF - int.from_bytes(old[at : at + 2], "big"))
            same = change % 0xFFFF == wanted_change(inner, new) % 0xFFFF or inner.protocol == UDP and old[6:8] == data[6:8] == b"\0\0"
    else:
        same = data == old
    return "" if same else "another payload in the quoted packet"


def wanted_change(inner: Read, new: Read) -> int:
    """By how much the checksum in a quoted packet changes."""

    def covered(packet: Read) -> int:
        if packet.protocol == ICMP:
            return ones_sum(packet.payload[:2])
        return ones_sum(packet.source + packet.destination) + (
            packet.protocol + packet.length + ones_sum(packet.payload[:2]) if packet.protocol == ICMP_V6 else 0
        )

    return covered(inner) - covered(new)
