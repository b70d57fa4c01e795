#!/usr/bin/env python3
"""Whether the programs say what they lack on a processor that is too old for them, and start on one that is not.

The processors are qemu's: each of its instructions that the named model does not have is refused as the real one would.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from pathlib import Path

NEHALEM = "fma, movbe, osxsave, avx, f16c, bmi1, avx2, bmi2, lzcnt"
"""What x86-64-v3 has and the first Core i7 has not (and no AVX, hence nothing for a kernel to keep)."""
PROCESSORS = {"Nehalem": NEHALEM, "Haswell,-bmi2,-movbe": "movbe, bmi2", "Haswell": None, "EPYC-Rome": None}
"""Models of qemu's, and what they lack."""


def check(good: bool, problem: str) -> None:
    """Ends the test if something is not as it should be."""
    if not good:
        sys.exit(f"tests/packaging/processor.py: {problem}")


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="directory of the programs")
    programs = parser.parse_args().programs.resolve()
    if platform.machine() != "x86_64":
        print("processor: built for whatever this architecture's processors all have")
        return
    for model, lacks in PROCESSORS.items():
        for program in ("turnpike", "turnpikectl"):
            command = ["qemu-x86_64", "-cpu", model, programs / program, "--version"]
            done = subprocess.run(command, text=True, capture_output=True, timeout=120)
            said = f"{program} on {model}: {done}"
            if lacks is None:
                check(done.returncode == 0 and done.stdout.startswith(f"{program} "), said)
            else:
                check(done.returncode == 1 and not done.stdout, said)
                check(f"built for x86-64-v3 processors, and this one lacks: {lacks}.\n" in done.stderr, said)
                check('RUSTFLAGS="-C target-cpu=x86-64" make install' in done.stderr, said)
    print("processor: good")


if __name__ == "__main__":
    main()
