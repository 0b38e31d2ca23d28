#!/usr/bin/env python3
"""Which shared libraries a program needs: check_links.py PROGRAM FORBIDDEN...; exit 1 when it needs a forbidden one.

A FORBIDDEN word matches the start of a library's name: "libdnnl" matches libdnnl.so.2."""
import re
import subprocess
import sys

program, forbidden = sys.argv[1], sys.argv[2:]
dynamic = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True).stdout
needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
if not needed:
    sys.exit(f"{program}: readelf names no needed library, so this test cannot tell anything")
found = [library for library in needed if library.startswith(tuple(forbidden))]
if found:
    sys.exit(f"{program} needs {', '.join(found)}")
