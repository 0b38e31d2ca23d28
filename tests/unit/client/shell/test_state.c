/* A client's state folder on a disk that dies and forgets: after a crash at any operation the site is before a decision
 * or after it, and never loses a contribution that it could have offered. */
#include "client/shell/state.h"
#include "common/base/mem.h"
#include "tests/support/simdisk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FOLDER "site"

static const struct hash128 run = {.bytes = {1}}, other_run = {.bytes = {9}}, plan = {.bytes = {2}};

static void open_state(struct simdisk *disk, struct state *state, bool forget, struct contribution **pending)
{
    struct err err = {0};
    if (state_open(state, &disk->disk, FOLDER, forget, NULL, pending, &err) || (forget && state_forget(state, &err))) {
        fail_msg("%s", err.text);
    }
}

static void release(struct contribution *contribution)
{
    if (contribution) {
        contribution_fini(contribution);
        mem_free(contribution);
    }
}

#define CARRY 24

/* What a local round leaves: everything in it says which round it was. */
static int keep_counted(struct state *state, uint32_t round, const struct kept_spent *spent)
{
    struct contribution contribution = {.round = round, .update = bytes_new(64)};
    struct kept_carry carry = {.data = mem_new_aligned(CARRY, 1), .bytes = CARRY};
    memset(contribution.update->data, (int)round, 64);
    memset(carry.data, (int)round, CARRY);
    contribution.update_blob = (struct blob){.kind = BLOB_UPDATE,
                                             .round = round,
                                             .element = ELEMENT_F32,
                                             .count = 16,
                                             .bytes = 64,
                                             .hash = hash_of(contribution.update->data, 64)};
    int rc = state_keep(state, &contribution, &carry, spent, NULL);
    kept_carry_fini(&carry);
    contribution_fini(&contribution);
    return rc;
}

static int keep(struct state *state, uint32_t round)
{
    return keep_counted(state, round, NULL);
}

static void check_kept(const struct state *state, uint32_t round)
{
    assert_true(state->has_kept);
    assert_int_equal(state->kept.round, round);
    assert_int_equal(state->kept.carry.bytes, round ? CARRY : 0);
    if (round) {
        assert_int_equal(*(uint8_t *)state->kept.carry.data, round);
    }
}

static void check_pending(const struct state *state, const struct contribution *pending, uint32_t round)
{
    assert_int_equal(state->pending_round, round);
    assert_int_equal(pending != NULL, round != 0);
    if (round) {
        assert_int_equal(pending->round, round);
        assert_int_equal(pending->update->data[0], round);
        assert_int_equal(*(uint8_t *)state->pending_carry.data, round);
    }
}

static void rounds_follow_each_other(void **unused)
{
    (void)unused;
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    simdisk_init(&disk);
    open_state(&disk, &state, false, &pending);
    assert_null(pending);
    assert_false(state.has_kept);
    struct hash128 instance = state.instance;
    assert_false(hash_is_zero(&instance));
    assert_int_equal(state_begin(&state, &run, &plan, NULL), 0);
    for (uint32_t round = 1; round <= 3; round++) {
        assert_int_equal(keep(&state, round), 0);
        state_close(&state);
        open_state(&disk, &state, false, &pending); /* killed before the decision */
        check_kept(&state, round - 1);
        check_pending(&state, pending, round);
        release(pending);
        assert_int_equal(state_commit(&state, round, NULL), 0);
        state_close(&state);
        open_state(&disk, &state, false, &pending);
        check_kept(&state, round);
        check_pending(&state, pending, 0);
    }
    assert_int_equal(keep(&state, 4), 0);
    assert_int_equal(state_drop(&state, NULL), 0);
    check_kept(&state, 3); /* the carry is that before the dropped round */
    state_close(&state);
    open_state(&disk, &state, false, &pending);
    check_kept(&state, 3);
    check_pending(&state, pending, 0);
    assert_true(hash_equal(&instance, &state.instance));
    state_close(&state);
    simdisk_fini(&disk);
}

/* A site that has trained round 1 and has not heard of it yet. */
static void train_one(struct simdisk *disk, struct state *state)
{
    struct contribution *pending;
    simdisk_init(disk);
    open_state(disk, state, false, &pending);
    assert_int_equal(state_begin(state, &run, &plan, NULL), 0);
    assert_int_equal(keep(state, 1), 0);
}

static void another_run_starts_from_nothing(void **unused)
{
    (void)unused;
    for (int forget = 0; forget < 2; forget++) {
        struct simdisk disk;
        struct state state;
        struct contribution *pending;
        train_one(&disk, &state);
        assert_int_equal(state_commit(&state, 1, NULL), 0);
        assert_int_equal(keep(&state, 2), 0);
        state_close(&state);
        open_state(&disk, &state, forget, &pending);
        assert_int_equal(state.has_kept, !forget);
        check_pending(&state, pending, forget ? 0 : 2);
        release(pending);
        assert_int_equal(state_begin(&state, &other_run, &plan, NULL), 0);
        check_kept(&state, 0);
        state_close(&state);
        open_state(&disk, &state, false, &pending); /* the old run's contribution is not offered to the new one */
        assert_true(hash_equal(&state.kept.run, &other_run));
        check_kept(&state, 0);
        check_pending(&state, pending, 0);
        state_close(&state);
        simdisk_fini(&disk);
    }
}

/* The bug: a new run begins before it is known who the site is. */
static int forgets_at_once(struct state *state, const struct disk *disk, struct contribution **pending)
{
    int rc = state_open(state, disk, FOLDER, true, NULL, pending, NULL);
    return rc ? rc : state_forget(state, NULL);
}

static int only_opens(struct state *state, const struct disk *disk, struct contribution **pending)
{
    return state_open(state, disk, FOLDER, true, NULL, pending, NULL);
}

/* How many rounds are lost with a start that was to forget them and came to nothing. */
static uint32_t rounds_lost(int (*start)(struct state *, const struct disk *, struct contribution **))
{
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    train_one(&disk, &state);
    assert_int_equal(state_commit(&state, 1, NULL), 0);
    assert_int_equal(keep(&state, 2), 0);
    state_close(&state);
    assert_int_equal(start(&state, &disk.disk, &pending), 0);
    assert_false(state.has_kept);
    assert_null(pending);
    state_undo(&state);
    open_state(&disk, &state, false, &pending);
    uint32_t lost = 2 - state.kept.round - (pending != NULL);
    release(pending);
    state_close(&state);
    simdisk_fini(&disk);
    return lost;
}

static void a_start_that_comes_to_nothing_forgets_nothing(void **unused)
{
    (void)unused;
    assert_int_equal(rounds_lost(only_opens), 0);
    assert_int_equal(rounds_lost(forgets_at_once), 2);
}

/* A commit that found no room must not be lost when the next contribution takes the pending file's place. */
static void a_commit_without_room_is_made_up_for(void **unused)
{
    (void)unused;
    for (int drops = 0; drops < 2; drops++) {
        struct simdisk disk;
        struct state state;
        struct contribution *pending;
        train_one(&disk, &state);
        disk.full = true;
        assert_int_equal(state_commit(&state, 1, NULL), ERR_FULL);
        check_kept(&state, 1); /* it goes on in memory */
        assert_int_equal(keep(&state, 2), ERR_FULL);
        disk.full = false;
        assert_int_equal(drops ? state_drop(&state, NULL) : keep(&state, 2), 0);
        state_close(&state);
        open_state(&disk, &state, false, &pending);
        check_kept(&state, 1);
        check_pending(&state, pending, drops ? 0 : 2);
        release(pending);
        state_close(&state);
        simdisk_fini(&disk);
    }
}

/* One step of a site's life on a disk that dies at its n-th operation; `step` 0: keep 2, 1: commit 2, 2: drop 2. */
static bool crash_at(int step, uint64_t n, struct rng *rng)
{
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    train_one(&disk, &state);
    assert_int_equal(state_commit(&state, 1, NULL), 0);
    if (step > 0) {
        assert_int_equal(keep(&state, 2), 0);
    }
    uint64_t before = disk.operations;
    disk.dies_after = before + n;
    int rc = step == 0 ? keep(&state, 2) : step == 1 ? state_commit(&state, 2, NULL) : state_drop(&state, NULL);
    bool reached = disk.operations > before + n;
    simdisk_crash(&disk, rng);
    disk.dies_after = UINT64_MAX;
    state_close(&state);
    open_state(&disk, &state, false, &pending);
    uint32_t offered = state.pending_round;
    if (step == 0) {
        check_kept(&state, 1);
        assert_true(offered == 2 || (rc != 0 && offered == 0)); /* kept means kept */
    } else if (step == 1) {
        check_kept(&state, state.kept.round);
        assert_true(state.kept.round == 2 || (rc != 0 && state.kept.round == 1));
        assert_int_equal(offered, state.kept.round == 2 ? 0 : 2); /* never both, never neither */
    } else {
        check_kept(&state, 1);
        assert_true(offered == 0 || offered == 2);
    }
    check_pending(&state, pending, offered);
    release(pending);
    state_close(&state);
    simdisk_fini(&disk);
    return reached;
}

static void a_crash_at_any_operation_is_before_or_after(void **unused)
{
    (void)unused;
    for (int step = 0; step < 3; step++) {
        uint64_t n = 0;
        while (crash_at(step, n, NULL)) {
            n++;
        }
        assert_in_range(n, 1, 30);
        for (uint64_t seed = 0; seed < 10; seed++) {
            for (uint64_t i = 0; i <= n; i++) {
                struct rng rng;
                rng_init(&rng, seed, RNG_TEST, i, (uint64_t)step, 0);
                (void)crash_at(step, i, &rng);
            }
        }
    }
}

/* ---- What was spent ---- */

typedef int keeper(struct state *state, uint32_t round, const struct kept_spent *spent);

/* The bug: what can leave is on the disk before it is counted. */
static int counts_afterwards(struct state *state, uint32_t round, const struct kept_spent *spent)
{
    int rc = keep_counted(state, round, NULL);
    return rc ? rc : keep_counted(state, round, spent);
}

/* Contributions 1 to 3, one a round, on a disk that dies at its n-th operation. How many may have left, less how many
 * were counted, where a crash finds it. */
static int undercount_at(keeper *keeps, uint64_t n, struct rng *rng, bool *reached)
{
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    int left = 0;
    simdisk_init(&disk);
    open_state(&disk, &state, false, &pending);
    assert_int_equal(state_begin(&state, &run, &plan, NULL), 0);
    uint64_t before = disk.operations;
    disk.dies_after = before + n;
    for (uint32_t round = 1, rc = 0; round <= 3 && rc == 0; round++) {
        struct kept_spent spent = state_spend(&state, 0.5, 2);
        rc = keeps(&state, round, &spent) != 0;
        left += rc == 0; /* Kept, and so offered, in the moment before the crash perhaps. */
        rc = rc || state_commit(&state, round, NULL) != 0;
    }
    *reached = disk.operations > before + n;
    simdisk_crash(&disk, rng);
    disk.dies_after = UINT64_MAX;
    state_close(&state);
    open_state(&disk, &state, false, &pending);
    uint32_t made = state.pending_round > state.kept.round ? state.pending_round : state.kept.round;
    left = left > (int)made ? left : (int)made;
    assert_true(state.spent.features == 0.5 * state.spent.releases &&
                state.spent.updates == 2.0 * state.spent.releases);
    assert_true((int)state.spent.releases <= left + 1);
    int missing = left - (int)state.spent.releases;
    release(pending);
    state_close(&state);
    simdisk_fini(&disk);
    return missing;
}

static int worst_undercount(keeper *keeps)
{
    int worst = -1;
    bool reached = true;
    for (uint64_t n = 0; reached; n++) {
        int missing = undercount_at(keeps, n, NULL, &reached);
        worst = missing > worst ? missing : worst;
        for (uint64_t seed = 0; seed < 5; seed++) {
            struct rng rng;
            bool unused;
            rng_init(&rng, seed, RNG_TEST, n, 0, 0);
            missing = undercount_at(keeps, n, &rng, &unused);
            worst = missing > worst ? missing : worst;
        }
    }
    return worst;
}

static void a_crash_never_counts_too_little(void **unused)
{
    (void)unused;
    assert_int_equal(worst_undercount(keep_counted), 0);
    assert_int_equal(worst_undercount(counts_afterwards), 1);
}

/* Dropped or counted, forgotten or not: what was drawn stays counted, for this run. */
static void the_count_outlives_the_rest(void **unused)
{
    (void)unused;
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    simdisk_init(&disk);
    open_state(&disk, &state, false, &pending);
    assert_int_equal(state.spent.releases, 0); /* as of a folder from before */
    assert_int_equal(state_begin(&state, &run, &plan, NULL), 0);
    for (uint32_t i = 1; i <= 4; i++) { /* the same round each time, declined each time */
        struct kept_spent spent = state_spend(&state, 1, 0);
        assert_int_equal(keep_counted(&state, 1, &spent), 0);
        assert_int_equal(state_drop(&state, NULL), 0);
        assert_int_equal(state.spent.releases, i);
    }
    state_close(&state);
    open_state(&disk, &state, true, &pending);
    assert_false(state.has_kept);
    assert_int_equal(state_begin(&state, &run, &plan, NULL), 0);
    assert_int_equal(state_spend(&state, 1, 0).releases, 5);
    assert_true(state_spend(&state, 1, 3).features == 5 && state_spend(&state, 1, 3).updates == 3);
    assert_int_equal(state_begin(&state, &other_run, &plan, NULL), 0);
    assert_int_equal(state_spend(&state, 1, 0).releases, 1);

    /* A contribution that found no room is drawn no more often than it was. */
    struct kept_spent spent = state_spend(&state, 1, 0);
    disk.full = true;
    assert_int_equal(keep_counted(&state, 1, &spent), ERR_FULL);
    assert_int_equal(keep_counted(&state, 1, &spent), ERR_FULL);
    disk.full = false;
    assert_int_equal(keep_counted(&state, 1, &spent), 0);
    assert_int_equal(state.spent.releases, 1);
    state_close(&state);

    /* What nobody can know is not guessed. */
    struct span damaged = {"STARLNGE", 8};
    assert_int_equal(disk_save(&disk.disk, FOLDER "/spent", &damaged, 1, NULL), 0);
    struct err err;
    assert_int_equal(state_open(&state, &disk.disk, FOLDER, false, NULL, &pending, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "site/spent"));
    simdisk_fini(&disk);
}

static void a_full_disk_loses_nothing(void **unused)
{
    (void)unused;
    struct simdisk disk;
    struct state state;
    struct contribution *pending;
    simdisk_init(&disk);
    open_state(&disk, &state, false, &pending);
    assert_int_equal(state_begin(&state, &run, &plan, NULL), 0);
    disk.full = true;
    assert_int_equal(keep(&state, 1), ERR_FULL);
    assert_int_equal(state.pending_round, 0);
    disk.full = false;
    assert_int_equal(keep(&state, 1), 0);
    disk.full = true;
    assert_int_equal(state_commit(&state, 1, NULL), ERR_FULL);
    check_kept(&state, 1); /* goes on in memory */
    disk.full = false;
    state_close(&state);
    open_state(&disk, &state, false, &pending); /* the decision is asked for again */
    check_kept(&state, 0);
    check_pending(&state, pending, 1);
    release(pending);
    state_close(&state);
    simdisk_fini(&disk);
}

static void two_clients_cannot_share_a_folder(void **unused)
{
    (void)unused;
    char folder[] = "/tmp/starling-client-XXXXXX", command[64];
    struct state one, two;
    struct contribution *pending;
    struct err err;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(state_open(&one, &disk_posix, folder, false, NULL, &pending, &err), 0);
    assert_int_equal(state_open(&two, &disk_posix, folder, false, NULL, &pending, &err), ERR_UNAVAILABLE);
    assert_non_null(strstr(err.text, folder));
    state_close(&one);
    assert_int_equal(state_open(&two, &disk_posix, folder, false, NULL, &pending, &err), 0);
    assert_true(hash_equal(&one.instance, &two.instance));
    state_close(&two);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

/* A start that came to nothing takes away what it made, and nothing else. */
static void what_came_to_nothing_is_taken_back(void **state)
{
    (void)state;
    char folder[] = "/tmp/starling-client-XXXXXX", inner[64], path[96], command[64];
    struct state one;
    struct contribution *pending;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(inner, sizeof inner, "%s/a/b", folder);
    assert_int_equal(state_open(&one, &disk_posix, inner, false, NULL, &pending, NULL), 0);
    state_undo(&one);
    (void)snprintf(path, sizeof path, "%s/a", folder);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(folder, F_OK), 0);

    assert_int_equal(state_open(&one, &disk_posix, inner, false, NULL, &pending, NULL), 0);
    struct hash128 instance = one.instance;
    state_close(&one);
    assert_int_equal(state_open(&one, &disk_posix, inner, false, NULL, &pending, NULL), 0);
    state_undo(&one); /* all of it was there */
    assert_int_equal(state_open(&one, &disk_posix, inner, false, NULL, &pending, NULL), 0);
    assert_true(hash_equal(&one.instance, &instance));
    state_close(&one);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_follow_each_other),
        cmocka_unit_test(another_run_starts_from_nothing),
        cmocka_unit_test(a_start_that_comes_to_nothing_forgets_nothing),
        cmocka_unit_test(a_commit_without_room_is_made_up_for),
        cmocka_unit_test(a_crash_at_any_operation_is_before_or_after),
        cmocka_unit_test(a_crash_never_counts_too_little),
        cmocka_unit_test(the_count_outlives_the_rest),
        cmocka_unit_test(a_full_disk_loses_nothing),
        cmocka_unit_test(two_clients_cannot_share_a_folder),
        cmocka_unit_test(what_came_to_nothing_is_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
