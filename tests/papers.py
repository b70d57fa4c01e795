#!/usr/bin/env python3
"""Holds docs/rfc-compliance.md to the tree: every requirement has its row, once, and every test that a row names exists.

A test is named in backticks: a file with its functions, as in `dataplane/tests/tcp.rs: tcp_11_reset, tcp_12_blind_flood`,
or a title of tests/netns/tests.py, as in `netns: demo: dig, UDP`.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/rfc-compliance.md"
sys.path.insert(0, str(ROOT / "tests/netns"))

from tests import GROUPS  # noqa: E402

REQUIREMENTS = {
    "N44": 33, "TCP": 18, "ICM": 16, "CGN": 27, "N64": 28, "ADR": 12, "XL": 41, "EAM": 9, "ISP": 4, "NPT": 13, "MAP": 4,
    "NMP": 2, "N66": 2, "ALG": 12, "DNS": 11, "RA": 6, "FW": 23, "RTR": 13, "L4X": 8, "LOG": 9, "MIB": 6, "BEN": 9,
}  # fmt: skip
"""How many rows each section has, in the page's order."""
DONE, PARTLY, MISSING = "✅", "⚠️", "❌"
TITLES = {title for group in GROUPS for title, _ in group.tests}


def functions(path: str) -> set[str]:
    """The names of the test functions in a Rust file; none if there is no such file."""
    file = ROOT / path
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return set(re.findall(r"#\[test\]\s+(?:#\[[^\n]*\s+|//[^\n]*\s+)*fn (\w+)", text))


def unknown(text: str) -> tuple[int, list[str]]:
    """How many tests are named, and which of them do not exist."""
    named, faults = 0, []
    for quoted in re.findall(r"`([^`]+)`", text):
        if title := re.fullmatch(r"netns: (.+)", quoted):
            named += 1
            if title[1] not in TITLES:
                faults.append(f"tests/netns/tests.py has no test {title[1]!r}")
        elif test := re.fullmatch(r"(\S+\.rs): (\w+(?:, \w+)*)", quoted):
            names = test[2].split(", ")
            named += len(names)
            faults += [f"{test[1]} has no test {name}" for name in names if name not in functions(test[1])]
        elif ".rs" in quoted or "netns" in quoted:
            faults.append(f"`{quoted}` does not name a test as this program reads it")
    for word in re.findall(r"\b\w+_\w+_\w+\b", re.sub(r"`[^`]*`", "", text)):
        faults.append(f"{word} looks like a test, but is not in backticks behind its file")
    return named, faults


def main() -> int:
    """Prints what is wrong; the exit status is 1 if anything is."""
    faults, rows, tests = [], [], 0
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1):
        row = re.match(r"\| ([A-Z0-9]+-\d+) \|", line)
        if row is None:
            wrong = [] if line.startswith("Tests are named") else unknown(line)[1]
        else:
            rows.append(row[1])
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if len(cells) != 5:
                faults.append(f"line {number}: {row[1]} has {len(cells)} cells, not 5")
                continue
            _, _, level, status, shown = cells
            named, wrong = unknown(shown)
            tests += named
            if not re.match(r"[MSOP]\b", level):
                wrong.append(f"{level!r} is no level")
            if status not in (DONE, PARTLY, MISSING):
                wrong.append(f"{status!r} is no mark")
            if status in (DONE, PARTLY) and not named:
                wrong.append(f"{status} names no test")
            if status == PARTLY and "Missing: " not in shown:
                wrong.append(f"{status} does not say what is missing")
            if status == MISSING and not re.search(r"\blater\b", shown):
                wrong.append(f"{status} does not say what it comes later with")
        faults += [f"line {number}: {row[1] if row else 'text'}: {fault}" for fault in wrong]
    wanted = [f"{area}-{number:02}" for area, count in REQUIREMENTS.items() for number in range(1, count + 1)]
    faults += [f"{name}: no row" for name in wanted if name not in rows]
    faults += [f"{name}: {rows.count(name)} rows" for name in sorted(set(rows)) if rows.count(name) > 1]
    faults += [f"{name}: no such requirement" for name in rows if name not in wanted]
    if not faults and rows != wanted:
        faults.append("the rows are not in order")
    for fault in faults:
        print(f"{PAGE.relative_to(ROOT)}: {fault}", file=sys.stderr)
    print(f"papers: {len(rows)} requirements, {tests} tests named, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
