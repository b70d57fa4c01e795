#!/usr/bin/env python3
"""Whether what `make install` puts on a machine is good: the units and snippets, and a gateway under the unit's restrictions.

Needs root, for a network namespace of its own; no systemd has to run. What is installed goes to a temporary directory, and
is judged there by systemd's own programs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNITS = "usr/lib/systemd/system"
NOBODY = 65534
EXPOSURE_MOST = 3.0
"""Of 10, as `systemd-analyze security` counts: the unit is not to become more open unnoticed."""

CONFIG = """\
version: 1
boot:
  cpu: {poll: adaptive}
  memory: {size: 128M}
  packets: 16383
ports:
  af-packet: {device: "net_af_packet0,iface=v0"}
  tap: {device: "net_tap0,iface=tptap0"}
  memif: {device: "net_memif0,role=server,socket=DIR/memif.sock,socket-abstract=no"}
  ring: {device: "net_ring0"}
interfaces:
  one: {port: af-packet, zone: inside, addresses: [192.168.1.1/24]}
  two: {port: tap, zone: inside, addresses: [192.168.2.1/24]}
  three: {port: memif, zone: inside, addresses: [192.168.3.1/24]}
  four: {port: ring, zone: outside, addresses: [198.51.100.2/24]}
metrics: {listen: "127.0.0.1:17644"}
control: {socket: DIR/control.sock, group: GROUP}
"""


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; what it says is text."""
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    return subprocess.run(words, text=True, capture_output=True, timeout=120, **options)  # type: ignore[call-overload]


def check(good: bool, problem: str) -> None:
    """Ends the test if something is not as it should be."""
    if not good:
        sys.exit(f"tests/packaging/units.py: {problem}")


def install(programs: Path, where: Path) -> None:
    """What a package would have in it, and what systemd looks for beside it."""
    done = run("make", "install", f"DESTDIR={where}", "PREFIX=/usr", f"BIN={programs}", cwd=ROOT)
    check(done.returncode == 0, done.stdout + done.stderr)
    for target in Path("/usr/lib/systemd/system").glob("*.target"):
        shutil.copy(target, where / UNITS, follow_symlinks=True)
    for directory in ("etc/systemd/system", "bin"):
        (where / directory).mkdir(parents=True)
    shutil.copy("/bin/kill", where / "bin")


def verify(where: Path) -> None:
    """systemd's own judgement of the units, and that it judges at all."""
    for unit in ("turnpike.service", "turnpike-bind@.service"):
        done = run("systemd-analyze", "verify", f"--root={where}", where / UNITS / unit)
        check(done.returncode == 0 and not done.stderr, f"{unit}: {done.stderr}")
    text = (where / UNITS / "turnpike.service").read_text()
    broken = where / UNITS / "broken.service"
    broken.write_text(text.replace("WatchdogSec=10", "WatchdogSec=often").replace("/usr/bin/turnpike", "/usr/bin/nosuch"))
    done = run("systemd-analyze", "verify", f"--root={where}", broken)
    check(
        "Failed to parse sec value" in done.stderr and "/usr/bin/nosuch" in done.stderr,
        f"systemd-analyze verify sees no fault in a faulty unit: {done.stderr}",
    )
    broken.unlink()
    for unit, most in (("turnpike.service", EXPOSURE_MOST), ("turnpike-bind@.service", 5.0)):
        done = run(
            "systemd-analyze", "security", "--no-pager", "--offline=true", f"--root={where}",
            f"--threshold={most * 10:.0f}", unit,
        )  # fmt: skip
        print(next((line for line in done.stdout.splitlines() if "Overall exposure" in line), done.stdout + done.stderr))
        check(done.returncode == 0, f"{unit} is more exposed than {most}")


def snippets(where: Path) -> None:
    """The files for sysusers, udev and sysctl, read by those whom they are for."""
    done = run("systemd-sysusers", f"--root={where}", where / "usr/lib/sysusers.d/turnpike.conf")
    check(done.returncode == 0, done.stderr)
    groups = [line.split(":")[0] for line in (where / "etc/group").read_text().splitlines()]
    users = [line.split(":")[0] for line in (where / "etc/passwd").read_text().splitlines()]
    check("turnpike" in groups and "turnpike" in users, f"sysusers made {users} and {groups}")

    # In a mount namespace of its own udev finds the rule where administrators put theirs; events are only made believe.
    rules = where / "usr/lib/udev/rules.d"
    script = f"""
        mount --bind {rules} /etc/udev/rules.d
        udevadm test /sys/class/net/lo 2>&1"""
    done = run("unshare", "--mount", "sh", "-c", script)
    lines = [line for line in done.stdout.splitlines() if "70-turnpike.rules" in line]
    check(any("Reading rules file" in line for line in lines), f"udev did not read the rule: {done.stdout}")
    faults = [line for line in lines if "Reading rules file" not in line and "Unknown group 'turnpike'" not in line]
    check(not faults, "\n".join(faults))

    # The line for huge pages is a proposal; with it, too, the file is one that sysctl reads.
    text = (where / "usr/lib/sysctl.d/80-turnpike.conf").read_text().replace("#vm.", "vm.")
    proposal = where / "sysctl.conf"
    proposal.write_text(text)
    done = run("sysctl", "--dry-run", "--pattern=^vm", f"--load={proposal}")
    check(done.stdout == "vm.nr_hugepages = 1024\n" and not done.stderr, f"sysctl says {done.stdout}{done.stderr}")
    check("\nkernel.nmi_watchdog = 0\n" in text, text)


def binding(where: Path) -> None:
    """The binding script on a made-up sysfs: what it writes, and what it refuses."""
    sysfs = where / "sysfs"
    devices, drivers = sysfs / "bus/pci/devices", sysfs / "bus/pci/drivers"
    for driver in ("vfio-pci", "ixgbe", "mlx5_core"):
        (drivers / driver).mkdir(parents=True)
    for address, driver in (("0000:3b:00.0", "ixgbe"), ("0000:5e:00.0", None), ("0000:af:00.0", "mlx5_core")):
        (devices / address).mkdir(parents=True)
        if driver:
            (devices / address / "driver").symlink_to(f"../../drivers/{driver}")
    probe = sysfs / "bus/pci/drivers_probe"

    def bind(driver: str, address: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TURNPIKE_SYSFS": str(sysfs)}
        return run(where / "usr/libexec/turnpike/bind", driver, address, env=environment)

    def written(path: Path) -> str:
        return path.read_text() if path.exists() else "(nothing)"

    done = bind("vfio-pci", "0000:3b:00.0")
    wrote = [written(path) for path in (devices / "0000:3b:00.0/driver_override", drivers / "ixgbe/unbind", probe)]
    check(done.returncode == 0 and wrote == ["vfio-pci\n", "0000:3b:00.0\n", "0000:3b:00.0\n"], f"{done} wrote {wrote}")
    # The kernel would now have this link.
    (devices / "0000:3b:00.0/driver").unlink()
    (devices / "0000:3b:00.0/driver").symlink_to("../../drivers/vfio-pci")
    probe.unlink()
    check(bind("vfio-pci", "0000:3b:00.0").returncode == 0 and not probe.exists(), "what is bound is bound again")
    done = bind("kernel", "0000:3b:00.0")
    wrote = [written(path) for path in (devices / "0000:3b:00.0/driver_override", drivers / "vfio-pci/unbind", probe)]
    check(done.returncode == 0 and wrote == ["\n", "0000:3b:00.0\n", "0000:3b:00.0\n"], f"{done} wrote {wrote}")

    done = bind("vfio-pci", "0000:5e:00.0")
    check(done.returncode == 0 and written(probe) == "0000:5e:00.0\n", f"a device without a driver: {done}")
    probe.unlink()
    done = bind("vfio-pci", "0000:af:00.0")
    check(done.returncode == 0 and "shares it" in done.stderr and not probe.exists(), f"mlx5 is left alone: {done}")
    # lo stands for an interface with routes: in a namespace of its own, where it is given one.
    (devices / "0000:5e:00.0/net/lo").mkdir(parents=True)
    script = f"ip link set lo up; ip route add 192.0.2.0/24 dev lo; {where}/usr/libexec/turnpike/bind vfio-pci 0000:5e:00.0"
    done = run("unshare", "--net", "sh", "-c", script, env=os.environ | {"TURNPIKE_SYSFS": str(sysfs)})
    check(done.returncode == 1 and "lo, which the kernel has routes by" in done.stderr, f"a device in use: {done}")
    done = bind("vfio-pci", "0000:00:00.0")
    check(done.returncode == 1 and "there is no PCI device" in done.stderr, f"no device: {done}")
    check(bind("ixgbe", "0000:3b:00.0").returncode == 2, "wrong use")


def settings(where: Path) -> dict[str, str]:
    """The unit's settings; of what is set twice, the last."""
    lines = (where / UNITS / "turnpike.service").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key: value for key, value in pairs}


def allowed_calls(filters: str) -> set[str]:
    """The system calls of an allow list, its groups opened."""
    calls: set[str] = set()
    for word in filters.split():
        if not word.startswith("@"):
            calls.add(word)
            continue
        command = ["systemd-analyze", "syscall-filter", "--no-pager", word]
        listing = subprocess.run(command, text=True, capture_output=True, check=True, timeout=60).stdout.splitlines()[1:]
        names = [line.strip() for line in listing if line.strip() and not line.strip().startswith("#")]
        calls |= allowed_calls(" ".join(names))
    return calls


def restricted(where: Path, scratch: Path) -> None:
    """A gateway with the unit's user and capabilities, on ports of every virtual kind: it forwards, and makes no system
    call that the unit forbids. (Namespaces and device lists are systemd's own, and need it to run.)"""
    unit = settings(where)
    capabilities = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in unit["AmbientCapabilities"].split())
    config, trace = scratch / "turnpike.yaml", scratch / "trace"
    config.write_text(CONFIG.replace("DIR", str(scratch)).replace("GROUP", "nogroup"))
    os.chown(scratch, NOBODY, NOBODY)
    script = f"""
        ip link set lo up
        ip link add v0 type veth peer name v1
        ip link set v0 up; ip link set v1 up
        exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all,{capabilities} \
            --ambient-caps=-all,{capabilities} --bounding-set=-all,{capabilities} --no-new-privs \
            strace --follow-forks --summary-only --output={trace} --interruptible=never \
            {where}/usr/bin/turnpike run -c {config}"""
    environment = os.environ | {"RUNTIME_DIRECTORY": str(scratch)}
    print("+ turnpike run, restricted as by the unit", flush=True)
    log = (scratch / "log").open("w+")
    gateway = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 60
        while "forwarding packets" not in (said := (scratch / "log").read_text()) and gateway.poll() is None:
            check(time.monotonic() < deadline, f"not forwarding after a minute: {said}")
            time.sleep(0.2)
        check(gateway.poll() is None, f"ended: {said}")
        asked = run(
            "nsenter", f"--net=/proc/{gateway.pid}/ns/net", ROOT / "docker/healthcheck",
            env=os.environ | {"TURNPIKE_METRICS": "127.0.0.1:17644"},
        )  # fmt: skip
        check(asked.returncode == 0, f"it does not answer: {asked.stderr} {said}")
    finally:
        # strace passes nothing on: its child is told.
        for child in run("pgrep", "--parent", gateway.pid).stdout.split():
            os.kill(int(child), signal.SIGTERM)
        try:
            code = gateway.wait(timeout=30)
        except subprocess.TimeoutExpired:
            gateway.kill()
            raise
    check(code == 0, f"exit code {code}: {(scratch / 'log').read_text()}")
    # Columns: share, seconds, each, calls, errors if there were any, name.
    rows = [line.split() for line in trace.read_text().splitlines() if re.match(r" *\d", line)]
    calls = {row[-1] for row in rows if row[-1] != "total"}
    check({"sched_setaffinity", "ioctl", "mmap"} <= calls, f"strace saw only {calls}")
    # EAL asks for I/O ports (iopl), is refused for lack of a capability, and goes on: a filter's refusal is the same.
    refused = {row[-1] for row in rows if len(row) == 6 and row[3] == row[4]}
    allowed = allowed_calls(unit["SystemCallFilter"])
    check(not calls - allowed - (refused & {"iopl"}), f"the unit forbids {sorted(calls - allowed)}")
    print(f"{len(calls)} different system calls, all that matter allowed")


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="directory of the programs to install")
    programs = parser.parse_args().programs.resolve()
    with tempfile.TemporaryDirectory(prefix="turnpike-units-") as directory:
        where, scratch = Path(directory) / "root", Path(directory) / "scratch"
        scratch.mkdir()
        Path(directory).chmod(0o755)
        install(programs, where)
        verify(where)
        snippets(where)
        binding(where)
        restricted(where, scratch)
    print("units: good")


if __name__ == "__main__":
    main()
