#!/usr/bin/env python3
"""Checks the licence and the source of every crate in Cargo.lock's graph, as `cargo deny check licenses sources` would.

A licence expression passes if one of its alternatives consists of allowed licences only. Every crate comes from
crates.io or from this workspace.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
    "MIT", "MIT-0", "Unicode-3.0", "Unicode-DFS-2016", "Unlicense", "Zlib",
}  # fmt: skip
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def satisfied(expression: str) -> bool:
    """Whether an SPDX expression (with Cargo's old `A/B` for `A OR B`) can be met with allowed licences alone."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression.replace("/", " OR "))

    def either() -> bool:
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both() -> bool:
        value = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = single() and value
        return value

    def single() -> bool:
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            value = either()
            return bool(tokens) and tokens.pop(0) == ")" and value
        return token in ALLOWED

    return either() and not tokens


def main() -> int:
    """Prints what is wrong; the exit status is 1 if anything is."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300).stdout)
    members = set(metadata["workspace_members"])
    faults = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if package["id"] not in members and package["source"] != CRATES_IO:
            faults.append(
                f"{name}: comes from {package['source'] or 'a path outside the workspace'}, not from crates.io"
            )
        if not satisfied(package["license"] or ""):
            faults.append(
                f"{name}: licence {package['license'] or 'not stated'} is not in the list of tests/licences.py"
            )
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"licences and sources: {len(metadata['packages'])} crates, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
