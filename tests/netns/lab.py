"""The laboratory: a small internet in network namespaces of this machine.

        h1 .10 ──┐
                 lan ── .1 [gw] .2 ────────── .1 router .1 ──────────────── .10, .11  server
        h2 .20 ──┘  │         │                    │  .1 ──────────────── .10         │
            192.168.1.0/24    198.51.100.0/24      │      198.18.1.0/24, MTU 1500     │
            2001:db8:1::/64   2001:db8:f::/64      │      2001:db8:51::/64            │
            MTU 1500          MTU 1400             └───── 198.18.2.0/24, MTU 1280 ────┘
                                                          2001:db8:52::/64

`lan` is a switch, everything else a host or a router of the Linux kernel, but for `gw`: there only two bare devices
wait, `lan0` and `wan0`, for what the caller puts between them (gateway.py). The router sends the pool, 203.0.113.0/28,
and the inside networks to the gateway.

Nothing touches the machine's own network: devices are made inside the namespaces, and the namespaces' names begin
with a prefix that belongs to this run. `Lab.close` ends what was started here and removes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

H1, H2 = "192.168.1.10", "192.168.1.20"
H1_V6, H2_V6 = "2001:db8:1::10", "2001:db8:1::20"
GW_INSIDE, GW_INSIDE_V6 = "192.168.1.1", "2001:db8:1::1"
GW_OUTSIDE, GW_OUTSIDE_V6 = "198.51.100.2", "2001:db8:f::2"
ROUTER, ROUTER_V6 = "198.51.100.1", "2001:db8:f::1"
SERVER, SERVER_V6 = "198.18.1.10", "2001:db8:51::10"
SERVER2 = "198.18.1.11"
NARROW, NARROW_V6 = "198.18.2.10", "2001:db8:52::10"
POOL = [f"203.0.113.{host}" for host in range(1, 7)]
POOL_PREFIX = "203.0.113.0/28"
UPLINK_MTU = 1400
NARROW_MTU = 1280

WORK = Path(__file__).resolve().parent.parent / ".work"
"""Configurations, logs and captures of runs, one directory each."""

RUN = Path("/run", f"tp{os.getpid()}")
"""Where this run's sockets are: their paths must be short."""

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Moves the calling thread into the network namespace behind `fd` (Python has os.setns from 3.12 on)."""
    if LIBC.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Waits until `condition` holds.

    Raises TimeoutError, naming `what`, when it does not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


class Namespace:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> str:
        """Runs `ip` in this namespace and gives its output."""
        command = ["ip", "-n", self.name, *arguments]
        return subprocess.run(command, check=True, timeout=10, stdout=subprocess.PIPE, text=True).stdout

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in this namespace."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, seconds: float = 15, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever its exit status. Both its outputs are in `stdout`."""
        return subprocess.run(
            self.command(*argv),
            timeout=seconds,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within this context the calling thread is in the namespace. A socket made here stays here."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            setns(there)
            yield
        finally:
            setns(home)
            os.close(there)
            os.close(home)

    def forward(self) -> None:
        """Makes this namespace a router, of both families."""
        self.sysctl("ipv4/ip_forward", 1)
        self.sysctl("ipv6/conf/all/forwarding", 1)

    def sysctl(self, key: str, value: object) -> None:
        """Sets a variable below /proc/sys/net, given with slashes: interfaces may have dots."""
        with self.entered():
            Path("/proc/sys/net", key).write_text(str(value), encoding="ascii")


class Lab:
    """The namespaces, the links between them, and the processes in them."""

    def __init__(self) -> None:
        self.prefix = f"tp{os.getpid()}"
        self.work = WORK / self.prefix
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self) -> None:
        """Makes everything that is in the picture above."""
        self.h1, self.h2, self.router, self.server = (self.space(name) for name in ("h1", "h2", "router", "server"))
        self.gw, self.lan = self.bare_space("gw"), self.bare_space("lan")

        self.lan.ip("link", "add", "lan", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        self.lan.ip("link", "set", "lan", "up")
        for space, device in ((self.h1, "h1"), (self.h2, "h2"), (self.gw, "gw")):
            self.link(space, "lan0" if space is self.gw else "eth0", self.lan, device)
            self.lan.ip("link", "set", device, "master", "lan")
        self.link(self.gw, "wan0", self.router, "up0", UPLINK_MTU)
        self.link(self.router, "srv0", self.server, "eth0")
        self.link(self.router, "narrow0", self.server, "narrow0", NARROW_MTU)

        for space, v4, v6 in ((self.h1, H1, H1_V6), (self.h2, H2, H2_V6)):
            self.host(space, "eth0", f"{v4}/24", f"{v6}/64")
            self.route(space, "default", GW_INSIDE)
            self.route(space, "default", GW_INSIDE_V6)

        self.host(self.router, "up0", f"{ROUTER}/24", f"{ROUTER_V6}/64")
        self.host(self.router, "srv0", "198.18.1.1/24", "2001:db8:51::1/64")
        self.host(self.router, "narrow0", "198.18.2.1/24", "2001:db8:52::1/64")
        self.router.forward()
        self.route(self.router, POOL_PREFIX, GW_OUTSIDE)
        self.route(self.router, "192.168.0.0/16", GW_OUTSIDE)
        self.route(self.router, "2001:db8:1::/64", GW_OUTSIDE_V6)

        self.host(self.server, "eth0", f"{SERVER}/24", f"{SERVER2}/24", f"{SERVER_V6}/64")
        self.host(self.server, "narrow0", f"{NARROW}/24", f"{NARROW_V6}/64")
        self.route(self.server, "default", "198.18.1.1")
        self.route(self.server, "default", "2001:db8:51::1")

    def space(self, name: str) -> Namespace:
        """Makes a namespace for a host, or a router (which still has to be told to forward)."""
        made = Namespace(f"{self.prefix}-{name}")
        for scope in ("all", "default"):
            made.sysctl(f"ipv4/conf/{scope}/rp_filter", 0)
            made.sysctl(f"ipv6/conf/{scope}/accept_dad", 0)
            made.sysctl(f"ipv6/conf/{scope}/accept_ra", 0)
        # Every probe of a traceroute is to be answered.
        made.sysctl("ipv4/icmp_ratelimit", 0)
        made.sysctl("ipv6/icmp/ratelimit", 0)
        return made

    def bare_space(self, name: str) -> Namespace:
        """Makes a namespace for devices on which the kernel itself is to be silent."""
        made = self.space(name)
        for scope in ("all", "default"):
            made.sysctl(f"ipv6/conf/{scope}/disable_ipv6", 1)
        return made

    def link(self, one: Namespace, device: str, other: Namespace, peer: str, mtu: int = 1500) -> None:
        """Connects two namespaces by a veth pair that carries no more than its MTU at once. The checksums of TCP and UDP
        are left to hardware that does not exist, as Linux does unless it is told otherwise."""
        one.ip("link", "add", device, "mtu", str(mtu), "type", "veth",
               "peer", "name", peer, "mtu", str(mtu), "netns", other.name)  # fmt: skip
        for space, name in ((one, device), (other, peer)):
            off = [word for feature in ("tso", "gso", "gro") for word in (feature, "off")]
            done = space.run("ethtool", "-K", name, *off)
            if done.returncode != 0:
                raise RuntimeError(f"ethtool -K {name}: {done.stdout}")
            space.ip("link", "set", name, "up")

    def host(self, space: Namespace, device: str, *addresses: str) -> None:
        """Gives a device its addresses."""
        for address in addresses:
            space.ip("address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))

    def route(self, space: Namespace, prefix: str, via: str) -> None:
        """Adds a route by a next hop."""
        space.ip(*(["-6"] if ":" in via else []), "route", "add", prefix, "via", via)

    def unconfined(self, program: str) -> str:
        """A copy of a program that reads and writes in `work`. Debian's AppArmor profiles bind tcpdump and unbound, by their
        paths, to directories of their own."""
        copy, found = self.work / "bin" / program, shutil.which(program)
        if found is None:
            raise FileNotFoundError(f"{program} is not installed")
        if not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(found, copy)
        return str(copy)

    def spawn(self, space: Namespace, name: str, *argv: str, stdout: str | None = None) -> subprocess.Popen[bytes]:
        """Starts a process that lives until `close` (or after it, when the laboratory is kept).

        What it prints is in `work/NAME.log`; its standard output alone in `work/STDOUT` if that is given.
        """
        with contextlib.ExitStack() as files:
            log = files.enter_context(open(self.work / f"{name}.log", "ab"))
            out = files.enter_context(open(self.work / stdout, "wb")) if stdout else log
            process = subprocess.Popen(
                space.command(*argv), stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], how: int = signal.SIGTERM, seconds: float = 5) -> int:
        """Ends one of `spawn`'s processes, by force if it does not obey, and gives its exit status."""
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        if process in self.processes:
            self.processes.remove(process)
        return process.returncode

    def log(self, name: str) -> str:
        """What a spawned process has printed so far."""
        path = self.work / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Ends every process, and removes the namespaces and with them all devices. Logs and captures stay."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in list(self.processes):
            self.end(process, signal.SIGCONT)
        remove(self.prefix)


def remove(prefix: str) -> None:
    """Removes the namespaces of one laboratory, after ending whatever still runs in them."""
    listed = subprocess.run(["ip", "netns", "list"], timeout=10, stdout=subprocess.PIPE, text=True, check=True).stdout
    names = [words[0] for line in listed.splitlines() if (words := line.split()) and words[0].startswith(f"{prefix}-")]
    for how in (signal.SIGTERM, signal.SIGKILL):
        left = [pid for name in names for pid in inhabitants(name)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not any(inhabitants(name) for name in names), 3, "processes end")
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], timeout=10, check=False)
    shutil.rmtree(Path("/run", prefix), ignore_errors=True)


def inhabitants(name: str) -> list[int]:
    """The processes in a namespace."""
    listed = subprocess.run(["ip", "netns", "pids", name], timeout=10, stdout=subprocess.PIPE, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split() if int(pid) != os.getpid()]


def left_over(also: set[str]) -> list[str]:
    """The prefixes of this working copy's laboratories whose maker is gone, or that are in `also`."""
    made_here = {path.name for path in WORK.glob("tp*") if path.is_dir()}
    return sorted(prefix for prefix in made_here if prefix in also or not Path("/proc", prefix[2:]).exists())


def tidy() -> None:
    """Removes the files of laboratories that no longer have namespaces: those of earlier runs that failed."""
    listed = subprocess.run(["ip", "netns", "list"], timeout=10, stdout=subprocess.PIPE, text=True, check=True).stdout
    alive = {line.split("-")[0] for line in listed.splitlines()}
    for prefix in left_over(set()):
        if prefix not in alive:
            shutil.rmtree(WORK / prefix, ignore_errors=True)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals() -> None:
    """Turns the first signal that asks to stop into SystemExit, so that cleaning up happens, and ignores later ones:
    cleaning up is bounded in time anyway."""

    def handler(number: int, _frame: object) -> None:
        ignore_signals()
        print(f"\ninterrupted by {signal.Signals(number).name}", file=sys.stderr)
        sys.exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, handler)


def ignore_signals() -> None:
    """From here on nothing disturbs the cleaning up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def in_parallel(*jobs: Callable[[], object]) -> list[object]:
    """Runs the jobs at the same time, and gives their results in order. The first exception is raised again."""
    results: list[object] = [None] * len(jobs)
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except BaseException as failure:  # noqa: BLE001 (handed on below)
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
