#!/usr/bin/env python3
"""The demonstration: real clients and servers through a real gateway, in network namespaces, with a table of results.

    demo.py --binary target/release/turnpike [--keep]
    demo.py --gateway kernel            the rig's own check: the same table, with Linux as the gateway
    demo.py --stop                      ends what --keep left running

The exit status is 0 if every line of the table passed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import lab as laboratory
from checks import CHECKS, Scene, attempt
from gateway import CONTROL, METRICS, Gateway, Kernel, Metrics, Turnpike, configuration, moved
from lab import SERVER, WORK, Lab

KEPT = "kept"
"""A laboratory's directory holds a file of this name when it was left running on purpose."""


def main() -> int:
    """Runs the demonstration; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/release/turnpike"), help="the program")
    parser.add_argument("--gateway", choices=["turnpike", "kernel"], default="turnpike", help="what stands in between")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("--stop", action="store_true", help="end what --keep left running")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("The demonstration makes network namespaces: run it as root.", file=sys.stderr)
        return 1
    if options.stop:
        return stop()
    laboratory.stop_on_signals()
    laboratory.tidy()
    began = time.monotonic()
    lab = Lab()
    keep = passed = False
    try:
        gateway: Gateway = Kernel(lab) if options.gateway == "kernel" else Turnpike(lab, options.binary)
        ready = gateway.start(configuration())
        scene = Scene(lab, gateway)
        print(f"The gateway ({gateway.name}) forwards after {ready:.1f} s. Its files: {lab.work}\n", flush=True)
        before = gateway.metrics()
        passed = table(scene)
        print_metrics(before, gateway.metrics())
        keep = options.keep
    except (RuntimeError, OSError) as failure:
        print(f"The demonstration could not go on: {failure}", file=sys.stderr)
    finally:
        if keep:
            (lab.work / KEPT).touch()
            print(how_to_look_around(lab, options.gateway))
        else:
            laboratory.ignore_signals()
            lab.close()
            if passed:
                shutil.rmtree(lab.work)
            else:
                print(f"Logs and captures: {lab.work}", file=sys.stderr)
    print(f"{'Everything passed' if passed else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True)
    return 0 if passed else 1


def table(scene: Scene) -> bool:
    """Runs every check, prints a line for each, and tells whether all passed."""
    tried_width = max(len(title) for title, _ in CHECKS)
    seen_width = 44
    print(f"{'tried':{tried_width}}  {'the server saw':{seen_width}}  verdict")
    print(f"{'-' * tried_width}  {'-' * seen_width}  {'-' * 40}")
    failures = 0
    for title, function in CHECKS:
        seen, why = attempt(function, scene)
        failures += seen is None
        by_peer, verdict = (seen.by_peer, f"ok    {seen.note}") if seen else ("", f"FAIL  {why}")
        print(f"{title:{tried_width}}  {by_peer:{seen_width}}  {verdict}".rstrip(), flush=True)
    print(f"\n{len(CHECKS) - failures} passed, {failures} failed\n")
    return failures == 0


def print_metrics(before: Metrics, after: Metrics) -> None:
    """Prints the metrics that moved."""
    lines = moved(before, after)
    if lines:
        print("The metrics that moved:")
        for series, value, difference in lines:
            print(f"  {difference:+14.0f}  -> {value:14.0f}  {series}")
        print()


def how_to_look_around(lab: Lab, gateway: str) -> str:
    """What to type while it runs."""
    lines = [
        (f"ip netns exec {lab.h1.name} bash", "a shell on h1 (h2, router, server, gw: likewise)"),
        (f"ip netns exec {lab.h1.name} curl -s http://{SERVER}/who", "how the server sees h1"),
        (f"ip netns exec {lab.router.name} tcpdump -n -i up0", "the wire outside the gateway"),
        (f"ip netns exec {lab.gw.name} curl -s http://{METRICS}/metrics", "what the gateway counts"),
        (f"target/release/turnpikectl --socket {CONTROL} session list", "what it translates (--help: what else)"),
        (f"ls {lab.work}", "configuration, logs, captures"),
        ("make demo-stop", "the end"),
    ]
    if gateway != "turnpike":
        lines = [line for line in lines if "metrics" not in line[0] and "turnpikectl" not in line[0]]
    width = max(len(command) for command, _ in lines)
    return "\n".join(["It goes on running. Look around:", *(f"    {c:{width}}  # {why}" for c, why in lines), ""])


def stop() -> int:
    """Ends the laboratories that were kept, or whose maker was killed."""
    prefixes = laboratory.left_over(also={path.parent.name for path in WORK.glob(f"tp*/{KEPT}")})
    for prefix in prefixes:
        laboratory.remove(prefix)
        shutil.rmtree(WORK / prefix, ignore_errors=True)
        print(f"ended {prefix}")
    if not prefixes:
        print("nothing is running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
