#!/usr/bin/env python3
"""A device for a host on whose wire other hosts have IPv4-mapped addresses, ::ffff:0:0/96, as with NAPT for Windows 2000. Linux
takes such packets from no wire. So the host gets a TAP device whose frames leave by another device, and come from there, with
another prefix in the place of that one. It ends when it is told to.

    mapped.py TAP DEVICE

Of the prefix, fd00::2ff:0:0/96, the words add up to 0xffff, as those of ::ffff:0:0/96 do. So no checksum changes.
"""

from __future__ import annotations

import os
import select
import sys

from tagger import received, tap, wire

MAPPED = bytes(10) + b"\xff\xff"
STAND_IN = b"\xfd\x00" + bytes(8) + b"\x02\xff"

SOURCE, DESTINATION = 22, 38
"""Where the addresses are in an Ethernet frame with an IPv6 header."""
QUOTED = 48
"""How much further in an ICMPv6 error those of the packet are that it quotes."""


def exchanged(frame: bytes, old: bytes, new: bytes) -> bytes:
    """The frame with another prefix wherever an address has the old one."""
    if frame[12:14] != b"\x86\xdd":
        return frame
    is_error = frame[20] == 58 and frame[54:55] < b"\x80"
    for place in (SOURCE, DESTINATION, *((SOURCE + QUOTED, DESTINATION + QUOTED) if is_error else ())):
        if frame[place : place + len(old)] == old:
            frame = frame[:place] + new + frame[place + len(old) :]
    return frame


def main() -> None:
    """Carries frames both ways."""
    name, device = sys.argv[1:]
    frames, raw = tap(name), wire(device)
    print("ready", flush=True)
    while True:
        for source in select.select([frames, raw], [], [])[0]:
            if source is raw:
                if frame := received(raw):
                    os.write(frames, exchanged(frame, MAPPED, STAND_IN))
            else:
                raw.send(exchanged(os.read(frames, 65536), STAND_IN, MAPPED))


if __name__ == "__main__":
    main()
