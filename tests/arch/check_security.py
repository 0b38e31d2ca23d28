#!/usr/bin/env python3
"""proto/SECURITY.md against the tests: check_security.py ROOT [--self-test].

In its tables of attacks each line that says "defended" or "bounded" in the second column names, in the third, at least one
test: `test_x` (a file tests/**/test_x.c or .py), `fuzz/x` (tests/fuzz/fuzz_x.c) or `tests/...` (a path). What is named exists.
A line whose bound is another's business ends its third column empty and says "not", "seen" or why in the second."""
import os
import re
import sys

CLAIM = re.compile(r"^(defended|bounded)\b")


def exists(root, name, tests):
    if name.startswith("tests/"):
        return os.path.exists(os.path.join(root, name))
    if name.startswith("fuzz/"):
        return os.path.exists(os.path.join(root, "tests/fuzz", "fuzz_" + name[5:] + ".c"))
    return name in tests


def faults(root, text):
    tests = {os.path.splitext(f)[0] for _, _, files in os.walk(os.path.join(root, "tests")) for f in files}
    claims = 0
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or not CLAIM.match(cells[1]):
            continue
        claims += 1
        named = re.findall(r"`([^`]+)`", cells[2])
        if not named:
            yield f"line {number}: \"{cells[0]}\" is {cells[1].split()[0].rstrip(':')}, and no test shows it"
        for name in named:
            if not exists(root, name, tests):
                yield f"line {number}: there is no test {name}"
    if claims < 10:
        yield f"only {claims} lines claim anything: the tables are not what this reads"


def main():
    root = sys.argv[1]
    with open(os.path.join(root, "proto/SECURITY.md"), encoding="utf-8") as file:
        text = file.read()
    if "--self-test" in sys.argv:
        for planted in ("| a | defended: so | |\n", "| a | bounded | `test_that_nobody_wrote` |\n"):
            if len(list(faults(root, text + planted))) != len(list(faults(root, text))) + 1:
                sys.exit(f"not found: {planted}")
        return
    found = list(faults(root, text))
    sys.exit("\n".join("proto/SECURITY.md: " + fault for fault in found) if found else 0)


if __name__ == "__main__":
    main()
