"""Reload of a running gateway: what goes on, what ends, and what is refused."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from checks import Failed, Scene, Seen, expect, ping, upload
from gateway import configuration
from group import Group, bound, sockets, turnpike
from lab import H1, H2, POOL, SERVER, wait_for

RELOADED = 'turnpike_session_deletions_total{cause="reload"}'
SUCCESSFUL = "turnpike_config_last_reload_successful"


def rewrite(scene: Scene, text: str) -> None:
    """Writes the configuration file anew. The gateway hears nothing of it."""
    turnpike(scene).path.write_text(text, encoding="utf-8")


def reload(scene: Scene, text: str, *options: str) -> dict[str, object]:
    """Has the gateway read this configuration, and gives what it says of it. It has checked every session afterwards."""
    rewrite(scene, text)
    said = len(scene.lab.log("turnpike"))
    done = turnpike(scene).ctl("--json", "reload", *options)
    expect(done.returncode == 0, f"turnpikectl reload: {done.stderr.strip()}")
    report: dict[str, object] = json.loads(done.stdout)
    if report["applied"] and report["changes"]:
        checked = rf'every session checked" generation={report["generation"]}\b'
        wait_for(lambda: re.search(checked, scene.lab.log("turnpike")[said:]), 5, "the end of the check of all sessions")
    return report


def refused(scene: Scene, text: str, *words: str) -> str:
    """Has the gateway read this configuration, and expects it to refuse it with these words, and to go on."""
    generation = json.loads(turnpike(scene).ctl("--json", "status").stdout)["generation"]
    rewrite(scene, text)
    done = turnpike(scene).ctl("reload")
    expect(done.returncode == 1, f"turnpikectl reload: exit status {done.returncode}")
    for word in words:
        expect(word in done.stderr, f"does not say {word!r}: {done.stderr.strip()}")
    expect(turnpike(scene).metrics()[SUCCESSFUL] == 0, "the metric says that it went well")
    after = json.loads(turnpike(scene).ctl("--json", "status").stdout)["generation"]
    expect(after == generation, f"generation {generation} has become {after}")
    return done.stderr.strip()


def keys(report: dict[str, object]) -> list[str]:
    """The keys that it says are changed."""
    changes = report["changes"]
    assert isinstance(changes, list)
    return [change["key"] for change in changes]


def hears_nothing(end: socket.socket, otherwise: str) -> None:
    """Expects that nothing comes within half a second."""
    end.settimeout(0.5)
    try:
        end.recv(16)
    except TimeoutError:
        return
    raise Failed(otherwise)


RELOAD = Group(lambda _: configuration())


@RELOAD.test("reload: what did not change says so, and a check changes nothing")
def _check(scene: Scene) -> Seen:
    report = reload(scene, configuration())
    expect((report["changes"], report["generation"]) == ([], 1), f"{report}")
    report = reload(scene, configuration(rule="inbound-refresh: false"), "--check")
    expect(keys(report) == ["nat44.rules.everyone.inbound-refresh"], f"{report}")
    expect(not report["applied"], f"{report}")
    status = json.loads(turnpike(scene).ctl("--json", "status").stdout)
    expect(status["generation"] == 1, f"{status}")
    shown = turnpike(scene).ctl("reload", "--check").stdout
    expect("nat44.rules.everyone.inbound-refresh" in shown and "true becomes false" in shown, shown)
    return Seen(keys(report)[0])


RELOADS = 1000


def variant(chance: random.Random) -> str:
    """One of many configurations that all allow what h1 and h2 do: interfaces, forwards and pool addresses come and go."""
    some = sorted(chance.sample(POOL[1:], 3))
    text = configuration(
        pool=", ".join([POOL[0], *some]),
        rule=chance.choice(("", "inbound-refresh: false", "port-parity: false; pooling: paired-soft")),
        mss_clamp=chance.choice(("off", "1200", "from-mtu")),
        guests=chance.choice((None, "02:00:00:00:00:99")),
    )
    if chance.random() < 0.5:
        port = chance.randrange(20, 60)
        forward = f'    new{port % 3}:\n      from: outside\n      to: inside\n      protocol: udp\n      external: "{POOL[0]}:{port}"\n'
        text = text.replace("  forwards:\n", f'  forwards:\n{forward}      inside: "{H1}:7301"\n')
    return text.replace("metrics:\n", f"timers: {{udp: {chance.randrange(120, 400)}s}}\n\nmetrics:\n")


@RELOAD.test(f"reload under load: {RELOADS:,} of them, uploads and pings go on, nothing is lost, memory stays")
def _under_load(scene: Scene) -> Seen:
    gateway, chance, over = turnpike(scene), random.Random(3), threading.Event()
    assert gateway.process is not None
    process, uploads, pings, faults = gateway.process.pid, [], [], []

    def memory() -> int:
        """Its resident memory in KiB."""
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    def uploading() -> None:
        while not over.is_set():
            uploads.append(upload(scene, scene.lab.h1, f"http://{SERVER}", "under-reload"))

    def pinging() -> None:
        while not over.is_set():
            pings.append(ping(scene.lab.h2, SERVER, "-i", "0.02", "-w", "30", count=100))

    def watched(load: Callable[[], None]) -> None:
        try:
            load()
        except Exception as fault:  # noqa: BLE001
            faults.append(fault)

    threads = [threading.Thread(target=watched, args=(load,)) for load in (uploading, pinging)]
    for thread in threads:
        thread.start()
    early = 0
    for turn in range(RELOADS):
        reload(scene, variant(chance))
        if turn == RELOADS // 5:
            early = memory()
    late = memory()
    over.set()
    for thread in threads:
        thread.join(60)
    expect(not faults, f"{faults}")
    metrics = gateway.metrics()
    expect(metrics[RELOADED] == 0, f"{metrics[RELOADED]} sessions were ended")
    expect(metrics["turnpike_packets_imbalance"] == 0, f"{metrics['turnpike_packets_imbalance']} packets are missing")
    expect(metrics['turnpike_mempool_free{worker="0"}'] > 10_000, "packet buffers are missing")
    expect(late - early < 4096, f"its memory has grown from {early} to {late} KiB")
    reload(scene, configuration())
    return Seen(f"{len(uploads)} uploads, {100 * len(pings)} pings; {early} and then {late} KiB")


@RELOAD.test("reload by SIGHUP: a wrong file is refused by line and column, a right one applied")
def _signal(scene: Scene) -> Seen:
    process = turnpike(scene).process
    assert process is not None
    wrong = configuration().replace("pool: public", "pool: pubic")
    rewrite(scene, wrong)
    line = next(n for n, text in enumerate(wrong.splitlines(), 1) if "pool: pubic" in text)
    process.send_signal(signal.SIGHUP)
    where = f"{turnpike(scene).path}:{line}:13: nat44.rules.everyone.pool"
    wait_for(lambda: where in scene.lab.log("turnpike"), 5, f"{where} in the log")
    expect(turnpike(scene).metrics()[SUCCESSFUL] == 0, "the metric says that it went well")
    ping(scene.lab.h1, SERVER)
    rewrite(scene, configuration(rule="port-parity: false"))
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: turnpike(scene).metrics()[SUCCESSFUL] == 1, 5, "a reload that goes well")
    ping(scene.lab.h1, SERVER)
    return Seen(where.rsplit("/", 1)[1])


@RELOAD.test("reload: what takes effect at a start only is refused, and so is nonsense")
def _refused(scene: Scene) -> Seen:
    more = configuration().replace("size: 256M", "size: 300M")
    said = refused(scene, more, "boot.memory.size", "restart")
    refused(scene, configuration().replace("wan: {device", "dmz: {device"), "interfaces.uplink.port", "wan")
    refused(scene, "version: 1\n\tports:\n", f"{turnpike(scene).path}:", "not YAML", "tab")
    ping(scene.lab.h1, SERVER)
    reload(scene, configuration())
    expect(turnpike(scene).metrics()[SUCCESSFUL] == 1, "the metric remembers the refusal")
    return Seen(said)


@RELOAD.test("reload: sessions of a rule that is gone end, others go on; a forward comes and goes")
def _ends(scene: Scene) -> Seen:
    two = f"source: [{H1}/32]\n    others:\n      from: inside\n      to: outside\n      pool: public\n      source: [{H2}/32]"
    split = configuration().replace("source: [192.168.0.0/16]", two)
    # `pool:` of the template's rule follows; the second rule has its own.
    split = split.replace(f"source: [{H2}/32]\n      pool: public\n", f"source: [{H2}/32]\n")
    split = split.replace(f"source: [{H1}/32]\n", f"source: [{H1}/32]\n      pool: public\n")
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7300))
        ends = {host: use(bound(space, host, 7301)) for host, space in ((H1, scene.lab.h1), (H2, scene.lab.h2))}
        reload(scene, split)
        seen = {}
        for host, end in ends.items():
            end.sendto(b"hello", server.getsockname())
            _, seen[host] = server.recvfrom(16)
        before = turnpike(scene).metrics()[RELOADED]
        gone = split.replace(f"source: [{H2}/32]", "source: [192.168.77.0/24]")
        report = reload(scene, gone)
        expect(any(key.startswith("nat44.rules.others.source") for key in keys(report)), f"{report}")
        ended = turnpike(scene).metrics()[RELOADED] - before
        expect(ended >= 1, f"{ended} sessions were ended")
        server.sendto(b"you", seen[H2])
        server.sendto(b"me", seen[H1])
        expect(ends[H1].recv(16) == b"me", "the session that is still allowed has ended")
        hears_nothing(ends[H2], "a session that is no longer allowed goes on")
        forward = f'    dns:\n      from: outside\n      to: inside\n      protocol: udp\n      external: "{POOL[1]}:53"\n      inside: "{H1}:7301"\n'
        reload(scene, gone.replace("  forwards:\n", "  forwards:\n" + forward))
        server.sendto(b"by the forward", (POOL[1], 53))
        expect(ends[H1].recv(32) == b"by the forward", "the new forward leads nowhere")
        reload(scene, gone)
        server.sendto(b"late", (POOL[1], 53))
        hears_nothing(ends[H1], "a forward that is gone leads inside")
    reload(scene, configuration())
    return Seen(f"{int(ended)} ended")


@RELOAD.test("reload: an address that leaves its pool is drained, and let go when it is empty")
def _drain(scene: Scene) -> Seen:
    reload(scene, configuration())
    turnpike(scene).ctl("session", "flush", "--all")
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7400))
        inside = use(bound(scene.lab.h1, H1, 7401))
        inside.sendto(b"hello", server.getsockname())
        _, (address, port) = server.recvfrom(16)
        left = [other for other in POOL if other != address]
        # The forwards are on the first address, which may be the one that goes.
        text = configuration(pool=", ".join(left))
        reload(scene, text)
        rows = json.loads(turnpike(scene).ctl("--json", "pool", "list", "--addresses").stdout)
        draining = [row["address"] for row in rows if row["draining"]]
        server.sendto(b"still", (address, port))
        expect(inside.recv(16) == b"still", "its session has ended")
        other = use(bound(scene.lab.h1, H1, 7402))
        other.sendto(b"elsewhere", server.getsockname())
        _, (elsewhere, _) = server.recvfrom(16)
        expect(elsewhere in left, f"a new flow has {elsewhere}, not one of {left}")
        if address != POOL[0]:
            expect(draining == [address], f"{draining} is drained, not {address}")
            turnpike(scene).ctl("session", "flush", "--external", address)
            gone = f"address={address}"
            wait_for(lambda: gone in scene.lab.log("turnpike").split("drained: the address")[-1], 5, "its end")
    reload(scene, configuration())
    return Seen(f"{address} left, {elsewhere} took over")


RELOAD_GROUPS = [RELOAD]
