#!/usr/bin/env python3
"""Checks files against configs/turnpike.schema.json by another validator: what is good must pass, what is not must fail."""

import re
import sys
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parent.parent

# A path in configs/nat44.yaml, and a value that cannot stand there.
BAD = [
    (["version"], 2),
    (["speed"], 1),
    (["boot", "cpu", "poll"], "lazy"),
    (["boot", "memory", "size"], "256"),
    (["ports", "lan", "rx-descriptors"], 1000),
    (["ports", "l an"], {"device": "net_tap0"}),
    (["ports", "wan", "pci"], "eth0"),
    (["interfaces", "inside", "vlan"], 5000),
    (["interfaces", "inside", "mac"], "02:00:00:00:00"),
    (["interfaces", "inside", "addresses"], "192.168.1.1/24"),
    (["interfaces", "inside", "addresses"], ["192.168.1.1"]),
    (["interfaces", "guests"], {"port": "lan"}),
    (["interfaces", "inside", "neighbours"], ["192.168.1.77"]),
    (["routes"], {"to": "0.0.0.0/0"}),
    (["pools", "public", "ports"], 0),
    (["nat44", "rules", "subscribers", "filtering"], "open"),
    (["nat44", "rules", "subscribers", "filtering"], {"sctp": "address-dependent"}),
    (["nat44", "forwards", "web", "external"], "203.0.113.50"),
    (["timers", "udp"], 300),
    (["timers", "udp-ports"], {"dns": "10s"}),
    (["metrics"], None),
]


def load(text: str) -> object:
    """YAML as JSON has it: keys are text."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(yaml.safe_load(text))


def main() -> int:
    """Prints what is wrong; the exit status is 1 if anything is."""
    schema = load((ROOT / "configs/turnpike.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    whole = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
    part = jsonschema.Draft7Validator({**schema, "required": []}, format_checker=jsonschema.FormatChecker())
    faults = []

    files = sorted((ROOT / "configs").glob("*.yaml"))
    good = [(file.name, file.read_text()) for file in files if re.search("^version:", file.read_text(), re.MULTILINE)]
    manual = (ROOT / "docs/configuration.md").read_text()
    examples = [("docs/configuration.md", text) for text in re.findall("```yaml\n(.*?)```", manual, re.DOTALL)]
    for name, text in good + examples:
        validator = whole if "version:" in text else part
        faults += [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(load(text))]
    for name, text in good:
        if not text.startswith("# yaml-language-server: $schema=turnpike.schema.json\n"):
            faults.append(f"{name}: does not lead editors to the schema")

    for path, value in BAD:
        file = load((ROOT / "configs/nat44.yaml").read_text())
        *way, last = path
        section = file
        for key in way:
            section = section[key]
        section[last] = value
        if whole.is_valid(file):
            faults.append(f"the schema lets {'.'.join(path)} be {value!r}")

    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"schema: {len(good)} files, {len(examples)} examples, {len(BAD)} mistakes, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
