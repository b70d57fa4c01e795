"""Cables that are pulled, devices that vanish, neighbours that fall silent, workers that stand still: what the gateway's
watch makes of it, with traffic on the other ports all the while, and that everything comes back by itself."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from checks import Scene, Seen, expect, ping
from gateway import FORWARDED_UDP, METRICS, configuration, cores
from group import Group, accepted, bound, listener, sockets, turnpike
from lab import GW_INSIDE, GW_INSIDE_V6, H1, H2_V6, LIBC, POOL, SERVER, SERVER_V6, Namespace, in_parallel, wait_for

FAR, FAR_V6 = "192.168.8.10", "2001:db8:8::10"
"""A host behind a router behind the memif port."""
TAPPED = "192.168.9.10"
"""The kernel's end of the TAP port."""
NET_UNREACHABLE = "Destination Net Unreachable"
NO_ROUTE = "Destination unreachable: No route"
ADDRESS_UNREACHABLE = "Destination unreachable: Address unreachable"
IP_RECVERR = 11
"""Linux' socket option to be told of every ICMP error; the socket module does not name it."""
MEMIF = "memif.sock"
SEEN_WITHIN = 5.0
"""Seconds within which the watch, which looks twice a second, has seen a change: the machine may be busy."""


def watched(scene: Scene) -> str:
    """A gateway with ports of every kind: beside the inside's and the uplink's a TAP and a spare veth."""
    lab = scene.lab
    lab.gw.ip("link", "add", "spare0", "type", "veth", "peer", "name", "spare1")
    for device in ("spare0", "spare1"):
        lab.gw.ip("link", "set", device, "up")
    more = f"""
  tap: {{device: "net_tap0,iface=tap0"}}
  spare: {{device: "net_af_packet2,iface=spare0,framecnt=512,framesz=2048,blocksz=4096"}}

interfaces:
  tapped: {{port: tap, zone: inside, addresses: [192.168.9.1/24]}}
  spared: {{port: spare, zone: inside, addresses: [192.168.10.1/24, "2001:db8:a::1/64"]}}
"""
    return configuration().replace("\n\ninterfaces:\n", more, 1)


def cabled(text: str, socket: Path) -> str:
    """The configuration with one more port, a memif at this socket, and a route that leads over it."""
    port = f"""
  cable: {{device: "net_memif0,role=server,id=0,socket={socket},socket-abstract=no"}}

interfaces:
  cabled: {{port: cable, zone: inside, addresses: [192.168.7.1/24, "2001:db8:7::1/64"]}}
"""
    routes = f"""
routes:
  - {{to: {FAR.rsplit(".", 1)[0]}.0/24, via: 192.168.7.2}}
  - {{to: "2001:db8:8::/64", via: "2001:db8:7::2"}}
"""
    return text.replace("\n\ninterfaces:\n", port, 1).replace("\nroutes:\n", routes, 1)


class FarRouter:
    """A second gateway in a namespace of its own, at the other end of the memif, with a host behind it."""

    def __init__(self, scene: Scene) -> None:
        lab = scene.lab
        self.scene, self.binary = scene, turnpike(scene).binary
        self.space, self.host = (Namespace(f"{lab.prefix}-{name}") for name in ("far", "farhost"))
        for scope in ("all", "default"):
            self.space.sysctl(f"ipv6/conf/{scope}/disable_ipv6", 1)
        lab.link(self.space, "far0", self.host, "eth0")
        lab.host(self.host, "eth0", f"{FAR}/24", f"{FAR_V6}/64")
        lab.route(self.host, "default", "192.168.8.1")
        lab.route(self.host, "default", "2001:db8:8::1")
        worker, first = cores()
        self.path = lab.work / "far.yaml"
        self.path.write_text(
            f"""\
version: 1
boot:
  cpu: {{workers: [{worker}], control: {first}, poll: adaptive}}
  memory: {{hugepages: false, size: 128M}}
  packets: 8191
ports:
  cable: {{device: "net_memif0,role=client,id=0,socket={lab.work / MEMIF},socket-abstract=no"}}
  far: {{device: "net_af_packet0,iface=far0,framecnt=512,framesz=2048,blocksz=4096"}}
interfaces:
  cabled: {{port: cable, zone: inside, addresses: [192.168.7.2/24, "2001:db8:7::2/64"]}}
  far: {{port: far, zone: inside, addresses: [192.168.8.1/24, "2001:db8:8::1/64"]}}
routes:
  - {{to: 0.0.0.0/0, via: 192.168.7.1}}
  - {{to: "::/0", via: "2001:db8:7::1"}}
metrics: {{listen: "{METRICS}"}}
""",
            encoding="utf-8",
        )

    @contextlib.contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Within this context the cable is in. It is pulled without a good-bye: the process is killed."""
        process = self.scene.lab.spawn(self.space, "far", str(self.binary), "run", "-c", str(self.path))
        try:
            wait_for(lambda: port(self.scene, "cable") == 1, 15, "the memif's peer connects")
            yield
        finally:
            self.scene.lab.end(process, signal.SIGKILL)
        becomes(self.scene, "cable", False)


@functools.cache
def far_router(scene: Scene) -> FarRouter:
    """The one of this laboratory."""
    return FarRouter(scene)


@contextlib.contextmanager
def pinging(space: Namespace, target: str) -> Iterator[subprocess.Popen[str]]:
    """A hundred pings a second while the context lasts, a minute at most."""
    process = subprocess.Popen(
        space.command("ping", "-n", "-q", "-i", "0.01", "-w", "60", target), stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(5)


@contextlib.contextmanager
def load(space: Namespace, target: str) -> Iterator[None]:
    """The same, and expects that all are answered, but for the last, and one in fifty, which a busy machine may lose."""
    with pinging(space, target) as process:
        yield
    assert process.stdout is not None
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", process.stdout.read())[0])
    expect(sent > 10 and sent - received <= 1 + sent // 50, f"of {sent} pings to {target} {sent - received} are lost")


def port(scene: Scene, name: str, metric: str = "up") -> float:
    """A port's gauge or counter."""
    return turnpike(scene).metrics()[f'turnpike_port_{metric}{{port="{name}"}}']


def becomes(scene: Scene, name: str, up: bool) -> None:
    """Waits until a port's link is seen to be up, or down."""
    wait_for(lambda: port(scene, name) == up, SEEN_WITHIN, f"port {name} {'up' if up else 'down'}")


def lines(scene: Scene, *words: str) -> int:
    """How many lines of the gateway's log have all these words."""
    return sum(all(word in line for word in words) for line in scene.lab.log("turnpike").splitlines())


def told(space: Namespace, target: str, wanted: str) -> None:
    """Expects that a ping is answered by this error."""
    done = space.run("ping", "-n", "-c", "1", "-W", "5", target)
    expect(wanted in done.stdout, f"ping {target}: {done.stdout.strip()}")


def answers(space: Namespace, *targets: str, seconds: float = SEEN_WITHIN + 2) -> None:
    """Waits until hosts answer pings."""
    for target in targets:
        once = ("ping", "-n", "-c", "1", "-W", "1", target)
        wait_for(lambda: space.run(*once).returncode == 0, seconds, f"{target} answers")  # noqa: B023


def hushed(space: Namespace, on: bool) -> None:
    """Makes a host deaf and dumb to questions after its Ethernet address, and lets it hear and speak again."""
    tables = {"arp": "", "ip6": "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"}
    for family, questions in tables.items():
        chains = (
            f"chain {way} {{ type filter hook {way} priority 0; {questions} drop; }}\n" for way in ("input", "output")
        )
        rules = f"table {family} silence {{\n{''.join(chains)}}}\n" if on else f"delete table {family} silence\n"
        done = space.run("nft", "-f", "-", stdin=rules)
        expect(done.returncode == 0, f"nft: {done.stdout.strip()}")


def back(space: Namespace, *targets: str) -> float:
    """Waits until hosts answer again, and gives the seconds that it took."""
    began = time.monotonic()
    answers(space, *targets)
    return time.monotonic() - began


WATCH = Group(watched)
CABLE = Group(None)
SILENT = Group(lambda _: configuration())
STILL = Group(None)


def over_memif(test: Callable[[Scene], Seen]) -> Callable[[Scene], Seen]:
    """Runs a test against a gateway with a memif port.

    The driver of DPDK 22.11 unmaps a memif whose peer is gone even while a worker reads it (docs/operations.md). That crash is
    rare, and not the gateway's; it may not happen twice.
    """

    def run(scene: Scene) -> Seen:
        gateway = turnpike(scene)
        for again in (True, False):
            gateway.start(cabled(configuration(), scene.lab.work / MEMIF))
            try:
                return test(scene)
            except Exception:
                assert gateway.process is not None
                if not again or gateway.process.poll() != -signal.SIGSEGV:
                    raise
            finally:
                gateway.stop()
        raise AssertionError

    return run


@CABLE.test("pull a cable: a veth goes down and comes back, under load")
@over_memif
def _veth(scene: Scene) -> Seen:
    lab, changes = scene.lab, port(scene, "wan", "link_changes_total")
    far = far_router(scene)
    with far.plugged_in(), sockets() as use:
        answers(lab.h1, FAR, SERVER)
        server = use(listener(lab.server, SERVER))
        client = use(bound(lab.h1, H1, kind=socket.SOCK_STREAM))
        connection, _ = accepted(server, client)
        use(connection)
        with load(lab.h1, FAR):
            lab.gw.ip("link", "set", "wan0", "down")
            becomes(scene, "wan", False)
            in_parallel(lambda: told(lab.h1, SERVER, NET_UNREACHABLE), lambda: told(lab.h1, SERVER_V6, NO_ROUTE))
            lab.gw.ip("link", "set", "wan0", "up")
            took = back(lab.h1, SERVER, SERVER_V6)
        # The sessions have lived through it.
        connection.settimeout(10)
        client.sendall(b"still here")
        expect(connection.recv(16) == b"still here", "the connection carries something else")
    expect(port(scene, "wan", "link_changes_total") == changes + 2, "not two changes of the link")
    said = [lines(scene, "port=wan", f"link is {state}") for state in ("down", "up")]
    expect(said == [1, 1], f"down and up are said {said} times")
    return Seen(f"forwards again {took:.1f} s after")


@CABLE.test("pull a cable: a memif peer is killed, and comes back, twice, under load")
@over_memif
def _memif(scene: Scene) -> Seen:
    lab, far, times = scene.lab, far_router(scene), []
    with load(lab.h1, SERVER):
        for _ in range(2):
            with contextlib.ExitStack() as on_it:
                with far.plugged_in():
                    times.append(back(lab.h1, FAR, FAR_V6) + back(far.host, SERVER))
                    # The cable is pulled while packets are on it.
                    on_it.enter_context(pinging(lab.h1, FAR))
                    time.sleep(0.5)
            in_parallel(lambda: told(lab.h1, FAR, NET_UNREACHABLE), lambda: told(lab.h1, FAR_V6, NO_ROUTE))
    return Seen(f"forwards {max(times):.1f} s after the peer's start")


@WATCH.test("pull a cable: a TAP is set down and up, and moved to another namespace, under load")
def _tap(scene: Scene) -> Seen:
    lab = scene.lab

    def plug(space: Namespace) -> None:
        # Its two ends have one Ethernet address between them, to begin with.
        space.ip("link", "set", "tap0", "address", "02:00:00:00:00:09", "up")
        if TAPPED not in space.ip("address", "show", "dev", "tap0"):
            lab.host(space, "tap0", f"{TAPPED}/24")
        lab.route(space, "198.18.0.0/15", "192.168.9.1")

    plug(lab.gw)
    with load(lab.h1, SERVER):
        answers(lab.gw, SERVER)
        lab.gw.ip("link", "set", "tap0", "down")
        becomes(scene, "tap", False)
        told(lab.h1, TAPPED, NET_UNREACHABLE)
        plug(lab.gw)
        took = back(lab.gw, SERVER)
        becomes(scene, "tap", True)
        # Where a TAP is moved to another namespace nothing can be seen of it, but it is no less there.
        elsewhere = Namespace(f"{lab.prefix}-tapped")
        lab.gw.ip("link", "set", "tap0", "netns", elsewhere.name)
        plug(elsewhere)
        answers(elsewhere, SERVER)
        time.sleep(1.5)
        ping(elsewhere, SERVER)
        expect((port(scene, "tap"), port(scene, "tap", "gone")) == (1, 0), "the TAP counts as lost where it was moved to")
        elsewhere.ip("link", "set", "tap0", "netns", lab.gw.name)
    return Seen(f"forwards again {took:.1f} s after")


@WATCH.test("devices are deleted: each is reported once, its routes are withdrawn, the others go on")
def _deleted(scene: Scene) -> Seen:
    lab = scene.lab
    with load(lab.h1, SERVER):
        for device in ("spare0", "tap0"):
            lab.gw.ip("link", "delete", device)
        for name in ("spare", "tap"):
            wait_for(lambda: port(scene, name, "gone") == 1, SEEN_WITHIN, f"port {name} is gone")  # noqa: B023
            expect(port(scene, name) == 0, f"port {name} is gone, but up")
        in_parallel(
            lambda: told(lab.h1, "192.168.10.77", NET_UNREACHABLE),
            lambda: told(lab.h1, TAPPED, NET_UNREACHABLE),
            lambda: told(lab.h1, "2001:db8:a::77", NO_ROUTE),
        )
        length = len(lab.log("turnpike").splitlines())
        time.sleep(2)
        expect(len(lab.log("turnpike").splitlines()) == length, f"it goes on about it: {lab.log('turnpike')[-300:]}")
    said = [lines(scene, f"port={name}", "the device is gone") for name in ("spare", "tap")]
    expect(said == [1, 1], f"said {said} times")
    return Seen(f"port_gone {port(scene, 'spare', 'gone'):.0f} and {port(scene, 'tap', 'gone'):.0f}")


@SILENT.test("a server falls silent: host and address unreachable; it is reached again when it answers again")
def _silent(scene: Scene) -> Seen:
    lab = scene.lab
    answers(lab.h1, GW_INSIDE_V6)
    # The gateway learns where h2 is from h2's own question, and does not know yet whether h2 hears it.
    lab.h2.ip("neighbour", "flush", "all")
    ping(lab.h2, GW_INSIDE, count=1)
    ping(lab.h2, GW_INSIDE_V6, count=1)
    hushed(lab.h2, True)
    began = time.monotonic()
    try:
        in_parallel(lambda: udp_answer(scene, errno.EHOSTUNREACH), lambda: until_told(lab.server, H2_V6, ADDRESS_UNREACHABLE))
        took = time.monotonic() - began
    finally:
        hushed(lab.h2, False)
    answers(lab.server, H2_V6)
    udp_answer(scene, errno.ECONNREFUSED)
    return Seen(f"told so after {took:.0f} s")


def until_told(space: Namespace, target: str, wanted: str) -> None:
    """Pings until the answer is this error."""
    once = ("ping", "-n", "-c", "1", "-W", "4", target)
    wait_for(lambda: wanted in space.run(*once).stdout, 25, f"{target}: {wanted}")


def udp_answer(scene: Scene, wanted: int) -> None:
    """Sends datagrams to h2 by the gateway's port forward, until this error is the answer. (Port unreachable, ECONNREFUSED,
    is h2's own word: nobody listens there.)"""
    with bound(scene.lab.server, SERVER) as sender:
        sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sender.settimeout(0.2)
        sender.connect((POOL[0], FORWARDED_UDP[0]))

        def look() -> bool:
            try:
                sender.send(b"anybody there?")
                sender.recv(64)
            except TimeoutError:
                return False
            except OSError as error:
                return error.errno == wanted
            return False

        wait_for(look, 25, os.strerror(wanted))


# --- workers that stand still ---------------------------------------------------------------------------------------

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x4000_0000


def ptrace(request: int, thread: int) -> None:
    """ptrace(2)."""
    none = ctypes.c_void_p()
    if LIBC.ptrace(request, thread, none, none) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def worker_thread(process: int) -> int:
    """The number of the first worker's thread."""
    for task in Path(f"/proc/{process}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith("worker-"):
            return int(task.name)
    raise OSError("there is no worker's thread")


@STILL.test("a worker that stands still ends the process, for the service manager to start it anew")
def _still(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    gateway.start(configuration())
    assert gateway.process is not None
    thread = worker_thread(gateway.process.pid)
    began = time.monotonic()
    ptrace(PTRACE_SEIZE, thread)
    try:
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
        # It is killed while it is held; whoever holds it must take note for the process to end.
        wait_for(lambda: os.waitpid(thread, WALL | os.WNOHANG)[0] == thread, 10, "the process ends")
    except TimeoutError:
        ptrace(PTRACE_DETACH, thread)
        raise
    took = time.monotonic() - began
    status = gateway.stop()
    expect(status == -signal.SIGABRT, f"exit status {status}, not that of SIGABRT\n{gateway.last_words()}")
    expect(lines(scene, "level=error", "a worker does not move any more") == 1, f"not said:\n{gateway.last_words()}")
    return Seen(f"SIGABRT after {took:.1f} s")


@STILL.test("a process that is stopped as a whole for 6 s goes on where it was")
def _stopped(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    gateway.start(configuration())
    assert gateway.process is not None
    for pause in (1, 6):
        gateway.process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        gateway.process.send_signal(signal.SIGCONT)
        ping(scene.lab.h1, SERVER)
    time.sleep(3)
    ping(scene.lab.h1, SERVER)
    status = gateway.stop()
    expect(status == 0, f"exit status {status}\n{gateway.last_words()}")
    return Seen("still forwards")


WATCH_GROUPS = [WATCH, CABLE, SILENT, STILL]
