"""turnpikectl against a running gateway with real traffic: what it says, compared with what the other side saw."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checks import Scene, Seen, curl, expect, ping
from gateway import CONTROL, configuration
from group import Group, bound, listener, sockets, turnpike
from lab import H1, H2, POOL, ROUTER, RUN, SERVER

Row = dict[str, object]


def listed(scene: Scene, *arguments: str) -> list[Row]:
    """What turnpikectl lists, as JSON."""
    return list(told(scene, *arguments))


def told(scene: Scene, *arguments: str) -> Row:
    """What turnpikectl says, as JSON."""
    done = turnpike(scene).ctl("--json", *arguments)
    expect(done.returncode == 0, f"turnpikectl {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> str:
    """Expects an exit status and words on standard error, and nothing on standard output."""
    expect(done.returncode == status, f"exit status {done.returncode}, not {status}: {done.stderr.strip()}")
    for word in words:
        expect(word in done.stderr, f"does not say {word!r}: {done.stderr.strip()}")
    expect(not done.stdout, f"prints {done.stdout[:80]!r}")
    return done.stderr.strip()


CTL = Group(lambda _: configuration(group="nogroup"))


@CTL.test("ctl: status counts what there is")
def _status(scene: Scene) -> Seen:
    status = told(scene, "status")
    process = turnpike(scene).process
    assert process is not None
    expect(status["pid"] == process.pid, f"it is process {process.pid}, not {status['pid']}")
    expect(status["ready"] is True and status["generation"] == 1, f"{status}")
    expect(status["config"] == [str(turnpike(scene).path)], f"its configuration is {status['config']}")
    expect((status["workers"], status["ports"], status["ports_up"]) == (1, 2, 2), f"{status}")
    text = turnpike(scene).ctl("status").stdout
    expect("forwards packets" in text and str(turnpike(scene).path) in text, text)
    return Seen(text.splitlines()[0])


@CTL.test("ctl: sessions and mappings are those that the server saw, and end when they are flushed")
def _sessions(scene: Scene) -> Seen:
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7100))
        inside = use(bound(scene.lab.h1, H1, 7200))
        inside.sendto(b"hello", server.getsockname())
        _, (address, port) = server.recvfrom(16)
        web = use(listener(scene.lab.server, SERVER, 7101))
        client = use(bound(scene.lab.h2, H2, 7201, kind=1))
        client.connect(web.getsockname())
        connection, (tcp_address, tcp_port) = web.accept()
        use(connection)

        rows = listed(scene, "session", "list", "--inside", H1, "--remote", SERVER, "--proto", "udp")
        rows = [row for row in rows if row["remote_port"] == 7100]
        wanted = {
            "proto": "udp", "state": "active", "inside": H1, "inside_port": 7200, "external": address,
            "external_port": port, "remote": SERVER, "remote_port": 7100, "opened": "inside", "kind": "rule",
            "rule": "everyone",
        }  # fmt: skip
        expect(len(rows) == 1 and wanted.items() <= rows[0].items(), f"the server saw {address}:{port}; {rows}")
        expect(290 <= rows[0]["expires_seconds"] <= 300, f"{rows[0]}")
        rows = listed(scene, "session", "list", "--external-port", str(tcp_port), "--proto", "tcp")
        rows = [row for row in rows if row["external"] == tcp_address]
        expect([row["state"] for row in rows] == ["established"], f"the TCP session: {rows}")
        filters = ("--proto", "udp", "--external", address, "--external-port", str(port))
        rows = listed(scene, "mapping", "list", *filters)
        wanted = {"inside": H1, "inside_port": 7200, "sessions": 1, "held_down": False, "rule": "everyone"}
        expect(len(rows) == 1 and wanted.items() <= rows[0].items(), f"the mapping: {rows}")
        expect(told(scene, "session", "count", *filters) == {"sessions": 1}, "they are not counted as 1")
        table = turnpike(scene).ctl("session", "list", *filters).stdout.splitlines()
        expect(len(table) == 2 and table[1].split()[:4] == ["udp", "active", f"{H1}:7200", f"{address}:{port}"], table)

        before = turnpike(scene).metrics()
        expect(told(scene, "session", "flush", *filters) == {"sessions": 1}, "not 1 session was ended")
        flushed = 'turnpike_session_deletions_total{cause="flush"}'
        expect(turnpike(scene).metrics()[flushed] == before[flushed] + 1, "the metric does not count it")
        expect(listed(scene, "session", "list", *filters) == [], "it is still listed")
        server.sendto(b"too late", (address, port))
        inside.settimeout(0.5)
        try:
            inside.recv(16)
            expect(False, "a packet from outside came in after the flush")
        except TimeoutError:
            pass
        client.send(b"still there")
        expect(connection.recv(16) == b"still there", "another session was ended too")
    return Seen(f"{address}:{port} and {tcp_address}:{tcp_port}")


@CTL.test("ctl: sessions from outside are listed under the forward that let them in")
def _forward(scene: Scene) -> Seen:
    with sockets() as use:
        inside = use(bound(scene.lab.h2, H2, 27003))
        client = use(bound(scene.lab.server, SERVER))
        client.sendto(b"hello", (POOL[0], 27003))
        inside.recv(16)
        rows = listed(scene, "session", "list", "--rule", "games", "--external-port", "27003")
        source = client.getsockname()
    rows = [row for row in rows if (row["remote"], row["remote_port"]) == source]
    wanted = {"kind": "forward", "opened": "outside", "inside": H2, "inside_port": 27003, "external": POOL[0]}
    expect(len(rows) == 1 and wanted.items() <= rows[0].items(), f"{rows}")
    return Seen(f"{source[0]}:{source[1]}")


@CTL.test("ctl: pools, interfaces, neighbours, routes, the worker and the drops are as the lab knows them")
def _lists(scene: Scene) -> Seen:
    ping(scene.lab.h1, SERVER, count=1)
    (pool,) = listed(scene, "pool", "list")
    expect((pool["pool"], pool["addresses"], pool["ports"]) == ("public", len(POOL), len(POOL) * 65535), f"{pool}")
    expect(pool["blocks_used"] > 0 and pool["blocks_used"] + pool["blocks_free"] == pool["blocks"], f"{pool}")
    addresses = listed(scene, "pool", "list", "--addresses")
    expect([row["address"] for row in addresses] == POOL, f"{addresses}")
    for key in ("tcp_used", "udp_used", "icmp_used", "blocks_used"):
        expect(sum(row[key] for row in addresses) == pool[key], f"{key}: {addresses} do not add up to {pool}")

    before = {row["interface"]: row for row in listed(scene, "interface", "list")}
    ping(scene.lab.h1, SERVER, count=2)
    after = {row["interface"]: row for row in listed(scene, "interface", "list")}
    expect(list(after) == ["inside", "uplink"], f"{after}")
    for name, row in after.items():
        for key in ("received_packets", "transmitted_packets"):
            expect(row[key] >= before[name][key] + 2, f"{name}: {key} went from {before[name][key]} to {row[key]}")
    for name, device in (("inside", "lan0"), ("uplink", "wan0")):
        # The gateway's stations, as the kernels of its neighbours know them.
        mac = json.loads(scene.lab.gw.ip("-j", "link", "show", device))[0]["address"]
        expect(after[name]["mac"] == mac and after[name]["up"] is True, f"{name}: {after[name]}, {device} is {mac}")

    neighbours = {row["address"]: row for row in listed(scene, "neighbour", "list")}
    for address, space, device in ((H1, scene.lab.h1, "eth0"), (ROUTER, scene.lab.router, "up0")):
        mac = json.loads(space.ip("-j", "link", "show", device))[0]["address"]
        row = neighbours.get(address)
        expect(row and row["mac"] == mac, f"{address} is at {mac}; {row}")
        expect(row["state"] in ("reachable", "stale", "delay", "probe"), f"{row}")

    routes = {row["to"]: row for row in listed(scene, "route", "list")}
    expect(routes["0.0.0.0/0"]["via"] == ROUTER and routes["0.0.0.0/0"]["interface"] == "uplink", f"{routes}")
    expect(routes["192.168.1.0/24"]["kind"] == "connected" and not routes["192.168.1.0/24"]["withdrawn"], f"{routes}")

    (worker,) = listed(scene, "worker", "show")
    received = sum(row["received_packets"] for row in after.values())
    expect(worker["received"] >= received and worker["polls"] > worker["empty_polls"], f"{received}: {worker}")
    expect(0 <= worker["busy"] <= 1 and 0 < worker["buffers_free"] <= worker["buffers"], f"{worker}")

    # A server's kernel still repeats segments of connections that earlier tests cut off: one window must be free of them.
    for attempt in range(5):
        drops = {row["reason"]: row["packets"] for row in listed(scene, "stats")}
        with sockets() as use:
            outside = use(bound(scene.lab.server, SERVER))
            for _ in range(3):
                outside.sendto(b"stranger", (POOL[1], 9))
                time.sleep(0.05)
        time.sleep(0.3)
        now = {row["reason"]: row["packets"] for row in listed(scene, "stats")}
        strays = now["unsolicited"] - drops["unsolicited"] - 3
        if strays == 0:
            break
        expect(strays > 0 and attempt < 4, f"unsolicited: {drops['unsolicited']}, {now['unsolicited']}")
    explained = turnpike(scene).ctl("stats", "--explain").stdout
    line = re.search(rf"^nat44 unsolicited: {now['unsolicited']}\n.*\n    To do: .+", explained, re.M)
    expect(line, "stats --explain does not explain it")
    return Seen(f"{len(after)} interfaces, {len(neighbours)} neighbours, {len(routes)} routes, {len(drops)} reasons")


@CTL.test("ctl: reload says what changes, then changes it; what is allowed goes on; a wrong file changes nothing")
def _reload(scene: Scene) -> Seen:
    gateway, before = turnpike(scene), told(scene, "status")["generation"]
    text = gateway.path.read_text(encoding="utf-8")
    expect("nothing changes" in gateway.ctl("reload", "--check").stdout, "it changes something without a change")
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7110))
        inside = use(bound(scene.lab.h1, H1, 7210))
        inside.sendto(b"before", server.getsockname())
        _, peer = server.recvfrom(16)
        try:
            gateway.path.write_text(text + "\ntimers: {udp: 200s}\n", encoding="utf-8")
            check = told(scene, "reload", "--check")
            expect((check["applied"], check["generation"]) == (False, before + 1), f"{check}")
            expect([change["key"] for change in check["changes"]] == ["timers.udp"], f"{check}")
            expect(told(scene, "status")["generation"] == before, "a check changes the generation")
            done = told(scene, "reload")
            expect((done["applied"], done["generation"]) == (True, before + 1), f"{done}")
            expect(told(scene, "status")["generation"] == before + 1, "it is another generation than was said")
            inside.sendto(b"after", server.getsockname())
            expect(server.recvfrom(16) == (b"after", peer), "the session has not gone on")
            rows = listed(scene, "session", "list", "--inside", H1, "--proto", "udp", "--external-port", str(peer[1]))
            expect([190 <= row["expires_seconds"] <= 200 for row in rows] == [True], f"not by the new timer: {rows}")
            gateway.path.write_text(text + "\ntimers: {udp: 1s}\n", encoding="utf-8")
            said = refused(gateway.ctl("reload"), 1, str(gateway.path), "timers.udp", "1s")
            expect(told(scene, "status")["generation"] == before + 1, "a wrong file changes the generation")
        finally:
            gateway.path.write_text(text, encoding="utf-8")
            gateway.ctl("reload")
    return Seen(said)


LISTS = ["session list", "mapping list", "pool list", "pool list --addresses", "interface list", "neighbour list",
         "route list", "worker show", "stats"]  # fmt: skip
OBJECTS = ["status", "session count"]


@CTL.test("ctl: every list is the same as a table, JSON and CSV; and curl reads the socket too")
def _formats(scene: Scene) -> Seen:
    curl(scene.lab.h1, f"http://{SERVER}/who")
    for command in [*LISTS, *OBJECTS]:
        said = told(scene, *command.split())
        rows = said if command in LISTS else [said]
        done = turnpike(scene).ctl("--csv", *command.split())
        table = list(csv.DictReader(io.StringIO(done.stdout)))
        expect(done.returncode == 0 and table, f"{command} --csv: {done.stderr}{done.stdout}")
        expect(list(table[0]) == list(rows[0]), f"{command}: CSV has {list(table[0])}, JSON {list(rows[0])}")
        lines = turnpike(scene).ctl(*command.split()).stdout.splitlines()
        if command in LISTS:
            expect(lines[0].isupper(), f"{command}: no titles: {lines[0]}")
        # Neighbours and sessions come and go.
        if command.split()[0] in ("pool", "interface", "route", "worker", "stats"):
            expect(len(table) == len(rows) == len(lines) - 1, f"{command}: {len(table)}, {len(rows)}, {len(lines) - 1}")
    done = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(CONTROL), "http://turnpike/v1/routes"],
        timeout=10, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expect(rows == listed(scene, "route", "list"), f"curl: {done.stderr}{done.stdout}")
    return Seen(f"{len(LISTS) + len(OBJECTS)} commands")


@contextmanager
def program(scene: Scene) -> Iterator[Path]:
    """A copy of turnpikectl that every user can run."""
    with tempfile.TemporaryDirectory(prefix="turnpikectl") as directory:
        os.chmod(directory, 0o755)
        yield Path(shutil.copy(turnpike(scene).binary.with_name("turnpikectl"), directory))


def as_user(binary: Path, user: str, group: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs turnpikectl as this user and group, without other groups."""
    identity = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    command = [*identity, str(binary), "--socket", str(CONTROL), *arguments]
    return subprocess.run(command, timeout=20, capture_output=True, text=True, check=False)


@CTL.test("ctl: a member of the group may look, and only that; another user nothing")
def _rights(scene: Scene) -> Seen:
    with program(scene) as binary:
        # Debian's nobody is in nogroup; daemon is not, but may run as it.
        for user, group in (("nobody", "nogroup"), ("nobody", "daemon"), ("daemon", "nogroup")):
            for command in [*LISTS, *OBJECTS]:
                done = as_user(binary, user, group, *command.split())
                expect(done.returncode == 0 and done.stdout, f"{user}:{group}: {command}: {done.stderr.strip()}")
            for command in ("session flush --all", "reload", "reload --check"):
                done = as_user(binary, user, group, *command.split())
                refused(done, 1, "only root may change anything", user, "sudo")
        for command in [*LISTS, *OBJECTS, "session flush --all", "reload"]:
            done = as_user(binary, "daemon", "daemon", *command.split())
            said = refused(done, 1, "daemon is not in the group `nogroup` (control.group)", "usermod -aG nogroup daemon")
    return Seen(said)


@CTL.test("ctl: wrong use ends with status 2, a reader that leaves with 0")
def _wrong_use(scene: Scene) -> Seen:
    ctl = turnpike(scene).ctl
    refused(ctl("session", "flush"), 2, "nothing says which sessions are to end", "all")
    refused(ctl("session", "list", "--rule", "everone"), 2, "no rule, forward or static entry `everone`", "everyone")
    refused(ctl("session", "list", "--inside", "192.168.1.300"), 2, "192.168.1.300", "192.168.0.0/16")
    refused(ctl("sessions"), 2, "session")
    refused(ctl("stats", "--csv", "--json"), 2, "--csv")
    command = f"{turnpike(scene).binary.with_name('turnpikectl')} --socket {CONTROL}"
    for arguments in ("stats", "stats --json", "stats --csv", "stats --explain", "completions zsh"):
        line = f"set -o pipefail; {command} {arguments} | head -n 1"
        done = subprocess.run(["bash", "-c", line], timeout=20, capture_output=True, text=True, check=False)
        expect((done.returncode, done.stderr) == (0, ""), f"{arguments} | head: {done.returncode} {done.stderr.strip()}")
    return Seen("")


FLOWS = 50_000


def flows(scene: Scene) -> list[Row]:
    """The sessions of `make_flows` that are there."""
    rows = listed(scene, "session", "list", "--inside", H1, "--proto", "udp", "--remote", SERVER)
    return [row for row in rows if row["inside_port"] == 7300]


def make_flows(scene: Scene) -> None:
    """Opens a session with each port of the server up to FLOWS, until all are there. What the server answers (port
    unreachable) is part of the load."""
    sender = bound(scene.lab.h1, H1, 7300)
    with sender:
        for _ in range(10):
            missing = set(range(1, FLOWS + 1)) - {row["remote_port"] for row in flows(scene)}
            if not missing:
                return
            for count, port in enumerate(missing):
                sender.sendto(b"x", (SERVER, port))
                if count % 50 == 0:
                    time.sleep(0.002)
            time.sleep(0.5)
    expect(False, f"{len(missing)} of {FLOWS} sessions can't be made")


@CTL.test("ctl: 50,000 sessions are listed, each once, during a ping flood that loses nothing")
def _many(scene: Scene) -> Seen:
    make_flows(scene)
    stop, lists, failures = threading.Event(), [], []

    def look() -> None:
        while not stop.is_set():
            try:
                rows = flows(scene)
                ports = {row["remote_port"] for row in rows}
                expect(len(rows) == len(ports), f"{len(rows)} rows, {len(ports)} sessions")
                expect(ports >= set(range(1, FLOWS + 1)), f"only {len(ports)} of {FLOWS}")
                lists.append(len(rows))
            except Exception as failure:  # noqa: BLE001 (told below)
                failures.append(failure)
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        done = scene.lab.h2.run("ping", "-n", "-q", "-f", "-c", "20000", "-w", "30", SERVER, seconds=40)
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
    sent, answered = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", done.stdout)[0])
    # With a deadline ping may have one more on its way.
    expect(answered >= 1000 and sent - answered <= 1, f"ping -f: {done.stdout.strip()[-200:]}")
    expect(lists, "not one list was complete before the pings were")
    expect(told(scene, "session", "flush", "--inside", H1, "--proto", "udp")["sessions"] >= FLOWS, "not all were ended")
    expect(flows(scene) == [], "some are left")
    return Seen(f"{answered} pings, {len(lists)} lists of {lists[0]} sessions")


# --- starting and stopping ------------------------------------------------------------------------------------------

CTL_LIFE = Group(None)


@CTL_LIFE.test("ctl: supplementary members of the group may look (getgrouplist)")
def _supplementary(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    groups = scene.lab.work / "group"
    groups.write_text(Path("/etc/group").read_text(encoding="utf-8") + "turnpike-test:x:64321:daemon\n", encoding="utf-8")
    line = gateway.run_line()
    # `ip netns exec` gives each process mounts of its own.
    gateway.run_line = lambda: ["sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', str(groups), *line]  # type: ignore[method-assign]
    try:
        gateway.start(configuration(group="turnpike-test"))
    finally:
        del gateway.run_line  # type: ignore[method-assign]
    try:
        with program(scene) as binary:
            done = as_user(binary, "daemon", "daemon", "session", "count")
            expect(done.returncode == 0, f"daemon: {done.stderr.strip()}")
            said = refused(as_user(binary, "nobody", "nogroup", "status"), 1, "nobody is not in the group `turnpike-test`")
    finally:
        gateway.stop()
    return Seen(said)


@CTL_LIFE.test("ctl: without a group root alone; a killed gateway's socket is replaced, a living one's not")
def _socket(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    ctl = gateway.ctl
    refused(ctl("status"), 1, f"no turnpike answers on {CONTROL}", "there is no such socket", "systemctl start turnpike")
    gateway.start(configuration())
    with program(scene) as binary:
        said = refused(as_user(binary, "nobody", "nogroup", "status"), 1, "only root may use this socket", "control.group")
    expect(ctl("status").returncode == 0, "root is refused")
    mode = CONTROL.stat().st_mode & 0o777
    expect(mode == 0o666, f"its mode is {mode:o}")
    second = scene.lab.work / "second.yaml"
    second.write_text(configuration(), encoding="utf-8")
    done = scene.lab.gw.run(str(gateway.binary), "run", "-c", str(second))
    expect(done.returncode == 1 and "another turnpike runs" in done.stdout, f"{done.returncode}: {done.stdout[-300:]}")
    expect(ctl("status").returncode == 0, "the first does not answer any more")
    gateway.stop(9)
    refused(ctl("status"), 1, "the socket of one that has ended", "turnpike run")
    gateway.start(configuration())
    expect(ctl("status").returncode == 0, "the next does not answer")
    gateway.stop()
    expect(not CONTROL.exists(), "the socket is still there")
    text = configuration(group="no-such-group")
    second.write_text(text, encoding="utf-8")
    done = scene.lab.gw.run(str(gateway.binary), "run", "-c", str(second))
    wanted = "control.group: this machine has no group `no-such-group`"
    expect(done.returncode == 1 and wanted in done.stdout, f"{done.returncode}: {done.stdout[-300:]}")
    return Seen(said)


@CTL_LIFE.test("ctl: completions that bash takes, and manual pages that man takes")
def _papers(scene: Scene) -> Seen:
    gateway = turnpike(scene)
    for shell in ("bash", "zsh", "fish"):
        done = gateway.ctl("completions", shell)
        expect(done.returncode == 0 and "neighbour" in done.stdout, f"{shell}: {done.stderr}")
    done = subprocess.run(
        ["bash", "-c", 'source /dev/stdin; COMP_WORDS=(turnpikectl se); COMP_CWORD=1; _turnpikectl turnpikectl se turnpikectl; echo "${COMPREPLY[@]}"'],
        input=gateway.ctl("completions", "bash").stdout, timeout=10, capture_output=True, text=True, check=False,
    )  # fmt: skip
    expect(done.stdout.strip() == "session", f"bash completes `turnpikectl se` with {done.stdout!r} {done.stderr}")
    pages = RUN / "man"
    pages.mkdir(parents=True, exist_ok=True)
    for name in ("turnpike", "turnpikectl"):
        binary = gateway.binary.with_name(name)
        subprocess.run([str(binary), "man", str(pages)], timeout=10, check=True)
    names = {page.name for page in pages.iterdir()}
    wanted = {"turnpike.1", "turnpike-run.1", "turnpikectl.1", "turnpikectl-session-list.1", "turnpikectl-stats.1"}
    expect(names >= wanted, f"there are only {sorted(names)}")
    expect(not any("-man" in name for name in names), f"the hidden command has a page: {sorted(names)}")
    return Seen(f"{len(names)} pages")


CTL_GROUPS = [CTL, CTL_LIFE]
