"""Two workers: one port has a queue for each, the other only one. Real connections, while shards move to and fro."""

from __future__ import annotations

import hashlib
import os
import threading

from checks import Scene, Seen, curl, expect, ping
from ctl_tests import listed, refused, told
from gateway import configuration
from group import Group, bound, sockets, turnpike
from lab import H1, H2, SERVER


def two_workers(_: Scene) -> str:
    """The inside port has two queues, over which the kernel spreads flows by their hash; the uplink has one."""
    allowed = sorted(os.sched_getaffinity(0))
    text = configuration(workers=f"[{allowed[0]}, {allowed[-1]}]", control=allowed[0])
    # With two cores there is none left that could be the control thread's alone.
    text = text.replace(f", control: {allowed[0]},", ",")
    return text.replace("net_af_packet0,", "net_af_packet0,qpairs=2,")


WORKERS = Group(two_workers)
WORKER_GROUPS = [WORKERS]


@WORKERS.test("workers: two of them share the shards, whichever receives; what leaves by the uplink leaves by the first")
def _shared(scene: Scene) -> Seen:
    for host in (scene.lab.h1, scene.lab.h2):
        ping(host, SERVER, count=2)
    with sockets() as use:
        server = use(bound(scene.lab.server, SERVER, 7400))
        for space, address in ((scene.lab.h1, H1), (scene.lab.h2, H2)):
            ends = set()
            for port in range(7400, 7420):
                inside = use(bound(space, address, port))
                inside.sendto(b"ask", server.getsockname())
                _, end = server.recvfrom(16)
                ends.add(end)
                server.sendto(b"answer", end)
                inside.settimeout(5)
                expect(inside.recvfrom(16) == (b"answer", (SERVER, 7400)), f"{address}:{port} got another answer")
            expect(len(ends) == 20, f"{address} has {len(ends)} external ends for 20 sockets")
    workers = listed(scene, "worker", "show")
    expect([row["shards"] for row in workers] == [32, 32], f"{workers}")
    expect(sum(row["handed_over"] for row in workers) == sum(row["taken_over"] for row in workers) > 0, f"{workers}")
    expect(workers[0]["transmitted"] > 0 and workers[1]["received"] > 0, f"{workers}")
    sessions = [row for row in listed(scene, "session", "list", "--proto", "udp") if row["remote_port"] == 7400]
    expect(len(sessions) == 40, f"{len(sessions)} sessions are listed")
    expect(told(scene, "session", "flush", "--proto", "udp", "--remote", SERVER)["sessions"] >= 40, "not all are ended")
    metrics = turnpike(scene).metrics()
    expect(metrics["turnpike_packets_imbalance"] == 0, f"{metrics['turnpike_packets_imbalance']} packets are missing")
    return Seen("", f"{sum(row['handed_over'] for row in workers)} handed over")


@WORKERS.test("workers: every shard moves twice under a download and a ping; every byte arrives, no session ends")
def _moves(scene: Scene) -> Seen:
    failures: list[str] = []
    copy = scene.lab.work / "moved"

    def download() -> None:
        try:
            curl(scene.lab.h1, "-o", str(copy), "--limit-rate", "2M", f"http://{SERVER}/file", seconds=60)
            if hashlib.sha256(copy.read_bytes()).hexdigest() != scene.digest:
                failures.append("the client's digest is wrong")
        except Exception as error:  # noqa: BLE001 - said below, in the test's own thread
            failures.append(str(error))

    loader = threading.Thread(target=download)
    loader.start()
    before = turnpike(scene).metrics()
    moves = 0
    for worker in (1, 0):
        for shard in range(64):
            done = told(scene, "shard", "move", str(shard), str(worker))
            expect((done["shard"], done["to"]) == (shard, worker), f"{done}")
            moves += done["from"] != worker
        expect({row["worker"] for row in listed(scene, "shard", "list")} == {worker}, "not all are there")
        shards = [row["shards"] for row in listed(scene, "worker", "show")]
        expect(shards[worker] == 64 and shards[1 - worker] == 0, f"{shards}")
        ping(scene.lab.h2, SERVER, count=2)
    loader.join(60)
    expect(not loader.is_alive() and not failures, f"the download: {failures or 'does not end'}")
    after = turnpike(scene).metrics()
    for cause in ("flush", "reload"):
        series = f'turnpike_session_deletions_total{{cause="{cause}"}}'
        expect(after[series] == before[series], f"{series} moved")
    expect(after["turnpike_packets_imbalance"] == 0, f"{after['turnpike_packets_imbalance']} packets are missing")
    refused(turnpike(scene).ctl("shard", "move", "3", "2"), 1, "no worker 2", "0 to 1")
    expect(told(scene, "reload")["applied"] is True, "a reload afterwards is not applied")
    return Seen("", f"{moves} moves")
