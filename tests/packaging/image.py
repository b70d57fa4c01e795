#!/usr/bin/env python3
"""Whether docker/Dockerfile makes an image in which the gateway works.

The stage that runs is built in full, around programs that are built already: buildah takes them from a directory in the
builder stage's stead (`--build-context`), so neither a daemon nor a registry is needed. What the tag debian:bookworm-slim
names is made by debootstrap. Of the builder stage the commands are compared: those of the Makefile, which other tests run.

Needs root and a Debian mirror. All that is made is in a temporary directory, the image too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from units import CONFIG, ROOT  # noqa: E402

DOCKERFILE = ROOT / "docker/Dockerfile"
BUILDER = [
    "RUN apt-get update -q && apt-get install -q -y --no-install-recommends make",
    "WORKDIR /src",
    "COPY . .",
    "RUN tests/dependencies.sh build",
    "RUN make install DESTDIR=/out PREFIX=/usr",
]
"""The builder stage: what a user's own machine would run too."""
GIVEN = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
"""The capabilities that a container has when nothing is said of them (containers.conf(5))."""


def check(good: bool, problem: str) -> None:
    """Ends the test if something is not as it should be."""
    if not good:
        sys.exit(f"tests/packaging/image.py: {problem}")


def run(*command: object, timeout: float = 300) -> str:
    """Runs a program that must succeed, and gives what it said."""
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    began = time.monotonic()
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    print(f"  {time.monotonic() - began:.1f} s", flush=True)
    check(done.returncode == 0, f"{words[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}")
    return done.stdout


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.command = [
            "buildah", "--root", directory / "store", "--runroot", directory / "run", "--storage-driver", "vfs",
        ]  # fmt: skip

    def __call__(self, *arguments: object) -> str:
        """Runs a command of it; gives the last line that it says."""
        lines = run(*self.command, *arguments).strip().splitlines()
        return lines[-1] if lines else ""

    def inside(self, container: str, *command: object) -> list[object]:
        """The command line that runs something in a container, with the rights that compose.yaml gives it."""
        listed = (ROOT / "docker/compose.yaml").read_text().split("cap_add:\n")[1].split("security_opt")[0]
        names = re.findall(r"^      - (\w+)", listed, re.MULTILINE)
        rights = [word for name in names for word in ("--cap-add", f"CAP_{name}")]
        # buildah would drop all after having added: what it gives by itself is named.
        for name in GIVEN.split():
            rights += ["--cap-drop", f"CAP_{name}"]
        return [*self.command, "run", "--isolation", "chroot", *rights, container, "--", *command]


def builder_stage() -> None:
    """The builder stage does nothing that the Makefile doesn't."""
    stage = DOCKERFILE.read_text().split("FROM debian:bookworm AS builder\n")[1].split("\nFROM ")[0]
    lines = [line for line in stage.splitlines() if line and not line.startswith("#")]
    check(lines == BUILDER, f"the builder stage has other commands: {lines}")


def base(buildah: Buildah, directory: Path) -> None:
    """Debian's smallest system, under the name that the Dockerfile begins with."""
    system = directory / "base"
    system.mkdir()
    # In memory: dpkg waits for the disk after every file.
    run("mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "tmpfs", system)
    run("debootstrap", "--variant=minbase", "bookworm", system, timeout=600)
    for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(system / waste)
        (system / waste / "partial").mkdir(parents=True)
    # As in Debian's own image: an image that is cut short is thrown away, so dpkg need not wait for the disk.
    (system / "etc/dpkg/dpkg.cfg.d/docker-apt-speedup").write_text("force-unsafe-io\n")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, system, "/")
    buildah("commit", "--quiet", "--rm", container, "debian:bookworm-slim")
    run("umount", system)


def build(buildah: Buildah, programs: Path, directory: Path) -> str:
    """The image, and a container of it."""
    builder = directory / "builder"
    run("make", "-C", ROOT, "install", f"DESTDIR={builder}/out", "PREFIX=/usr", f"BIN={programs}")
    buildah(
        "build", "--isolation", "chroot", "--pull=never", "--format", "docker", "--target", "runtime",
        "--ignorefile", f"{DOCKERFILE}.dockerignore", "--build-context", f"builder={builder}", "-f", DOCKERFILE,
        "-t", "turnpike", ROOT,
    )  # fmt: skip
    about = json.loads(run(*buildah.command, "inspect", "--type", "image", "turnpike"))["Docker"]["config"]
    check(about["Entrypoint"] == ["turnpike"] and about["Cmd"] == ["run"], f"it would start {about}")
    check(about["Healthcheck"]["Test"] == ["CMD", "/usr/libexec/turnpike/healthcheck"], f"its health: {about}")
    return buildah("from", "--pull-never", "turnpike")


def libraries(buildah: Buildah, container: str) -> None:
    """The packages of the image suffice for the program and for every driver."""
    version = run(*buildah.inside(container, "turnpike", "--version")).strip()
    check(bool(re.fullmatch(r"turnpike \d+\.\d+\.\d+", version)), f"--version says {version}")
    script = "for file in /usr/bin/turnpike /usr/lib/*/dpdk/pmds-*/*.so*; do echo $file; ldd $file; done"
    said = run(*buildah.inside(container, "sh", "-c", script))
    missing = [line for line in said.splitlines() if "not found" in line]
    check(not missing, f"libraries are missing: {missing}")
    drivers = set(re.findall(r"/pmds-[^/]+/librte_net_(\w+)\.so", said))
    wanted = {"af_packet", "af_xdp", "memif", "tap", "ring", "virtio", "vhost", "ice", "i40e", "ixgbe", "iavf", "mlx5"}
    check(wanted <= drivers, f"drivers are missing: {sorted(wanted - drivers)}")
    print(f"{len(drivers)} network drivers, all with their libraries")


def works(buildah: Buildah, container: str, directory: Path) -> None:
    """`turnpike check` on the example configurations; and a gateway on virtual ports of several kinds that is healthy, by the
    image's own word, and ends when told to."""
    masks = run(*buildah.inside(container, "grep", "CapEff", "/proc/self/status"))
    mask = int(masks.split()[-1], 16)
    check(mask == 1 << 12 | 1 << 13 | 1 << 14, f"the container has more or fewer capabilities than intended: {mask:#x}")
    for example in ("minimal", "home", "nat44"):
        said = run(*buildah.inside(container, "turnpike", "check", f"/usr/share/doc/turnpike/examples/{example}.yaml"))
        check("is good. It says:" in said, said)
    config, log = directory / "turnpike.yaml", directory / "log"
    config.write_text(CONFIG.replace("DIR/control", "/run/turnpike/control").replace("DIR", "/tmp").replace("GROUP", "turnpike"))
    buildah("copy", container, config, "/etc/turnpike/turnpike.yaml")
    gateway = " ".join(str(word) for word in buildah.inside(container, "turnpike", "run"))
    script = f"""
        ip link set lo up
        ip link add v0 type veth peer name v1
        ip link set v0 up; ip link set v1 up
        exec {gateway}"""
    print("+ turnpike run, in the image", flush=True)
    with log.open("w") as out:
        process = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while "forwarding packets" not in log.read_text() and process.poll() is None:
            check(time.monotonic() < deadline, f"not forwarding after a minute: {log.read_text()}")
            time.sleep(0.2)
        check(process.poll() is None, f"ended: {log.read_text()}")
        environment = ["env", "TURNPIKE_METRICS=127.0.0.1:17644"]
        health = buildah.inside(container, *environment, "/usr/libexec/turnpike/healthcheck")
        run("nsenter", f"--net=/proc/{process.pid}/ns/net", *health)
        said = run(*buildah.inside(container, "turnpikectl", "status"))
        check(bool(re.search(r"^ports +\d of 4 up$", said, re.MULTILINE)), said)
        gateways = [pid for pid in descendants(process.pid) if os.readlink(f"/proc/{pid}/exe").endswith("/bin/turnpike")]
        check(len(gateways) == 1, f"the gateway is not to be found: {gateways}")
        os.kill(gateways[0], signal.SIGTERM)
        check(process.wait(timeout=30) == 0, f"it did not end well: {log.read_text()}")
    finally:
        if process.poll() is None:
            for pid in [*descendants(process.pid), process.pid]:
                os.kill(pid, signal.SIGKILL)
            process.wait()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and these, and so on."""
    # Any thread may have started them.
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [found for child in children for found in (*descendants(int(child)), int(child))]


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="directory of the programs to put into the image")
    programs = parser.parse_args().programs.resolve()
    builder_stage()
    with tempfile.TemporaryDirectory(prefix="turnpike-image-") as name:
        directory = Path(name)
        buildah = Buildah(directory)
        try:
            base(buildah, directory)
            container = build(buildah, programs, directory)
            libraries(buildah, container)
            works(buildah, container, directory)
        finally:
            # Whatever a container left mounted, before its files are removed.
            subprocess.run([*buildah.command, "rm", "--all"], capture_output=True, timeout=60)
            if (directory / "base").is_mount():
                run("umount", directory / "base")
    print("image: good")


if __name__ == "__main__":
    main()
