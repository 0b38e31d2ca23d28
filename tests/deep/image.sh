#!/bin/sh
# The images of deploy/Dockerfile without Docker, as root: image.sh WORK-FOLDER
#
# A fresh Debian for each of its two stages; there the very RUN lines of the file, its COPY lines as cp below; then a
# federation runs in what the second stage has, as the user that it makes, and then that of deploy/compose.yaml. Every mount lives in a namespace of its own,
# which ends with the command: nothing stays mounted in a folder that is removed here.
set -eu
[ "$(id -u)" -eq 0 ] || { echo "image.sh: to make a Debian of its own it must be run as root" >&2; exit 1; }
mkdir -p "$1"
work=$(cd "$1" && pwd)
base=$work/base build=$work/build runtime=$work/runtime

say() {
    echo "== $(date +%T) $*"
}

run_lines() { # STAGE: one shell line a RUN
    awk -v stage="$1" '$1 == "FROM" { at = $4 } at == stage && $1 == "RUN" { sub(/^RUN /, ""); print }' deploy/Dockerfile
}

enter() { # ROOT COMMAND...: as in a container that has just been started
    root=$1
    shift
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" chroot "$@"
}

run_stage() { # ROOT STAGE WORKDIR
    run_lines "$2" >"$work/lines"
    [ -s "$work/lines" ] || { echo "deploy/Dockerfile has no RUN lines of stage $2" >&2; exit 1; }
    while read -r line <&3; do
        say "$2: $line"
        enter "$1" "$1" sh -euc "cd '$3'; $line"
    done 3<"$work/lines"
}

if grep -q " $work/" /proc/mounts; then
    echo "Something is mounted in $work; unmount it first." >&2
    exit 1
fi
rm -rf "$build" "$runtime"
if [ ! -d "$base" ]; then
    say "debian:12-slim, as mmdebstrap makes it"
    sources=/etc/apt/sources.list.d/debian.sources
    [ -e "$sources" ] || sources=
    rm -rf "$base.new"
    mmdebstrap --variant=minbase bookworm "$base.new" $sources
    mv "$base.new" "$base"
fi
# What apt needs here to reach the archive.
cp -L /etc/resolv.conf "$base/etc/resolv.conf"
cp -rL /etc/apt/apt.conf.d/. "$base/etc/apt/apt.conf.d/"
cp -a "$base" "$build"
cp -a "$base" "$runtime"

# build; the second COPY as .dockerignore leaves it
mkdir -p "$build/src"
for name in $(sed -n 's/^!//p' .dockerignore); do
    cp -r "$name" "$build/src/"
done
run_stage "$build" build /src

# runtime, and the binaries of both targets
mkdir -p "$runtime/opt/starling/deploy"
cp deploy/packages.sh deploy/packages.txt "$runtime/opt/starling/deploy/"
run_stage "$runtime" runtime /opt/starling
for name in starling starling-server starling-client; do
    cp "$build/out/usr/local/bin/$name" "$runtime/usr/local/bin/"
done

say "versions, a federation"
as_user() {
    enter "$runtime" --userspec=starling:starling "$runtime" sh -euc "cd /var/lib/starling; $1"
}
for program in starling-server starling-client starling; do
    as_user "$program --version"
done
as_user "starling demo --rounds 1 --clients 2"

say "deploy/compose.yaml"
docker-compose -f deploy/compose.yaml config >"$work/config.yaml"
sites=$runtime/opt/starling/sites
enter "$runtime" "$runtime" sh -euc "cd /opt/starling; starling draw-images --out photos --per-class 10 --size 16
    starling split --images photos --clients 5 --split iid --out sites; chmod -R a+rX photos sites"
play() { # CONFIG: in fresh volumes
    rm -rf "$work/volumes"
    mkdir "$work/volumes"
    python3 -B tests/deep/play.py "$1" "$sites" "$runtime" "$work/volumes"
}
play "$work/config.yaml"
# Planted: two sites with one token.
sed 's,/tokens/client-2$,/tokens/client-1,' "$work/config.yaml" >"$work/planted.yaml"
! play "$work/planted.yaml" 2>"$work/planted.log"
grep -q 'client-2 ended while waiting for welcomed' "$work/planted.log"
size() {
    du -sm "$1" | cut -f1
}
echo "the runtime: $(size "$runtime") MB, of it Debian itself $(size "$base") MB"
rm -rf "$build" "$runtime" "$work/volumes"
say "done"
