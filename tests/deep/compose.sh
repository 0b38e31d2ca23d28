#!/bin/sh
# docker-compose's own judgement of deploy/compose.yaml, and of one that it must refuse: compose.sh WORK-FOLDER
set -eu
mkdir -p "$1"
docker-compose -f deploy/compose.yaml config >"$1/config.yaml"
[ "$(grep -c '^    image: starling-client$' "$1/config.yaml")" -eq 5 ]
sed 's/stop_grace_period/stop_grace_perio/' deploy/compose.yaml >"$1/planted.yaml"
! docker-compose -f "$1/planted.yaml" config -q 2>"$1/planted.log"
grep -q stop_grace_perio "$1/planted.log"
