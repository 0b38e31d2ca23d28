/* Fixed-point sums: the same bits for every order (and a float sum, which fails the same test), the error bound against
 * double arithmetic, ranges, that a refused delta leaves no trace, and that nothing overflows at the edge. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/fixed.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SITES = 8, ORDERS = 20 };

static struct layout *layout;
static float *global;
static int32_t *shifts;
static float *deltas[SITES];
static uint64_t weights[SITES];
static int64_t *sum, *other_sum;
static float *next;

static int set_up(void **state)
{
    (void)state;
    const struct model_spec spec = {.stages = 2, .blocks = {1, 1}, .width = 8, .input = 8, .features = 8};
    if (layout_new(&spec, &layout, NULL)) {
        return -1;
    }
    size_t n = (size_t)layout->total;
    global = mem_new_aligned(n, sizeof *global);
    next = mem_new_aligned(n, sizeof *next);
    sum = mem_new_aligned(n, sizeof *sum);
    other_sum = mem_new_aligned(n, sizeof *sum);
    shifts = mem_new(layout->count, sizeof *shifts);
    params_init(layout, 1, global);
    fixed_shifts(layout, global, shifts);
    for (uint32_t s = 0; s < SITES; s++) {
        struct rng rng;
        rng_init(&rng, 9, RNG_TEST, s, 0, 0);
        weights[s] = 1 + rng_below(&rng, 1000000);
        deltas[s] = mem_new_aligned(n, sizeof *global);
        for (size_t i = 0; i < n; i++) { /* of very different sizes, as trained tensors are */
            deltas[s][i] = rng_normal(&rng) * ldexpf(0.1f, -(int)rng_below(&rng, 12));
        }
        if (fixed_add(layout, shifts, deltas[s], weights[s], sum, NULL) != FIXED_OK) {
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int s = 0; s < SITES; s++) {
        mem_free(deltas[s]);
    }
    mem_free(global);
    mem_free(next);
    mem_free(sum);
    mem_free(other_sum);
    mem_free(shifts);
    layout_free(layout);
    return 0;
}

static uint64_t total_weight(void)
{
    uint64_t total = 0;
    for (int s = 0; s < SITES; s++) {
        total += weights[s];
    }
    return total;
}

static void add_in_order(const uint32_t *order, int64_t *out)
{
    memset(out, 0, (size_t)layout->total * sizeof *out);
    for (int s = 0; s < SITES; s++) {
        assert_int_equal(fixed_add(layout, shifts, deltas[order[s]], weights[order[s]], out, NULL), FIXED_OK);
    }
}

static void float_in_order(const uint32_t *order, float *out)
{
    memset(out, 0, (size_t)layout->total * sizeof *out);
    for (int s = 0; s < SITES; s++) {
        for (uint64_t i = 0; i < layout->total; i++) {
            out[i] += (float)weights[order[s]] * deltas[order[s]][i];
        }
    }
}

/* Fixed point passes, a plain float sum must not: otherwise these orders show nothing. */
static void test_any_order(void **state)
{
    (void)state;
    uint32_t order[SITES];
    size_t n = (size_t)layout->total;
    float *first_float = mem_new_aligned(n, sizeof *first_float);
    int float_differs = 0;
    for (uint32_t s = 0; s < SITES; s++) {
        order[s] = s;
    }
    add_in_order(order, sum);
    float_in_order(order, first_float);
    for (uint32_t trial = 0; trial < ORDERS; trial++) {
        struct rng rng;
        rng_init(&rng, 10, RNG_TEST, trial, 0, 0);
        rng_permute(&rng, order, SITES);
        add_in_order(order, other_sum);
        assert_memory_equal(sum, other_sum, n * sizeof *sum);
        float_in_order(order, next);
        float_differs += memcmp(first_float, next, n * sizeof *next) != 0;
    }
    assert_true(float_differs > ORDERS / 2);
    mem_free(first_float);
}

/* Against the weighted mean in long double: 2^-(shift+1) for what each site's rounding may have taken, half an ulp for
 * the result. The double arithmetic between may add 2^-15 of the former. */
static void test_error_bound(void **state)
{
    (void)state;
    const uint32_t order[SITES] = {0, 1, 2, 3, 4, 5, 6, 7};
    add_in_order(order, sum);
    fixed_apply(layout, shifts, sum, total_weight(), global, next);
    long double worst = 0;
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (uint64_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
            long double mean = 0;
            for (int s = 0; s < SITES; s++) {
                mean += (long double)weights[s] * (long double)deltas[s][i];
            }
            long double want = (long double)global[i] + mean / (long double)total_weight();
            float above = nextafterf(fabsf((float)want), INFINITY);
            long double half_ulp = ((long double)above - (long double)fabsf((float)want)) / 2;
            long double bound = ldexpl(1 + 0x1p-15L, -(shifts[t] + 1)) + half_ulp;
            long double error = fabsl((long double)next[i] - want);
            assert_true(error <= bound);
            worst = error / bound > worst ? error / bound : worst;
        }
    }
    assert_true(worst > 0.5L); /* the bound is not vacuous */
}

static void test_apply_in_place(void **state)
{
    (void)state;
    const uint32_t order[SITES] = {0, 1, 2, 3, 4, 5, 6, 7};
    size_t n = (size_t)layout->total;
    add_in_order(order, sum);
    fixed_apply(layout, shifts, sum, total_weight(), global, next);
    float *copy = mem_new_aligned(n, sizeof *copy);
    memcpy(copy, global, n * sizeof *copy);
    fixed_apply(layout, shifts, sum, total_weight(), copy, copy);
    assert_memory_equal(copy, next, n * sizeof *copy);
    memset(sum, 0, n * sizeof *sum);
    fixed_apply(layout, shifts, sum, 1, global, next);
    assert_memory_equal(global, next, n * sizeof *next); /* no change is no change */
    mem_free(copy);
}

static double range_of(uint32_t t)
{
    return ldexp(1.0, FIXED_BITS - shifts[t]);
}

static void test_shifts(void **state)
{
    (void)state;
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        double largest = tensor->offset < layout->trainable_end ? 0.125 : 4;
        for (uint64_t i = 0; i < tensor->count; i++) {
            largest = fmax(largest, fabs((double)global[tensor->offset + i]));
        }
        assert_true(range_of(t) >= 16 * largest && range_of(t) < 32 * largest); /* the least power of two */
    }
    /* Powers of two themselves, their neighbours, and what no model should hold. */
    static const struct {
        float value;
        double range;
    } rows[] = {{0.0f, 2},           {0.125f, 2},          {0x1.000002p-3f, 4},
                {1.0f, 16},          {0x1.fffffep-1f, 16}, {-1.5f, 32},
                {0x1.000002p0f, 32}, {-1024.0f, 16384},    {FLT_MAX, 0x1p132},
                {INFINITY, 0x1p132}, {-INFINITY, 0x1p132}, {FLT_MIN / 8, 2}};
    float *model = mem_new_aligned((size_t)layout->total, sizeof *model);
    int32_t *found = mem_new(layout->count, sizeof *found);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        model[layout->tensors[0].count - 1] = rows[i].value;
        fixed_shifts(layout, model, found);
        assert_true(ldexp(1.0, FIXED_BITS - found[0]) == rows[i].range);
        assert_int_equal(found[1], FIXED_BITS - 1); /* a neighbour is not touched */
        assert_int_equal(found[layout->count - 1], FIXED_BITS - 6);
    }
    mem_free(found);
    mem_free(model);
}

/* All that a delta may not hold, in every tensor's first and last place; and what may be, which then is added. */
static void test_what_a_delta_may_hold(void **state)
{
    (void)state;
    size_t bytes = (size_t)layout->total * sizeof *sum;
    float *delta = mem_new_aligned((size_t)layout->total, sizeof *delta);
    memset(sum, 0, bytes);
    memset(other_sum, 0, bytes);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        float range = (float)range_of(t), inside = nextafterf(range, 0);
        for (int end = 0; end < 2; end++) {
            float *place = &delta[tensor->offset + (end ? tensor->count - 1 : 0)];
            const struct {
                float value;
                enum fixed_verdict want;
            } rows[] = {{inside, FIXED_OK},           {-inside, FIXED_OK},           {FLT_TRUE_MIN, FIXED_OK},
                        {range, FIXED_OUT_OF_RANGE},  {-range, FIXED_OUT_OF_RANGE},  {FLT_MAX, FIXED_OUT_OF_RANGE},
                        {INFINITY, FIXED_NOT_FINITE}, {-INFINITY, FIXED_NOT_FINITE}, {NAN, FIXED_NOT_FINITE},
                        {-NAN, FIXED_NOT_FINITE}};
            for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                uint32_t found = UINT32_MAX;
                *place = rows[i].value;
                assert_int_equal(fixed_add(layout, shifts, delta, 3, sum, &found), rows[i].want);
                assert_int_equal(found, rows[i].want == FIXED_OK ? UINT32_MAX : t);
                if (rows[i].want == FIXED_OK) {
                    fixed_subtract(layout, shifts, delta, 3, sum);
                }
                assert_int_equal(fixed_add(layout, shifts, delta, 3, sum, NULL), rows[i].want);
                if (rows[i].want == FIXED_OK) {
                    assert_true(sum[place - delta] == 3 * llrint(ldexp((double)rows[i].value, shifts[t])));
                    fixed_subtract(layout, shifts, delta, 3, sum);
                }
                assert_memory_equal(sum, other_sum, bytes);
            }
            *place = 0;
        }
    }
    mem_free(delta);
}

/* Site 0 has added; site 1's delta has one bad number, in place `at`. `forgets` is the planted mistake: what was added
 * until the bad number was met is left in the sum. */
static enum fixed_verdict add_refused(uint64_t at, float value, bool forgets, uint32_t *tensor)
{
    memset(sum, 0, (size_t)layout->total * sizeof *sum);
    assert_int_equal(fixed_add(layout, shifts, deltas[0], weights[0], sum, NULL), FIXED_OK);
    memcpy(other_sum, sum, (size_t)layout->total * sizeof *sum);
    float *delta = mem_new_aligned((size_t)layout->total, sizeof *delta);
    memcpy(delta, deltas[1], (size_t)layout->total * sizeof *delta);
    delta[at] = value;
    enum fixed_verdict verdict = fixed_add(layout, shifts, delta, weights[1], sum, tensor);
    if (forgets) {
        memset(delta + at, 0, (size_t)(layout->total - at) * sizeof *delta);
        assert_int_equal(fixed_add(layout, shifts, delta, weights[1], sum, NULL), FIXED_OK);
    }
    mem_free(delta);
    return verdict;
}

static void test_refused_leaves_no_trace(void **state)
{
    (void)state;
    size_t bytes = (size_t)layout->total * sizeof *sum;
    uint32_t found;
    struct rng rng;
    rng_init(&rng, 12, RNG_TEST, 0, 0, 0);
    for (uint32_t t = 0; t < layout->count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        for (int trial = 0; trial < 10; trial++) {
            uint64_t i = trial == 0 ? 0 : trial == 1 ? tensor->count - 1 : rng_below(&rng, (uint32_t)tensor->count);
            assert_int_equal(add_refused(tensor->offset + i, i % 2 ? NAN : 1e9f, false, &found),
                             i % 2 ? FIXED_NOT_FINITE : FIXED_OUT_OF_RANGE);
            assert_int_equal(found, t);
            assert_memory_equal(sum, other_sum, bytes);
        }
        (void)add_refused(tensor->offset + tensor->count - 1, NAN, true, &found);
        assert_memory_not_equal(sum, other_sum, bytes);
    }
}

/* A tensor that holds both, in either order, is not finite; a tensor behind the first bad one is not looked at. */
static void test_verdict_is_the_tensors(void **state)
{
    (void)state;
    float *delta = mem_new_aligned((size_t)layout->total, sizeof *delta);
    const struct tensor *large = &layout->tensors[0];
    for (uint32_t t = 0; t < layout->count; t++) {
        large = layout->tensors[t].count > large->count ? &layout->tensors[t] : large;
    }
    uint32_t found = UINT32_MAX;
    delta[large->offset + 1] = 1e9f;
    delta[large->offset + large->count - 1] = INFINITY;
    assert_int_equal(fixed_add(layout, shifts, delta, 1, sum, &found), FIXED_NOT_FINITE);
    assert_int_equal(found, large - layout->tensors);
    delta[large->offset + large->count - 1] = 0;
    delta[layout->total - 1] = INFINITY;
    assert_int_equal(fixed_add(layout, shifts, delta, 1, sum, &found), FIXED_OUT_OF_RANGE);
    assert_int_equal(found, large - layout->tensors);
    mem_free(delta);
}

/* Where the range is beyond all floats, every number that is one is within it. */
static void test_widest_range(void **state)
{
    (void)state;
    float *model = mem_new_aligned((size_t)layout->total, sizeof *model);
    int32_t *widest = mem_new(layout->count, sizeof *widest);
    model[0] = FLT_MAX;
    fixed_shifts(layout, model, widest);
    memset(sum, 0, (size_t)layout->total * sizeof *sum);
    assert_int_equal(fixed_add(layout, widest, model, 3, sum, NULL), FIXED_OK);
    assert_true(sum[0] == 3 * llrint(ldexp((double)FLT_MAX, widest[0])));
    model[0] = -INFINITY;
    assert_int_equal(fixed_add(layout, widest, model, 3, sum, NULL), FIXED_NOT_FINITE);
    mem_free(widest);
    mem_free(model);
}

/* Some are taken back, in another order than they came: the sum is that of the others. */
static void test_subtract(void **state)
{
    (void)state;
    const uint32_t order[SITES] = {0, 1, 2, 3, 4, 5, 6, 7};
    size_t bytes = (size_t)layout->total * sizeof *sum;
    add_in_order(order, sum);
    static const uint32_t leave[] = {5, 0, 3};
    for (int i = 0; i < 3; i++) {
        fixed_subtract(layout, shifts, deltas[leave[i]], weights[leave[i]], sum);
    }
    memset(other_sum, 0, bytes);
    static const uint32_t stay[] = {1, 2, 4, 6, 7};
    for (int i = 0; i < 5; i++) {
        assert_memory_not_equal(sum, other_sum, bytes);
        (void)fixed_add(layout, shifts, deltas[stay[i]], weights[stay[i]], other_sum, NULL);
    }
    assert_memory_equal(sum, other_sum, bytes);
}

/* The largest values that pass, with the largest weight, in one piece and in two: the sums are exact, below 2^62. The
 * sanitizer stops on an overflow. */
static void test_edge(void **state)
{
    (void)state;
    size_t n = (size_t)layout->total;
    float *delta = mem_new_aligned(n, sizeof *delta);
    for (uint32_t t = 0; t < layout->count; t++) {
        for (uint64_t i = 0; i < layout->tensors[t].count; i++) {
            float inside = nextafterf((float)range_of(t), 0);
            delta[layout->tensors[t].offset + i] = i % 2 ? -inside : inside;
        }
    }
    memset(sum, 0, n * sizeof *sum);
    memset(other_sum, 0, n * sizeof *sum);
    assert_int_equal(fixed_add(layout, shifts, delta, FIXED_WEIGHT_MAX, sum, NULL), FIXED_OK);
    assert_int_equal(fixed_add(layout, shifts, delta, 1, other_sum, NULL), FIXED_OK);
    assert_int_equal(fixed_add(layout, shifts, delta, FIXED_WEIGHT_MAX - 1, other_sum, NULL), FIXED_OK);
    assert_memory_equal(sum, other_sum, n * sizeof *sum);
    const int64_t largest = (INT64_C(1) << 62) - (INT64_C(1) << (62 - 24));
    for (uint32_t t = 0; t < layout->count; t++) {
        for (uint64_t i = 0; i < layout->tensors[t].count; i++) {
            assert_true(sum[layout->tensors[t].offset + i] == (i % 2 ? -largest : largest));
        }
    }
    memset(global, 0, n * sizeof *global);
    fixed_apply(layout, shifts, sum, FIXED_WEIGHT_MAX, global, next);
    assert_memory_equal(next, delta, n * sizeof *next); /* the mean of one is itself, to the bit */
    params_init(layout, 1, global);
    mem_free(delta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_error_bound),
        cmocka_unit_test(test_apply_in_place),
        cmocka_unit_test(test_shifts),
        cmocka_unit_test(test_what_a_delta_may_hold),
        cmocka_unit_test(test_refused_leaves_no_trace),
        cmocka_unit_test(test_verdict_is_the_tensors),
        cmocka_unit_test(test_widest_range),
        cmocka_unit_test(test_subtract),
        cmocka_unit_test(test_edge),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
