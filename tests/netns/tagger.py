#!/usr/bin/env python3
"""A VLAN device for any kernel: a TAP device whose frames leave by another device with VLAN tags, and whose frames come from
there. It ends when it is told to.

    tagger.py TAP DEVICE TAG...        a tag is TYPE:VLAN, as 88a8:200 8100:20; outermost first

Of what the device receives it takes the frames that have exactly these tags, types included.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
SOL_PACKET, PACKET_AUXDATA = 263, 8
VLAN_VALID, TYPE_VALID = 1 << 4, 1 << 6
ETH_P_ALL = 3
AUXDATA = struct.Struct("=IIIHHHH")
"""struct tpacket_auxdata: status, lengths, offsets, tag, its type."""


def tap(name: str) -> int:
    """Makes a TAP device, and gives the file of its frames."""
    file = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return file


def wire(name: str) -> socket.socket:
    """All frames of a device. The kernel takes the outer tag off what it receives, and says beside the frame what it was."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    made.bind((name, ETH_P_ALL))
    return made


def received(device: socket.socket) -> bytes:
    """The next frame that came in, as it was on the wire; nothing for one that went out."""
    frame, beside, _, address = device.recvmsg(65536, 256)
    if address[2] == socket.PACKET_OUTGOING:
        return b""
    for level, kind, data in beside:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, vlan, ether_type = AUXDATA.unpack(data[: AUXDATA.size])
            if status & VLAN_VALID:
                tag = struct.pack("!HH", ether_type if status & TYPE_VALID else 0x8100, vlan)
                return frame[:12] + tag + frame[12:]
    return frame


def main() -> None:
    """Carries frames both ways."""
    name, device, *words = sys.argv[1:]
    tags = b"".join(struct.pack("!HH", int(word.split(":")[0], 16), int(word.split(":")[1])) for word in words)
    frames, raw = tap(name), wire(device)
    print("ready", flush=True)
    while True:
        for source in select.select([frames, raw], [], [])[0]:
            if source is raw:
                frame = received(raw)
                behind = frame[12 + len(tags) :]
                if frame[12 : 12 + len(tags)] == tags and behind[:2] not in (b"\x81\x00", b"\x88\xa8"):
                    os.write(frames, frame[:12] + behind)
            else:
                frame = os.read(frames, 65536)
                raw.send(frame[:12] + tags + frame[12:])


if __name__ == "__main__":
    main()
