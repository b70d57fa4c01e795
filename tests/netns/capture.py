"""What is on a wire: tcpdump writes it, and a small reader gives addresses, ports and what else checks ask for."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import Lab, Namespace, wait_for

SIGNS_OF_FLOWS = "icmp or icmp6 or udp or tcp[tcpflags] & (tcp-syn|tcp-rst) != 0 or (ip6[6] = 6 and ip6[53] & 6 != 0)"
"""A tcpdump filter: everything but the bulk of TCP, so that recording does not slow the machine."""

ETHERNET, COOKED_V2 = 1, 276
ICMP, TCP, UDP, ICMP_V6 = 1, 6, 17, 58
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


@dataclass(frozen=True)
class Packet:
    """One IP packet. The ports of an ICMP query are its identifier; those of other ICMP messages are 0."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    flags: int = 0
    """TCP's flags."""
    icmp: tuple[int, int] | None = None
    """ICMP type and code."""
    mss: int | None = None
    """TCP's maximum segment size option."""

    @property
    def sender(self) -> str:
        """Source address and port as people write them."""
        return endpoint(self.source, self.source_port)


def endpoint(address: str, port: int) -> str:
    """An address and a port as people write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Capture:
    """A running tcpdump on one device (or `any`) of a namespace, of the packets that come in there."""

    ROOM = ("-s", "66000", "-B", "65536")
    """For 512 packets of 64 KiB. By itself tcpdump takes the largest for 256 KiB, and has room for eight when it hands
    each over at once: a datagram in pieces and its answer, and the kernel drops what comes next."""

    def __init__(self, lab: Lab, space: Namespace, name: str, device: str = "any", what: str = SIGNS_OF_FLOWS) -> None:
        self.lab = lab
        self.path = lab.work / f"{name}.pcap"
        self.name = f"tcpdump-{name}"
        self.process = lab.spawn(
            space, self.name,
            lab.unconfined("tcpdump"), "-i", device, "-Q", "in", "-n", "-U", "--immediate-mode", *self.ROOM, "-w", "-", what,
            stdout=self.path.name,
        )  # fmt: skip
        wait_for(lambda: "listening on" in lab.log(self.name), 10, f"{self.name} listens")

    def packets(self, since: int = 0) -> list[Packet]:
        """The packets recorded after the first `since` bytes of the file."""
        return list(read(self.path, since))

    def mark(self) -> int:
        """A place in the file: what is recorded from now on comes after it."""
        return max(self.path.stat().st_size, 24)

    def stop(self) -> None:
        """Ends tcpdump, with everything written."""
        self.lab.end(self.process)


def read(path: Path, since: int = 0) -> Iterator[Packet]:
    """The IP packets of a capture in the old pcap format, from byte `since` on."""
    data = path.read_bytes()
    if len(data) < 24:
        return
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = struct.unpack_from(f"{order}I", data, 20)[0]
    at = max(since, 24)
    while at + 16 <= len(data):
        length = struct.unpack_from(f"{order}I", data, at + 8)[0]
        record = data[at + 16 : at + 16 + length]
        if len(record) < length:
            return  # tcpdump is about to write the rest
        at += 16 + length
        with contextlib.suppress(struct.error, IndexError):  # cut short, or not what it says: no evidence for anyone
            packet = dissect(link, record)
            if packet:
                yield packet


def dissect(link: int, record: bytes) -> Packet | None:
    """Reads one frame; None if it is not IP."""
    if link == COOKED_V2:
        ether_type, data = struct.unpack_from("!H", record)[0], record[20:]
    elif link == ETHERNET:
        ether_type, data = struct.unpack_from("!H", record, 12)[0], record[14:]
        if ether_type == 0x8100:
            ether_type, data = struct.unpack_from("!H", data, 2)[0], data[4:]
    else:
        raise ValueError(f"captures of link type {link} are not read here")
    if ether_type == 0x0800:
        header, protocol = (data[0] & 15) * 4, data[9]
        source, destination = ipaddress.ip_address(data[12:16]), ipaddress.ip_address(data[16:20])
        if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
            return Packet(protocol, str(source), 0, str(destination), 0)  # a later fragment has no ports
    elif ether_type == 0x86DD:
        header, protocol = 40, data[6]
        source, destination = ipaddress.ip_address(data[8:24]), ipaddress.ip_address(data[24:40])
    else:
        return None
    rest = data[header:]
    if protocol in (TCP, UDP):
        source_port, destination_port = struct.unpack_from("!HH", rest)
        flags, mss = (rest[13], segment_size(rest)) if protocol == TCP else (0, None)
        return Packet(protocol, str(source), source_port, str(destination), destination_port, flags, None, mss)
    if protocol in (ICMP, ICMP_V6):
        kind = (rest[0], rest[1])
        is_query = rest[0] in ((0, 8) if protocol == ICMP else (128, 129))
        identifier = struct.unpack_from("!H", rest, 4)[0] if is_query else 0
        return Packet(protocol, str(source), identifier, str(destination), identifier, 0, kind)
    return Packet(protocol, str(source), 0, str(destination), 0)


def segment_size(tcp: bytes) -> int | None:
    """The maximum segment size option of a TCP header."""
    at, end = 20, (tcp[12] >> 4) * 4
    while at + 1 < end and tcp[at] != 0:
        if tcp[at] == 1:
            at += 1
        elif tcp[at] == 2:
            return int(struct.unpack_from("!H", tcp, at + 2)[0])
        else:
            at += max(tcp[at + 1], 2)
    return None
