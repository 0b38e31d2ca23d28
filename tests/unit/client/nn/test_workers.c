/* The worker pool: every item once, at the same time, and the failure of the lowest item. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/workers.h"

#include <pthread.h>
#include <stdatomic.h>

#define ITEMS 200u

struct record {
    _Atomic uint32_t runs[ITEMS];
    _Atomic uint32_t most_worker;
    uint32_t failing; /* items from here on fail */
    pthread_barrier_t *meet;
};

static int count_item(void *ctx, uint32_t worker, uint32_t item, struct err *err)
{
    struct record *record = ctx;
    atomic_fetch_add(&record->runs[item], 1);
    if (worker > atomic_load(&record->most_worker)) {
        atomic_store(&record->most_worker, worker);
    }
    if (record->meet) {
        (void)pthread_barrier_wait(record->meet);
    }
    return item >= record->failing ? err_set(err, ERR_FAILED, "item %u", item) : 0;
}

static void each_item_once(void **state)
{
    (void)state;
    struct workers *workers;
    assert_int_equal(workers_new(3, &workers, NULL), 0);
    for (int round = 0; round < 50; round++) {
        struct record record = {.failing = ITEMS};
        assert_int_equal(workers_run(workers, ITEMS, count_item, &record, NULL), 0);
        for (uint32_t i = 0; i < ITEMS; i++) {
            assert_int_equal(record.runs[i], 1);
        }
        assert_true(record.most_worker < 3);
    }
    assert_int_equal(workers_run(workers, 0, count_item, NULL, NULL), 0);
    workers_free(workers);
}

/* Items that wait for each other end only when they run at the same time. */
static void items_run_together(void **state)
{
    (void)state;
    struct workers *workers;
    pthread_barrier_t meet;
    struct record record = {.failing = ITEMS, .meet = &meet};
    assert_int_equal(pthread_barrier_init(&meet, NULL, 4), 0);
    assert_int_equal(workers_new(4, &workers, NULL), 0);
    assert_int_equal(workers_run(workers, 4, count_item, &record, NULL), 0);
    workers_free(workers);
    assert_int_equal(pthread_barrier_destroy(&meet), 0);
}

static void the_lowest_failure_is_told(void **state)
{
    (void)state;
    struct workers *workers;
    assert_int_equal(workers_new(4, &workers, NULL), 0);
    for (uint32_t failing = 1; failing < ITEMS; failing += 13) {
        struct record record = {.failing = failing};
        struct err err = {0};
        char text[32];
        assert_int_equal(workers_run(workers, ITEMS, count_item, &record, &err), ERR_FAILED);
        (void)snprintf(text, sizeof text, "item %u", failing);
        assert_string_equal(err.text, text);
        for (uint32_t i = 0; i <= failing; i++) {
            assert_int_equal(record.runs[i], 1);
        }
    }
    struct record record = {.failing = ITEMS};
    assert_int_equal(workers_run(workers, ITEMS, count_item, &record, NULL), 0); /* and is forgotten */
    workers_free(workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_once),
        cmocka_unit_test(items_run_together),
        cmocka_unit_test(the_lowest_failure_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
