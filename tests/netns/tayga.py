"""Tayga, the stateless translator of Debian, in a namespace of the laboratory."""

from __future__ import annotations

import subprocess

from lab import Lab, Namespace, wait_for

DEVICE = "nat64"
"""The device by which it has its packets."""


def start(lab: Lab, space: Namespace, settings: str) -> subprocess.Popen[bytes]:
    """Starts tayga in a namespace with these lines of its configuration; its device is up then."""
    file = lab.work / f"tayga-{space.name}.conf"
    file.write_text(f"tun-device {DEVICE}\ndata-dir {lab.work}\n{settings}", encoding="utf-8")
    done = space.run("tayga", "-c", str(file), "--mktun")
    if done.returncode != 0:
        raise RuntimeError(f"tayga: {done.stdout.strip()}")
    space.ip("link", "set", DEVICE, "up")
    process = lab.spawn(space, f"tayga-{space.name}", "tayga", "-c", str(file), "-d")
    # It has the device's other end then.
    wait_for(lambda: "LOWER_UP" in space.ip("link", "show", DEVICE), 10, "tayga is there")
    return process
