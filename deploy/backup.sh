#!/bin/sh
# Copies the state folder of a server that may be running: see usage.
#
# A checkpoint is the truth of one round and names its model by hash. Both are written under another name and renamed, and are
# never changed; a model goes two rounds after its own at the earliest. So links that are made at once, the checkpoints' first,
# hold a whole state if the model of the newest checkpoint is among them, and the copy may take its time over them.
set -eu

usage() {
    cat <<'EOT'
Examples:
  deploy/backup.sh /var/lib/starling-server /backup/starling-$(date +%F)

Usage: deploy/backup.sh STATE-FOLDER NEW-FOLDER

The copy is a state folder: a server that is started with it, and with the same plan, goes on after its last round. The
history of earlier rounds comes along where the program sqlite3 is installed. The authority (trust/) never does: whoever
has its key can be anybody in the federation, so its copies belong where fewer people read (OPERATING.md, "Trust").
EOT
}

fail() {
    echo "backup.sh: $2" >&2
    exit "$1"
}

case ${1:-} in
--help | -h)
    usage
    exit 0
    ;;
esac
[ $# -eq 2 ] && [ -n "$1" ] && [ -n "$2" ] || { usage >&2; exit 64; }
state=$1 new=$2
[ -d "$state/models" ] || fail 65 "$state is no state folder of a server: it has no models/"
[ ! -e "$new" ] || fail 73 "$new is there already; name a new folder"

links=$(mktemp -d "$state/backup.XXXXXX")
trap 'rm -rf "$links"' EXIT
trap 'exit 1' HUP INT TERM
whole=
for try in 1 2 3 4 5; do
    rm -rf "${links:?}"/*
    mkdir "$links/models"
    # What was removed between the listing and the link is what this may miss, hence the question below.
    ln "$state"/checkpoint-?????? "$links/" 2>/dev/null || true
    ln "$state"/models/round-??????.starling "$links/models/" 2>/dev/null || true
    newest=$(find "$links" -maxdepth 1 -name 'checkpoint-*' | sort | tail -n 1)
    round=${newest##*-}
    if [ -n "$newest" ] && [ -e "$links/models/round-$round.starling" ]; then
        whole=yes
        break
    fi
    sleep "$try"
done
[ -n "$whole" ] || fail 65 "$state has no checkpoint whose model is there"

mkdir -m 0700 -p "$new"
cp -a "$links/." "$new/"
note="; without the history of rounds, since sqlite3 is not installed"
if command -v sqlite3 >/dev/null; then
    note=
    if [ -e "$state/history.db" ]; then
        sqlite3 -cmd '.timeout 10000' "$state/history.db" ".backup '$links/history.db'" && cp -a "$links/history.db" "$new/" ||
            note="; without the history of rounds, which could not be copied"
    fi
fi
[ ! -e "$state/trust" ] || note="$note; not trust/, which is backed up apart"
sync
echo "$new: the state after round $((1$round - 1000000)), $(du -sh "$new" | cut -f1)$note"
