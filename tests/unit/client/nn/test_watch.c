/* The measures of a representation where they are known in closed form; what is too little to measure; that a kind of
 * collapse which one measure does not see is seen by another. */
#include "tests/unit/client/nn/nn_support.h"

#include "client/nn/watch.h"

#define D 32u

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-6)) {
        fail_msg("%.9f, not %.9f", got, want);
    }
}

static struct watch measure(const float *q, const float *k, uint32_t n, uint32_t d)
{
    struct watch out;
    assert_int_equal(watch_measure(q, k, n, d, &out, NULL), 0);
    assert_true(out.measured && watch_is_sane(&out));
    return out;
}

static void all_rows_the_same(void **state)
{
    (void)state;
    float *q = test_unit_rows(1, 1, D), *rows = test_floats(20 * D);
    for (uint32_t i = 0; i < 20; i++) {
        memcpy(rows + i * D, q, D * sizeof *q);
    }
    struct watch w = measure(rows, rows, 20, D);
    assert_true(w.alignment <= 0 && w.deviation <= 0); /* exactly, as is the rank: no rounding makes up directions */
    assert_true(w.rank <= 1);
    near(w.uniformity, 0);
    mem_free(rows);
    mem_free(q);
}

/* n of d unit vectors along the axes, as each other's views too: n - 1 equal eigenvalues. */
static void orthonormal_rows(void **state)
{
    (void)state;
    static const uint32_t counts[] = {2, 5, D};
    float *q = test_floats(D * D), *k = test_floats(D * D);
    for (size_t c = 0; c < 3; c++) {
        uint32_t n = counts[c];
        memset(q, 0, D * D * sizeof *q);
        memset(k, 0, D * D * sizeof *k);
        for (uint32_t i = 0; i < n; i++) {
            q[i * D + i] = 1;
            k[i * D + (i + 1) % n] = 1;
        }
        struct watch w = measure(q, k, n, D);
        near(w.alignment, 2);
        near(w.uniformity, -4);
        near(w.rank, n - 1.0);
        near(w.deviation, n * sqrt(1.0 / n * (1 - 1.0 / n)) / sqrt(D));
    }
    mem_free(q);
    mem_free(k);
}

/* Half the rows at e_0, half at -e_0: one direction, however far apart. */
static void two_clusters(void **state)
{
    (void)state;
    const uint32_t n = 40;
    float *q = test_floats(n * D);
    for (uint32_t i = 0; i < n; i++) {
        q[i * D] = i % 2 ? 1 : -1;
    }
    struct watch w = measure(q, q, n, D);
    near(w.alignment, 0);
    near(w.rank, 1);
    near(w.deviation, 1 / sqrt(D));
    double apart = n / 2.0 * n / 2.0, pairs = n * (n - 1) / 2.0;
    near(w.uniformity, log((pairs - apart + apart * exp(-8)) / pairs));
    mem_free(q);
}

/* Even spread in all of the space, and in two of its dimensions: the deviation falls with the dimensions used, and the
 * rank counts them. */
static void even_spread(void **state)
{
    (void)state;
    float *q = test_unit_rows(2, WATCH_ROWS, D);
    struct watch all = measure(q, q, WATCH_ROWS, D);
    assert_true(all.deviation > 0.95 && all.rank > 0.85 * D && all.uniformity < -3.5);
    for (uint32_t i = 0; i < WATCH_ROWS; i++) {
        double angle = 2 * 3.141592653589793 * i / WATCH_ROWS;
        memset(q + i * D, 0, D * sizeof *q);
        q[i * D] = (float)cos(angle);
        q[i * D + 7] = (float)sin(angle);
    }
    struct watch plane = measure(q, q, WATCH_ROWS, D);
    near(plane.rank, 2);
    near(plane.deviation, 2 * sqrt(0.5) / sqrt(D));
    mem_free(q);
}

static void few_rows_and_many(void **state)
{
    (void)state;
    float *q = test_unit_rows(3, WATCH_ROWS + 50, 8);
    struct watch none = {true, 1, 1, 1, 1};
    assert_int_equal(watch_measure(q, q, 1, 8, &none, NULL), 0);
    assert_false(none.measured);
    assert_true(measure(q, q, 2, 8).rank <= 1 + 1e-9);
    struct watch most = measure(q, q, WATCH_ROWS, 8), more = measure(q, q, WATCH_ROWS + 50, 8);
    assert_memory_equal(&most, &more, sizeof more);
    mem_free(q);
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    float *q = test_unit_rows(4, 4, 8);
    for (uint64_t n = 1; n <= 2; n++) {
        struct watch out;
        struct err err;
        mem_fail_after(n);
        assert_int_equal(watch_measure(q, q, 4, 8, &out, &err), ERR_NOMEM);
        mem_fail_after(0);
        assert_false(out.measured);
    }
    mem_free(q);
}

static void bytes_come_back_and_nonsense_does_not(void **state)
{
    (void)state;
    uint8_t bytes[WATCH_BYTES], zero[WATCH_BYTES] = {0};
    const struct watch none = {0};
    struct watch w = {true, 0.5, -3, 0.9, 20}, back;
    watch_store(bytes, &w);
    back = watch_load(bytes);
    assert_true(back.measured);
    near(back.rank, 20);
    watch_store(bytes, &none);
    assert_memory_equal(bytes, zero, sizeof zero);
    assert_false(watch_load(bytes).measured);
    double *const fields[] = {&w.alignment, &w.uniformity, &w.deviation, &w.rank};
    static const double bad[] = {-9, 1e9, (double)NAN, (double)INFINITY};
    for (size_t f = 0; f < 4; f++) {
        double good = *fields[f];
        for (size_t b = 0; b < 4; b++) {
            *fields[f] = bad[b];
            assert_false(watch_is_sane(&w));
            watch_store(bytes, &w);
            assert_false(watch_load(bytes).measured);
        }
        *fields[f] = good;
    }
    assert_true(watch_is_sane(&w));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_rows_the_same),
        cmocka_unit_test(orthonormal_rows),
        cmocka_unit_test(two_clusters),
        cmocka_unit_test(even_spread),
        cmocka_unit_test(few_rows_and_many),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(bytes_come_back_and_nonsense_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
