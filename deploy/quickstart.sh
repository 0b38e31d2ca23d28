#!/bin/sh
# From a fresh Debian 12 to a running federation: installs the packages, builds, runs `starling demo`.
set -eu

usage() {
    cat <<'EOF'
Examples:
  deploy/quickstart.sh                             packages, build, demo with drawn pictures
  deploy/quickstart.sh --images FOLDER --clients 3 the same with your own images
  deploy/quickstart.sh --no-install                never installs; says what is missing

Usage: deploy/quickstart.sh [--no-install] [flags of `starling demo`]

Packages are installed by apt-get, as root or through sudo. It can be run again at any time; what is already
there is not done again. The demo's results go to ./starling-demo.
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

here=$PWD
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. deploy/packages.sh

echo "== 1/3 packages"
packages_need build || exit 1

echo "== 2/3 build (build/release)"
started=$(date +%s)
mkdir -p build
cmake --preset release >build/release-configure.log 2>&1 || { cat build/release-configure.log >&2; exit 1; }
cmake --build --preset release --target starling starling-server starling-client
echo "built in $(($(date +%s) - started)) s: build/release/bin/starling, starling-server, starling-client"

echo "== 3/3 starling demo"
cd "$here"
status=0
"$root/build/release/bin/starling" demo "$@" || status=$?
if [ "$status" -ne 0 ]; then
    echo "The demo ended with exit code $status; the lines above and the logs in its folder say why." >&2
fi
exit "$status"
