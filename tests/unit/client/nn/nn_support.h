/* What the tests of this room share: small encoders, parameters that leave no path dead, and the comparison of a
 * gradient with finite differences. */
#ifndef STARLING_TESTS_NN_SUPPORT_H
#define STARLING_TESTS_NN_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first. */
#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/vec/layout.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline struct layout *test_layout(const struct model_spec *spec)
{
    struct layout *layout;
    struct err err;
    if (layout_new(spec, &layout, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return layout;
}

static inline float *test_floats(size_t n)
{
    float *out = mem_new_aligned(n, sizeof *out);
    assert_non_null(out);
    return out;
}

/* n normal values, a function of `name`. */
static inline float *test_normal(uint64_t name, size_t n)
{
    float *out = test_floats(n);
    struct rng rng;
    rng_init(&rng, 1, RNG_TEST, name, 0, 0);
    for (size_t i = 0; i < n; i++) {
        out[i] = rng_normal(&rng);
    }
    return out;
}

static inline float *test_unit_rows(uint64_t name, size_t n, size_t d)
{
    float *out = test_normal(name, n * d);
    for (size_t i = 0; i < n; i++) {
        double norm = 0;
        for (size_t j = 0; j < d; j++) {
            norm += (double)out[i * d + j] * (double)out[i * d + j];
        }
        for (size_t j = 0; j < d; j++) {
            out[i * d + j] = (float)((double)out[i * d + j] / sqrt(norm));
        }
    }
    return out;
}

/* params_init, then everything that starts at 0 or 1 moved away from it, so that no gradient is zero by symmetry. */
static inline float *test_params(const struct layout *layout, uint64_t seed)
{
    float *params = test_floats(layout->total), *noise = test_normal(seed + 1000, layout->total);
    params_init(layout, seed, params);
    for (uint64_t i = layout->decay_end; i < layout->trainable_end; i++) {
        params[i] += 0.3f * noise[i];
    }
    for (uint64_t i = layout->trainable_end; i < layout->total; i++) {
        params[i] += 0.1f * noise[i];
    }
    mem_free(noise);
    return params;
}

static inline double test_dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* |a - b| / |b|. */
static inline double test_distance(const float *a, const float *b, size_t n)
{
    double off = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    }
    return sqrt(off / test_dot(b, b, n));
}

/* Whether a claimed directional derivative is the measured one. */
static inline bool test_agree(double measured, double claimed, double tolerance)
{
    return fabs(measured - claimed) <= tolerance * fmax(fabs(measured), fabs(claimed));
}

struct test_function {
    double (*value)(void *ctx, const float *x); /* the function at x, of the full length */
    void *ctx;
    float *x; /* changed during the check, and put back */
};

/* Central differences along `direction` (of length 1) at three small step sizes. A ReLU that turns within a step
 * falsifies the difference and rounding falsifies small ones, so the pair of neighbouring sizes that agree best is
 * believed. */
static inline double test_derivative(struct test_function f, size_t first, size_t n, const float *direction, double h)
{
    float *saved = test_floats(n);
    memcpy(saved, f.x + first, n * sizeof *saved);
    double measured[3], best = HUGE_VAL, answer = 0;
    for (int k = 0; k < 3; k++, h /= 2) {
        double value[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++) {
                f.x[first + i] = (float)((double)saved[i] + (side ? h : -h) * (double)direction[i]);
            }
            value[side] = f.value(f.ctx, f.x);
        }
        measured[k] = (value[1] - value[0]) / (2 * h);
        if (k > 0 && fabs(measured[k] - measured[k - 1]) < best) {
            best = fabs(measured[k] - measured[k - 1]);
            answer = measured[k];
        }
    }
    memcpy(f.x + first, saved, n * sizeof *saved);
    mem_free(saved);
    return answer;
}

/* The gradient by x[first, first + n) against differences, along the gradient itself restricted to random halves of its
 * elements: that is where the signal is largest, and an error anywhere in the tensor changes the claim.
 *
 * Guards: the gradient must not vanish, and the same comparison must refuse 1.05 times the claim and a gradient of
 * zero. */
static inline void test_gradient(const char *name, struct test_function f, const float *grad, size_t first, size_t n,
                                 double change, double tolerance)
{
    float *direction = test_floats(n);
    double size = sqrt(test_dot(f.x + first, f.x + first, n));
    for (uint64_t round = 0; round < 3; round++) {
        struct rng rng;
        rng_init(&rng, 7, RNG_TEST, round, n, 0);
        for (size_t i = 0; i < n; i++) {
            bool in = round == 0 || n < 4 || rng_below(&rng, 2) == 0;
            direction[i] = in ? grad[first + i] : 0;
        }
        double norm = sqrt(test_dot(direction, direction, n));
        if (!(norm > 1e-5)) {
            fail_msg("%s: the gradient is %g, nothing to compare", name, norm);
        }
        for (size_t i = 0; i < n; i++) {
            direction[i] = (float)((double)direction[i] / norm);
        }
        double claimed = test_dot(direction, grad + first, n);
        double measured = test_derivative(f, first, n, direction, fmin(change / norm, 5e-4 * (size + 0.1)));
        if (!test_agree(measured, claimed, tolerance)) {
            fail_msg("%s: claimed %g, measured %g", name, claimed, measured);
        }
        assert_false(test_agree(measured, (1 + 3 * tolerance) * claimed, tolerance));
        assert_false(test_agree(measured, 0, tolerance));
    }
    mem_free(direction);
}

#endif
