#!/bin/bash
# Fuzzes targets for so many minutes of processor time each, in parts, and merges what they found into tests/fuzz/corpus.
#   tests/fuzz/fuzz.sh [MINUTES [TARGET...]]
# 30 minutes and all targets if not said. A target goes on where it was interrupted: build/fuzz-found/NAME holds what it
# has found and the processor time that it had. An input that breaks it stays in build/fuzz-found/NAME.broken; exit 1 then.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=${1:-30}
part_s=60
shift || true
[[ $minutes =~ ^[0-9]+$ ]] || { echo "usage: tests/fuzz/fuzz.sh [MINUTES [TARGET...]]" >&2; exit 64; }
[ $# -gt 0 ] || set -- $(cd tests/fuzz/corpus && echo *)

mkdir -p build/fuzz-found
cmake --preset fuzz >build/fuzz-configure.log 2>&1 || { cat build/fuzz-configure.log >&2; exit 1; }
cmake --build build/fuzz | tail -1

# $1 = processor time of all children that have ended, in whole seconds. (A subshell's `times` would know none of them.)
children_s() {
    times >build/fuzz-found/times
    printf -v "$1" %s "$(awk 'END { split($1, u, /[ms]/); split($2, s, /[ms]/)
        printf "%d", u[1] * 60 + u[2] + s[1] * 60 + s[2] }' build/fuzz-found/times)"
}

status=0
for name; do
    corpus=tests/fuzz/corpus/$name found=build/fuzz-found/$name
    program=build/fuzz/tests/fuzz_$name
    [ -x "$program" ] || { echo "tests/fuzz/fuzz.sh: no target $name; there are: $(ls tests/fuzz/corpus | xargs)" >&2; exit 64; }
    mkdir -p "$found" "$found.broken"
    spent=$(cat "$found.seconds" 2>/dev/null || echo 0)
    while [ "$spent" -lt $((minutes * 60)) ]; do
        children_s begin
        if ! "$program" -max_total_time=$part_s -timeout=25 -rss_limit_mb=3000 -print_final_stats=1 \
            -artifact_prefix="$found.broken/" "$found" "$corpus" >"$found.log" 2>&1; then
            echo "$name: broken after $spent s of processor time, see $found.log and $found.broken" >&2
            status=1
            break
        fi
        children_s end
        spent=$((spent + end - begin))
        echo "$spent" >"$found.seconds"
    done
    "$program" -merge=1 -set_cover_merge=1 "$corpus" "$found" >"$found.merge.log" 2>&1
    echo "$name: $spent s of processor time; $(grep -o 'cov: [0-9]*' "$found.log" | tail -1); $(ls "$corpus" | wc -l) seeds"
done
exit $status
