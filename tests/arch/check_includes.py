#!/usr/bin/env python3
"""Holds the #include lines to the room table of CMakeLists.txt.

A room may include itself and the rooms of its USES line, nothing else. Some headers of libraries may be seen in few
places only (HEADERS). Includes in quotes are written from the repository's root and name files that exist. The table
itself must have no cycle, no server room may use a client room or the other way round, and common/ uses neither.

    check_includes.py ROOT              exit 1 and one line a violation
    check_includes.py ROOT --self-test  plants violations in a copy and expects each to be found
"""
import pathlib
import re
import shutil
import sys
import tempfile

# Header of a library: the files that may include it, and how many of them at most.
HEADERS = [
    (r"uv\.h|uv/.*", r"(common/net|server/shell|client/shell)/.*", None),
    (r"dnnl.*|oneapi/.*", r"client/nn/onednn/.*", None),
    (r"cblas\.h|openblas.*", r"client/nn/.*", 1),
    (r".*\.pb-c\.h|protobuf-c/.*", r"common/wire/msg[a-z_]*\.[ch]", None),
    (r"yaml\.h", r"common/config/.*", None),
    (r"sqlite3\.h", r"server/store/.*", None),
    (r"turbojpeg\.h|jpeglib\.h|spng\.h|png\.h", r"client/data/.*", None),
    (r"openssl/.*", r"common/trust/internal\.h", 1),
    (r"jansson\.h", r"client/tool/.*", None),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def read_table(root):
    """Rooms to the set of rooms they use, and programs' extra sources to the room they belong to."""
    text = re.sub(r"#.*", "", (root / "CMakeLists.txt").read_text())
    rooms, belongs = {}, {}
    for body in re.findall(r"^starling_room\(([^)]*)\)", text, re.M):
        words = body.split()
        uses = words[words.index("USES") + 1:] if "USES" in words else []
        if "LINKS" in uses:
            uses = uses[:uses.index("LINKS")]
        rooms[words[0]] = set(uses)
    for body in re.findall(r"^starling_program\(([^)]*)\)", text, re.M):
        name, main, room, *extra = body.split()
        for source in [main, *extra]:
            belongs[source] = room
            belongs[re.sub(r"\.c$", ".h", source)] = room
    return rooms, belongs


def check_table(rooms):
    for room, uses in rooms.items():
        for used in uses:
            if used not in rooms:
                yield f"CMakeLists.txt: {room} uses {used}, which is no room"
            sides = room.split("/")[0], used.split("/")[0]
            if sides[0] != sides[1] and sides[1] != "common":
                yield f"CMakeLists.txt: {room} may not use {used}"
    done, path = set(), []

    def visit(room):
        if room in path:
            yield "CMakeLists.txt: cycle: " + " -> ".join(path[path.index(room):] + [room])
        elif room not in done:
            path.append(room)
            for used in sorted(rooms.get(room, ())):
                yield from visit(used)
            path.pop()
            done.add(room)

    for room in rooms:
        yield from visit(room)


def room_of(name, rooms, belongs):
    if name in belongs:
        return belongs[name]
    fits = [room for room in rooms if name.startswith(room + "/")]
    return max(fits, key=len) if fits else None


def includes(path):
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            yield number, found[1] == '"', found[2]


def check_quoted(root, name, where, target, rooms, belongs):
    if target.endswith(".pb-c.h"):
        return
    if target.startswith(".") or not (root / target).is_file():
        yield f'{where}: "{target}" is no path of a file from the repository\'s root'
        return
    if name.startswith("tests/"):
        return
    room, used = room_of(name, rooms, belongs), room_of(target, rooms, belongs)
    if room is None:
        yield f"{where}: the file is in no room"
    elif used is None:
        yield f'{where}: "{target}" is in no room'
    elif used != room and used not in rooms[room]:
        yield f'{where}: {room} may not include {used} ("{target}")'


def check(root):
    rooms, belongs = read_table(root)
    if not rooms:
        yield "CMakeLists.txt: no starling_room was found"
    yield from check_table(rooms)
    seen = {}
    files = [path for top in ("common", "server", "client", "tests") for path in sorted((root / top).rglob("*.[ch]"))]
    for path in files:
        name = path.relative_to(root).as_posix()
        for number, quoted, target in includes(path):
            where = f"{name}:{number}"
            if quoted:
                yield from check_quoted(root, name, where, target, rooms, belongs)
            for i, (header, allowed, most) in enumerate(HEADERS):
                if not re.fullmatch(header, target) or name.startswith("tests/"):
                    continue
                seen.setdefault(i, set()).add(name)
                if not re.fullmatch(allowed, name):
                    yield f"{where}: {target} may be included only in {allowed}"
                elif most and len(seen[i]) > most:
                    yield f"{where}: {target} is already included in {', '.join(sorted(seen[i] - {name}))}"


# (file, line to append, what the complaint must say)
PLANTED = [
    ("client/nn/net.h", '#include "server/round/summary.h"', "client/nn may not include server/round"),
    ("server/round/summary.h", '#include "client/nn/net.h"', "server/round may not include client/nn"),
    ("common/base/err.h", '#include "common/vec/layout.h"', "common/base may not include common/vec"),
    ("server/round/summary.h", "#include <uv.h>", "uv.h may be included only in"),
    ("client/nn/net.h", "#include <dnnl.h>", "dnnl.h may be included only in"),
    ("common/net/conn.h", "#include <openssl/ssl.h>", "openssl/ssl.h may be included only in"),
    ("client/data/image.h", "#  include <cblas.h>", "cblas.h may be included only in"),
    ("server/session/coordinator.h", '#include "proto/starling.pb-c.h"', "starling.pb-c.h may be included only in"),
    ("common/wire/frame.h", '#include "msg.h"', "is no path of a file"),
    ("common/wire/frame.h", '#include "../wire/msg.h"', "is no path of a file"),
    ("CMakeLists.txt", "starling_room(common/extra USES server/round)", "common/extra may not use server/round"),
    ("CMakeLists.txt", "starling_room(common/a USES common/b)\nstarling_room(common/b USES common/a)", "cycle: common/a"),
]


def self_test(root):
    failures = list(check(root))
    if failures:
        return ["the tree itself is not clean; run without --self-test"]
    for name, line, expected in PLANTED:
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copy(root / "CMakeLists.txt", copy)
            for top in ("common", "server", "client"):
                shutil.copytree(root / top, copy / top)
            with open(copy / name, "a") as file:
                file.write("\n" + line + "\n")
            found = list(check(copy))
            if not any(expected in violation for violation in found):
                failures.append(f"planted {line!r} in {name}: expected {expected!r}, found {found}")
    return failures


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    wanted = self_test if "--self-test" in sys.argv[2:] else check
    failures = list(wanted(root))
    for failure in failures:
        print(failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
