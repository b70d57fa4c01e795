"""What stands between the inside and the outside of the laboratory: the program under test, or the Linux kernel.

The kernel is the rig's own check: a line of the demonstration that fails against it too is wrong, or the machine is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from lab import (
    GW_INSIDE,
    GW_INSIDE_V6,
    GW_OUTSIDE,
    GW_OUTSIDE_V6,
    H1,
    H2,
    POOL,
    ROUTER,
    ROUTER_V6,
    RUN,
    UPLINK_MTU,
    Lab,
    Namespace,
)  # fmt: skip

FORWARDED_TCP = 8080
"""This TCP port of the pool's first address leads to the web server on h1."""
FORWARDED_UDP = range(27000, 27011)
"""These UDP ports of the pool's first address lead to the same ports of h2."""
METRICS = "127.0.0.1:9416"
CONTROL = RUN / "control.sock"
"""The control socket. The gateway makes its directory."""

Metrics = dict[str, float]
"""A scrape: the value of each series, by its name with its labels."""


def cores() -> tuple[int, int]:
    """A core for the worker and one for the control thread, of those that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def configuration(
    *,
    pool: str = f"{POOL[0]}-{POOL[-1]}",
    rule: str = "",
    mss_clamp: str = "off",
    proxy_arp: bool = False,
    workers: str | None = None,
    control: int | None = None,
    lan_device: str = "lan0",
    guests: str | None = None,
    group: str | None = None,
) -> str:
    """The gateway's YAML file.

    `rule` is more lines for the NAT44 rule, separated by `; `. `guests` adds an interface with VLAN 20 and
    192.168.20.0/24 to the inside port, and is the Ethernet address of its one host, .9. `group` may read the control socket.
    """
    worker, first = cores()
    more = "".join(f"      {line}\n" for line in rule.split("; ") if line)
    readers = f"  group: {group}\n" if group else ""
    vlan = ""
    if guests:
        vlan = f"""\
  guests:
    port: lan
    vlan: 20
    zone: inside
    addresses: [192.168.20.1/24]
    neighbours: {{192.168.20.9: "{guests}"}}
"""
    device = "framecnt=4096,framesz=2048,blocksz=4096"
    return f"""\
version: 1

boot:
  cpu: {{workers: {workers or [worker]}, control: {first if control is None else control}, poll: adaptive}}
  memory: {{hugepages: false, size: 256M}}

ports:
  lan: {{device: "net_af_packet0,iface={lan_device},{device}"}}
  wan: {{device: "net_af_packet1,iface=wan0,{device}"}}

interfaces:
  inside:
    port: lan
    zone: inside
    addresses: [{GW_INSIDE}/24, "{GW_INSIDE_V6}/64"]
    mtu: 1500
{vlan}\
  uplink:
    port: wan
    zone: outside
    addresses: [{GW_OUTSIDE}/24, "{GW_OUTSIDE_V6}/64"]
    mtu: {UPLINK_MTU}
    mss-clamp: {mss_clamp}

routes:
  - {{to: 0.0.0.0/0, via: {ROUTER}}}
  - {{to: "::/0", via: "{ROUTER_V6}"}}

pools:
  public:
    addresses: [{pool}]
    proxy-arp: {str(proxy_arp).lower()}

nat44:
  rules:
    everyone:
      from: inside
      to: outside
      source: [192.168.0.0/16]
      pool: public
{more}\
  forwards:
    web:
      from: outside
      to: inside
      protocol: tcp
      external: "{POOL[0]}:{FORWARDED_TCP}"
      inside: "{H1}:80"
    games:
      from: outside
      to: inside
      protocol: udp
      external: "{POOL[0]}:{FORWARDED_UDP[0]}-{FORWARDED_UDP[-1]}"
      inside: "{H2}:{FORWARDED_UDP[0]}"

metrics:
  listen: "{METRICS}"

control:
  socket: {CONTROL}
{readers}"""


class Turnpike:
    """The program, in the gateway's namespace."""

    name = "turnpike"

    def __init__(self, lab: Lab, binary: Path, space: Namespace | None = None, first: Path | None = None) -> None:
        """In the laboratory's own gateway, or in another `space`. It reads `first` before the file that `start` writes."""
        self.lab, self.space = lab, space or lab.gw
        self.binary = binary.resolve()
        self.path = lab.work / "turnpike.yaml"
        self.files = [*([first] if first else []), self.path]
        self.process: subprocess.Popen[bytes] | None = None

    def run_line(self) -> list[str]:
        """The command that runs the gateway, inside its namespace."""
        return [str(self.binary), "run", *(word for file in self.files for word in ("-c", str(file)))]

    def start(self, text: str) -> float:
        """Starts the gateway on this configuration, waits until it forwards, and gives the seconds that this took.

        Raises RuntimeError with the end of its log when it stops or does not get ready.
        """
        self.path.write_text(text, encoding="utf-8")
        began = time.monotonic()
        self.process = self.lab.spawn(self.space, "turnpike", *self.run_line())
        while time.monotonic() < began + 30:
            if self.process.poll() is not None:
                raise RuntimeError(f"turnpike ended with status {self.process.returncode}\n{self.last_words()}")
            if self.fetch("/readyz", fail=False):
                return time.monotonic() - began
            time.sleep(0.05)
        raise RuntimeError(f"turnpike is not ready after 30 s\n{self.last_words()}")

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Stops it and gives its exit status (negative: the signal that ended it)."""
        assert self.process is not None
        status = self.lab.end(self.process, how, seconds=10)
        self.process = None
        return status

    def fetch(self, page: str, fail: bool = True) -> str:
        """A page of its metrics server. With `fail` unset, an empty string when it does not answer 200."""
        done = self.space.run("curl", "-sf", "-m", "5", f"http://{METRICS}{page}")
        if done.returncode != 0:
            if fail:
                raise RuntimeError(f"{page} of the metrics server does not answer (curl: {done.returncode})")
            return ""
        return done.stdout or " "

    def metrics(self) -> Metrics:
        """What `/metrics` says now."""
        values = {}
        for line in self.fetch("/metrics").splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                values[series] = float(value)
        return values

    def ctl(self, *arguments: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
        """Runs turnpikectl as root, to its end. Its two outputs are apart."""
        command = [str(self.binary.with_name("turnpikectl")), "--socket", str(CONTROL), *arguments]
        return subprocess.run(command, timeout=seconds, capture_output=True, text=True, check=False)

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(f"    {line}" for line in self.lab.log("turnpike").splitlines()[-20:])


class Kernel:
    """Linux as the gateway: forwarding, conntrack, and the same translations as nftables rules."""

    name = "kernel"

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def start(self, _text: str = "") -> float:
        """Sets the namespace up as a router. The configuration file is not its language."""
        gw = self.lab.gw
        for device, v4, v6 in (("lan0", GW_INSIDE, GW_INSIDE_V6), ("wan0", GW_OUTSIDE, GW_OUTSIDE_V6)):
            gw.sysctl(f"ipv6/conf/{device}/disable_ipv6", 0)
            self.lab.host(gw, device, f"{v4}/24", f"{v6}/64")
        gw.forward()
        self.lab.route(gw, "default", ROUTER)
        self.lab.route(gw, "default", ROUTER_V6)
        udp = f"{FORWARDED_UDP[0]}-{FORWARDED_UDP[-1]}"
        done = gw.run(
            "nft",
            "-f",
            "-",
            stdin=f"""
            table ip turnpike {{
                chain out {{
                    type nat hook postrouting priority 100;
                    oifname wan0 ip saddr 192.168.0.0/16 snat to {POOL[0]}-{POOL[-1]} persistent
                }}
                chain in {{
                    type nat hook prerouting priority -100;
                    iifname wan0 ip daddr {POOL[0]} tcp dport {FORWARDED_TCP} dnat to {H1}:80
                    iifname wan0 ip daddr {POOL[0]} udp dport {udp} dnat to {H2}
                }}
                chain forward {{
                    type filter hook forward priority 0;
                    ct state established,related accept
                    iifname wan0 ct status & dnat == 0 drop
                }}
            }}""",
        )
        if done.returncode != 0:
            raise RuntimeError(f"nft: {done.stdout}")
        return 0.0

    def metrics(self) -> Metrics:
        """The kernel has none."""
        return {}


Gateway = Turnpike | Kernel


def moved(before: Metrics, after: Metrics) -> list[tuple[str, float, float]]:
    """The series that differ between two scrapes: name, value now, difference. Times and rates of the process itself
    always move and tell nothing here."""
    dull = re.compile(r"process_|\w+_seconds|turnpike_worker_(loop|busy)")
    return [
        (series, value, value - before.get(series, 0.0))
        for series, value in after.items()
        if value != before.get(series, 0.0) and not dull.match(series)
    ]
