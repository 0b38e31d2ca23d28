#!/bin/sh
# Under ThreadSanitizer: trainer, input, kernels, connections and TLS, then whole federations: the daemons with their
# loops, the server's worker thread, the clients' trainers and image readers, through kills, stalls, full disks, lost
# networks, and certificates that are renewed and revoked. A daemon ends at the first race that is seen, and the test with
# it. tsan.supp says what is no race. tsan.sh BUILD-FOLDER
set -eu
cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTARLING_SANITIZE=thread
cmake --build "$1"

# Planted: a race, lest it be the detector that is silent.
cat > "$1/race.c" <<'C'
#include <pthread.h>
static int counter;
static void *count(void *arg) { counter++; return arg; }
int main(void)
{
    pthread_t thread;
    pthread_create(&thread, 0, count, 0);
    counter++;
    return pthread_join(thread, 0);
}
C
${CC:-cc} -fsanitize=thread -O0 -g "$1/race.c" -o "$1/race"
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 suppressions=$PWD/tests/deep/tsan.supp"
if "$1/race" 2> "$1/race.log" || ! grep -q "data race" "$1/race.log"; then
    echo "tsan.sh: a planted race was not found" >&2
    exit 1
fi

ctest --test-dir "$1" -R '^client/(train|nn|data)/|^common/(net|trust)/test|^golden$' --no-tests=error --output-on-failure
federations='run|swarm|server_killed|client_killed|stall|open_files|disk_full|disk_readonly|old_state|observer|network|refusals|wire|trust|tls_scan'
STARLING_THREADS=2 ctest --test-dir "$1" -R "^integration/test_($federations)\$" --no-tests=error --output-on-failure
