#!/bin/sh
# The product without oneDNN, as where it is missing: without_onednn.sh BUILD-FOLDER
set -eu
cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTARLING_ONEDNN=OFF
cmake --build "$1"
! ldd "$1/bin/starling-client" | grep -E 'dnnl|gomp'
ctest --test-dir "$1" -R '^client/|^golden$|integration/test_demo' --no-tests=error --output-on-failure
