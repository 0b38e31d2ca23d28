#!/bin/sh
# Line coverage by room: builds the preset `coverage`, runs its tests, prints a table. Arguments go to ctest.
set -eu
cd "$(dirname "$0")/.."
. deploy/packages.sh
packages_need build test coverage || exit 1

build=build/coverage
mkdir -p build
cmake --preset coverage >build/coverage-configure.log 2>&1 || { cat build/coverage-configure.log >&2; exit 1; }
cmake --build --preset coverage
find $build -name '*.gcda' -delete
status=0
ctest --test-dir $build -LE deep -j "$(nproc)" --output-on-failure "$@" || status=$?
gcovr --root . --object-directory $build --filter 'common/' --filter 'server/' --filter 'client/' \
    --json-summary $build/coverage.json >/dev/null
python3 - $build/coverage.json <<'EOF'
import collections, json, sys

rooms = collections.defaultdict(lambda: [0, 0])
for file in json.load(open(sys.argv[1]))["files"]:
    parts = file["filename"].split("/")
    room = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
    rooms[room][0] += file["line_covered"]
    rooms[room][1] += file["line_total"]
rooms["all"] = [sum(r[0] for r in rooms.values()), sum(r[1] for r in rooms.values())]
print(f"\n{'room':<18} {'lines':>7} {'covered':>8}")
for room, (covered, total) in rooms.items():
    print(f"{room:<18} {total:>7} {100 * covered / max(1, total):>7.1f} %")
EOF
exit "$status"
