/* The Gaussian mechanism: the noise has the distribution that it should have, everything is clipped and noised, and the
 * costs are those of the sensitivities. Bounds hold with at most 1e-6 of false alarms, whatever the secret; the seeds
 * are fixed besides. Checks are tried on planted bugs. */
#include "client/train/noise.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/layout.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define N 1000000u

/* A secret that a test can know. */
static int fill(void *ctx, void *out, size_t bytes)
{
    uint8_t *at = out;
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)rng_u32(ctx);
    }
    return 0;
}

static int fail_to_fill(void *ctx, void *out, size_t bytes)
{
    (void)ctx, (void)out, (void)bytes;
    return ERR_FAILED;
}

static struct noise_source source_of(struct rng *rng, uint64_t seed)
{
    rng_init(rng, seed, RNG_TEST, 0, 0, 0);
    return (struct noise_source){fill, rng};
}

static float *zeros(size_t n)
{
    float *x = mem_new(n, sizeof *x);
    assert_non_null(x);
    return x;
}

static void update(const struct noise_source *source, double clip, double noise, float *x, uint64_t n, double *length)
{
    struct err err = {0};
    if (noise_update(source, clip, noise, x, n, length, &err)) {
        fail_msg("%s", err.text);
    }
}

/* Whether numbers can be n independent ones of N(0, deviation^2). The mean's tail is the normal's, 4.9 for 1e-6; the
 * sum of squares' is that of chi-squared with n degrees, by Laurent and Massart (2000, lemma 1): above n + 2 sqrt(n t)
 * + 2 t or below n - 2 sqrt(n t) with probability e^-t each, t = log(2e6). */
static bool is_noise(const float *x, uint64_t n, double deviation)
{
    double sum = 0, squares = 0, count = (double)n, t = log(2e6);
    for (uint64_t i = 0; i < n; i++) {
        sum += (double)x[i] / deviation;
        squares += (double)x[i] / deviation * ((double)x[i] / deviation);
    }
    return fabs(sum) <= 4.9 * sqrt(count) && squares <= count + 2 * sqrt(count * t) + 2 * t &&
           squares >= count - 2 * sqrt(count * t);
}

static void noise_is_normal(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct rng rng;
        struct noise_source source = source_of(&rng, seed);
        float *x = zeros(N);
        double length;
        update(&source, 2, 1.5, x, N, &length);
        assert_true(length == 0);
        assert_true(is_noise(x, N, 3));
        assert_false(is_noise(x, N, 3 * 1.01)); /* The check sees a percent, */
        assert_false(is_noise(x, N, 3 * 0.99));
        double both = 0;
        uint32_t beyond[5] = {0};
        for (uint32_t i = 0; i < N; i++) {
            for (int k = 1; k < 5; k++) {
                beyond[k] += fabs((double)x[i]) > 3.0 * k;
            }
            both += i % 2 ? (double)x[i] * (double)x[i - 1] / 9 : 0;
        }
        for (int k = 1; k < 5; k++) { /* and the shape is right: binomial counts, five deviations and one */
            double p = erfc(k / sqrt(2)), expected = p * N;
            assert_true(fabs(beyond[k] - expected) < 5 * sqrt(expected * (1 - p)) + 1);
        }
        assert_true(fabs(both) < 5 * sqrt(N / 2)); /* Two of one pair know nothing of each other. */
        x[7] += 30000;                             /* and a shift in one place */
        assert_false(is_noise(x, N, 3));
        mem_free(x);
    }
}

static void the_same_is_never_drawn_twice(void **state)
{
    (void)state;
    struct rng rng;
    struct noise_source source = source_of(&rng, 1);
    float *a = zeros(4096), *b = zeros(4096);
    double length;
    update(&source, 1, 1, a, 4096, &length);
    update(&source, 1, 1, b, 4096, &length);
    uint32_t same = 0;
    for (uint32_t i = 0; i < 4096; i++) {
        same += a[i] == b[i];
    }
    assert_true(same < 3);
    source = source_of(&rng, 1); /* the secret, known */
    memset(b, 0, 4096 * sizeof *b);
    update(&source, 1, 1, b, 4096, &length);
    assert_memory_equal(a, b, 4096 * sizeof *a);
    mem_free(a);
    mem_free(b);
}

static double length_of(const float *x, uint64_t n)
{
    double square = 0;
    for (uint64_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
    }
    return sqrt(square);
}

static void updates_are_clipped(void **state)
{
    (void)state;
    struct noise_source none = {fail_to_fill, NULL}; /* Not asked without noise. */
    float x[3] = {3, 0, 4};
    double length;
    update(&none, 10, 0, x, 3, &length);
    assert_true(length == 5 && x[0] == 3 && x[2] == 4); /* short enough: as it was */
    update(&none, 1, 0, x, 3, &length);
    assert_true(length == 5 && fabs(length_of(x, 3) - 1) < 1e-6);
    assert_true(fabs((double)x[0] - 0.6) < 1e-6 && fabs((double)x[2] - 0.8) < 1e-6);
    float huge[2] = {3e38f, 3e38f}; /* its square is no float */
    update(&none, 1, 0, huge, 2, &length);
    assert_true(fabs(length_of(huge, 2) - 1) < 1e-6);
}

/* ---- Every part of an update ---- */

typedef void mechanism(const struct layout *layout, const struct noise_source *source, float *x);

static void ours(const struct layout *layout, const struct noise_source *source, float *x)
{
    double length;
    update(source, 1, 0.5, x, layout->total, &length);
}

/* The bug: statistics of batch normalisation are no parameters, so nobody thinks of them when noise is added. */
static void forgets_statistics(const struct layout *layout, const struct noise_source *source, float *x)
{
    double length = length_of(x, layout->total);
    for (uint64_t i = 0; i < layout->total; i++) {
        x[i] /= (float)length;
    }
    update(source, 1, 0.5, x, layout->trainable_end, &length);
}

/* The bug: they are noised and not clipped. */
static void clips_parameters_alone(const struct layout *layout, const struct noise_source *source, float *x)
{
    uint64_t trained = layout->trainable_end, rest = layout->total - trained;
    float *noise = zeros(rest);
    double length;
    update(source, 1, 0.5, x, trained, &length);
    update(source, 1, 0.5, noise, rest, &length);
    for (uint64_t i = 0; i < rest; i++) {
        x[trained + i] += noise[i];
    }
    mem_free(noise);
}

/* The update was the same number everywhere, of length 30, and must be a 30th of it and noise: what is trained, and the
 * statistics. */
static bool all_is_protected(mechanism *protect)
{
    struct model_spec spec = {.stages = 2, .blocks = {1, 1}, .width = 8, .input = 8, .features = 8};
    struct layout *layout;
    assert_int_equal(layout_new(&spec, &layout, NULL), 0);
    struct rng rng;
    struct noise_source source = source_of(&rng, 3);
    uint64_t trained = layout->trainable_end, total = layout->total;
    float *x = zeros(total), value = (float)(30 / sqrt((double)total));
    for (uint64_t i = 0; i < total; i++) {
        x[i] = value;
    }
    protect(layout, &source, x);
    for (uint64_t i = 0; i < total; i++) {
        x[i] -= value / 30;
    }
    assert_true(total - trained > 100); /* enough for the bounds to be narrow */
    bool good = is_noise(x, trained, 0.5) && is_noise(x + trained, total - trained, 0.5);
    mem_free(x);
    layout_free(layout);
    return good;
}

static void no_part_of_an_update_is_left_out(void **state)
{
    (void)state;
    assert_true(all_is_protected(ours));
    assert_false(all_is_protected(forgets_statistics));
    assert_false(all_is_protected(clips_parameters_alone));
}

/* ---- Features ---- */

static void rows_are_noisy_unit_rows(void **state)
{
    (void)state;
    enum { ROWS = 50, D = 32 };
    struct rng rng;
    float rows[ROWS * D] = {0}, normals[ROWS * D] = {0};
    double length;
    struct noise_source source = source_of(&rng, 5);
    update(&source, 1, 1, normals, ROWS * D, &length); /* the same secret */
    source = source_of(&rng, 5);
    for (uint32_t r = 0; r < ROWS; r++) {
        rows[r * D + r % D] = r % 3 ? 1 : 7; /* one that is too long counts as its direction */
    }
    assert_int_equal(noise_rows(&source, 0.25, rows, ROWS, D, NULL), 0);
    for (uint32_t r = 0; r < ROWS; r++) {
        double noisy[D], square = 0;
        for (uint32_t i = 0; i < D; i++) {
            noisy[i] = (i == r % D) + 0.25 * (double)normals[r * D + i];
            square += noisy[i] * noisy[i];
        }
        for (uint32_t i = 0; i < D; i++) {
            assert_true(fabs((double)rows[r * D + i] - noisy[i] / sqrt(square)) < 1e-6);
        }
        assert_true(fabs(length_of(rows + r * D, D) - 1) < 1e-6);
    }
}

static void what_cannot_be_protected_does_not_leave(void **state)
{
    (void)state;
    struct rng rng;
    struct noise_source source = source_of(&rng, 5), broken = {fail_to_fill, NULL};
    struct err err;
    float rows[8] = {1, 0, 0, 0, 0, NAN, 0, 0}, x[2] = {1, INFINITY};
    double length;
    assert_int_equal(noise_rows(&source, 1, rows, 2, 4, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "feature 1"));
    assert_int_equal(noise_update(&source, 1, 1, x, 2, &length, &err), ERR_DATA);
    assert_int_equal(noise_rows(&broken, 1, rows, 1, 4, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, "privacy"));
    assert_int_equal(noise_update(&broken, 1, 1, x, 1, &length, &err), ERR_FAILED);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_int_equal(noise_rows(&source, 1, rows, 1, 4, &err), ERR_NOMEM);
        mem_fail_after(0);
    }
    mem_fail_after(1);
    assert_int_equal(noise_update(&source, 1, 1, x, 1, &length, &err), ERR_NOMEM);
    mem_fail_after(0);
}

/* Rows of (2 / s)^2 / 2 each: one moves, or all do. */
static void costs_follow_the_sensitivities(void **state)
{
    (void)state;
    struct plan plan = {.fusion.privacy.noise = 0.5, .update.privacy = {.clip = 3, .noise = 4}};
    plan.fusion.encoder = FUSION_ENCODER_AGGREGATED;
    assert_true(noise_rows_cost(&plan, 100) == 8);
    assert_true(noise_rows_cost(&plan, 0) == 0);
    plan.fusion.encoder = FUSION_ENCODER_MOMENTUM;
    assert_true(fabs(noise_rows_cost(&plan, 100) - 800) < 1e-9);
    assert_true(noise_update_cost(&plan) == 0.125);
    plan.fusion.privacy.noise = plan.update.privacy.noise = 0;
    assert_true(noise_rows_cost(&plan, 100) == 0 && noise_update_cost(&plan) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_normal),
        cmocka_unit_test(the_same_is_never_drawn_twice),
        cmocka_unit_test(updates_are_clipped),
        cmocka_unit_test(no_part_of_an_update_is_left_out),
        cmocka_unit_test(rows_are_noisy_unit_rows),
        cmocka_unit_test(what_cannot_be_protected_does_not_leave),
        cmocka_unit_test(costs_follow_the_sensitivities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
