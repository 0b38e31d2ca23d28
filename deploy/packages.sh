# Sourced by deploy/quickstart.sh and tests/run.sh: packages_need PURPOSE... makes sure that the packages of
# deploy/packages.txt for these purposes are installed. With NO_INSTALL=1 it only says what is missing.
# Expects the repository's root as the current folder.

packages_missing() {
    for purpose in "$@"; do
        while read -r for_what name; do
            if [ "$for_what" = "$purpose" ] &&
                [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then
                echo "$name"
            fi
        done <deploy/packages.txt
    done
}

packages_need() {
    if ! command -v dpkg-query >/dev/null; then
        echo "This is no Debian system; make sure that what deploy/packages.txt names is installed." >&2
        return 0
    fi
    missing=$(packages_missing "$@" | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
    fi
    if [ "${NO_INSTALL:-0}" = 1 ] || { [ -n "$as_root" ] && ! command -v sudo >/dev/null; }; then
        echo "These packages are missing: $missing" >&2
        echo "Install them as root:       apt-get update && apt-get install -y --no-install-recommends $missing" >&2
        return 1
    fi
    echo "Installing: $missing"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
    # shellcheck disable=SC2086 # one word a package
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing >/dev/null
}
