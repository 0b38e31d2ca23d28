/* Every instruction set that this processor has looks at and adds a block as plain arithmetic does, to the bit: at the
 * edges, halfway between integers, for every length. Kernels with planted mistakes do not pass. */
#include "common/base/rng.h"
#include "common/vec/fixed.h"
#include "common/vec/fixed_kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { LENGTH = 600, GUARD = 16 };

static const int32_t shifts[] = {FIXED_BITS - 1, 20, 0, FIXED_BITS - 128, FIXED_BITS - 132};
static const int64_t weights[] = {1,
                                  -1,
                                  12345,
                                  -77,
                                  (1 << 16) + 1,
                                  (int64_t)FIXED_WEIGHT_MAX,
                                  (int64_t)FIXED_WEIGHT_MAX - 1,
                                  -(int64_t)FIXED_WEIGHT_MAX};

static float of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int32_t limit_of(int32_t shift)
{
    float range = (float)ldexp(1.0, FIXED_BITS - shift); /* infinity from 2^128 on */
    int32_t bits;
    memcpy(&bits, &range, sizeof bits);
    return bits;
}

/* One of all that passes with this shift: zeros, the least and the largest, halves between integers, their neighbours,
 * and any other number. */
static float draw(struct rng *rng, int32_t shift)
{
    float value, largest = of_bits((uint32_t)limit_of(shift) - 1), half;
    switch (rng_below(rng, 8)) {
    case 0:
        value = rng_below(rng, 2) ? 0.0f : largest;
        break;
    case 1:
        value = of_bits(rng_below(rng, 1u << 23)); /* subnormal */
        break;
    case 2:
    case 3:
    case 4: /* k + 1/2, where that is a float: k even and odd */
        half = ldexpf((float)rng_below(rng, 1u << rng_below(rng, 23)) + 0.5f, -shift);
        value = rng_below(rng, 3) ? half : nextafterf(half, rng_below(rng, 2) ? 0 : FLT_MAX);
        break;
    case 5:
        value = ldexpf((float)rng_below(rng, 1u << 24), FIXED_BITS - 24 - shift);
        break;
    default:
        value = of_bits(rng_below(rng, (uint32_t)limit_of(shift)));
    }
    value = value > largest ? largest : value;
    return rng_below(rng, 2) ? -value : value;
}

/* The definition. */
static int64_t expected(float value, int32_t shift, int64_t weight)
{
    long double exact = (long double)value * ldexpl(1, shift), down = floorl(exact), rest = exact - down;
    bool up = rest > 0.5L || (rest == 0.5L && fmodl(down, 2) != 0);
    return weight * (int64_t)(down + (up ? 1 : 0));
}

static bool adds_right(const struct fixed_kernel *kernel, struct rng *rng, size_t count, int32_t shift, int64_t weight)
{
    static float values[LENGTH + GUARD];
    static int64_t sums[LENGTH + GUARD], want[LENGTH + GUARD];
    size_t from = rng_below(rng, GUARD); /* Tensors begin anywhere. */
    for (size_t i = 0; i < LENGTH + GUARD; i++) {
        values[i] = draw(rng, shift);
        want[i] = sums[i] = ((int64_t)rng_u64(rng) >> 2); /* below 2^61: there is room for one more of at most 2^62 */
        want[i] += i >= from && i < from + count ? expected(values[i], shift, weight) : 0;
    }
    kernel->add(values + from, count, ldexp(1.0, shift), weight, sums + from);
    return memcmp(sums, want, sizeof sums) == 0;
}

/* One value that does not fit, in each place. */
static bool looks_right(const struct fixed_kernel *kernel, struct rng *rng, size_t count, int32_t shift)
{
    static float values[LENGTH + GUARD];
    int32_t limit = limit_of(shift);
    size_t from = rng_below(rng, GUARD), at = from + rng_below(rng, (uint32_t)count + 1);
    const float bad[] = {of_bits((uint32_t)limit), INFINITY, NAN, of_bits(0x7f800001), of_bits(INT32_MAX)};
    for (size_t i = 0; i < LENGTH + GUARD; i++) {
        values[i] = i < from || i >= from + count ? NAN : draw(rng, shift); /* What is beside them does not matter. */
    }
    if (!kernel->within(values + from, count, limit)) {
        return false;
    }
    for (size_t k = 0; k < sizeof bad / sizeof bad[0] && at < from + count; k++) {
        float good = values[at];
        values[at] = rng_below(rng, 2) ? bad[k] : -bad[k];
        if (kernel->within(values + from, count, limit)) {
            return false;
        }
        values[at] = good;
    }
    return true;
}

static bool is_right(const struct fixed_kernel *kernel)
{
    bool right = true;
    for (uint32_t trial = 0; trial < 2000 && right; trial++) {
        struct rng rng;
        rng_init(&rng, 11, RNG_TEST, trial, 0, 0);
        size_t count = trial < 100 ? trial : rng_below(&rng, LENGTH + 1);
        int32_t shift = shifts[trial % (sizeof shifts / sizeof shifts[0])];
        right = adds_right(kernel, &rng, count, shift, weights[trial % (sizeof weights / sizeof weights[0])]) &&
                looks_right(kernel, &rng, count, shift);
    }
    return right;
}

static void every_variant_is_right(void **state)
{
    (void)state;
    uint32_t variants = 0;
    for (; fixed_variant(variants); variants++) {
        if (!is_right(fixed_variant(variants))) {
            fail_msg("%s is wrong", fixed_variant(variants)->name);
        }
    }
    assert_ptr_equal(fixed_best(), fixed_variant(variants - 1));
    print_message("%u variants, the best is %s\n", variants, fixed_best()->name);
}

/* ---- Planted mistakes ---- */

static void away_from_zero(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] += weight * llround((double)values[i] * scale);
    }
}

static void cuts_off(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] += weight * (int64_t)((double)values[i] * scale);
    }
}

/* Rounding after the weight, which has no room in a double. */
static void weighs_first(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] += llrint((double)values[i] * scale * (double)weight);
    }
}

static void multiplies_halves(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums[i] += weight * (int32_t)llrint((double)values[i] * scale);
    }
}

static void forgets_the_rest(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    fixed_variant(0)->add(values, count / 8 * 8, scale, weight, sums);
}

static void goes_beyond(const float *values, size_t count, double scale, int64_t weight, int64_t *sums)
{
    fixed_variant(0)->add(values, count + 1, scale, weight, sums);
}

static bool lets_nan_pass(const float *values, size_t count, int32_t limit)
{
    bool outside = false;
    for (size_t i = 0; i < count; i++) {
        outside |= fabsf(values[i]) >= of_bits((uint32_t)limit);
    }
    return !outside;
}

static bool lets_the_limit_pass(const float *values, size_t count, int32_t limit)
{
    return fixed_variant(0)->within(values, count, limit + 1);
}

static bool forgets_the_last(const float *values, size_t count, int32_t limit)
{
    return fixed_variant(0)->within(values, count - (count > 0), limit);
}

static bool looks_at_signs(const float *values, size_t count, int32_t limit)
{
    bool outside = false;
    for (size_t i = 0; i < count; i++) {
        outside |= !(values[i] < of_bits((uint32_t)limit));
    }
    return !outside;
}

static void mistakes_are_found(void **state)
{
    (void)state;
    const struct fixed_kernel *right = fixed_variant(0);
    const struct fixed_kernel wrong[] = {
        {"away_from_zero", right->within, away_from_zero},     {"cuts_off", right->within, cuts_off},
        {"weighs_first", right->within, weighs_first},         {"multiplies_halves", right->within, multiplies_halves},
        {"forgets_the_rest", right->within, forgets_the_rest}, {"goes_beyond", right->within, goes_beyond},
        {"lets_nan_pass", lets_nan_pass, right->add},          {"lets_the_limit_pass", lets_the_limit_pass, right->add},
        {"forgets_the_last", forgets_the_last, right->add},    {"looks_at_signs", looks_at_signs, right->add},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (is_right(&wrong[i])) {
            fail_msg("%s was not found", wrong[i].name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_is_right),
        cmocka_unit_test(mistakes_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
