"""Faults: what real connections see when the gateway dies and is started again, and packets that arrive damaged."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import signal
import socket
import struct
import time

from capture import RST, TCP, UDP
from checks import Failed, Scene, Seen, curl, expect
from gateway import configuration
from group import Endpoint, Group, accepted, bound, listener, sockets, turnpike
from lab import H1, POOL, SERVER, wait_for

DROP = Group(lambda _: configuration(pool=POOL[0]))
RESET = Group(lambda _: configuration(pool=POOL[0], rule="mid-stream: reset"))
ADOPT = Group(lambda _: configuration(pool=POOL[0], rule="mid-stream: adopt"))
DAMAGED = Group(lambda _: configuration())
FAULT_GROUPS = [DROP, RESET, ADOPT, DAMAGED]


def crash(scene: Scene) -> float:
    """The gateway dies and is started again on the same file. Gives the seconds that it was away."""
    gateway, began = turnpike(scene), time.monotonic()
    gateway.stop(signal.SIGKILL)
    gateway.start(gateway.path.read_text(encoding="utf-8"))
    return time.monotonic() - began


def resets_to_server(scene: Scene, mark: int, client: Endpoint) -> int:
    """The RSTs that the server got from a client, as it sees it, since a mark."""
    return sum(
        p.protocol == TCP and bool(p.flags & RST) and (p.source, p.source_port) == client
        for p in scene.at_server.packets(mark)
    )


@DROP.test("TCP across a restart, mid-stream drop: the connection hangs until its own time-out (TCP-18)")
def _drop(scene: Scene) -> Seen:
    with sockets() as use:
        client = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        server, peer = accepted(use(listener(scene.lab.server, SERVER)), client)
        use(server)
        crash(scene)
        marks = scene.at_server.mark(), scene.at_h1.mark()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000)
        client.settimeout(20)
        began = time.monotonic()
        client.sendall(b"are you there?")
        try:
            client.recv(16)
            raise Failed("something came")
        except OSError as error:
            waited = time.monotonic() - began
            expect(error.errno == errno.ETIMEDOUT, f"the client's kernel says {error} after {waited:.1f} s")
        expect(waited > 2, f"told already after {waited:.1f} s")
        told = [p for p in scene.at_h1.packets(marks[1]) if p.protocol == TCP and p.flags & RST]
        expect(not told and not resets_to_server(scene, marks[0], peer), "somebody was sent a RST")
        dropped = turnpike(scene).metrics()['turnpike_drops_total{function="nat44",reason="tcp-not-syn"}']
        expect(dropped > 0, "no segment is counted as dropped")
    return Seen(f"silence; ETIMEDOUT after {waited:.1f} s")


@RESET.test("TCP across a restart, mid-stream reset: the client learns it at once (TCP-18)")
def _reset(scene: Scene) -> Seen:
    with sockets() as use:
        client = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        server, peer = accepted(use(listener(scene.lab.server, SERVER)), client)
        use(server)
        crash(scene)
        mark = scene.at_server.mark()
        # The server's segments are a stranger's now: it is not told.
        server.sendall(b"are you there?")
        began = time.monotonic()
        client.settimeout(10)
        client.sendall(b"are you there?")
        try:
            client.recv(16)
            raise Failed("something came")
        except ConnectionResetError:
            waited = time.monotonic() - began
        expect(waited < 1, f"ECONNRESET only after {waited:.1f} s")
        expect(not resets_to_server(scene, mark, peer), "the server was sent a RST")
        server.setblocking(False)
        try:
            server.recv(16)
            raise Failed("the server's end is closed")
        except BlockingIOError:
            pass
        sent = turnpike(scene).metrics()["turnpike_tcp_resets_sent_total"]
        expect(sent >= 1, "no reset is counted")
    return Seen(f"ECONNRESET after {1000 * waited:.0f} ms")


@ADOPT.test("TCP across a restart, mid-stream adopt: an upload goes on (TCP-18)")
def _adopt_upload(scene: Scene) -> Seen:
    content = scene.file.read_bytes()
    half = len(content) // 2
    with sockets() as use:
        client = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        client.settimeout(30)
        client.connect((SERVER, 80))
        head = f"POST /upload HTTP/1.1\r\nHost: {SERVER}\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content[:half])
        away = crash(scene)
        client.sendall(content[half:])
        answer = http.client.HTTPResponse(client)
        answer.begin()
        digest = answer.read().decode().strip()
    expect(digest == scene.digest, f"the server has {digest}, not {scene.digest}")
    adopted(scene)
    return Seen(f"{len(content)} bytes, right", f"the gateway was away for {away:.1f} s")


@ADOPT.test("TCP across a restart, mid-stream adopt: a download goes on (TCP-18)")
def _adopt_download(scene: Scene) -> Seen:
    digest, left = hashlib.sha256(), scene.file.stat().st_size
    with sockets() as use:
        client = use(bound(scene.lab.h1, H1, kind=socket.SOCK_STREAM))
        client.settimeout(30)
        # Most of the file has still to come when the gateway dies.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        # Who only receives has nothing to say, and nothing from outside can be adopted: a keepalive says it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 60)):
            client.setsockopt(socket.IPPROTO_TCP, option, value)
        client.connect((SERVER, 80))
        client.sendall(f"GET /file HTTP/1.1\r\nHost: {SERVER}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        digest.update(answer.read(1_000_000))
        away = crash(scene)
        digest.update(answer.read())
    expect(digest.hexdigest() == scene.digest, f"{left} bytes were to come; the client's digest is wrong")
    adopted(scene)
    return Seen(f"{left} bytes, right", f"the gateway was away for {away:.1f} s")


def adopted(scene: Scene) -> None:
    """Expects that exactly one connection was adopted since the gateway was started."""
    count = turnpike(scene).metrics()["turnpike_session_adoptions_total"]
    expect(count == 1, f"{count:g} connections are counted as adopted")


@DAMAGED.test("wrong transport checksums: forwarded, counted, and told of once with the remedy")
def _damaged(scene: Scene) -> Seen:
    gateway = turnpike(scene)

    def counted(interface: str) -> tuple[float, float]:
        values = gateway.metrics()
        samples, bad = (f'turnpike_checksum_{name}_total{{interface="{interface}"}}' for name in ("samples", "bad"))
        return values[samples], values[bad]

    # Kernels that leave checksums to hardware are no fault: what comes unfinished is finished first.
    curl(scene.lab.h1, "-o", "/dev/null", f"http://{SERVER}/file?bytes=1000000")
    for interface in ("inside", "uplink"):
        samples, bad = counted(interface)
        expect(samples > 0 and bad == 0, f"{interface}: {bad:g} of {samples:g} after a download")
    with sockets() as use:
        with scene.lab.h1.entered():
            sender = use(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        mark = scene.at_server.mark()
        for _ in range(300):
            sender.sendto(datagram(H1, SERVER, 7777, 0xDEAD), (SERVER, 0))
            time.sleep(0.001)
        arrived = scene.first(
            scene.at_server, mark, lambda p: p.protocol == UDP and p.destination_port == 7777, "a damaged datagram"
        )
    _, bad = counted("inside")
    expect(3 <= bad <= 6, f"{bad:g} bad ones are counted among some 5 looked at")
    expect(counted("uplink")[1] == 0, "the uplink is blamed too")

    def warnings() -> list[str]:
        return [line for line in scene.lab.log("turnpike").splitlines() if "ethtool -K" in line]

    wait_for(warnings, 5, "the warning")
    time.sleep(2.5)  # the control thread looks every second
    said = warnings()
    expect(len(said) == 1 and re.search(r"\binside\b.*ethtool -K IF tx off", said[0]), f"said: {said}")
    return Seen(arrived.sender, f"{bad:g} counted")


def datagram(source: str, target: str, port: int, checksum: int) -> bytes:
    """A UDP datagram from its IP header on, with this UDP checksum; the kernel fills in that of the header."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 36, 0, 0, 64, UDP, 0) + addresses + struct.pack(
        "!HHHH8s", 7777, port, 16, checksum, b"damaged!"
    )
