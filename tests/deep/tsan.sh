#!/bin/sh
# Trainer, input and kernels under ThreadSanitizer: tsan.sh BUILD-FOLDER
set -eu
cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTARLING_SANITIZE=thread
cmake --build "$1"
TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1" \
    ctest --test-dir "$1" -R '^client/(train|nn|data)/|^golden$' --no-tests=error --output-on-failure
