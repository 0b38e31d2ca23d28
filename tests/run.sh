#!/bin/sh
# Installs what the tests need, builds with AddressSanitizer and UndefinedBehaviorSanitizer, and runs all tests but
# those labelled `deep` (hours of fuzzing and the like). Further arguments go to ctest.
set -eu

usage() {
    cat <<'EOF'
Examples:
  tests/run.sh                         everything of an ordinary run
  tests/run.sh -R common/wire          only tests whose names match
  tests/run.sh --no-install -L unit    only unit tests; says what is missing, never installs

Usage: tests/run.sh [--no-install] [flags of ctest]
EOF
}

NO_INSTALL=0
for word in "$@"; do
    shift
    case $word in
    --no-install) NO_INSTALL=1 ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) set -- "$@" "$word" ;;
    esac
done

cd "$(dirname "$0")/.."
. deploy/packages.sh
packages_need build test || exit 1

started=$(date +%s)
mkdir -p build
cmake --preset asan >build/asan-configure.log 2>&1 || { cat build/asan-configure.log >&2; exit 1; }
cmake --build --preset asan
echo "built in $(($(date +%s) - started)) s (build/asan)"

export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
if [ -e tests/support/lsan.supp ]; then
    export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0}"
fi

log=build/asan-tests.log
status=0
{ ctest --test-dir build/asan -LE deep --no-tests=error -j "$(nproc)" --output-on-failure "$@" || echo "$?" >"$log.status"; } 2>&1 | tee "$log"
if [ -e "$log.status" ]; then
    status=$(cat "$log.status")
    rm -f "$log.status"
fi

echo
if [ "$status" -ne 0 ]; then
    echo "Try next: tests/run.sh --rerun-failed, or -R NAME; the whole output is in $log"
else
    echo "Try next: tests/coverage.sh (lines covered, by room); deploy/quickstart.sh (the product itself)"
fi
# ctest's own summary once more, so that it is the last thing to be seen.
sed -n '/% tests passed/,/^Errors while running/p' "$log" | grep -v '^Errors while running'
exit "$status"
