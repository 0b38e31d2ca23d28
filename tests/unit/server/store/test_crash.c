/* The machine goes down at every operation of a save, on a disk that then remembers only what was synced and, by
 * chance, some of the rest: what loads afterwards is a whole state, and the new one if its save had returned 0. A store
 * that wrote the checkpoint first, or forgot one sync, fails here. */
#include "common/base/mem.h"
#include "common/config/plan.h"
#include "server/store/store.h"
#include "tests/support/simdisk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER "state"

struct room {
    struct plan plan;
    struct buf plan_bytes;
    struct layout *layout;
    float *params;
    struct simdisk disk;
};

static int setup(void **state)
{
    struct room *room = mem_new(1, sizeof *room);
    config_defaults(&plan_set, &room->plan);
    room->plan.model.width = 4;
    room->plan.model.stages = 1;
    room->plan.model.blocks[0] = 1;
    memset(&room->plan.model.blocks[1], 0, 3 * sizeof(uint32_t));
    room->plan.model.features = 8;
    room->plan.model.input = 8;
    buf_init(&room->plan_bytes, 1 << 16);
    assert_int_equal(plan_encode(&room->plan, &room->plan_bytes), 0);
    assert_int_equal(layout_new(&room->plan.model, &room->layout, NULL), 0);
    room->params = mem_new_aligned((size_t)room->layout->total, sizeof(float));
    *state = room;
    return 0;
}

static int teardown(void **state)
{
    struct room *room = *state;
    layout_free(room->layout);
    mem_free(room->params);
    buf_fini(&room->plan_bytes);
    mem_free(room);
    return 0;
}

static struct checkpoint state_of(struct room *room, uint32_t round)
{
    static uint8_t bank[512];
    params_init(room->layout, round + 1, room->params);
    memset(bank, (int)round + 1, sizeof bank);
    struct checkpoint checkpoint = {.round = round,
                                    .plan = room->plan_bytes.data,
                                    .plan_len = (uint32_t)room->plan_bytes.len,
                                    .params = room->params,
                                    .bank = bank,
                                    .bank_len = sizeof bank,
                                    .optimiser = (uint8_t *)(void *)room->params,
                                    .optimiser_len = 600,
                                    .summary.round = round};
    memset(checkpoint.run.bytes, 7, 16);
    return checkpoint;
}

static int save(struct room *room, uint32_t round)
{
    struct store *store;
    int rc = store_open(&room->disk.disk, FOLDER, 0, NULL, &store, NULL);
    struct checkpoint checkpoint = state_of(room, round);
    rc = rc ? rc : store_save(store, room->layout, &checkpoint, NULL);
    store_close(store);
    return rc;
}

static void nothing_is_skipped(void *ctx, enum log_level level, const char *event, const char *fields)
{
    (void)ctx;
    (void)level;
    if (strcmp(event, "checkpoint_skipped") == 0) {
        fail_msg("%s", fields);
    }
}

static const struct log watched = {.emit = nothing_is_skipped};

/* The round of what loads, after a look at all of it. */
static uint32_t load(struct room *room)
{
    struct store *store;
    struct checkpoint got;
    struct err err = {0};
    bool found;
    assert_int_equal(store_open(&room->disk.disk, FOLDER, 0, &watched, &store, NULL), 0);
    if (store_load(store, room->layout, room->plan_bytes.data, (uint32_t)room->plan_bytes.len, false, &got, &found,
                   &err)) {
        fail_msg("%s", err.text);
    }
    assert_true(found);
    struct checkpoint want = state_of(room, got.round);
    assert_memory_equal(got.params, want.params, room->layout->total * sizeof(float));
    assert_int_equal(got.bank_len, want.bank_len);
    assert_memory_equal(got.bank, want.bank, want.bank_len);
    uint32_t round = got.round;
    checkpoint_fini(&got);
    store_close(store);
    return round;
}

/* Saves rounds 0 to 2 and dies at the n-th operation of round 3's save. Whether it got that far. */
static bool crash_at(struct room *room, uint64_t n, struct rng *rng)
{
    simdisk_init(&room->disk);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(save(room, round), 0);
    }
    uint64_t before = room->disk.operations;
    room->disk.dies_after = before + n;
    int rc = save(room, 3);
    bool reached = room->disk.operations > before + n;
    simdisk_crash(&room->disk, rng);
    room->disk.dies_after = UINT64_MAX;
    uint32_t round = load(room);
    assert_true(round == 3 || (round == 2 && rc != 0));
    assert_int_equal(save(room, 3), 0); /* the round is done again */
    assert_int_equal(load(room), 3);
    simdisk_fini(&room->disk);
    return reached;
}

static void a_crash_at_any_operation_leaves_a_whole_state(void **state)
{
    struct room *room = *state;
    uint64_t n = 0;
    while (crash_at(room, n, NULL)) {
        n++;
    }
    assert_in_range(n, 15, 80);
    for (uint64_t seed = 0; seed < 8; seed++) {
        for (uint64_t i = 0; i <= n; i++) {
            struct rng rng;
            rng_init(&rng, seed, RNG_TEST, i, 0, 0);
            (void)crash_at(room, i, &rng);
        }
    }
}

static void a_full_disk_keeps_the_last_state(void **state)
{
    struct room *room = *state;
    simdisk_init(&room->disk);
    assert_int_equal(save(room, 0), 0);
    assert_int_equal(save(room, 1), 0);
    room->disk.full = true;
    assert_int_equal(save(room, 2), ERR_FULL);
    assert_int_equal(load(room), 1);
    room->disk.full = false;
    assert_int_equal(save(room, 2), 0);
    assert_int_equal(load(room), 2);
    simdisk_fini(&room->disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_crash_at_any_operation_leaves_a_whole_state, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_keeps_the_last_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
