"""Fragments and hairpins of real clients: what is too large for a link, and inside hosts that call each other as the world does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket

from capture import Capture
from checks import Scene, Seen, curl, expect, ping, translated
from gateway import FORWARDED_TCP, FORWARDED_UDP, configuration
from group import Endpoint, Group, bound, sockets, turnpike
from lab import H1, H2, POOL, SERVER, UPLINK_MTU, Namespace, wait_for


def by_xdp(_: Scene) -> str:
    """On AF_XDP sockets: those of net_af_packet get what the kernel has put together."""
    return re.sub(r"net_af_packet(\d),iface=(\w+),[^\"]*", r"net_af_xdp\1,iface=\2", configuration())


FRAGMENTS = Group(by_xdp)
HAIRPIN = Group(by_xdp)
FRAGMENT_GROUPS = [FRAGMENTS, HAIRPIN]

DATAGRAM = 4000
"""Bytes that no link here takes at once."""


def in_pieces(scene: Scene, space: Namespace, name: str, what: str) -> Capture:
    """A capture of the fragments that come to a host."""
    return Capture(scene.lab, space, f"fragments-{name}", what=f"{what} and ip[6:2] & 0x3fff != 0")


def pieces(capture: Capture, least: int) -> int:
    """How many fragments came, and that they were no fewer than expected. Ends the capture."""
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: len(capture.packets()) >= least, 2, "the fragments are in the file")
    capture.stop()
    count = len(capture.packets())
    expect(count >= least, f"{capture.name} saw {count} fragments, not {least}")
    return count


def sent(source: socket.socket, target: Endpoint, receiver: socket.socket) -> Endpoint:
    """Sends a large datagram, which arrives as it is, and gives the sender as its receiver sees it."""
    data = os.urandom(DATAGRAM)
    source.sendto(data, target)
    got, end = receiver.recvfrom(DATAGRAM + 1)
    expect(got == data, f"{target} received {len(got)} bytes, and not those that were sent")
    return end


@FRAGMENTS.test("fragments: ping of 3000 bytes, there and back (RFC 4787 REQ-14)")
def _ping(scene: Scene) -> Seen:
    captures = [in_pieces(scene, space, name, "icmp") for space, name in ((scene.lab.server, "server"), (scene.lab.h1, "h1"))]
    ping(scene.lab.h1, SERVER, "-s", "3000", count=3)
    # Three pings of three pieces at least.
    counts = [pieces(capture, 9) for capture in captures]
    return Seen("", f"{counts[0]} fragments at the server, {counts[1]} at h1; the uplink takes {UPLINK_MTU}")


@FRAGMENTS.test("fragments: datagrams of 4000 bytes and their answers, of two hosts at a time")
def _datagrams(scene: Scene) -> Seen:
    capture = in_pieces(scene, scene.lab.server, "udp", "udp")
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7600))
        hosts = [use(bound(space, address, 7600)) for space, address in ((scene.lab.h1, H1), (scene.lab.h2, H2))]
        ends = set()
        for _ in range(10):
            for inside in hosts:
                end = sent(inside, server.getsockname(), server)
                translated(end[0])
                ends.add(end)
                expect(sent(server, end, inside) == (SERVER, 7600), "the answer comes from somebody else")
    expect(len(ends) == 2, f"two hosts were seen as {sorted(ends)}")
    pieces(capture, 20 * 3)
    return Seen(", ".join(f"{address}:{port}" for address, port in sorted(ends)), "10 times there and back")


@HAIRPIN.test("hairpin: curl from h2, and from h1 itself, to h1's web server by its external address (RFC 5382 REQ-8)")
def _curl(scene: Scene) -> Seen:
    seen = []
    for name, space in (("h2", scene.lab.h2), ("h1", scene.lab.h1)):
        copy = scene.lab.work / f"hairpin-{name}"
        curl(space, "-o", str(copy), f"http://{POOL[0]}:{FORWARDED_TCP}/file?hairpin={name}")
        expect(hashlib.sha256(copy.read_bytes()).hexdigest() == scene.digest, "the client's digest is wrong")
        found = scene.requests(scene.lab.h1, f"/file?hairpin={name}")
        expect(len(found) == 1, f"h1 was asked {len(found)} times by {name}")
        translated(found[0][0])
        seen.append(f"{found[0][0]}:{found[0][1]}")
    return Seen(f"h1 saw {' and '.join(seen)}")


@HAIRPIN.test("hairpin: UDP between h1 and h2 by their external ends, and datagrams of 4000 bytes to a forward (RFC 4787 REQ-9)")
def _datagram(scene: Scene) -> Seen:
    capture = in_pieces(scene, scene.lab.h2, "h2", "udp")
    with sockets() as use:
        one, other = use(bound(scene.lab.h1, H1, 7700)), use(bound(scene.lab.h2, H2, FORWARDED_UDP[5]))
        end = sent(one, (POOL[0], FORWARDED_UDP[5]), other)
        translated(end[0])
        # The answer goes to the external end of h1, and comes from that of h2.
        expect(sent(other, end, one) == (POOL[0], FORWARDED_UDP[5]), "the answer comes from somebody else")
        one.sendto(b"small", (POOL[0], FORWARDED_UDP[5]))
        expect(other.recvfrom(16) == (b"small", end), "h1 has another external end for small packets")
    pieces(capture, 3)
    metrics = turnpike(scene).metrics()
    expect(metrics["turnpike_packets_imbalance"] == 0, f"{metrics['turnpike_packets_imbalance']} packets are missing")
    return Seen(f"h2 saw {end[0]}:{end[1]}")
