/* The aggregate: exact means, whole contributions or none, the same bits for every order, and want of memory. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "server/agg/agg.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SITES = 5 };

static struct layout *layout;
static size_t total;
static float *params, *updates[SITES];
static const uint64_t weights[SITES] = {1, 1000, 37, 250000, 3};

static int set_up(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 1, .blocks = {1}, .width = 4, .input = 8, .features = 8};
    if (layout_new(&spec, &layout, NULL) != 0) {
        return -1;
    }
    total = (size_t)layout->total;
    params = mem_new(total, sizeof *params);
    params_init(layout, 1, params);
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, 0, 0, 0);
    for (int s = 0; s < SITES; s++) {
        updates[s] = mem_new(total, sizeof(float));
        for (size_t i = 0; i < total; i++) {
            updates[s][i] = rng_range(&rng, -0.1f, 0.1f);
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int s = 0; s < SITES; s++) {
        mem_free(updates[s]);
    }
    mem_free(params);
    layout_free(layout);
    return 0;
}

static struct agg *make(void)
{
    struct agg *agg;
    assert_int_equal(agg_new(layout, params, &agg), 0);
    return agg;
}

static void the_next_model_is_the_weighted_mean(void **state)
{
    (void)state;
    struct agg *agg = make();
    for (int s = 0; s < SITES; s++) {
        assert_int_equal(agg_check(agg, updates[s], NULL), FIXED_OK);
        agg_add(agg, updates[s], weights[s]);
    }
    assert_int_equal(agg_weight(agg), 1 + 1000 + 37 + 250000 + 3);
    struct bytes *next;
    assert_int_equal(agg_finish(agg, &next), 0);
    const float *values = (const float *)(const void *)next->data;
    for (size_t i = 0; i < total; i++) {
        double mean = 0, weight = 0;
        for (int s = 0; s < SITES; s++) {
            mean += (double)weights[s] * (double)updates[s][i];
            weight += (double)weights[s];
        }
        assert_true(fabs((double)values[i] - ((double)params[i] + mean / weight)) < 1e-6);
    }
    agg_restart(agg, next);
    agg_adopt(agg, next);
    assert_ptr_equal(agg_model(agg), next);
    assert_ptr_equal(agg_params(agg), values);
    assert_int_equal(agg_weight(agg), 0);
    agg_free(agg);
}

static void the_order_of_arrival_leaves_no_trace(void **state)
{
    (void)state;
    struct bytes *reference = NULL;
    for (uint64_t seed = 0; seed < 12; seed++) {
        uint32_t order[SITES] = {0, 1, 2, 3, 4};
        struct rng rng;
        rng_init(&rng, seed, RNG_TEST, 0, 0, 0);
        rng_permute(&rng, order, SITES);
        struct agg *agg = make();
        for (int s = 0; s < SITES; s++) {
            agg_add(agg, updates[order[s]], weights[order[s]]);
        }
        struct bytes *next;
        assert_int_equal(agg_finish(agg, &next), 0);
        if (reference) {
            assert_memory_equal(next->data, reference->data, next->len);
            bytes_unref(next);
        } else {
            reference = next;
        }
        agg_free(agg);
    }
    bytes_unref(reference);
}

static void a_refused_update_is_not_in_the_sum(void **state)
{
    (void)state;
    struct agg *agg = make();
    float *bad = mem_new(total, sizeof *bad);
    memcpy(bad, updates[0], total * sizeof *bad);
    uint32_t tensor = UINT32_MAX;
    bad[layout->tensors[1].offset] = NAN;
    assert_int_equal(agg_check(agg, bad, &tensor), FIXED_NOT_FINITE);
    assert_int_equal(tensor, 1);
    bad[layout->tensors[1].offset] = 1e9f;
    assert_int_equal(agg_check(agg, bad, &tensor), FIXED_OUT_OF_RANGE);
    assert_int_equal(tensor, 1);
    mem_free(bad);

    agg_add(agg, updates[2], 5);
    struct bytes *next;
    assert_int_equal(agg_finish(agg, &next), 0);
    const float *values = (const float *)(const void *)next->data;
    for (size_t i = 0; i < total; i++) {
        assert_true(fabsf(values[i] - (params[i] + updates[2][i])) < 1e-6f);
    }
    bytes_unref(next);
    agg_free(agg);
}

/* A sum that were not emptied would show in the second round. */
static void a_round_starts_from_nothing(void **state)
{
    (void)state;
    struct agg *agg = make(), *fresh;
    struct bytes *first, *second, *expected;
    agg_add(agg, updates[0], 7);
    assert_int_equal(agg_finish(agg, &first), 0);
    agg_restart(agg, first);
    agg_adopt(agg, first);
    agg_add(agg, updates[1], 3);
    assert_int_equal(agg_finish(agg, &second), 0);

    assert_int_equal(agg_new(layout, agg_params(agg), &fresh), 0);
    agg_add(fresh, updates[1], 3);
    assert_int_equal(agg_finish(fresh, &expected), 0);
    assert_memory_equal(second->data, expected->data, second->len);
    bytes_unref(second);
    bytes_unref(expected);
    agg_free(agg);
    agg_free(fresh);
}

static void want_of_memory_is_told_and_may_pass(void **state)
{
    (void)state;
    struct agg *agg = NULL;
    uint64_t n = 0;
    do {
        mem_fail_after(++n);
        int rc = agg_new(layout, params, &agg);
        mem_fail_after(0);
        assert_int_equal(rc, agg ? 0 : ERR_NOMEM);
    } while (!agg);
    assert_int_equal(n, 6); /* five allocations, each of which failed once */
    agg_add(agg, updates[0], 1);
    struct bytes *next;
    mem_fail_after(1);
    assert_int_equal(agg_finish(agg, &next), ERR_NOMEM);
    mem_fail_after(0);
    assert_null(next);
    assert_int_equal(agg_finish(agg, &next), 0);
    bytes_unref(next);
    agg_free(agg);
    agg_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_model_is_the_weighted_mean), cmocka_unit_test(the_order_of_arrival_leaves_no_trace),
        cmocka_unit_test(a_refused_update_is_not_in_the_sum),  cmocka_unit_test(a_round_starts_from_nothing),
        cmocka_unit_test(want_of_memory_is_told_and_may_pass),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
